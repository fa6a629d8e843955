/**
 * Packs of certificates from the process that reads them straight to a worker that boots: by way of the primary, their messages left it 100 MB that it did
 * not need again (2026-11). One question at a time, over a unix socket that only root and this node's user can open, as the data directory's own keys.
 */
import { rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { reasonOf } from '#errors';
import { CertificatePack } from '#tls/certificate-pack.ts';
import { FrameReader, frameOf } from './generation/frames.ts';

export interface PackQuestion {
  /** Of the pack that is wanted, as the primary has it: who asks for the same gets the same. */
  readonly id: number;
  readonly names: readonly string[];
}

type PackAnswer = { readonly bytes: Uint8Array } | { readonly reason: string };

/** A thousandth of a hundred thousand certificates with the largest chains. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;
const SOCKET_UMASK = 0o177;

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
  let answer: PackAnswer;
  try {
    answer = { bytes: (await answering).bytes };
  } catch (error) {
    answer = { reason: reasonOf(error) };
  }
  if (!socket.destroyed) socket.write(frameOf(answer));
}

export class PackClient implements Disposable {
  readonly #socket: Socket;
  #waiting: PromiseWithResolvers<PackAnswer> | undefined;

  private constructor(socket: Socket) {
    const frames = new FrameReader<PackAnswer>(MESSAGE_BYTES_MAX);
    this.#socket = socket;
    socket.on('error', () => undefined); // `close` follows.
    socket.on('close', () => {
      this.#waiting?.reject(new Error('what reads certificates is gone'));
    });
    socket.on('data', (bytes: Buffer) => {
      try {
        for (const answer of frames.read(bytes)) this.#waiting?.resolve(answer);
      } catch {
        socket.destroy();
      }
    });
  }

  /** Rejects with Node's error. */
  static async connect(path: string): Promise<PackClient> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const socket = connect(path, resolve);
    socket.once('error', reject);
    await promise;
    return new PackClient(socket);
  }

  /** To be asked again when this is answered. */
  async fetch(question: PackQuestion): Promise<CertificatePack> {
    if (this.#socket.destroyed) throw new Error('what reads certificates is gone');
    this.#waiting = Promise.withResolvers<PackAnswer>();
    this.#socket.write(frameOf(question));
    const answer = await this.#waiting.promise;
    if ('reason' in answer) throw new Error(answer.reason);
    const { bytes } = answer;
    return new CertificatePack(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length));
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
