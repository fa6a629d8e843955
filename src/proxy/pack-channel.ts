/**
 * Packs of certificates from the process that reads them straight to a worker that boots: by way of the primary, their messages left it 100 MB that it did
 * not need again (2026-11). One question at a time, over a unix socket that only root and this node's user can open, as the data directory's own keys.
 *
 * QUESTION   a frame (`frames.ts`) with a `PackQuestion`
 * ANSWER     u8 kind (0 a pack, 1 a reason), u32 big-endian bytes of the body; the body: the pack, or text
 *
 * PERF: a worker reads into one buffer, and from there into the memory that a pack stays in. As structured clones 110 MB of packs left it twice as much to
 * collect, of which malloc gave back little.
 */
import { rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { reasonOf } from '#errors';
import { CertificatePack } from '#tls/certificate-pack.ts';
import type { PackShelf } from '#tls/pack-shelf.ts';
import { FrameReader, frameOf } from './generation/frames.ts';

export interface PackQuestion {
  /** Of the pack that is wanted, as the primary has it: who asks for the same gets the same. */
  readonly id: number;
  readonly names: readonly string[];
}

/** A thousandth of a hundred thousand certificates with the largest chains. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;
const SOCKET_UMASK = 0o177;
const HEAD_BYTES = 5;
const [PACK, REASON] = [0, 1];
const READ_BYTES = 64 * 1024;
const GONE = 'what reads certificates is gone';

export class PackServer {
  readonly #server: Server;

  private constructor(answer: (question: PackQuestion) => Promise<CertificatePack>) {
    this.#server = createServer((socket) => {
      const frames = new FrameReader<PackQuestion>(MESSAGE_BYTES_MAX);
      socket.on('error', () => undefined); // `close` follows, and nothing is to be done.
      socket.on('data', (bytes: Buffer) => {
        try {
          for (const question of frames.read(bytes)) void answerOn(socket, answer(question));
        } catch {
          socket.destroy();
        }
      });
    });
  }

  /** Listens at `path`, in place of what is there. It lives as long as its process. */
  static async open(path: string, answer: (question: PackQuestion) => Promise<CertificatePack>): Promise<PackServer> {
    await rm(path, { force: true });
    const packs = new PackServer(answer);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    packs.#server.once('error', reject);
    const before = process.umask(SOCKET_UMASK);
    packs.#server.listen(path, resolve);
    process.umask(before);
    await promise;
    return packs;
  }
}

async function answerOn(socket: Socket, answering: Promise<CertificatePack>): Promise<void> {
  let kind = PACK;
  let body: Buffer;
  try {
    body = (await answering).bytes;
  } catch (error) {
    kind = REASON;
    body = Buffer.from(reasonOf(error));
  }
  if (socket.destroyed) return;
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt8(kind);
  head.writeUInt32BE(body.length, 1);
  socket.cork();
  socket.write(head);
  socket.write(body);
  socket.uncork();
}

/** The answer that is arriving. */
class Arriving {
  readonly #shelf: PackShelf;
  readonly #head = Buffer.alloc(HEAD_BYTES);
  #headFilled = 0;
  #body: Buffer | undefined;
  #bodyFilled = 0;

  constructor(shelf: PackShelf) {
    this.#shelf = shelf;
  }

  /** Returns the answer when it is whole. Throws at what no `PackServer` says. */
  take(bytes: Buffer): CertificatePack | Error | undefined {
    const headBytes = bytes.copy(this.#head, this.#headFilled);
    this.#headFilled += headBytes;
    if (this.#headFilled < HEAD_BYTES) return undefined;
    const kind = this.#head.readUInt8();
    this.#body ??= this.#place(kind, this.#head.readUInt32BE(1));
    const left = bytes.length - headBytes;
    if (left > this.#body.length - this.#bodyFilled) throw new Error('an answer is longer than it says');
    this.#bodyFilled += bytes.copy(this.#body, this.#bodyFilled, headBytes);
    if (this.#bodyFilled < this.#body.length) return undefined;
    return kind === PACK ? new CertificatePack(this.#body) : new Error(this.#body.toString());
  }

  #place(kind: number, bytes: number): Buffer {
    if (bytes > MESSAGE_BYTES_MAX) throw new Error(`an answer of ${String(bytes)} bytes is over the limit`);
    return kind === PACK ? this.#shelf.take(bytes) : Buffer.alloc(bytes);
  }
}

export class PackClient implements Disposable {
  readonly #socket: Socket;
  readonly #shelf: PackShelf;
  #waiting: (PromiseWithResolvers<CertificatePack> & { readonly arriving: Arriving }) | undefined;

  /** `connected`: once. */
  private constructor(path: string, shelf: PackShelf, connected: () => void) {
    this.#shelf = shelf;
    const read = (bytes: number, buffer: Uint8Array): boolean => {
      this.#read(Buffer.from(buffer.buffer, buffer.byteOffset, bytes));
      return true;
    };
    this.#socket = connect({ path, onread: { buffer: Buffer.allocUnsafeSlow(READ_BYTES), callback: read } }, connected);
    this.#socket.on('error', () => undefined); // `close` follows.
    this.#socket.on('close', () => {
      this.#waiting?.reject(new Error(GONE));
    });
  }

  /** Packs are kept on `shelf`. Rejects with Node's error. */
  static async connect(path: string, shelf: PackShelf): Promise<PackClient> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const client = new PackClient(path, shelf, resolve);
    client.#socket.once('error', reject);
    await promise;
    return client;
  }

  /** To be asked again when this is answered. */
  async fetch(question: PackQuestion): Promise<CertificatePack> {
    if (this.#socket.destroyed) throw new Error(GONE);
    const waiting = { ...Promise.withResolvers<CertificatePack>(), arriving: new Arriving(this.#shelf) };
    this.#waiting = waiting;
    this.#socket.write(frameOf(question));
    return await waiting.promise;
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #read(bytes: Buffer): void {
    const waiting = this.#waiting;
    try {
      if (waiting === undefined) throw new Error('an answer that nobody asked for');
      const answer = waiting.arriving.take(bytes);
      if (answer === undefined) return;
      this.#waiting = undefined;
      if (answer instanceof Error) waiting.reject(answer);
      else waiting.resolve(answer);
    } catch {
      this.#socket.destroy(); // Whoever waits hears of it when it is closed.
    }
  }
}
