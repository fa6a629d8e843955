/**
 * Workers of an earlier primary of this node, which was replaced or died: they serve on, look for the primary that comes after it, and are told to end
 * when its own workers listen.
 *
 * LIFECYCLE of one   (their primary goes) ──hello──▶ known ──adopted by the pool──▶ draining ──▶ gone
 *
 * Whoever may open the socket is root, or this node's user: it lies in the data directory with mode 0600.
 */
import { chmod, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import * as z from 'zod';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { PROTOCOL_VERSION } from '#proxy/protocol.ts';
import type { FromWorker, ListenAddress, ToWorker } from '#proxy/protocol.ts';
import { Conversation, isReply } from './conversation.ts';
import type { Ask, Reply } from './conversation.ts';
import { FrameReader, frameOf } from './frames.ts';

/** Metrics of a worker with many services are what is longest. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;
/** Workers of a few generations, and no more: each has 256 at most. */
const CONNECTIONS_MAX = 4_096;

const addressSchema = z.object({ host: z.string(), port: z.number() }).optional();
const helloSchema = z.object({
  kind: z.literal('hello'),
  protocol: z.number(),
  pid: z.int().min(2),
  generation: z.number(),
  listen: z.object({ http: addressSchema, https: addressSchema }),
  /** One of an older protocol says nothing of it. */
  unhealthy: z.array(z.string()).default([]),
});
type Hello = z.infer<typeof helloSchema>;

export type Told = Exclude<FromWorker, Reply>;

export class Predecessor {
  readonly #socket: Socket;
  readonly #hello: Hello;
  readonly #conversation: Conversation;
  readonly #gone = Promise.withResolvers<void>();
  #hear: ((message: Told) => void) | undefined;
  /** What came before anybody listened. */
  #early: Told[] = [];

  constructor(socket: Socket, hello: Hello) {
    this.#socket = socket;
    this.#hello = hello;
    this.#conversation = new Conversation(
      () => hello.pid,
      (message: ToWorker) => socket.write(frameOf(message)),
    );
  }

  get pid(): number {
    return this.#hello.pid;
  }

  get generation(): number {
    return this.#hello.generation;
  }

  /** Endpoints that the primary before this one found to be not well. */
  get unhealthy(): readonly string[] {
    return this.#hello.unhealthy;
  }

  /** Whether it understands all that we say. One of another protocol can be told to end, and nothing else. */
  get isFluent(): boolean {
    return this.#hello.protocol === PROTOCOL_VERSION;
  }

  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  listensOn({ host, port }: ListenAddress): boolean {
    const { http, https } = this.#hello.listen;
    return [http, https].some((address) => address?.host === host && address.port === port);
  }

  tell(message: Ask): void {
    this.#conversation.tell(message);
  }

  async ask(message: Ask, timeoutMs: number): Promise<Reply> {
    return await this.#conversation.ask(message, timeoutMs);
  }

  hearWith(hear: (message: Told) => void): void {
    this.#hear = hear;
    for (const message of this.#early.splice(0)) hear(message);
  }

  kill(): void {
    if (this.#conversation.isOver) return;
    try {
      // Its connection was there a moment ago: the id cannot be another's yet.
      process.kill(this.pid, 'SIGKILL');
    } catch {
      // It ended just now.
    }
  }

  received(message: FromWorker): void {
    if (isReply(message)) this.#conversation.answered(message);
    else if (this.#hear === undefined) this.#early.push(message);
    else this.#hear(message);
  }

  end(): void {
    this.#conversation.end('its connection closed');
    this.#socket.destroy();
    this.#gone.resolve();
  }
}

export class Predecessors implements AsyncDisposable {
  readonly #log: Log;
  readonly #server: Server;
  readonly #known = new Set<Predecessor>();
  readonly #sockets = new Set<Socket>();
  #take: ((predecessor: Predecessor) => void) | undefined;

  private constructor(log: Log) {
    this.#log = log;
    this.#server = createServer((socket) => {
      this.#accept(socket);
    });
    this.#server.maxConnections = CONNECTIONS_MAX;
  }

  /** Listens for them. Another primary of this data directory must not be there: the node's lock sees to that. */
  static async open(log: Log, socketPath: string): Promise<Predecessors> {
    const predecessors = new Predecessors(log);
    await rm(socketPath, { force: true });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    predecessors.#server.once('error', reject);
    predecessors.#server.listen(socketPath, resolve);
    await promise;
    await chmod(socketPath, 0o600);
    return predecessors;
  }

  /** Whether one of them listens there: then it is no stranger who has the port. */
  listenOn(address: ListenAddress): boolean {
    return [...this.#known].some((predecessor) => predecessor.listensOn(address));
  }

  all(): readonly Predecessor[] {
    return [...this.#known];
  }

  /** Each that is there, and each that comes. */
  takeAll(take: (predecessor: Predecessor) => void): void {
    this.#take = take;
    for (const predecessor of this.#known) take(predecessor);
  }

  #accept(socket: Socket): void {
    const reader = new FrameReader<FromWorker>(MESSAGE_BYTES_MAX);
    let predecessor: Predecessor | undefined;
    this.#sockets.add(socket);
    socket.on('error', () => undefined); // `close` follows.
    socket.on('close', () => {
      this.#sockets.delete(socket);
      if (predecessor === undefined) return;
      this.#known.delete(predecessor);
      predecessor.end();
      this.#log.info({ pid: predecessor.pid, generation: predecessor.generation }, 'a worker of an earlier generation ended');
    });
    socket.on('data', (bytes: Buffer) => {
      try {
        for (const message of reader.read(bytes)) {
          // What comes after the hello is ours: the same program, or one that says another protocol and is heard no more than that.
          if (predecessor === undefined) predecessor = this.#greet(socket, helloSchema.parse(message));
          else if (predecessor.isFluent || message.kind === 'ack') predecessor.received(message);
        }
      } catch (error) {
        this.#log.warn({ reason: reasonOf(error) }, 'what connected as a worker of an earlier generation is none');
        socket.destroy();
      }
    });
  }

  #greet(socket: Socket, hello: Hello): Predecessor {
    const predecessor = new Predecessor(socket, hello);
    this.#known.add(predecessor);
    this.#log.info({ pid: hello.pid, generation: hello.generation }, 'a worker of an earlier generation was found');
    this.#take?.(predecessor);
    return predecessor;
  }

  /** Lets them go: they look for the next primary. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => {
      resolve();
    });
    await promise;
  }
}
