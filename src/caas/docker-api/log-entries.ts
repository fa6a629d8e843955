/**
 * The log stream of an engine that is followed, asked for with timestamps. `docker logs -f` has to go on where it was after its container moved to
 * another host: the last timestamp is the cursor, and is cut out of what the client gets. Pure.
 *
 * Without a TTY: frames `[stream, 0, 0, 0, length:4][payload]`, one entry a frame. With a TTY: raw lines. Every entry begins with an
 * RFC 3339 timestamp with nine digits and a blank (moby `jsonfilelog`, `log.RFC3339NanoFixed`).
 *
 * This runs for every byte of a log: whole chunks in, whole chunks out, no object for an entry.
 */

const FRAME_HEADER_BYTES = 8;
/** Docker splits longer lines at 16 KiB (moby `logger.Copier`); the rest is headroom for the timestamp. */
const ENTRY_BYTES_MAX = 64 * 1024;
const LINE_BYTES_MAX = 16 * 1024;
const TIME_CHARS = '2006-01-02T15:04:05.000000000Z'.length;
/** The timestamp and the blank behind it. */
const STAMP_BYTES = TIME_CHARS + 1;
const NOTHING = Buffer.alloc(0);
const NEWLINE = 0x0a;

/** True where `bytes` has a timestamp at `at`: told by the characters between the digits. */
function isStamp(bytes: Buffer, at: number, end: number): boolean {
  return (
    end - at >= STAMP_BYTES &&
    bytes[at + 4] === 0x2d &&
    bytes[at + 10] === 0x54 &&
    bytes[at + 19] === 0x2e &&
    bytes[at + TIME_CHARS - 1] === 0x5a &&
    bytes[at + TIME_CHARS] === 0x20
  );
}

export class FollowedLog {
  readonly #isTty: boolean;
  readonly #withTime: boolean;
  #pending: Buffer = NOTHING;
  /** The time of the last entry that was given out; fixed width, so that it orders as text. */
  #cursor = '';
  /** Entries up to this time were given out before the container moved. */
  #resumedAt = '';

  constructor(options: { readonly isTty: boolean; readonly withTime: boolean }) {
    this.#isTty = options.isTty;
    this.#withTime = options.withTime;
  }

  /** Where to go on in another engine's log; empty before the first entry. */
  get cursor(): string {
    return this.#cursor;
  }

  /** The next bytes are of another engine's log, from the cursor on. */
  resume(): void {
    this.#pending = NOTHING;
    this.#resumedAt = this.#cursor;
  }

  /** Takes bytes as they come, to keep and to change, and gives those for the client. Throws on a frame that no engine sends. */
  push(chunk: Buffer): Buffer {
    const bytes = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    const ends = this.#isTty ? lineEnds(bytes) : frameEnds(bytes);
    const taken = ends.at(-1) ?? 0;
    const rest = bytes.subarray(taken);
    if (this.#isTty && rest.length > ENTRY_BYTES_MAX) {
      this.#pending = NOTHING; // A line without an end must not be collected without one.
      return this.#cut(bytes, [...ends, bytes.length]);
    }
    // A copy: a few bytes must not keep a whole read buffer of an idle stream.
    this.#pending = rest.length === 0 ? NOTHING : Buffer.from(rest);
    return this.#cut(bytes.subarray(0, taken), ends);
  }

  /** What a TTY left without a line end, when its stream is over. */
  end(): Buffer {
    const rest = this.#pending;
    this.#pending = NOTHING;
    return this.#isTty && rest.length > 0 ? this.#cut(rest, [rest.length]) : NOTHING;
  }

  /** `bytes` without what was given out before, and without timestamps where the client wants none. */
  #cut(bytes: Buffer, ends: readonly number[]): Buffer {
    if (ends.length === 0) return NOTHING;
    const headerBytes = this.#isTty ? 0 : FRAME_HEADER_BYTES;
    if (this.#withTime && this.#resumedAt === '') {
      this.#noteLast(bytes, ends, headerBytes);
      return bytes;
    }
    this.#noteLast(bytes, ends, headerBytes);
    // In place, as what stays is never longer: `copyWithin` is several times as fast as `copy` for lines.
    let length = 0;
    let from = 0;
    for (const end of ends) {
      const at = from + headerBytes;
      const isStamped = isStamp(bytes, at, end);
      if (!isStamped || !this.#wasGiven(bytes, at)) {
        const cutBytes = isStamped && !this.#withTime ? STAMP_BYTES : 0;
        if (headerBytes > 0) {
          bytes[length] = bytes[from] ?? 0;
          bytes[length + 1] = bytes[length + 2] = bytes[length + 3] = 0;
          bytes.writeUInt32BE(end - at - cutBytes, length + 4);
        }
        bytes.copyWithin(length + headerBytes, at + cutBytes, end);
        length += end - from - cutBytes;
      }
      from = end;
    }
    return bytes.subarray(0, length);
  }

  /** `since` is inclusive: what was sent before the move is not sent again. */
  #wasGiven(bytes: Buffer, at: number): boolean {
    return this.#resumedAt !== '' && bytes.toString('latin1', at, at + TIME_CHARS) <= this.#resumedAt;
  }

  /** Moves the cursor to the last entry that has a time. */
  #noteLast(bytes: Buffer, ends: readonly number[], headerBytes: number): void {
    for (let index = ends.length - 1; index >= 0; index -= 1) {
      const at = (ends[index - 1] ?? 0) + headerBytes;
      if (!isStamp(bytes, at, ends[index] ?? 0)) continue;
      const time = bytes.toString('latin1', at, at + TIME_CHARS);
      if (time > this.#cursor) this.#cursor = time;
      return;
    }
  }
}

/** Where the whole frames in `bytes` end. */
function frameEnds(bytes: Buffer): number[] {
  const ends: number[] = [];
  let at = 0;
  while (bytes.length - at >= FRAME_HEADER_BYTES) {
    const length = bytes.readUInt32BE(at + 4);
    if (length > ENTRY_BYTES_MAX) throw new TypeError(`a log frame of ${String(length)} bytes`);
    at += FRAME_HEADER_BYTES + length;
    if (at > bytes.length) break;
    ends.push(at);
  }
  return ends;
}

/** Where the entries in a TTY's `bytes` end: at a line end, or where Docker split a long line and put the next timestamp. */
function lineEnds(bytes: Buffer): number[] {
  const ends: number[] = [];
  let at = 0;
  for (;;) {
    const newline = bytes.indexOf(NEWLINE, at);
    const split = at + STAMP_BYTES + LINE_BYTES_MAX;
    const isLong = newline === -1 || newline >= split;
    if (isLong && isStamp(bytes, split, bytes.length)) at = split;
    else if (newline === -1 || (isLong && bytes.length < split + STAMP_BYTES)) return ends;
    else at = newline + 1;
    ends.push(at);
  }
}

/** A timestamp as Docker's `since` takes it: seconds and nanoseconds. */
export function sinceOf(time: string): string {
  const seconds = Math.floor(Date.parse(`${time.slice(0, 19)}Z`) / 1000);
  return `${String(seconds)}.${time.slice(20, 29)}`;
}
