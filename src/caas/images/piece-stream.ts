/**
 * A client's upload in large pieces of memory that is used again and again.
 *
 * PERF: TLS brings some 11 KiB at a time. Passed on as they come, they cost a load more in queues and garbage than in bytes; and new memory for
 * each large piece is garbage faster than it is collected (`npm run bench -- docker-endpoint`, part `load`). Shared, because a thread hashes it.
 */
import { Readable } from 'node:stream';
import { bufferOf } from '#caas/byte-stream.ts';

const PIECE_BYTES = 256 * 1024;
/** Filled while the engine is slower than the client. With those that are being sent and hashed, a load holds some 2 MiB. */
const PIECES_AHEAD = 2;

/** A part of an upload. Its memory is no one else's until it is given back. */
export type Piece = Buffer<SharedArrayBuffer>;

export interface PieceOptions {
  /** Sees every chunk first; what it throws ends the stream. */
  readonly onBytes?: (bytes: number) => void;
  /** What a fault of the source is told as. */
  readonly faultOf?: (error: unknown) => Error;
  readonly ownsSource?: boolean;
}

/** Yields Pieces. Destroying it leaves the source open, unless it owns that: a client that is refused still gets its answer. */
export class PieceStream extends Readable {
  readonly #source: Readable;
  readonly #options: PieceOptions;
  readonly #free: SharedArrayBuffer[] = [];
  readonly #listeners: readonly (readonly [string, (value: unknown) => void])[];
  #filling: Piece | undefined;
  #filled = 0;
  #hasBegun = false;
  #hasEnded = false;

  constructor(source: Readable, options: PieceOptions = {}) {
    super({ objectMode: true, highWaterMark: PIECES_AHEAD });
    this.#source = source;
    this.#options = options;
    this.#listeners = [
      ['data', (chunk) => this.#onData(chunk)],
      ['end', () => this.#onEnd()],
      ['error', (error) => this.#fail(error)],
      ['close', () => this.#fail(new Error('the upload was cut off'))],
    ];
  }

  /** Gives back the memory of a piece that nobody reads any more. */
  giveBack(piece: Buffer): void {
    if (!this.destroyed && piece.buffer instanceof SharedArrayBuffer) this.#free.push(piece.buffer);
  }

  override _read(): void {
    if (!this.#hasBegun) {
      this.#hasBegun = true;
      if (this.#source.errored !== null) this.#fail(this.#source.errored);
      else for (const [event, listener] of this.#listeners) this.#source.on(event, listener);
    }
    this.#source.resume();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    for (const [event, listener] of this.#listeners) this.#source.off(event, listener);
    this.#source.once('error', () => undefined); // It has been told, or nobody asks any more.
    if (this.#options.ownsSource === true) this.#source.destroy();
    this.#free.length = 0;
    done(error);
  }

  #onData(value: unknown): void {
    const chunk = Buffer.isBuffer(value) ? value : bufferOf(value);
    try {
      this.#options.onBytes?.(chunk.length);
    } catch (error) {
      this.#fail(error);
      return;
    }
    for (let at = 0; at < chunk.length;) {
      this.#filling ??= this.#newPiece();
      const copied = chunk.copy(this.#filling, this.#filled, at);
      at += copied;
      this.#filled += copied;
      if (this.#filled === PIECE_BYTES) this.#pass(this.#filling);
    }
  }

  #onEnd(): void {
    if (this.#filling !== undefined) this.#pass(this.#filling.subarray(0, this.#filled));
    this.#hasEnded = true;
    this.push(null);
  }

  #newPiece(): Piece {
    return Buffer.from(this.#free.pop() ?? new SharedArrayBuffer(PIECE_BYTES));
  }

  #pass(piece: Piece): void {
    this.#filling = undefined;
    this.#filled = 0;
    if (!this.push(piece)) this.#source.pause();
  }

  #fail(error: unknown): void {
    if (this.#hasEnded || this.destroyed) return;
    this.destroy(this.#options.faultOf?.(error) ?? (error instanceof Error ? error : new Error(String(error))));
  }
}
