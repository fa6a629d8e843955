/**
 * The node's responder: containers' questions come here with their own addresses, which say who asks (isolation/packet-rules.ts leads them here
 * and lets nobody lie about that). UDP and TCP on the link address of each host.
 */
import { createSocket } from 'node:dgram';
import type { Socket as DatagramSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer, isIPv4 } from 'node:net';
import type { Server, Socket } from 'node:net';
import type { Clock } from '#clock';
import { codeOf, EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import { answerLocally } from './answer.ts';
import { Forwarder } from './forwarder.ts';
import type { Transport } from './forwarder.ts';
import { CONNECTION_IDLE_MS, CONNECTIONS_MAX, CONNECTIONS_PER_SOURCE_MAX, PORT_PREFERRED, QUERY_BYTES_MAX } from './limits.ts';
import type { Resolver } from './machine-resolvers.ts';
import { parseQuery, passedOn, RCODE, replyTo } from './message.ts';
import type { NameTable } from './name-table.ts';
import { SourceRate } from './source-rate.ts';

export interface DnsResponderDeps {
  readonly log: Log;
  readonly clock: Clock;
  /** The names as they are by now: asked for each question. */
  readonly names: () => NameTable;
  readonly resolvers: () => Promise<readonly Resolver[]>;
}

interface Asker {
  readonly source: string;
  readonly tenant: string;
  readonly transport: Transport;
}

const MESSAGE_BYTES_MAX = 0xffff;
const LISTEN_ATTEMPTS_MAX = 8;

/** Who asks: a container of the host whose link address it came to. Its tenant's network is told by the /22. Pure. */
export function tenantKeyOf(link: string, source: string): string | undefined {
  const [first, second, third] = source.split('.');
  const isOfHost = isIPv4(source) && link.startsWith(`${first ?? ''}.${second ?? ''}.`) && source !== link;
  return isOfHost ? `${second ?? ''}.${String(Number(third) >> 2)}` : undefined;
}

export class DnsResponder implements AsyncDisposable {
  readonly #deps: DnsResponderDeps;
  readonly #forwarder: Forwarder;
  readonly #rate: SourceRate;
  readonly #datagrams: DatagramSocket[] = [];
  readonly #servers: Server[] = [];
  readonly #connections = new Map<Socket, string>();
  #turn = 0;

  constructor(deps: DnsResponderDeps) {
    this.#deps = deps;
    this.#forwarder = new Forwarder(deps.resolvers);
    this.#rate = new SourceRate(deps.clock);
  }

  /** Answers at a host's link address from now on. Returns the port. */
  async listen(link: string): Promise<number> {
    for (let attempt = 0; attempt < LISTEN_ATTEMPTS_MAX; attempt += 1) {
      const server = createServer({ allowHalfOpen: true }, (socket) => {
        this.#onConnection(link, socket);
      });
      const datagrams = createSocket('udp4');
      try {
        server.listen(attempt === 0 ? PORT_PREFERRED : 0, link);
        await once(server, 'listening');
        const address = server.address();
        const port = typeof address === 'object' && address !== null ? address.port : 0;
        datagrams.bind(port, link);
        await once(datagrams, 'listening');
        this.#serve(link, server, datagrams);
        return port;
      } catch (error) {
        server.close();
        datagrams.close();
        // Another program has the port, for one of both protocols.
        if (codeOf(error) !== 'EADDRINUSE') throw error;
      }
    }
    throw new EcluseError({
      code: 'ECLUSE_DNS_PORT',
      source: 'runtime',
      message: `no port at ${link} is free for the name responder over both UDP and TCP`,
    });
  }

  #serve(link: string, server: Server, datagrams: DatagramSocket): void {
    this.#servers.push(server);
    this.#datagrams.push(datagrams);
    const complain = (error: unknown): void => {
      this.#deps.log.warn({ link, reason: reasonOf(error) }, 'the name responder had an error on its socket');
    };
    server.on('error', complain);
    datagrams.on('error', complain);
    datagrams.on('message', (message, { address: source, port }) => {
      const tenant = tenantKeyOf(link, source);
      if (tenant === undefined || port === 0 || !this.#rate.take(source)) return;
      const send = (reply: Buffer): void => {
        // An error here is of one datagram: its receiver has gone.
        if (this.#datagrams.includes(datagrams)) datagrams.send(reply, port, source, () => undefined);
      };
      this.#answerDatagram(message, { source, tenant, transport: 'udp' }, send).catch(complain);
    });
  }

  async #answerDatagram(message: Buffer, from: Asker, send: (reply: Buffer) => void): Promise<void> {
    const reply = await this.#answer(message, from);
    if (reply !== undefined) send(reply);
  }

  /** The answer to a message; undefined where it is none that gets one. */
  async #answer(message: Buffer, from: Asker): Promise<Buffer | undefined> {
    const parsed = parseQuery(message);
    if (parsed.kind !== 'query') return parsed.kind === 'refused' ? parsed.reply : undefined;
    const { query } = parsed;
    const bytesMax = from.transport === 'udp' ? query.udpBytesMax : MESSAGE_BYTES_MAX;
    this.#turn = (this.#turn + 1) % Number.MAX_SAFE_INTEGER;
    const local = answerLocally(query, { names: this.#deps.names(), source: from.source, bytesMax, turn: this.#turn });
    if (local.kind === 'reply') return local.reply;
    const outcome = await this.#forwarder.ask(query, from.transport, from.tenant);
    switch (outcome.kind) {
      case 'answer':
        return passedOn(query, outcome.message, bytesMax);
      case 'failed':
        return replyTo(query, RCODE.failed, [], bytesMax);
      case 'busy':
        return replyTo(query, RCODE.refused, [], bytesMax);
    }
  }

  #onConnection(link: string, socket: Socket): void {
    const source = socket.remoteAddress ?? '';
    const tenant = tenantKeyOf(link, source);
    const ofSource = [...this.#connections.values()].filter((other) => other === source).length;
    if (tenant === undefined || this.#connections.size >= CONNECTIONS_MAX || ofSource >= CONNECTIONS_PER_SOURCE_MAX) {
      socket.destroy();
      return;
    }
    this.#connections.set(socket, source);
    socket.once('close', () => this.#connections.delete(socket));
    socket.setTimeout(CONNECTION_IDLE_MS, () => socket.destroy());
    this.#converse(socket, source, tenant).then(
      () => socket.end(),
      () => socket.destroy(), // The client went, or sent what is no question.
    );
  }

  /** One question after the other: the next is read when the last has its answer, so a connection cannot pile them up. */
  async #converse(socket: Socket, source: string, tenant: string): Promise<void> {
    let received = Buffer.alloc(0);
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
      if (!Buffer.isBuffer(chunk)) continue;
      received = Buffer.concat([received, chunk]);
      while (received.length >= 2) {
        const length = received.readUInt16BE(0);
        if (length > QUERY_BYTES_MAX) return;
        if (received.length < 2 + length) break;
        if (!this.#rate.take(source)) return;
        const reply = await this.#answer(received.subarray(2, 2 + length), { source, tenant, transport: 'tcp' });
        received = received.subarray(2 + length);
        if (reply === undefined) return;
        const head = Buffer.alloc(2);
        head.writeUInt16BE(reply.length);
        if (!socket.write(Buffer.concat([head, reply]))) await once(socket, 'drain');
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#forwarder[Symbol.dispose]();
    for (const socket of this.#connections.keys()) socket.destroy();
    const closed = [...this.#servers, ...this.#datagrams].map(async (listener) => {
      await once(listener, 'close');
    });
    for (const server of this.#servers.splice(0)) server.close();
    for (const datagrams of this.#datagrams.splice(0)) datagrams.close();
    await Promise.all(closed);
  }
}
