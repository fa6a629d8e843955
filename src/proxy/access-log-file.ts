/**
 * The file of the access log: lines are collected in memory and appended without anybody waiting for the disk.
 *
 * A line goes into the buffer that fills; a full one, and each `flushMs` what there is, is queued for the one write that is under way at a time.
 * A write that fails is made again each `retryMs`, in the file as it is then found at its path; meanwhile lines are kept in memory up to
 * `bytesMax`, and those that find no room are dropped and counted. A file that cannot be written costs its lines, never the service.
 * INVARIANT: buffers end with lines, and files are changed between buffers; where a write broke off and another file follows, the broken line is
 * written to it as a whole. So no line is lost or split by a rotation.
 */
import { mkdir, open as openFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { codeOf, reasonOf } from '#errors';
import type { Log } from '#log';
import { LINE_BYTES_MAX, writeLine } from './access-log-line.ts';
import { ACCESS_LOG_BUFFER_BYTES_MAX, ACCESS_LOG_FLUSH_MS } from './limits.ts';
import type { ExchangeRecord } from './record.ts';

interface LinkFacts {
  readonly dev: number;
  readonly ino: number;
  readonly nlink: number;
}

/** An open file; a part of `FileHandle`. */
export interface LogHandle {
  write(bytes: Uint8Array, offset: number, length: number): Promise<{ readonly bytesWritten: number }>;
  stat(): Promise<LinkFacts>;
  close(): Promise<void>;
}

export interface AccessLogFileOptions {
  /** How long a line may wait for others. */
  readonly flushMs: number;
  /** How long after a failed write comes the next, and how often it is looked whether the file is still linked. */
  readonly retryMs: number;
  /** For the lines that wait for the disk. */
  readonly bytesMax: number;
  /** How long a disposal waits for the disk. */
  readonly disposeMs: number;
  readonly open: (file: string) => Promise<LogHandle>;
}

interface Chunk {
  readonly bytes: Buffer;
  /** Where the next line begins. */
  end: number;
  /** Up to here it is in the file. */
  written: number;
}

/** A buffer with as much is written. PERF: a write wakes a thread twice, which with 64 KiB cost half a microsecond for each request. */
const CHUNK_BYTES = 256 * 1024;
const SPARE_CHUNKS_MAX = 2;
const BUSY_RETRY_MS = 20;
const LINE_FEED = 0x0a;

const DEFAULTS: AccessLogFileOptions = {
  flushMs: ACCESS_LOG_FLUSH_MS,
  retryMs: 1_000,
  bytesMax: ACCESS_LOG_BUFFER_BYTES_MAX,
  disposeMs: 2_000,
  open: openForAppending,
};

export class AccessLogFile implements AsyncDisposable {
  readonly #log: Log;
  #file: string;
  readonly #options: AccessLogFileOptions;
  readonly #disposal = new AbortController();
  #filling: Chunk | undefined;
  /** Full, in order; the first may be partly written. */
  readonly #queue: Chunk[] = [];
  readonly #spare: Chunk[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** The lines in `#filling` have waited long enough. */
  #flushDue = false;
  #handle: LogHandle | undefined;
  /** Device and inode of the open file. */
  #identity = '';
  #checkedMs = 0;
  #reopenWanted = true;
  #failing = false;
  #dropped = 0;
  #over = false;
  #working = false;
  #work: Promise<void> | undefined;

  /** Opens `file` for appending, in the background. */
  constructor(log: Log, file: string, options: Partial<AccessLogFileOptions> = {}) {
    this.#log = log;
    this.#file = file;
    this.#options = { ...DEFAULTS, ...options };
    this.#wake();
  }

  get droppedLines(): number {
    return this.#dropped;
  }

  /** Writes the line of an exchange that ended. PERF: on the request path; nothing is allocated but a buffer now and then. */
  write(record: ExchangeRecord, totalMs: number): void {
    const chunk = this.#filling ?? this.#nextChunk();
    if (chunk === undefined) {
      this.#dropped += 1;
      return;
    }
    chunk.end = writeLine(chunk.bytes, chunk.end, record, totalMs);
    if (chunk.end >= CHUNK_BYTES) {
      this.#filling = undefined;
      this.#queue.push(chunk);
      this.#wake();
    } else if (this.#timer === undefined) this.#armFlush();
  }

  /** Opens the file anew, after a rotation. What is being written goes to the old one, all else to the new. */
  reopen(): void {
    if (this.#disposal.signal.aborted) return;
    this.#reopenWanted = true;
    this.#wake();
  }

  /** Goes on in another file. What was not written yet is written there. */
  moveTo(file: string): void {
    if (file === this.#file) return;
    this.#file = file;
    this.reopen();
  }

  /** Writes what there is, within `disposeMs`, and closes the file. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposal.signal.aborted) return;
    this.#disposal.abort();
    clearTimeout(this.#timer);
    this.#flushDue = true;
    this.#wake();
    const end = new AbortController();
    await Promise.race([this.#work, delay(this.#options.disposeMs, undefined, { signal: end.signal }).catch(() => undefined)]);
    end.abort();
    this.#over = true;
    for (const chunk of this.#queue) this.#dropped += linesAfter(chunk);
    if (this.#filling !== undefined) this.#dropped += linesAfter(this.#filling);
    this.#filling = undefined;
    // A write that does not come back holds its file: the end of the process closes both.
    if (!this.#working && this.#handle !== undefined) await this.#close(this.#handle);
  }

  /** A buffer for the next lines; undefined where there is no room for any. */
  #nextChunk(): Chunk | undefined {
    const chunksMax = Math.max(2, Math.floor(this.#options.bytesMax / (CHUNK_BYTES + LINE_BYTES_MAX)));
    if (this.#queue.length >= chunksMax - 1 || this.#disposal.signal.aborted) return undefined;
    this.#filling = this.#spare.pop() ?? { bytes: Buffer.allocUnsafeSlow(CHUNK_BYTES + LINE_BYTES_MAX), end: 0, written: 0 };
    return this.#filling;
  }

  #armFlush(): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#flushDue = true;
      this.#wake();
    }, this.#options.flushMs);
    this.#timer.unref();
  }

  #wake(): void {
    if (this.#working) return;
    this.#working = true;
    this.#work = this.#writeAll();
  }

  /** Opens and writes until nothing is due. Never rejects. */
  async #writeAll(): Promise<void> {
    while (this.#working) {
      try {
        const handle = await this.#currentHandle();
        const chunk = this.#firstDue();
        if (chunk === undefined) {
          this.#working = this.#reopenWanted;
          continue;
        }
        await writeChunk(handle, chunk);
        this.#queue.shift();
        this.#recycle(chunk);
        this.#recovered();
      } catch (error) {
        this.#working = await this.#pauseAfter(error);
      }
    }
    if (this.#over && this.#handle !== undefined) await this.#close(this.#handle);
  }

  /** The first full buffer, or the one that fills if its lines have waited long enough. */
  #firstDue(): Chunk | undefined {
    if (this.#queue.length === 0 && this.#flushDue) {
      this.#flushDue = false;
      if (this.#filling !== undefined) this.#queue.push(this.#filling);
      this.#filling = undefined;
    }
    return this.#queue[0];
  }

  /** The open file. A file that nobody can find any more, because its folder was removed, counts as rotated. */
  async #currentHandle(): Promise<LogHandle> {
    const handle = this.#handle;
    if (this.#reopenWanted || handle === undefined) return await this.#open();
    const nowMs = performance.now();
    if (nowMs - this.#checkedMs < this.#options.retryMs) return handle;
    this.#checkedMs = nowMs;
    const { nlink } = await handle.stat();
    return nlink === 0 ? await this.#open() : handle;
  }

  async #open(): Promise<LogHandle> {
    this.#reopenWanted = false;
    const old = this.#handle;
    try {
      this.#handle = await this.#options.open(this.#file);
    } catch (error) {
      this.#reopenWanted = true;
      throw error;
    }
    const identity = await identityOf(this.#handle);
    // While the old file is open, no other has its inode.
    if (identity !== this.#identity) rewindToLine(this.#queue[0]);
    this.#identity = identity;
    this.#checkedMs = performance.now();
    if (old !== undefined) await this.#close(old);
    return this.#handle;
  }

  async #close(handle: LogHandle): Promise<void> {
    try {
      await handle.close();
    } catch (error) {
      this.#log.error({ file: this.#file, reason: reasonOf(error) }, 'access log cannot be closed');
    }
  }

  /** Waits before the next attempt; false where there is to be none. */
  async #pauseAfter(error: unknown): Promise<boolean> {
    if (this.#over) return false;
    if (codeOf(error) === 'EAGAIN') {
      await delay(BUSY_RETRY_MS, undefined, { ref: false });
      return true;
    }
    if (!this.#failing) this.#log.error({ file: this.#file, reason: reasonOf(error) }, 'access log cannot be written');
    this.#failing = true;
    const { signal } = this.#disposal;
    if (signal.aborted) return false;
    this.#reopenWanted = true;
    await this.#pause(signal);
    return true;
  }

  async #pause(signal: AbortSignal): Promise<void> {
    try {
      await delay(this.#options.retryMs, undefined, { ref: false, signal });
    } catch {
      // A disposal ends the wait, and leaves one last attempt.
    }
  }

  #recovered(): void {
    if (!this.#failing) return;
    this.#failing = false;
    this.#log.info({ file: this.#file, droppedLines: this.#dropped }, 'access log is written again');
  }

  #recycle(chunk: Chunk): void {
    if (this.#spare.length >= SPARE_CHUNKS_MAX) return;
    chunk.end = 0;
    chunk.written = 0;
    this.#spare.push(chunk);
  }
}

/** An unknown identity is that of no file. */
async function identityOf(handle: LogHandle): Promise<string> {
  try {
    const { dev, ino } = await handle.stat();
    return `${String(dev)}:${String(ino)}`;
  } catch {
    return 'unknown';
  }
}

async function openForAppending(file: string): Promise<LogHandle> {
  await mkdir(dirname(file), { recursive: true });
  return await openFile(file, 'a', 0o640);
}

async function writeChunk(handle: LogHandle, chunk: Chunk): Promise<void> {
  while (chunk.written < chunk.end) {
    const { bytesWritten } = await handle.write(chunk.bytes, chunk.written, chunk.end - chunk.written);
    if (bytesWritten === 0) throw new Error('the file takes no more');
    chunk.written += bytesWritten;
  }
}

/** To where the line began that was broken off. */
function rewindToLine(chunk: Chunk | undefined): void {
  if (chunk === undefined || chunk.written === 0) return;
  chunk.written = chunk.bytes.lastIndexOf(LINE_FEED, chunk.written - 1) + 1;
}

/** Lines that are not wholly in the file. */
function linesAfter({ bytes, written, end }: Chunk): number {
  let lines = 0;
  for (let at = written; at < end; at += 1) if (bytes[at] === LINE_FEED) lines += 1;
  return lines;
}
