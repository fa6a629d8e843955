/**
 * The tenants' Docker endpoint: TLS with client certificates, one handler a route, Docker's own errors.
 *
 * A client's bytes are never forwarded: path, query and body are parsed here, checked, and a new request is built for the engine.
 * Who the client is follows from its certificate's fingerprint, asked of the store at every request: a revoked one stops at once.
 */
import { createServer } from 'node:https';
import type { Server } from 'node:https';
import { createServer as createPlainServer, STATUS_CODES } from 'node:http';
import type { IncomingMessage, Server as PlainServer, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import { TLS_SUITES } from '#tls-suites';
import { codeOf, EcluseError, reasonOf } from '#errors';
import { findTenant, tenantOfCertificate } from '#state/tenants.ts';
import type { Tenant } from '#state/tenants.ts';
import { answerTo, dockerError } from './docker-error.ts';
import { RateLimit } from './rate-limit.ts';
import { API_VERSION_MAX, parsePath, sendJson } from './request.ts';
import type { DockerRequest, HijackRequest } from './request.ts';
import { Router } from './router.ts';
import { dockerRoutes } from './routes.ts';
import type { DockerApiDeps } from './routes.ts';
import { TenantListeners } from './tenant-listeners.ts';

export interface GatewayOptions {
  readonly host: string;
  readonly port: number;
  readonly certPem: string;
  readonly keyPem: string;
  readonly caPem: string;
}

/** Debian's docker-compose and python3-docker ask for TLS 1.2 and nothing else (docs/decisions/013-docker-endpoint.md); the others speak 1.3. */
const TLS_VERSION_MIN = 'TLSv1.2';

/** Connections of all tenants; each `logs -f` and `attach` holds one. */
const CONNECTIONS_MAX = 10_000;
/** Of one certificate, those that ask for nothing included: else a single client could take all connections. */
const CONNECTIONS_PER_CERTIFICATE_MAX = 2000;
/** Of one tenant, under way at once. */
const REQUESTS_PER_TENANT_MAX = 1000;
/** Who has no certificate yet must not hold a connection for long. */
const HANDSHAKE_TIMEOUT_MS = 10_000;
const HEADERS_TIMEOUT_MS = 30_000;
const LOGGED_CHARS_MAX = 300;
/** How long the rest of a refused body may take; a gigabyte is not read to its end for nothing. */
const REFUSED_BODY_LIMIT_MS = 5_000;

/** What the HTTP parser refused, by its code; the rest is 400. */
const PARSER_ANSWERS: ReadonlyMap<string, readonly [number, string]> = new Map([
  ['HPE_HEADER_OVERFLOW', [431, 'the request line and headers are too large']],
  ['ERR_HTTP_REQUEST_TIMEOUT', [408, 'the request head did not arrive in time']],
]);

export class Gateway implements AsyncDisposable {
  readonly #deps: DockerApiDeps;
  readonly #server: Server;
  readonly #router: Router;
  /** For connections of containers, which come from elsewhere; it does not listen. */
  readonly #plainServer: PlainServer;
  /** The tenant of each such connection: fixed by the socket that it came through. */
  readonly #tenants = new WeakMap<Socket, string>();
  #isClosed = false;
  readonly #ofTenants: TenantListeners;
  readonly #isEverywhere: boolean;
  readonly #sockets = new Set<Socket>();
  readonly #rate = new RateLimit();
  /** By fingerprint. */
  readonly #ofCertificate = new Map<string, number>();
  /** Requests and streams under way, by tenant. */
  readonly #open = new Map<string, number>();

  private constructor(deps: DockerApiDeps, options: GatewayOptions) {
    this.#deps = deps;
    this.#router = new Router(dockerRoutes(deps));
    this.#server = createServer({
      cert: options.certPem,
      key: options.keyPem,
      ca: options.caPem,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: TLS_VERSION_MIN,
      ciphers: TLS_SUITES,
      ALPNProtocols: ['http/1.1'],
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: 0, // `docker load` of a large image takes as long as it takes; its progress is the client's to watch.
      noDelay: true,
    });
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#isEverywhere = ['0.0.0.0', '::'].includes(options.host);
    this.#ofTenants = new TenantListeners({
      log: deps.log,
      port: options.port,
      connectionsMax: CONNECTIONS_MAX,
      accept: (socket) => {
        this.#server.emit('connection', socket);
      },
    });
    this.#server.on('secureConnection', (socket) => {
      this.#countCertificate(socket);
    });
    this.#server.on('tlsClientError', (error) => {
      deps.log.debug({ reason: error.message }, 'a client failed the TLS handshake of the Docker endpoint');
    });
    // Slow heads are not timed here (Node does that for servers that listen): they cost nobody but the tenant, whose connections are limited.
    this.#plainServer = createPlainServer({ requestTimeout: 0, noDelay: true });
    this.#serveOn(this.#server);
    this.#serveOn(this.#plainServer);
  }

  #serveOn(server: Server | PlainServer): void {
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    server.on('request', (incoming: IncomingMessage, response: ServerResponse) => {
      void this.#onRequest(incoming, response);
    });
    server.on('upgrade', (incoming: IncomingMessage, socket: Duplex, head: Buffer) => {
      void this.#onUpgrade(incoming, socket, head);
    });
    server.on('clientError', (error: Error, socket: Duplex) => {
      const [status, message] = PARSER_ANSWERS.get(codeOf(error) ?? '') ?? [400, 'the request is no HTTP'];
      if (socket.writable) endWith(socket, status, message);
    });
  }

  #countCertificate(socket: TLSSocket): void {
    const key = socket.getPeerCertificate().fingerprint256;
    const count = this.#ofCertificate.get(key) ?? 0;
    if (count >= CONNECTIONS_PER_CERTIFICATE_MAX) {
      socket.destroy();
      return;
    }
    this.#ofCertificate.set(key, count + 1);
    socket.once('close', () => {
      const left = (this.#ofCertificate.get(key) ?? 1) - 1;
      if (left === 0) this.#ofCertificate.delete(key);
      else this.#ofCertificate.set(key, left);
    });
  }

  /** Takes over a connection from a container of the tenant, which needs no certificate. */
  accept(tenant: string, socket: Socket): void {
    if (this.#isClosed) {
      socket.destroy();
      return;
    }
    this.#tenants.set(socket, tenant);
    this.#plainServer.emit('connection', socket);
  }

  static async open(deps: DockerApiDeps, options: GatewayOptions): Promise<Gateway> {
    const gateway = new Gateway(deps, options);
    await new Promise<void>((resolve, reject) => {
      gateway.#server.once('error', (error) => {
        reject(
          new EcluseError({
            code: 'ECLUSE_LISTEN_FAILED',
            source: 'config',
            message: `the Docker endpoint cannot listen on ${options.host}:${String(options.port)}: ${reasonOf(error)}`,
            mend: 'choose another address with --docker ADDRESS:PORT or listen.docker',
            cause: error,
          }),
        );
      });
      gateway.#server.listen(options.port, options.host, resolve);
    });
    return gateway;
  }

  /** Serves another certificate from the next handshake on; connections stay. */
  renew(certificate: Pick<GatewayOptions, 'certPem' | 'keyPem' | 'caPem'>): void {
    this.#server.setSecureContext({
      cert: certificate.certPem,
      key: certificate.keyPem,
      ca: certificate.caPem,
      minVersion: TLS_VERSION_MIN,
      ciphers: TLS_SUITES,
    });
  }

  /** Listens on the addresses of tenants as well, and on those of no others. */
  async listenOn(addresses: readonly string[]): Promise<void> {
    if (!this.#isEverywhere) await this.#ofTenants.set(addresses);
  }

  async #identify(incoming: IncomingMessage): Promise<Tenant> {
    const { socket } = incoming;
    const fixed = this.#tenants.get(socket);
    if (fixed !== undefined) {
      const owner = await findTenant(this.#deps.sql, fixed);
      if (owner?.state === 'active') return owner;
      throw dockerError(403, 'ecluse: the tenant of this container is not active; its operator knows why');
    }
    const certificate = socket instanceof TLSSocket && socket.authorized ? socket.getPeerCertificate() : undefined;
    const fingerprint = certificate?.fingerprint256.replaceAll(':', '').toLowerCase();
    const tenant =
      fingerprint === undefined ? undefined : await tenantOfCertificate(this.#deps.sql, fingerprint, this.#deps.clock.nowMs());
    if (tenant === undefined) {
      throw dockerError(
        403,
        'ecluse: this client certificate speaks for no active tenant; get a new one with: ecluse tenant env NAME',
      );
    }
    return tenant;
  }

  /** Counts a request until its connection or answer is over. */
  #admit(tenant: Tenant, gone: AbortSignal): void {
    const waitSeconds = this.#rate.take(tenant.name, this.#deps.clock.monotonicMs());
    if (waitSeconds !== undefined) {
      throw dockerError(429, `ecluse: tenant ${tenant.name} asks too often; try again in ${String(waitSeconds)} s`);
    }
    const count = this.#open.get(tenant.name) ?? 0;
    if (gone.aborted) throw dockerError(400, 'the client is gone');
    if (count >= REQUESTS_PER_TENANT_MAX) {
      throw dockerError(429, `ecluse: tenant ${tenant.name} has ${String(count)} requests and streams open; end some first`);
    }
    this.#open.set(tenant.name, count + 1);
    gone.addEventListener('abort', () => {
      const left = (this.#open.get(tenant.name) ?? 1) - 1;
      if (left === 0) this.#open.delete(tenant.name);
      else this.#open.set(tenant.name, left);
    });
  }

  async #onRequest(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    response.setHeader('Api-Version', API_VERSION_MAX);
    response.setHeader('Ostype', 'linux');
    response.setHeader('Docker-Experimental', 'false');
    response.setHeader('Server', 'Ecluse');
    const gone = new AbortController();
    response.once('close', () => {
      gone.abort();
    });
    try {
      await this.#answer(incoming, response, gone.signal);
    } catch (error) {
      await this.#refuse(incoming, response, error);
    }
  }

  async #answer(incoming: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<void> {
    const method = incoming.method ?? 'GET';
    const parsed = parsePath(incoming.url ?? '/');
    if (parsed.kind === 'refused') throw dockerError(parsed.status, parsed.message);
    if (parsed.parts[0] === '_ping' && parsed.parts.length === 1 && (method === 'GET' || method === 'HEAD')) {
      this.#admit(await this.#identify(incoming), signal);
      response.writeHead(200, {
        'content-type': 'text/plain; charset=utf-8',
        'cache-control': 'no-cache, no-store, must-revalidate',
        pragma: 'no-cache',
        'builder-version': '1',
        swarm: 'inactive',
        'content-length': '2',
      });
      response.end(method === 'HEAD' ? undefined : 'OK');
      return;
    }
    const { apiVersion, parts, query } = parsed;
    const tenant = await this.#identify(incoming);
    this.#admit(tenant, signal);
    const request: DockerRequest = { tenant, method, parts, query, apiVersion, incoming, response, signal };
    await this.#router.answer(request);
  }

  async #refuse(incoming: IncomingMessage, response: ServerResponse, thrown: unknown): Promise<void> {
    if (response.headersSent || response.destroyed) {
      // Too late for a status: the client must see a cut, not a complete answer.
      if (!response.writableEnded) response.destroy();
      return;
    }
    const { status, message, told } = answerTo(thrown);
    if (!told) this.#deps.log.error({ path: pathIn(incoming), reason: reasonOf(thrown), err: thrown }, 'a Docker request failed');
    if (status === 408) response.setHeader('connection', 'close'); // What comes late is the rest of a body, not a request.
    sendJson(response, status, { message });
    dropRest(incoming);
  }

  async #onUpgrade(incoming: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    const gone = new AbortController();
    socket.once('close', () => {
      gone.abort();
    });
    socket.on('error', () => undefined); // A client that resets its connection; 'close' follows.
    // Docker's raw streams end one direction while the other goes on. Not for the whole server: it would keep clients that left in the handshake.
    // Where a body is still to come, `socket` is a wrapper around the connection (node:_http_server, UpgradeStream): both must know.
    incoming.socket.allowHalfOpen = true;
    socket.allowHalfOpen = true;
    try {
      await this.#join({ incoming, socket, head, signal: gone.signal });
    } catch (error) {
      const { status, message, told } = answerTo(error);
      if (!told) this.#deps.log.error({ path: pathIn(incoming), reason: reasonOf(error), err: error }, 'a Docker stream failed');
      endWith(socket, status, message);
    }
  }

  /** Answers a request for a raw connection. */
  async #join(connection: Pick<HijackRequest, 'incoming' | 'socket' | 'head' | 'signal'>): Promise<void> {
    const { incoming } = connection;
    const parsed = parsePath(incoming.url ?? '/');
    if (parsed.kind === 'refused') throw dockerError(parsed.status, parsed.message);
    const { apiVersion, parts, query } = parsed;
    const tenant = await this.#identify(incoming);
    this.#admit(tenant, connection.signal);
    const request: HijackRequest = { tenant, method: incoming.method ?? 'GET', parts, query, apiVersion, ...connection };
    await this.#router.join(request);
  }

  /** Stops accepting and cuts what is open: streams of containers that the node stops have ended by then. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ofTenants[Symbol.dispose]();
    this.#isClosed = true;
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
      this.#server.closeIdleConnections();
      for (const socket of this.#sockets) socket.destroy();
    });
  }
}

/** For the log: queries have tenants' words in them, `--build-arg`s too. */
function pathIn({ url = '' }: IncomingMessage): string {
  return (url.split('?', 1)[0] ?? '').slice(0, LOGGED_CHARS_MAX);
}

/** What a client still sends of a request that was refused (a large upload) is read and dropped for a moment, so that it sees the answer. */
function dropRest(incoming: IncomingMessage): void {
  incoming.resume();
  if (incoming.complete) return;
  const cut = setTimeout(() => incoming.socket.destroy(), REFUSED_BODY_LIMIT_MS);
  incoming.once('close', () => {
    clearTimeout(cut);
  });
}

/** Writes a whole error answer to a bare connection and ends it. What the client still sends is dropped for a moment: a close on it would reset what was said. */
function endWith(socket: Duplex, status: number, message: string): void {
  const body = `${JSON.stringify({ message })}\n`;
  const head = ['Content-Type: application/json', `Content-Length: ${String(Buffer.byteLength(body))}`, 'Connection: close'];
  socket.end(`HTTP/1.1 ${String(status)} ${STATUS_CODES[status] ?? 'Refused'}\r\n${head.join('\r\n')}\r\n\r\n${body}`);
  socket.resume();
  const cut = setTimeout(() => socket.destroy(), REFUSED_BODY_LIMIT_MS);
  socket.once('close', () => {
    clearTimeout(cut);
  });
}
