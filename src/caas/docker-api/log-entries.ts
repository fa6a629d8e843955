/**
 * The log stream of an engine, asked for with timestamps, split into entries. Needed because `docker logs -f` has to go on where it was after
 * its container moved to another host: the last timestamp is the cursor. Pure.
 *
 * Without a TTY: frames `[stream, 0, 0, 0, length:4][payload]`, one entry a frame. With a TTY: raw lines. Every entry begins with an
 * RFC 3339 timestamp with nine digits and a blank (moby `jsonfilelog`, `log.RFC3339NanoFixed`).
 */

export interface LogEntry {
  /** 1 stdout, 2 stderr; 0 for a TTY. */
  readonly stream: number;
  /** The timestamp as text: fixed width, so that it orders as text. */
  readonly time: string;
  /** The entry without its timestamp. */
  readonly message: Buffer;
}

const FRAME_HEADER_BYTES = 8;
/** Docker splits longer lines at 16 KiB; the rest is headroom for the timestamp. */
const ENTRY_BYTES_MAX = 64 * 1024;
const TIME_CHARS = '2006-01-02T15:04:05.000000000Z'.length;
const STAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$/;

function entryOf(stream: number, payload: Buffer): LogEntry {
  const time = payload.toString('latin1', 0, TIME_CHARS);
  return STAMP.test(time) && payload[TIME_CHARS] === 0x20
    ? { stream, time, message: payload.subarray(TIME_CHARS + 1) }
    : { stream, time: '', message: payload };
}

/** Takes bytes as they come and gives whole entries. Throws on a frame that no engine sends. */
export class LogEntryParser {
  readonly #isTty: boolean;
  #pending: Buffer = Buffer.alloc(0);

  constructor(isTty: boolean) {
    this.#isTty = isTty;
  }

  push(chunk: Buffer): readonly LogEntry[] {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    return this.#isTty ? this.#lines() : this.#frames();
  }

  /** What a TTY left without a line end, when its stream is over. */
  end(): readonly LogEntry[] {
    if (!this.#isTty || this.#pending.length === 0) return [];
    const rest = this.#pending;
    this.#pending = Buffer.alloc(0);
    return [entryOf(0, rest)];
  }

  #frames(): readonly LogEntry[] {
    const entries: LogEntry[] = [];
    let at = 0;
    while (this.#pending.length - at >= FRAME_HEADER_BYTES) {
      const length = this.#pending.readUInt32BE(at + 4);
      if (length > ENTRY_BYTES_MAX) throw new TypeError(`a log frame of ${String(length)} bytes`);
      const end = at + FRAME_HEADER_BYTES + length;
      if (this.#pending.length < end) break;
      entries.push(entryOf(this.#pending[at] ?? 1, this.#pending.subarray(at + FRAME_HEADER_BYTES, end)));
      at = end;
    }
    this.#pending = this.#pending.subarray(at);
    return entries;
  }

  #lines(): readonly LogEntry[] {
    const entries: LogEntry[] = [];
    let at = 0;
    for (;;) {
      const end = this.#pending.indexOf(0x0a, at);
      if (end === -1) break;
      entries.push(entryOf(0, this.#pending.subarray(at, end + 1)));
      at = end + 1;
    }
    this.#pending = this.#pending.subarray(at);
    if (this.#pending.length <= ENTRY_BYTES_MAX) return entries;
    return [...entries, ...this.end()]; // A line without an end must not be collected without one.
  }
}

/** An entry as the client gets it. */
export function encodeEntry(entry: LogEntry, withTime: boolean): Buffer {
  const message =
    withTime && entry.time !== '' ? Buffer.concat([Buffer.from(`${entry.time} `, 'latin1'), entry.message]) : entry.message;
  if (entry.stream === 0) return message;
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header[0] = entry.stream;
  header.writeUInt32BE(message.length, 4);
  return Buffer.concat([header, message]);
}

/** A timestamp as Docker's `since` takes it: seconds and nanoseconds. */
export function sinceOf(time: string): string {
  const seconds = Math.floor(Date.parse(`${time.slice(0, 19)}Z`) / 1000);
  return `${String(seconds)}.${time.slice(20, 29)}`;
}
