/** Asks the machine's resolvers what is not ours: from a port and with an id that cannot be guessed, believing only answers to the question. */
import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import { FORWARD_TIMEOUT_MS, FORWARDS_MAX, FORWARDS_PER_TENANT_MAX } from './limits.ts';
import type { Resolver } from './machine-resolvers.ts';
import { forwardOf, isAnswerTo, RCODE, rcodeOf } from './message.ts';
import type { DnsQuery } from './message.ts';

export type Transport = 'udp' | 'tcp';

export type ForwardOutcome =
  | { readonly kind: 'answer'; readonly message: Buffer }
  /** No resolver, or none that answers. */
  | { readonly kind: 'failed' }
  /** Too many questions are under way. */
  | { readonly kind: 'busy' };

/** Both ways of asking: an answer over UDP may come cut, and then the client comes again over TCP, which is passed on as such. */
type Ask = (resolver: Resolver, question: Buffer, isAnswer: (message: Buffer) => boolean, signal: AbortSignal) => Promise<Buffer>;

export class Forwarder {
  readonly #resolvers: () => Promise<readonly Resolver[]>;
  readonly #perTenant = new Map<string, number>();
  readonly #stop = new AbortController();
  #underWay = 0;
  /** The one that answered last is asked first, so that a dead one costs its time once. */
  #last = '';

  constructor(resolvers: () => Promise<readonly Resolver[]>) {
    this.#resolvers = resolvers;
  }

  async ask(query: DnsQuery, transport: Transport, tenant: string): Promise<ForwardOutcome> {
    const ofTenant = this.#perTenant.get(tenant) ?? 0;
    if (this.#underWay >= FORWARDS_MAX || ofTenant >= FORWARDS_PER_TENANT_MAX) return { kind: 'busy' };
    this.#underWay += 1;
    this.#perTenant.set(tenant, ofTenant + 1);
    try {
      return await this.#askEach(query, transport);
    } finally {
      this.#underWay -= 1;
      const left = (this.#perTenant.get(tenant) ?? 1) - 1;
      if (left > 0) this.#perTenant.set(tenant, left);
      else this.#perTenant.delete(tenant);
    }
  }

  async #askEach(query: DnsQuery, transport: Transport): Promise<ForwardOutcome> {
    const resolvers = await this.#resolvers();
    const ask = transport === 'udp' ? askByDatagram : askByStream;
    let refusal: ForwardOutcome = { kind: 'failed' };
    for (const resolver of resolvers.toSorted((one, other) => this.#order(one) - this.#order(other))) {
      const id = randomInt(0x10000);
      const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(FORWARD_TIMEOUT_MS)]);
      try {
        const message = await ask(resolver, forwardOf(query, id), (candidate) => isAnswerTo(query, id, candidate), signal);
        const rcode = rcodeOf(message);
        if (rcode !== RCODE.failed && rcode !== RCODE.refused) {
          this.#last = resolver.address;
          return { kind: 'answer', message };
        }
        refusal = { kind: 'answer', message };
      } catch {
        // The next one may answer; what the client is told in the end says that none did.
      }
    }
    return refusal;
  }

  #order(resolver: Resolver): number {
    return resolver.address === this.#last ? 0 : 1;
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
  }
}

const askByDatagram: Ask = async (resolver, question, isAnswer, signal) => {
  signal.throwIfAborted();
  const socket = createSocket(isIPv6(resolver.address) ? 'udp6' : 'udp4');
  try {
    return await new Promise<Buffer>((resolve, reject) => {
      signal.addEventListener('abort', () => {
        reject(new Error('no answer in time'));
      });
      socket.on('error', reject); // Later ones are news of a question that is over.
      // A connected socket takes nothing from others, and hears at once that nobody is there.
      socket.once('connect', () => {
        socket.send(question);
      });
      socket.on('message', (message) => {
        if (isAnswer(message)) resolve(message);
      });
      socket.connect(resolver.port, resolver.address);
    });
  } finally {
    socket.close();
  }
};

const askByStream: Ask = async (resolver, question, isAnswer, signal) => {
  signal.throwIfAborted();
  const socket = connect(resolver.port, resolver.address);
  const abort = (): void => {
    socket.destroy(new Error('no answer in time'));
  };
  signal.addEventListener('abort', abort);
  try {
    const length = Buffer.alloc(2);
    length.writeUInt16BE(question.length);
    socket.write(Buffer.concat([length, question]));
    let received = Buffer.alloc(0);
    for await (const chunk of socket) {
      if (!Buffer.isBuffer(chunk)) continue;
      received = Buffer.concat([received, chunk]);
      if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) continue;
      const message = received.subarray(2, 2 + received.readUInt16BE(0));
      if (isAnswer(message)) return message;
      break;
    }
    throw new Error('the connection ended without an answer');
  } finally {
    signal.removeEventListener('abort', abort);
    socket.destroy();
  }
};
