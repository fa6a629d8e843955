/**
 * The sockets that clients reach: plain HTTP and HTTPS.
 *
 * Each worker has listening sockets of its own (`reusePort`): the kernel spreads connections, and none goes by way of the primary
 * (`npm run bench -- accept`).
 */
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { TLSSocket, createServer as createTlsServer } from 'node:tls';
import type { SecureContext, Server as TlsServer } from 'node:tls';
import { codeOf, reasonOf } from '#errors';
import { pemOf } from '#tls/certificate.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import { ClientPeer, plainAddress } from './connection/client-peer.ts';
import type { PeerFacts } from './connection/client-peer.ts';
import { Downstream } from './connection/downstream.ts';
import type { DataPlane } from './data-plane.ts';
import { readPreface } from './preface.ts';
import type { ListenAddress, WorkerOptions } from './protocol.ts';
import type { TlsFacts } from './record.ts';
import { connectionKey, sendAlert, ServerNames } from './server-names.ts';
import { isTrusted } from './trusted-proxies.ts';
import { provePlain, proveTls } from './wire/fast-read.ts';
import { HIGH_WATER_BYTES } from './wire/wire.ts';
import type { ReadPath } from './wire/wire.ts';

/** How often a draining listener looks whether it is done. */
const DRAIN_STEP_MS = 20;

/** How a worker ends. Whoever is in a hurry changes it while it is under way. */
export interface Drain {
  /** By the monotonic clock. */
  endMs: number;
  /**
   * Connections without a request stay until their next answer, which closes them, or their time-out: one that is closed by us may have a request on
   * its way, which would be reset.
   */
  keepsIdle: boolean;
}

export interface ListenerOptions extends Pick<WorkerOptions, 'listen' | 'trust' | 'ticketKeys' | 'unknownNames'> {
  /** Hears of names that clients call and no certificate is for. */
  readonly onCalled?: ((names: readonly string[]) => void) | undefined;
}

interface ReadPaths {
  readonly plain: ReadPath;
  readonly tls: ReadPath;
}

export class Listener implements AsyncDisposable {
  readonly #plane: DataPlane;
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();
  readonly #paths: ReadPaths;
  readonly #proxyProtocol: boolean;
  readonly #ticketKeys: Uint8Array | undefined;
  /** What PROXY headers told of connections whose handshake is under way, by connection. */
  readonly #introduced = new Map<string, PeerFacts>();
  readonly #names: ServerNames;
  /** What lies beneath handshakes that are under way, by connection. */
  readonly #beneath = new Map<string, { readonly socket: Socket; readonly forget: () => void }>();
  #https: TlsServer | undefined;
  #handshakes = 0;
  #defaultCertificate: EdgeCertificate | undefined;

  private constructor(plane: DataPlane, paths: ReadPaths, { trust, ticketKeys, unknownNames, onCalled }: ListenerOptions) {
    this.#ticketKeys = ticketKeys;
    this.#plane = plane;
    this.#names = new ServerNames(plane, unknownNames, onCalled);
    this.#paths = paths;
    this.#proxyProtocol = trust.proxyProtocol;
  }

  /** Listens on all addresses, or rejects with Node's error. */
  static async open(plane: DataPlane, options: ListenerOptions): Promise<Listener> {
    const addresses = options.listen;
    const [plain, tls] = await Promise.all([provePlain(), proveTls()]);
    if (!plain || !tls)
      plane.log.warn({ plain, tls }, 'this Node does not read accepted sockets into our buffers; the slower way is used');
    const listener = new Listener(plane, { plain: { fast: plain }, tls: { fast: tls } }, options);
    if (addresses.http !== undefined) {
      await listener.#listen(
        createServer({ allowHalfOpen: true, noDelay: true, highWaterMark: HIGH_WATER_BYTES }, (socket) => {
          listener.#accept(socket);
        }),
        addresses.http,
      );
    }
    if (addresses.https !== undefined) await listener.#listen(listener.#makeTlsServer(), addresses.https);
    return listener;
  }

  /** Node asks by SNI for clients that name a host; for the others its default has to be set. */
  certificatesChanged(): void {
    const certificate = this.#plane.defaultCertificate;
    if (this.#https === undefined || certificate === undefined) return;
    if (certificate.leafPem === this.#defaultCertificate?.leafPem && certificate.keyPem === this.#defaultCertificate.keyPem)
      return;
    this.#defaultCertificate = certificate;
    this.#https.setSecureContext({ cert: pemOf(certificate), key: certificate.keyPem, minVersion: 'TLSv1.2' });
  }

  /** Takes over how many connections there may be. */
  limitsChanged(): void {
    for (const server of this.#servers) server.maxConnections = this.#plane.limits.connectionsMax;
  }

  /** Stops accepting, waits until what is under way has ended, at most until the drain's end, then cuts the rest. */
  async drain(drain: Drain): Promise<void> {
    const { clock } = this.#plane;
    this.#plane.startDraining();
    for (const server of this.#servers) server.close();
    const left = (): number => (drain.keepsIdle ? this.#plane.downstreamConnections : this.#plane.underWay);
    while (left() > 0 && clock.monotonicMs() < drain.endMs) {
      if (!drain.keepsIdle) this.#plane.closeIdleDownstreams();
      await clock.sleep(DRAIN_STEP_MS);
    }
    this.#plane.closeIdleDownstreams();
    this.#plane.cutAll();
    await clock.sleep(DRAIN_STEP_MS); // The last answers leave.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.resolve();
  }

  async #listen(server: Server, address: ListenAddress): Promise<void> {
    server.maxConnections = this.#plane.limits.connectionsMax;
    server.on('connection', (socket: Socket) => {
      this.#count(socket);
    });
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

  #makeTlsServer(): Server {
    const { limits } = this.#plane;
    const server = createTlsServer({
      noDelay: true,
      highWaterMark: HIGH_WATER_BYTES,
      minVersion: 'TLSv1.2',
      ALPNProtocols: ['http/1.1'],
      handshakeTimeout: limits.tlsHandshakeTimeoutMs,
      ...(this.#ticketKeys === undefined ? {} : { ticketKeys: Buffer.from(this.#ticketKeys) }),
      // Node calls it on the TLS socket, which it says nowhere: without one the connection ends all the same, with no alert.
      SNICallback: handshakeCallback((serverName, socket, done) => {
        this.#answerServerName(serverName, socket, done);
      }),
    });
    server.on('secureConnection', (socket) => {
      this.#handshakes -= 1;
      this.#forgetBeneath(socket);
      this.#serve(socket, socketFacts(socket, tlsFacts(socket)), this.#paths.tls);
    });
    server.on('tlsClientError', (error, socket) => {
      this.#handshakes -= 1;
      if (codeOf(error) === 'ERR_TLS_HANDSHAKE_TIMEOUT') this.#plane.counters.timedOut('tls-handshake');
      this.#plane.log.debug({ code: codeOf(error), reason: reasonOf(error) }, 'TLS handshake failed');
      socket.destroy();
    });
    this.#https = server;
    this.certificatesChanged();
    // What comes before a handshake is not TLS's: a plain server reads PROXY headers, looks for CAs, and hands the sockets on.
    return createServer({ noDelay: true, highWaterMark: HIGH_WATER_BYTES }, (socket) => {
      if (this.#proxyProtocol) this.#accept(socket, server);
      else this.#beginTls(socket, server);
    });
  }

  /** Hands a connection to TLS, which tells when it is done with it. */
  #beginTls(socket: Socket, tls: TlsServer): void {
    if (!this.#beginHandshake(socket)) return;
    if (this.#plane.challenges.hasCertificates) this.#lookForCa(socket, tls);
    else tls.emit('connection', socket);
  }

  /** While a CA may come to look for a proof, it is found among all that come; the others are served as ever. */
  #lookForCa(socket: Socket, tls: TlsServer): void {
    const { challenges, connectionDeps, limits } = this.#plane;
    const gone = (): void => {
      this.#handshakes -= 1;
    };
    socket.once('close', gone);
    challenges.lookAt(socket, { wheel: connectionDeps.wheel, timeoutMs: limits.tlsHandshakeTimeoutMs }, (certificate) => {
      if (certificate === undefined) {
        socket.off('close', gone);
        tls.emit('connection', socket);
      } else challenges.handshake(socket, certificate);
    });
  }

  /** Counts handshakes; those over the limit are closed before they cost anything. */
  #beginHandshake(socket: Socket): boolean {
    if (this.#handshakes < this.#plane.limits.tlsHandshakesMax) {
      this.#handshakes += 1;
      const key = connectionKey(socket);
      const forget = (): void => {
        if (this.#beneath.get(key)?.socket === socket) this.#beneath.delete(key);
      };
      this.#beneath.set(key, { socket, forget });
      socket.once('close', forget);
      return true;
    }
    this.#plane.counters.handshakeRefused();
    socket.destroy();
    return false;
  }

  /** The handshake is over; connections live long, and there are many. */
  #forgetBeneath(socket: TLSSocket): void {
    const beneath = this.#beneath.get(connectionKey(socket));
    beneath?.socket.off('close', beneath.forget);
    beneath?.forget();
  }

  #accept(socket: Socket, tls?: TlsServer): void {
    const facts = socketFacts(socket, undefined);
    if (!this.#proxyProtocol || !isTrusted(this.#plane.trusted, facts.address)) {
      this.#handOn(socket, facts, tls);
      return;
    }
    readPreface(socket, { wheel: this.#plane.connectionDeps.wheel, timeoutMs: this.#plane.limits.headTimeoutMs }, (told) => {
      if (typeof told === 'string') {
        this.#plane.log.debug({ peer: facts.address, reason: told }, 'PROXY header refused');
        socket.destroy();
      } else this.#handOn(socket, told.kind === 'local' ? facts : proxied(told), tls);
    });
  }

  #handOn(socket: Socket, facts: PeerFacts, tls: TlsServer | undefined): void {
    if (tls === undefined) {
      this.#serve(socket, facts, this.#paths.plain);
      return;
    }
    const key = connectionKey(socket);
    this.#introduced.set(key, facts);
    socket.once('close', () => {
      this.#introduced.delete(key);
    });
    this.#beginTls(socket, tls);
  }

  #serve(socket: Socket, facts: PeerFacts, path: ReadPath): void {
    socket.allowHalfOpen = true; // Not on the TLS server: there a client that ends during its handshake would stay until its time-out.
    const introduced =
      this.#introduced.size > 0 && socket instanceof TLSSocket ? this.#introduced.get(connectionKey(socket)) : undefined;
    const told = introduced === undefined ? facts : { ...introduced, tls: facts.tls };
    const { trusted } = this.#plane;
    // Whom a PROXY header names is a client, and no proxy by that.
    const peer = new ClientPeer({ ...told, trusted: isTrusted(trusted, told.address) }, path, trusted);
    // oxlint-disable-next-line no-new -- it belongs to the plane's set as long as its socket lives
    new Downstream(this.#plane, socket, peer);
  }

  #count(socket: Socket): void {
    this.#sockets.add(socket);
    this.#plane.downstreamConnections += 1;
    socket.on('error', () => undefined); // `close` follows and is handled.
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#plane.downstreamConnections -= 1;
    });
  }

  #answerServerName(serverName: string, socket: Socket | undefined, done: ServerNameDone): void {
    this.#names.answer(serverName, (answer) => {
      if (answer.kind === 'context') {
        done(null, answer.context);
        return;
      }
      const raw = socket === undefined || socket.destroyed ? undefined : this.#beneath.get(connectionKey(socket))?.socket;
      if (raw !== undefined) sendAlert(raw, answer.alert);
      done(new Error(`no certificate for this name: ${answer.alert}`));
    });
  }
}

type ServerNameDone = (error: Error | null, context?: SecureContext) => void;

function handshakeCallback(
  answer: (serverName: string, socket: Socket | undefined, done: ServerNameDone) => void,
): (serverName: string, done: ServerNameDone) => void {
  return function (this: unknown, serverName, done) {
    answer(serverName, this instanceof TLSSocket ? this : undefined, done);
  };
}

function socketFacts(socket: Socket, tls: TlsFacts | undefined): PeerFacts {
  return {
    address: plainAddress(socket.remoteAddress),
    port: socket.remotePort ?? 0,
    local: socket,
    tls,
    trusted: false,
  };
}

function proxied(told: {
  readonly sourceAddress: string;
  readonly sourcePort: number;
  readonly destinationAddress: string;
  readonly destinationPort: number;
}): PeerFacts {
  return {
    address: plainAddress(told.sourceAddress),
    port: told.sourcePort,
    local: { localAddress: told.destinationAddress, localPort: told.destinationPort },
    tls: undefined,
    trusted: false,
  };
}

function tlsFacts(socket: TLSSocket): TlsFacts {
  return {
    version: socket.getProtocol() ?? undefined,
    sni: typeof socket.servername === 'string' ? socket.servername : undefined,
    alpn: typeof socket.alpnProtocol === 'string' ? socket.alpnProtocol : undefined,
  };
}
