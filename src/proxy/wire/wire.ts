/**
 * A connection as bytes: reads into the worker's buffers, writes with as few copies and objects as Node's public API allows.
 *
 * LIFECYCLE: open → (ended: the peer sends no more) → closed. `onClosed` is called once, last, whatever ended the connection.
 * Backpressure: a write that gives false asks its caller to stop what it writes from until `onDrain`.
 * PERF: short writes go as latin1 strings, which Node copies to the stack and writes at once without pinning a buffer; long ones go in the
 * buffer that they were read into (`npm run bench -- proxy`).
 */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { SHARED_BUFFER, bufferLent, bufferReturned, giveBuffer, takeBuffer } from './buffers.ts';
import { queuedBytes, readIntoBuffers } from './fast-read.ts';

export interface WireOwner {
  /** Bytes `[0, end)` of `buffer` came. They are valid during the call only. */
  onBytes(buffer: Buffer, end: number): void;
  /** What was written has left. Only after a write that gave false. */
  onDrain(): void;
  /** The peer sends no more. */
  onEnd(): void;
  /** The connection is closed; `fault` is the code of what broke it. */
  onClosed(fault: string | undefined): void;
}

/** How sockets of one kind are read. */
export interface ReadPath {
  readonly fast: boolean;
}

/** Up to here a write is a string: Node's stack buffer for strings has that size. */
const STRING_BYTES_MAX = 16 * 1024;

export class Wire {
  readonly socket: Socket;
  owner: WireOwner;
  /** The buffer that the bytes at hand are in. */
  #current: Buffer = SHARED_BUFFER;
  /** Whether the next reads go into a buffer that can be lent. */
  #long = false;
  /** Whether `#current` is written out at this moment. */
  #lent = false;
  #paused = false;
  #blocked = false;
  #ended = false;
  #closed = false;
  #fault: string | undefined;
  /** What is under way in writes, in their order; undefined for what needs not come back. */
  readonly #underWay: (Buffer | undefined)[] = [];
  #left: ((error?: Error | null) => void) | undefined;

  private constructor(socket: Socket, owner: WireOwner) {
    this.socket = socket;
    this.owner = owner;
    socket.on('drain', () => {
      if (!this.#blocked) return;
      this.#blocked = false;
      this.owner.onDrain();
    });
    socket.on('end', () => {
      this.#ended = true;
      this.owner.onEnd();
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#fault ??= error.code ?? error.name;
    });
    socket.on('close', () => {
      this.#closed = true;
      if (this.#long && !this.#lent && this.#current !== SHARED_BUFFER) giveBuffer(this.#current);
      this.#current = SHARED_BUFFER;
      this.owner.onClosed(this.#fault);
    });
  }

  /** Takes over an accepted socket and begins to read. The socket must allow to be half open. */
  static accepted(socket: Socket, owner: WireOwner, path: ReadPath): Wire {
    const wire = new Wire(socket, owner);
    if (path.fast && socket.readableLength === 0 && readIntoBuffers(socket, wire.#reader())) socket.resume();
    else {
      socket.on('data', (chunk: Buffer) => {
        wire.#current = chunk;
        owner.onBytes(chunk, chunk.length);
      });
    }
    return wire;
  }

  /** Connects. `onOpen` is called when the connection stands. */
  static connecting(to: { readonly host: string; readonly port: number }, owner: WireOwner, onOpen: () => void): Wire {
    const made: { wire?: Wire } = {};
    const socket = connect({
      host: to.host,
      port: to.port,
      noDelay: true,
      allowHalfOpen: true,
      onread: {
        buffer: () => made.wire?.nextBuffer() ?? SHARED_BUFFER,
        callback: (bytes) => made.wire?.onRead(bytes) ?? true,
      },
    });
    const wire = new Wire(socket, owner);
    made.wire = wire;
    socket.once('connect', onOpen);
    return wire;
  }

  get closed(): boolean {
    return this.#closed || this.socket.destroyed;
  }

  /** Whether the peer has said that it sends no more. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Whether the last write asked to wait. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** Bytes that the kernel has not taken yet. */
  get queuedBytes(): number {
    return queuedBytes(this.socket);
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** Long bodies are read into buffers of their own from the next read on, so that they can be passed on without a copy. */
  expectLong(long: boolean): void {
    this.#long = long;
  }

  /** Writes bytes that may change as soon as this returns. False: wait for `onDrain`. */
  write(buffer: Buffer, start: number, end: number): boolean {
    if (end - start <= STRING_BYTES_MAX) {
      this.socket.write(buffer.toString('latin1', start, end), 'latin1');
      return this.#mayGoOn();
    }
    const copy = takeBuffer();
    if (copy.length < end - start) return this.#writeOwned(Buffer.from(buffer.subarray(start, end)), undefined);
    buffer.copy(copy, 0, start, end);
    return this.#writeOwned(copy.subarray(0, end - start), copy);
  }

  /** Writes `[0, headEnd)` of `head` and `[start, end)` of `buffer` in one piece; both may change as soon as this returns. */
  writeJoined(head: Buffer, headEnd: number, buffer: Buffer, piece: { readonly start: number; readonly end: number }): boolean {
    const { start, end } = piece;
    const length = headEnd + end - start;
    const pooled = takeBuffer();
    const fits = pooled.length >= length;
    const copy = fits ? pooled : Buffer.allocUnsafeSlow(length);
    head.copy(copy, 0, 0, headEnd);
    buffer.copy(copy, headEnd, start, end);
    return this.#writeOwned(copy.subarray(0, length), fits ? copy : undefined);
  }

  writeText(text: string): boolean {
    this.socket.write(text, 'latin1');
    return this.#mayGoOn();
  }

  /** Passes on bytes that `from` has just read; those of its current buffer without a copy. False: wait for `onDrain`. */
  pass(from: Wire, buffer: Buffer, start: number, end: number): boolean {
    // INVARIANT: a buffer is lent once at a time, because it comes back once.
    if (buffer !== from.#current || buffer === SHARED_BUFFER || from.#lent || end - start <= STRING_BYTES_MAX / 4)
      return this.write(buffer, start, end);
    const { socket } = this;
    this.#underWay.push(undefined);
    const at = this.#underWay.length - 1;
    socket.write(buffer.subarray(start, end), this.#onLeft());
    if (socket.writableLength > 0 && !socket.destroyed) {
      this.#underWay[at] = buffer;
      from.#lent = true;
      bufferLent(buffer.length);
    }
    return this.#mayGoOn();
  }

  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.socket.pause();
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    if (!this.closed) this.socket.resume();
  }

  /** Sends what is queued, then says that no more comes. */
  end(): void {
    if (!this.closed) this.socket.end();
  }

  destroy(): void {
    this.socket.destroy();
  }

  /** Closes as soon as all that was written has left. */
  destroyWhenWritten(): void {
    const { socket } = this;
    if (this.closed) return;
    if (socket.writableFinished) {
      socket.destroy();
      return;
    }
    socket.once('finish', () => socket.destroy());
    socket.end();
  }

  /** Closes with a reset: the peer cannot take what it got for the whole. */
  reset(): void {
    this.socket.resetAndDestroy();
  }

  #reader(): { readonly onRead: (bytes: number) => boolean; readonly nextBuffer: () => Buffer } {
    return { onRead: (bytes) => this.onRead(bytes), nextBuffer: () => this.nextBuffer() };
  }

  /** For the read path only. */
  onRead(bytes: number): boolean {
    this.owner.onBytes(this.#current, bytes);
    return !this.#paused;
  }

  /** For the read path only: called after every read. */
  nextBuffer(): Buffer {
    const had = this.#current;
    if (this.#long) {
      if (had === SHARED_BUFFER || this.#lent) this.#current = takeBuffer();
    } else if (had !== SHARED_BUFFER) {
      if (!this.#lent) giveBuffer(had);
      this.#current = SHARED_BUFFER;
    }
    this.#lent = false;
    return this.#current;
  }

  #writeOwned(bytes: Buffer, pooled: Buffer | undefined): boolean {
    this.#underWay.push(pooled);
    if (pooled !== undefined) bufferLent(pooled.length);
    this.socket.write(bytes, this.#onLeft());
    return this.#mayGoOn();
  }

  #mayGoOn(): boolean {
    const { socket } = this;
    if (socket.writableLength === 0 || !socket.writableNeedDrain) return true;
    this.#blocked = true;
    return false;
  }

  #onLeft(): (error?: Error | null) => void {
    this.#left ??= (error) => {
      const buffer = this.#underWay.shift();
      if (buffer === undefined) return;
      bufferReturned(buffer.length);
      // SECURITY: after a fault the kernel's side of the write may still hold it: it must not serve another connection.
      if (error === null || error === undefined) giveBuffer(buffer);
    };
    return this.#left;
  }
}
