/** A published TCP port: connections are joined to the container's as they are, bytes and ends of both directions. */
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import type { PublishedPort } from '#routing/route-table.ts';
import { HIGH_WATER_BYTES } from '#proxy/wire/wire.ts';
import { KEEP_ALIVE_MS } from './limits.ts';
import type { OpenPort, PortDeps } from './open-port.ts';
import { TcpStream } from './tcp-stream.ts';
import type { StreamOwner } from './tcp-stream.ts';

export class TcpPort implements OpenPort, StreamOwner {
  readonly key: string;
  readonly streams = new Set<TcpStream>();
  readonly #deps: PortDeps;
  readonly #server: Server;
  readonly #waiting = new Set<TcpStream>();

  private constructor(key: string, deps: PortDeps) {
    this.key = key;
    this.#deps = deps;
    this.#server = createServer(
      {
        allowHalfOpen: true,
        noDelay: true,
        pauseOnConnect: true, // What the client says stays in the kernel until somebody is there to hear it.
        keepAlive: true,
        keepAliveInitialDelay: KEEP_ALIVE_MS,
        highWaterMark: HIGH_WATER_BYTES,
      },
      (socket) => {
        this.#accept(socket);
      },
    );
  }

  /** Listens, or rejects with Node's error. */
  static async open(key: string, at: PublishedPort, deps: PortDeps): Promise<TcpPort> {
    const port = new TcpPort(key, deps);
    const server = port.#server;
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    server.once('error', reject);
    server.listen({ host: at.address, port: at.port, exclusive: true, reusePort: true }, () => {
      resolve(undefined);
    });
    await promise;
    server.off('error', reject);
    server.on('error', (error) => {
      deps.onFault(key, error);
    });
    return port;
  }

  get streamCount(): number {
    return this.streams.size;
  }

  *endpointsInUse(): Generator<string> {
    for (const { endpoint } of this.streams) if (endpoint !== undefined) yield endpoint.id;
  }

  changed(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const stream of waiting) this.onAgain(stream);
    const { port } = this.#deps.answerTo(this.key);
    for (const stream of this.streams) stream.follow(port?.endpoint);
  }

  stopListening(): void {
    this.#server.close();
  }

  close(): void {
    this.#server.close();
    for (const stream of this.streams) stream.cut();
  }

  onAgain(stream: TcpStream): void {
    const { verdict, port } = this.#deps.answerTo(this.key);
    // A port that went over to another tenant meanwhile is another port.
    if (port?.tenant !== stream.tenant || verdict === 'refuse') stream.cut();
    else if (verdict === 'connect') stream.connect(port.endpoint);
    else if (stream.hold()) {
      this.#waiting.add(stream);
      this.#deps.wanted(port.endpoint);
    } else stream.cut();
  }

  onOver(stream: TcpStream): void {
    this.#waiting.delete(stream);
    this.streams.delete(stream);
  }

  #accept(socket: Socket): void {
    const { port } = this.#deps.answerTo(this.key);
    const budget = port === undefined ? undefined : this.#deps.budgets.of(port.tenant);
    if (port === undefined || budget === undefined || this.#deps.streamCount() >= this.#deps.limits().connectionsMax) {
      refuse(socket);
      return;
    }
    if (!budget.tryEnter('connections')) {
      refuse(socket);
      return;
    }
    if (!budget.tryEnter('upgradedStreams')) {
      budget.leave('connections');
      refuse(socket);
      return;
    }
    this.#deps.counters.portUsed(port.tenant, 'tcp');
    const stream = new TcpStream(socket, this.#deps, budget, this);
    this.streams.add(stream);
    this.onAgain(stream);
  }
}

function refuse(socket: Socket): void {
  socket.on('error', () => undefined);
  socket.resetAndDestroy();
}
