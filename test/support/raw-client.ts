/** A client that writes what it is told, octet for octet, and reads the answers strictly. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectSecure } from 'node:tls';
import { createReader, feed, feedEnd, finals } from './raw-message.ts';
import type { MessageReader, RawMessage } from './raw-message.ts';

/** How long an answer may take that is due. */
const DUE_MS = 4_000;

export interface RawClientOptions {
  readonly port: number;
  /** Server name to ask for by TLS; without it the connection is plain. */
  readonly serverName?: string;
}

/** What a client does: write, wait, half-close. */
export type Step = { readonly write: string } | { readonly waitMs: number } | { readonly end: true };

export class RawClient implements Disposable {
  readonly socket: Socket;
  readonly reader: MessageReader = createReader('response');
  /** How the edge left the connection. */
  ended: 'no' | 'end' | 'reset' = 'no';
  /** Everything that came. */
  readonly received: Buffer[] = [];
  readonly #changed = new Set<() => void>();

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => {
      this.received.push(chunk);
      feed(this.reader, chunk.toString('latin1'));
      this.#change();
    });
    socket.on('end', () => {
      this.ended = 'end';
      feedEnd(this.reader);
      this.#change();
    });
    socket.on('close', () => {
      if (this.ended === 'no') this.ended = 'reset';
      this.#change();
    });
    socket.on('error', () => undefined); // `close` follows and is handled.
  }

  static async open(options: RawClientOptions): Promise<RawClient> {
    const to = { host: '127.0.0.1', port: options.port, allowHalfOpen: true };
    const { serverName } = options;
    const socket =
      serverName === undefined ? connect(to) : connectSecure({ ...to, servername: serverName, rejectUnauthorized: false });
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    socket.once('error', reject);
    socket.once(serverName === undefined ? 'connect' : 'secureConnect', () => {
      resolve(undefined);
    });
    await promise;
    socket.off('error', reject);
    return new RawClient(socket);
  }

  /** Writes; an edge that does not read any more is no fault of the client. */
  send(text: string | Buffer): void {
    if (this.socket.writable) this.socket.write(typeof text === 'string' ? Buffer.from(text, 'latin1') : text);
  }

  /** Says which requests answers will be for, since a response to HEAD has no body. */
  expect(...methods: readonly string[]): void {
    this.reader.asked.push(...methods);
  }

  async perform(steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      if ('write' in step) this.send(step.write);
      else if ('waitMs' in step) await sleep(step.waitMs);
      else this.socket.end();
    }
  }

  /** True once `probe` is, false where it is not in time. */
  async until(probe: () => boolean, limitMs = DUE_MS): Promise<boolean> {
    if (probe()) return true;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const look = (): void => {
      if (probe()) resolve(true);
    };
    const timer = setTimeout(() => {
      resolve(false);
    }, limitMs);
    this.#changed.add(look);
    const came = await promise;
    clearTimeout(timer);
    this.#changed.delete(look);
    return came;
  }

  /** Waits until there are `count` final answers, or nothing more will come. */
  async answers(count: number, limitMs = DUE_MS): Promise<readonly RawMessage[]> {
    await this.until(() => this.finals.length >= count || this.over, limitMs);
    return this.finals;
  }

  /** Sends a request and gives the answer to it; fails where there is none. */
  async ask(text: string): Promise<RawMessage> {
    const count = this.finals.length + 1;
    this.expect(text.slice(0, Math.max(0, text.indexOf(' '))));
    this.send(text);
    const answer = (await this.answers(count)).at(count - 1);
    if (answer === undefined) throw new Error(`no answer: ${this.state}`);
    return answer;
  }

  async closed(limitMs = DUE_MS): Promise<boolean> {
    return await this.until(() => this.ended !== 'no', limitMs);
  }

  get finals(): readonly RawMessage[] {
    return finals(this.reader);
  }

  /** Nothing more will come that can be read. */
  get over(): boolean {
    return this.ended !== 'no' || this.reader.fault !== undefined;
  }

  get text(): string {
    return Buffer.concat(this.received).toString('latin1');
  }

  /** For messages of failures. */
  get state(): string {
    const { phase, fault, rest } = this.reader;
    const text = this.text;
    const tail = text.length > 600 ? `${text.slice(0, 300)}…${text.slice(-300)}` : text;
    return JSON.stringify({ ended: this.ended, phase, fault, rest: rest.slice(0, 80), received: tail });
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }

  #change(): void {
    for (const look of this.#changed) look();
  }
}
