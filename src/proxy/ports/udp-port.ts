/**
 * A published UDP port: a session for each client, with a socket of its own towards the container, so that answers find their way back.
 *
 * Datagrams keep their order. While the container is on the move a bounded number waits; a session goes over to the new address with the next one.
 */
import { createSocket } from 'node:dgram';
import type { RemoteInfo, Socket } from 'node:dgram';
import type { Endpoint, PublishedPort } from '#routing/route-table.ts';
import type { TenantBudget } from '#proxy/budget.ts';
import type { Account } from '#proxy/traffic.ts';
import {
  DATAGRAM_QUEUE_BYTES_MAX,
  HELD_BYTES_MAX,
  HELD_DATAGRAMS_MAX,
  SESSIONS_MAX,
  SESSION_IDLE_TIMEOUT_MS,
  SESSION_SWEEP_MS,
} from './limits.ts';
import type { OpenPort, PortDeps } from './open-port.ts';
import { isSameEndpoint } from './port-table.ts';

interface Session {
  readonly key: string;
  readonly socket: Socket;
  readonly endpoint: Endpoint;
  readonly budget: TenantBudget;
  readonly account: Account;
  usedMs: number;
}

interface Held {
  readonly datagram: Buffer;
  readonly client: RemoteInfo;
}

export class UdpPort implements OpenPort {
  readonly key: string;
  readonly #deps: PortDeps;
  readonly #socket: Socket;
  /** The one that was silent for longest is the first. */
  readonly #sessions = new Map<string, Session>();
  readonly #sweeper: NodeJS.Timeout;
  #held: Held[] = [];
  #heldBytes = 0;
  #isClosed = false;

  private constructor(key: string, deps: PortDeps) {
    this.key = key;
    this.#deps = deps;
    this.#socket = createSocket({ type: 'udp4', reusePort: true, lookup: literally });
    this.#socket.on('message', (datagram, client) => {
      this.#receive(datagram, client);
    });
    this.#sweeper = setInterval(() => {
      this.#sweep();
    }, SESSION_SWEEP_MS).unref();
  }

  /** Listens, or rejects with Node's error. */
  static async open(key: string, at: PublishedPort, deps: PortDeps): Promise<UdpPort> {
    const port = new UdpPort(key, deps);
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    port.#socket.once('error', reject);
    port.#socket.bind({ address: at.address, port: at.port, exclusive: true }, () => {
      resolve(undefined);
    });
    try {
      await promise;
    } catch (error) {
      port.close();
      throw error;
    }
    port.#socket.off('error', reject);
    port.#socket.on('error', (error) => {
      deps.onFault(key, error);
    });
    return port;
  }

  get streamCount(): number {
    return this.#sessions.size;
  }

  *endpointsInUse(): Generator<string> {
    for (const { endpoint } of this.#sessions.values()) yield endpoint.id;
  }

  changed(): void {
    const held = this.#held;
    this.#held = [];
    this.#heldBytes = 0;
    for (const { datagram, client } of held) this.#receive(datagram, client);
    const { verdict, port } = this.#deps.answerTo(this.key);
    if (verdict === 'wait') return;
    for (const session of this.#sessions.values())
      if (port === undefined || !isSameEndpoint(port.endpoint, session.endpoint)) this.#end(session);
  }

  stopListening(): void {
    this.close(); // A session without the port's socket could not answer.
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearInterval(this.#sweeper);
    this.#held = [];
    for (const session of this.#sessions.values()) this.#end(session);
    this.#socket.close();
  }

  #receive(datagram: Buffer, client: RemoteInfo): void {
    const { verdict, port } = this.#deps.answerTo(this.key);
    if (verdict === 'refuse' || port === undefined) return;
    if (verdict === 'wait') {
      this.#hold(datagram, client);
      this.#deps.wanted(port.endpoint);
      return;
    }
    const session = this.#sessionOf(client, port);
    if (session === undefined || session.socket.getSendQueueSize() > DATAGRAM_QUEUE_BYTES_MAX) return;
    session.account.downstreamInBytes += datagram.length;
    session.account.upstreamOutBytes += datagram.length;
    session.socket.send(datagram, port.endpoint.port, port.endpoint.address, ignore);
  }

  #hold(datagram: Buffer, client: RemoteInfo): void {
    if (this.#held.length >= HELD_DATAGRAMS_MAX || this.#heldBytes + datagram.length > HELD_BYTES_MAX) return;
    this.#held.push({ datagram, client });
    this.#heldBytes += datagram.length;
  }

  #sessionOf(client: RemoteInfo, port: PublishedPort): Session | undefined {
    const key = `${client.address} ${String(client.port)}`;
    const known = this.#sessions.get(key);
    if (known !== undefined && isSameEndpoint(known.endpoint, port.endpoint)) {
      known.usedMs = this.#deps.clock.monotonicMs();
      this.#sessions.delete(key);
      this.#sessions.set(key, known);
      return known;
    }
    if (known !== undefined) this.#end(known);
    if (this.#sessions.size >= SESSIONS_MAX) {
      const [oldest] = this.#sessions.values();
      if (oldest !== undefined) this.#end(oldest);
    }
    return this.#begin(key, client, port);
  }

  #begin(key: string, client: RemoteInfo, { tenant, endpoint }: PublishedPort): Session | undefined {
    const budget = this.#deps.budgets.of(tenant);
    if (this.#deps.streamCount() >= this.#deps.limits().connectionsMax) return undefined;
    if (!budget.tryEnter('connections')) return undefined;
    const socket = createSocket({ type: 'udp4', lookup: literally });
    const account = this.#deps.traffic.open(tenant, endpoint.id);
    const session: Session = { key, socket, endpoint, budget, account, usedMs: this.#deps.clock.monotonicMs() };
    this.#sessions.set(key, session);
    this.#deps.counters.portUsed(tenant, 'udp');
    socket.on('error', () => {
      this.#end(session);
    });
    socket.on('message', (datagram, from) => {
      // SECURITY: anybody can send to the session's socket; only the container's answers go on.
      if (from.address !== endpoint.address || from.port !== endpoint.port || this.#sessions.get(key) !== session) return;
      if (this.#socket.getSendQueueSize() > DATAGRAM_QUEUE_BYTES_MAX) return;
      session.usedMs = this.#deps.clock.monotonicMs();
      account.upstreamInBytes += datagram.length;
      account.downstreamOutBytes += datagram.length;
      this.#socket.send(datagram, client.port, client.address, ignore);
    });
    return session;
  }

  #end(session: Session): void {
    if (this.#sessions.get(session.key) !== session) return;
    this.#sessions.delete(session.key);
    session.budget.leave('connections');
    this.#deps.traffic.close(session.account);
    session.socket.close();
  }

  #sweep(): void {
    const beforeMs = this.#deps.clock.monotonicMs() - SESSION_IDLE_TIMEOUT_MS;
    for (const session of this.#sessions.values()) if (session.usedMs < beforeMs) this.#end(session);
  }
}

/** What could not be sent is lost, as datagrams may be. */
function ignore(): void {
  // Nobody to tell.
}

/** Addresses are no names. At once: a turn of the event loop for each datagram could change their order. */
function literally(
  address: string,
  _options: unknown,
  done: (error: Error | null, address: string, family: number) => void,
): void {
  done(null, address, 4);
}
