/**
 * A connection as bytes: reads into the worker's buffers, writes with as few copies and objects as Node's public API allows.
 *
 * LIFECYCLE: open → (ended: the peer sends no more) → closed. `onClosed` is called once, last, whatever ended the connection.
 * Backpressure: a write that gives false asks its caller to stop what it writes from until `onDrain`.
 * PERF: short writes go as latin1 strings, which Node copies to the stack and writes at once without pinning a buffer; long ones go in the
 * buffer that they were read into. A write that the kernel takes at once, as almost all are, costs no callback and no turn of the event loop:
 * what is still queued shows in `writableLength`, and only then an empty write is put behind it to hear when it has left
 * (`npm run bench -- proxy`).
 */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { ConnectionOptions } from 'node:tls';
import { READ_AT, SHARED, bufferLent, bufferReturned, dropBuffer, giveBuffer, mayKeepBuffer, takeBuffer } from './buffers.ts';
import type { ReadBuffer } from './buffers.ts';
import { askForBuffers, canChangeBuffers, latin1, queuedBytes, readIntoBuffer } from './fast-read.ts';

export interface WireOwner {
  /** Bytes `[start, end)` of `buffer` came. They are valid during the call only. */
  onBytes(buffer: Buffer, start: number, end: number): void;
  /** What was written has left. Only after a write that gave false. */
  onDrain(): void;
  /** The peer sends no more. */
  onEnd(): void;
  /** The connection is closed. */
  onClosed(): void;
}

/** How sockets of one kind are read. */
export interface ReadPath {
  readonly fast: boolean;
}

/** Up to here a write is a string: Node's stack buffer for strings has that size. */
const STRING_BYTES_MAX = 16 * 1024;
/** Below that a copy into a string is cheaper than lending a buffer. */
const COPIED_BYTES_MAX = 4 * 1024;
/** With as much queued, no more is taken. */
const QUEUED_BYTES_MAX = 64 * 1024;
/** For Node's own bookkeeping: so high that it never asks for a drain. */
export const HIGH_WATER_BYTES: number = 16 * 1024 * 1024;

/** As accepted sockets have it; Node's types know it of streams only. */
const STREAM_OPTIONS = { highWaterMark: HIGH_WATER_BYTES };

let reportFault: (error: unknown) => void = (error) => {
  throw error;
};

/** Who hears of faults of ours in what a wire told its owner. */
export function onWireFault(report: (error: unknown) => void): void {
  reportFault = report;
}

export class Wire {
  readonly socket: Socket;
  owner: WireOwner;
  /** What the socket said of its end, where that was a fault. */
  fault: unknown = undefined;
  /** Whether there is somebody beneath TLS; of connections that are made over it. */
  reached = false;
  /** What the bytes at hand are in; undefined on the slow path. */
  #current: ReadBuffer | undefined = SHARED;
  /** Whether the next reads go into a buffer that can be lent. */
  #long = false;
  /** Whether the socket asks for a buffer after each read. */
  #asked = false;
  /** Whether `#current` is being written out. */
  #lent = false;
  #paused = false;
  #blocked = false;
  #ended = false;
  #closed = false;
  /** What is queued in Node, in order: a buffer to give back, or nothing but a mark. */
  #queue: (ReadBuffer | undefined)[] | undefined;
  #left: ((error?: Error | null) => void) | undefined;

  private constructor(socket: Socket, owner: WireOwner) {
    this.socket = socket;
    this.owner = owner;
    socket.on('end', () => {
      this.#ended = true;
      this.#tell(() => {
        this.owner.onEnd();
      });
    });
    socket.on('error', (error) => {
      this.fault = error; // `close` follows.
    });
    socket.on('close', () => {
      this.#closed = true;
      this.#dropCurrent();
      this.#tell(() => {
        this.owner.onClosed();
      });
    });
  }

  /** Takes over an accepted socket and begins to read. */
  static accepted(socket: Socket, owner: WireOwner, path: ReadPath): Wire {
    const wire = new Wire(socket, owner);
    const onRead = (bytes: number): boolean => wire.onRead(bytes);
    if (path.fast && socket.readableLength === 0 && readIntoBuffer(socket, SHARED.room, onRead)) socket.resume();
    else {
      wire.#current = undefined;
      socket.on('data', (chunk: Buffer) => {
        wire.#tell(() => {
          wire.owner.onBytes(chunk, 0, chunk.length);
        });
      });
      socket.resume(); // One that was paused when it was accepted does not begin by itself.
    }
    return wire;
  }

  /** Connects, over TLS where `secure` says how. `onOpen` is called when the connection stands. */
  static connecting(
    to: { readonly host: string; readonly port: number; readonly secure?: ConnectionOptions | undefined },
    owner: WireOwner,
    onOpen: () => void,
  ): Wire {
    const made: { wire?: Wire } = {};
    const options = {
      host: to.host,
      port: to.port,
      noDelay: true,
      allowHalfOpen: true,
      ...STREAM_OPTIONS,
      onread: {
        buffer: SHARED.room,
        callback: (bytes: number) => made.wire?.onRead(bytes) ?? true,
      },
    };
    const { secure } = to;
    const socket = secure === undefined ? connect(options) : connectTls({ ...options, ...secure });
    const wire = new Wire(socket, owner);
    made.wire = wire;
    if (secure !== undefined)
      socket.once('connect', () => {
        wire.reached = true;
      });
    socket.once(secure === undefined ? 'connect' : 'secureConnect', onOpen);
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
    return this.socket.writableLength === 0 ? 0 : queuedBytes(this.socket);
  }

  /** Bytes in memory for what was written and has not left: whole writes, however much of one the kernel has taken. */
  get heldBytes(): number {
    return this.socket.writableLength;
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** Long bodies are read into buffers of their own from the next read on, so that they can be passed on without a copy. */
  expectLong(long: boolean): void {
    this.#long = long && canChangeBuffers;
    if (!this.#long || this.#asked || this.#current === undefined) return;
    this.#asked = true;
    askForBuffers(this.socket, () => this.nextBuffer());
  }

  /** The same while nothing is under way: a buffer is kept for the next message only where there are not many who do. */
  expectLongLater(long: boolean): void {
    if (long || this.#asked) this.expectLong(long && (this.#long || mayKeepBuffer()));
  }

  /** Writes bytes that may change as soon as this returns. False: wait for `onDrain`. */
  write(buffer: Buffer, start: number, end: number): boolean {
    const { socket } = this;
    if (end - start <= STRING_BYTES_MAX) {
      socket.write(latin1(buffer, start, end), 'latin1');
      return socket.writableLength === 0 || this.#queued(undefined);
    }
    const copy = takeBuffer();
    if (copy.bytes.length < end - start) {
      giveBuffer(copy);
      socket.write(Buffer.from(buffer.subarray(start, end)));
      return socket.writableLength === 0 || this.#queued(undefined);
    }
    buffer.copy(copy.bytes, 0, start, end);
    return this.#writeTaken(copy, end - start);
  }

  /** Writes `[0, headEnd)` of `head` and `[start, end)` of `buffer` in one piece; both may change as soon as this returns. */
  writeJoined(head: Buffer, headEnd: number, buffer: Buffer, piece: { readonly start: number; readonly end: number }): boolean {
    const { start, end } = piece;
    const length = headEnd + end - start;
    const copy = takeBuffer();
    if (copy.bytes.length < length) {
      giveBuffer(copy);
      this.write(head, 0, headEnd);
      return this.write(buffer, start, end);
    }
    head.copy(copy.bytes, 0, 0, headEnd);
    buffer.copy(copy.bytes, headEnd, start, end);
    return this.#writeTaken(copy, length);
  }

  writeText(text: string): boolean {
    this.socket.write(text, 'latin1');
    return this.socket.writableLength === 0 || this.#queued(undefined);
  }

  /** Whether bytes of `buffer`, which `this` has just read, can be passed on in it. */
  canLend(buffer: Buffer): boolean {
    const current = this.#current;
    return current !== undefined && current !== SHARED && !this.#lent && buffer === current.bytes;
  }

  /** Passes on bytes that `from` has just read, where that is possible without a copy. False: wait for `onDrain`. */
  pass(from: Wire, buffer: Buffer, start: number, end: number): boolean {
    const current = from.#current;
    if (end - start <= COPIED_BYTES_MAX) return this.write(buffer, start, end);
    const { socket } = this;
    if (current === undefined) {
      socket.write(buffer.subarray(start, end)); // The slow path reads into a new buffer each time.
      return socket.writableLength === 0 || this.#queued(undefined);
    }
    // INVARIANT: a buffer is lent once at a time, because it comes back once.
    if (!from.canLend(buffer)) return this.write(buffer, start, end);
    socket.write(buffer.subarray(start, end));
    if (socket.writableLength === 0) return true;
    from.#lent = true;
    return this.#queued(current);
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

  /** The same, with what it was. */
  destroyWith(fault: Error): void {
    this.socket.destroy(fault);
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

  /** Closes at once where the kernel has taken all that was written. */
  destroyWhenQuiet(): void {
    if (this.socket.writableLength === 0) this.socket.destroy();
  }

  /** Closes with a reset: the peer cannot take what it got for the whole. */
  reset(): void {
    this.socket.resetAndDestroy();
  }

  /** For the read path only. */
  onRead(bytes: number): boolean {
    const { bytes: buffer } = this.#current ?? SHARED;
    try {
      this.owner.onBytes(buffer, READ_AT, READ_AT + bytes);
    } catch (error) {
      this.#failed(error);
    }
    return !this.#paused;
  }

  /** For the read path only: called after every read of a long message. */
  nextBuffer(): Buffer {
    const had = this.#current ?? SHARED;
    if (this.#closed) return had.room;
    if (this.#long) {
      if (had === SHARED || this.#lent) this.#current = takeBuffer();
    } else {
      if (had !== SHARED && !this.#lent) giveBuffer(had);
      this.#current = SHARED;
      this.#asked = false;
      askForBuffers(this.socket, null);
    }
    this.#lent = false;
    return (this.#current ?? SHARED).room;
  }

  /** A fault of ours costs the one connection that it was met on, never the worker. */
  #tell(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error: unknown): void {
    reportFault(error);
    this.socket.destroy();
  }

  #dropCurrent(): void {
    const had = this.#current;
    if (had === undefined || had === SHARED) return;
    if (!this.#lent) giveBuffer(had); // The handle is closed: nothing is read into it any more.
    this.#lent = false;
    this.#current = SHARED;
  }

  #writeTaken(copy: ReadBuffer, length: number): boolean {
    const { socket } = this;
    socket.write(copy.bytes.subarray(0, length));
    if (socket.writableLength === 0) {
      giveBuffer(copy);
      return true;
    }
    return this.#queued(copy);
  }

  /** What was just written is queued. Hears when it has left, where that matters: to take `buffer` back, or to go on. */
  #queued(buffer: ReadBuffer | undefined): boolean {
    const { socket } = this;
    const full = socket.writableLength >= QUEUED_BYTES_MAX;
    if (socket.destroyed) {
      if (buffer !== undefined) dropBuffer();
      return true;
    }
    if (buffer !== undefined) bufferLent(buffer);
    if (buffer !== undefined || (full && !this.#blocked)) {
      (this.#queue ??= []).push(buffer);
      socket.write('', 'latin1', this.#onLeft());
    }
    if (full) this.#blocked = true;
    return !full;
  }

  #onLeft(): (error?: Error | null) => void {
    this.#left ??= (error) => {
      const buffer = this.#queue?.shift();
      if (buffer !== undefined) {
        bufferReturned(buffer);
        // SECURITY: after a fault the kernel's side of the write may still hold it: it must not serve another connection.
        if (error === null || error === undefined) giveBuffer(buffer);
        else dropBuffer();
      }
      if (!this.#blocked || this.socket.writableLength >= QUEUED_BYTES_MAX || this.closed) return;
      this.#blocked = false;
      this.#tell(() => {
        this.owner.onDrain();
      });
    };
    return this.#left;
  }
}
