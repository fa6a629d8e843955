/**
 * The sockets that clients reach: plain HTTP and HTTPS.
 *
 * Each worker has listening sockets of its own (`reusePort`): the kernel spreads connections, and none goes by way of the primary.
 */
import { Server as HttpServer } from 'node:http';
import type { IncomingMessage, ServerOptions, ServerResponse } from 'node:http';
import { Server as HttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { SecureContext } from 'node:tls';
import { codeOf, reasonOf } from '#errors';
import type { HostCertificate } from '#tls/certificate.ts';
import type { Carrier } from './carrier.ts';
import type { DataPlane } from './data-plane.ts';
import { runExchange } from './exchange.ts';
import type { HttpAttemptDeps } from './http-attempt.ts';
import { httpCarrier, upgradeCarrier } from './http-carrier.ts';
import {
  CONNECTIONS_CHECK_MS,
  CONNECTIONS_PER_WORKER_MAX,
  DOWNSTREAM_IDLE_MS,
  HEAD_BYTES_MAX,
  HEADERS_TIMEOUT_MS,
  TLS_HANDSHAKE_TIMEOUT_MS,
} from './limits.ts';
import type { ListenAddress, ListenAddresses } from './protocol.ts';
import { wantedUpgrade } from './request-head.ts';

type Server = HttpServer | HttpsServer;

/** How often a draining listener looks whether it is done. */
const DRAIN_STEP_MS = 20;

export class Listener implements AsyncDisposable {
  readonly #plane: DataPlane;
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();
  /** The response that is under way on a connection, so that an error answer is not written into it. */
  readonly #responses = new WeakMap<Duplex, ServerResponse>();
  #https: HttpsServer | undefined;
  #defaultCertificate: HostCertificate | undefined;

  private constructor(plane: DataPlane) {
    this.#plane = plane;
  }

  /** Listens on all addresses, or rejects with Node's error. */
  static async open(plane: DataPlane, addresses: ListenAddresses): Promise<Listener> {
    const listener = new Listener(plane);
    if (addresses.http !== undefined) await listener.#listen(new HttpServer(serverOptions()), addresses.http);
    if (addresses.https !== undefined) {
      listener.#https = new HttpsServer({
        ...serverOptions(),
        minVersion: 'TLSv1.2',
        ALPNProtocols: ['http/1.1'],
        handshakeTimeout: TLS_HANDSHAKE_TIMEOUT_MS,
        SNICallback: (serverName, done) => {
          listener.#answerServerName(serverName, done);
        },
      });
      listener.certificatesChanged();
      await listener.#listen(listener.#https, addresses.https);
    }
    return listener;
  }

  /** Node asks by SNI for clients that name a host; for the others its default has to be set. */
  certificatesChanged(): void {
    const certificate = this.#plane.defaultCertificate;
    if (this.#https === undefined || certificate === undefined) return;
    if (certificate.certPem === this.#defaultCertificate?.certPem && certificate.keyPem === this.#defaultCertificate.keyPem)
      return;
    this.#defaultCertificate = certificate;
    this.#https.setSecureContext({ cert: certificate.certPem, key: certificate.keyPem, minVersion: 'TLSv1.2' });
  }

  /** Stops accepting, waits until what is under way has ended, at most `deadlineMs`, then cuts the rest. */
  async drain(deadlineMs: number): Promise<void> {
    const { clock } = this.#plane;
    const endMs = clock.monotonicMs() + deadlineMs;
    this.#plane.startDraining();
    for (const server of this.#servers) server.close();
    while (this.#plane.underWay > 0 && clock.monotonicMs() < endMs) {
      for (const server of this.#servers) server.closeIdleConnections();
      await clock.sleep(DRAIN_STEP_MS);
    }
    this.#plane.cutAll();
    await clock.sleep(DRAIN_STEP_MS); // The last answers leave.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.resolve();
  }

  async #listen(server: Server, address: ListenAddress): Promise<void> {
    server.maxHeadersCount = 0; // The default drops what exceeds it in silence; bytes are the limit, and the count is judged.
    server.maxConnections = CONNECTIONS_PER_WORKER_MAX;
    this.#serve(server);
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    server.once('error', reject);
    server.listen({ ...address, exclusive: true, reusePort: true }, () => {
      resolve(undefined);
    });
    await promise;
    server.off('error', reject);
    server.on('error', (error) => {
      this.#plane.log.error({ reason: reasonOf(error) }, 'listener failed');
    });
    this.#servers.push(server);
  }

  #serve(server: Server): void {
    const plane = this.#plane;
    const deps: HttpAttemptDeps = {
      monotonicMs: () => plane.clock.monotonicMs(),
      upstreamConnected: () => {
        plane.metrics.upstreamConnected();
      },
      draining: () => plane.draining,
    };
    const run = (carrier: Carrier): void => {
      void runExchange(plane, carrier);
    };
    const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
      this.#responses.set(request.socket, response);
      run(httpCarrier(deps, request, response));
    };
    server.on('request', onRequest);
    server.on('checkContinue', onRequest); // The endpoint decides whether to continue, not we.
    const onUpgrade = (request: IncomingMessage, _socket: Duplex, first: Buffer): void => {
      run(upgradeCarrier(deps, request, first));
    };
    server.on('upgrade', onUpgrade);
    server.on('connect', onUpgrade);
    server.on('connection', (socket: Socket) => {
      this.#count(socket);
    });
    server.on('clientError', (error: Error, socket: Duplex) => {
      this.#refuse(error, socket);
    });
  }

  #count(socket: Socket): void {
    this.#sockets.add(socket);
    this.#plane.downstreamConnections += 1;
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#plane.downstreamConnections -= 1;
    });
  }

  #answerServerName(serverName: string, done: (error: Error | null, context?: SecureContext) => void): void {
    try {
      const context = this.#plane.certificates.contextFor(serverName);
      // Without a certificate the handshake must end: naming another host's would tell clients who else is here.
      if (context === undefined) done(new Error('no certificate for this name'));
      else done(null, context);
    } catch (error) {
      this.#plane.log.error({ serverName, reason: reasonOf(error) }, 'certificate failed');
      done(new Error('certificate failed'));
    }
  }

  /** What the parser refuses, or what came too slowly, never becomes an exchange. */
  #refuse(error: Error, socket: Duplex): void {
    const code = codeOf(error);
    this.#plane.log.debug({ code, reason: reasonOf(error) }, 'client refused');
    const response = this.#responses.get(socket);
    const begun = response?.headersSent === true && !response.writableFinished;
    if (code === 'ECONNRESET' || begun || !socket.writable) {
      socket.destroy();
      return;
    }
    const status = refusalStatus(code);
    this.#plane.metrics.exchangeEnded('', Number(status.slice(0, 3)), 0);
    socket.end(
      `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\nProxy-Status: ecluse; error=http_request_error\r\n\r\n`,
    );
    socket.once('finish', () => socket.destroy());
  }
}

function refusalStatus(code: string | undefined): string {
  if (code === 'HPE_HEADER_OVERFLOW') return '431 Request Header Fields Too Large';
  if (code === 'HPE_CHUNK_EXTENSIONS_OVERFLOW') return '413 Payload Too Large';
  return code === 'ERR_HTTP_REQUEST_TIMEOUT' ? '408 Request Timeout' : '400 Bad Request';
}

function serverOptions(): ServerOptions {
  return {
    insecureHTTPParser: false,
    requireHostHeader: true,
    maxHeaderSize: HEAD_BYTES_MAX,
    headersTimeout: HEADERS_TIMEOUT_MS,
    requestTimeout: 0, // A body may take as long as it moves; the exchange watches that.
    connectionsCheckingInterval: CONNECTIONS_CHECK_MS,
    keepAliveTimeout: DOWNSTREAM_IDLE_MS,
    noDelay: true,
    shouldUpgradeCallback: (request) => wantedUpgrade(request) !== undefined,
  };
}
