/**
 * Clients that look at an edge while its generations change: connections that are kept alive, ones that are opened for each request, TLS sessions that
 * are resumed, WebSockets and event streams that last. Closed loops with pauses, so that idle connections meet the change as well as busy ones.
 */
import { readFileSync } from 'node:fs';
import { Agent, createServer, request as httpRequest } from 'node:http';
import type { ClientRequest, IncomingMessage, Server } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { TLSSocket } from 'node:tls';
import { codeOf, reasonOf } from '#errors';
import { acceptWebSocket, textFrame } from './websocket-peer.ts';

export interface UpgradeLoadPlan {
  readonly httpPort: number;
  readonly httpsPort: number;
  readonly host: string;
  readonly caFile: string;
  readonly keepAlive: number;
  readonly fresh: number;
  readonly resuming: number;
  readonly webSockets: number;
  readonly eventStreams: number;
}

export interface UpgradeOutcome {
  readonly requests: Readonly<Record<'keepAlive' | 'fresh' | 'resuming', number>>;
  /** By what went wrong. */
  readonly failures: Readonly<Record<string, number>>;
  readonly tls: { readonly resumed: number; readonly full: number };
  readonly cutWebSockets: number;
  readonly cutEventStreams: number;
  readonly echoes: number;
  readonly events: number;
}

/** Of a client between two requests: some are at it, some idle, whenever a generation ends. */
const PAUSE_MS = 20;
const PING_PERIOD_MS = 100;
const ANSWER_LIMIT_MS = 10_000;
const WEB_SOCKET_KEY = 'dGhlIHNhbXBsZSBub25jZQ==';
/** FIN and opcode 1, masked with zeros: the text goes as it is. */
const PING = Buffer.from([0x81, 0x84, 0, 0, 0, 0, ...Buffer.from('ping')]);

/** What the edge leads to. */
export async function openUpgradeEndpoint(): Promise<{ readonly port: number } & AsyncDisposable> {
  const sockets = new Set<{ destroy: () => unknown }>();
  const server: Server = createServer((request, response) => {
    if (request.url !== '/events') {
      request.resume().on('end', () => response.end('hello\n'));
      return;
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const timer = setInterval(() => response.write('data: tick\n\n'), PING_PERIOD_MS);
    response.on('close', () => {
      clearInterval(timer);
    });
  });
  server.on('connection', (socket) => sockets.add(socket));
  server.on('upgrade', (request, socket) => {
    acceptWebSocket(request, socket);
    socket.on('data', () => socket.write(textFrame('pong')));
  });
  server.keepAliveTimeout = 60_000;
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('the endpoint has no port');
  return {
    port: address.port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export class UpgradeLoad {
  readonly #plan: UpgradeLoadPlan;
  readonly #requests = { keepAlive: 0, fresh: 0, resuming: 0 };
  readonly #failures: Record<string, number> = {};
  readonly #tls = { resumed: 0, full: 0 };
  readonly #agents: Agent[] = [];
  readonly #streams: { readonly destroy: () => unknown }[] = [];
  readonly #loops: Promise<void>[] = [];
  #cutWebSockets = 0;
  #cutEventStreams = 0;
  #echoes = 0;
  #events = 0;
  #isOver = false;

  private constructor(plan: UpgradeLoadPlan) {
    this.#plan = plan;
  }

  /** Returns when all streams are open and every client has had an answer. */
  static async start(plan: UpgradeLoadPlan): Promise<UpgradeLoad> {
    const load = new UpgradeLoad(plan);
    const times = (count: number, make: () => Promise<void>): readonly Promise<void>[] => Array.from({ length: count }, make);
    await Promise.all([
      ...times(plan.webSockets, async () => await load.#openWebSocket()),
      ...times(plan.eventStreams, async () => await load.#openEvents()),
    ]);
    for (let index = 0; index < plan.keepAlive; index += 1) load.#loops.push(load.#keepAlive());
    for (let index = 0; index < plan.fresh; index += 1) load.#loops.push(load.#fresh());
    for (let index = 0; index < plan.resuming; index += 1) load.#loops.push(load.#resuming());
    return load;
  }

  async stop(): Promise<UpgradeOutcome> {
    this.#isOver = true;
    await Promise.all(this.#loops);
    for (const stream of this.#streams) stream.destroy();
    for (const agent of this.#agents) agent.destroy();
    return {
      requests: this.#requests,
      failures: this.#failures,
      tls: this.#tls,
      cutWebSockets: this.#cutWebSockets,
      cutEventStreams: this.#cutEventStreams,
      echoes: this.#echoes,
      events: this.#events,
    };
  }

  async #loop(kind: 'keepAlive' | 'fresh' | 'resuming', ask: () => Promise<number>): Promise<void> {
    while (!this.#isOver) {
      try {
        const status = await ask();
        this.#requests[kind] += 1;
        if (status !== 200) this.#failed(`${kind}: status ${String(status)}`);
      } catch (error) {
        this.#requests[kind] += 1;
        this.#failed(`${kind}: ${codeOf(error) ?? reasonOf(error)}`);
      }
      await sleep(PAUSE_MS * (0.5 + Math.random()));
    }
  }

  #failed(why: string): void {
    this.#failures[why] = (this.#failures[why] ?? 0) + 1;
  }

  async #keepAlive(): Promise<void> {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    this.#agents.push(agent);
    const { httpPort, host } = this.#plan;
    await this.#loop('keepAlive', async () => await answerTo(httpRequest({ ...local(httpPort, host), agent })));
  }

  async #fresh(): Promise<void> {
    const { httpPort, host } = this.#plan;
    await this.#loop('fresh', async () => await answerTo(httpRequest({ ...local(httpPort, host), agent: false })));
  }

  async #resuming(): Promise<void> {
    const { httpsPort, host, caFile } = this.#plan;
    const ca = readFileSync(caFile);
    let session: Buffer | undefined;
    await this.#loop('resuming', async () => {
      const options = {
        ...local(httpsPort, host),
        servername: host,
        ca,
        agent: false,
        ...(session === undefined ? {} : { session }),
      };
      const offered = session !== undefined;
      const asking = httpsRequest(options);
      asking.on('socket', (socket) => {
        socket.on('session', (fresh: Buffer) => {
          session = fresh;
        });
        socket.once('secureConnect', () => {
          if (offered && socket instanceof TLSSocket) this.#tls[socket.isSessionReused() ? 'resumed' : 'full'] += 1;
        });
      });
      return await answerTo(asking);
    });
  }

  async #openWebSocket(): Promise<void> {
    const { httpPort, host } = this.#plan;
    const headers = {
      host,
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': WEB_SOCKET_KEY,
    };
    const asking = httpRequest({ ...local(httpPort, host), agent: false, path: '/socket', headers });
    await new Promise<void>((resolve, reject) => {
      asking.once('error', reject);
      asking.once('upgrade', (_response, socket) => {
        this.#streams.push(socket);
        const timer = setInterval(() => socket.write(PING), PING_PERIOD_MS);
        socket.on('error', () => undefined); // `close` follows.
        socket.on('data', () => (this.#echoes += 1));
        socket.on('end', () => socket.end());
        socket.once('close', () => {
          clearInterval(timer);
          if (!this.#isOver) this.#cutWebSockets += 1;
        });
        resolve();
      });
      asking.end();
    });
  }

  async #openEvents(): Promise<void> {
    const { httpPort, host } = this.#plan;
    const asking = httpRequest({ ...local(httpPort, host), agent: false, path: '/events' });
    this.#streams.push(asking);
    await new Promise<void>((resolve, reject) => {
      asking.once('error', reject);
      asking.once('response', (response) => {
        response.on('error', () => undefined); // `close` follows.
        response.on('data', () => (this.#events += 1));
        response.once('close', () => {
          if (!this.#isOver) this.#cutEventStreams += 1;
        });
        resolve();
      });
      asking.end();
    });
  }
}

function local(port: number, host: string): { host: string; port: number; path: string; headers: Record<string, string> } {
  return { host: '127.0.0.1', port, path: '/', headers: { host } };
}

/** The status of an answer that came whole. */
async function answerTo(asking: ClientRequest): Promise<number> {
  return await new Promise((resolve, reject) => {
    asking.setTimeout(ANSWER_LIMIT_MS, () => asking.destroy(new Error('no answer in time')));
    asking.once('error', reject);
    asking.once('response', (response: IncomingMessage) => {
      response.once('error', reject);
      response.resume().once('end', () => {
        if (response.complete) resolve(response.statusCode ?? 0);
        else reject(new Error('the answer was cut'));
      });
    });
    asking.end();
  });
}
