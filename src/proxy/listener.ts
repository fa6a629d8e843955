/**
 * The sockets that clients reach: plain HTTP and HTTPS.
 *
 * Each worker has listening sockets of its own (`reusePort`): the kernel spreads connections, and none goes by way of the primary
 * (`npm run bench -- accept`).
 */
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { TLSSocket, createServer as createTlsServer } from 'node:tls';
import type { SecureContext, Server as TlsServer, TlsOptions } from 'node:tls';
import { codeOf, reasonOf } from '#errors';
import { normaliseRequestHost } from '#routing/host-name.ts';
import { handshakeWishOf } from '#routing/route-tls.ts';
import type { CaBundle } from '#routing/route-tls.ts';
import { pemOf } from '#tls/certificate.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import { handshakePolicy } from '#tls/policy.ts';
import type { HandshakeKind } from '#tls/policy.ts';
import { ClientCertificate } from './client-certificate.ts';
import { readGreeting } from './client-hello-reader.ts';
import { ClientPeer, plainAddress } from './connection/client-peer.ts';
import type { PeerFacts } from './connection/client-peer.ts';
import { Downstream } from './connection/downstream.ts';
import type { DataPlane } from './data-plane.ts';
import { readPreface } from './preface.ts';
import type { ListenAddress, WorkerOptions } from './protocol.ts';
import type { TlsFacts } from './record.ts';
import { connectionBeneath, connectionKey, sendAlert, ServerNames } from './server-names.ts';
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
  #ticketKeys: Uint8Array | undefined;
  /** What PROXY headers told of connections whose handshake is under way, by connection. */
  readonly #introduced = new Map<string, PeerFacts>();
  readonly #names: ServerNames;
  /** One for each kind of handshakes, made when the first comes. They have no port: connections are handed to them. */
  readonly #tlsServers = new Map<string, TlsServer>();
  /** Whose certificates a handshake asked for. */
  readonly #askedOf = new WeakMap<Socket, readonly CaBundle[]>();
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
    if (addresses.https !== undefined) {
      listener.#tlsServerOf(USUAL);
      await listener.#listen(listener.#makeTlsFront(), addresses.https);
    }
    return listener;
  }

  /** Node asks by SNI for clients that name a host; for the others its default has to be set. */
  certificatesChanged(): void {
    const certificate = this.#plane.defaultCertificate;
    if (certificate === undefined) return;
    if (certificate.leafPem === this.#defaultCertificate?.leafPem && certificate.keyPem === this.#defaultCertificate.keyPem)
      return;
    this.#defaultCertificate = certificate;
    for (const [kind, server] of this.#tlsServers) server.setSecureContext(this.#secureOptions(kindNamed(kind)));
  }

  /** From now on tickets are sealed with these; those that are out are worth nothing. */
  ticketKeysChanged(keys: Uint8Array): void {
    this.#ticketKeys = keys;
    for (const server of this.#tlsServers.values()) server.setTicketKeys(Buffer.from(keys));
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

  /** What is in front of TLS: it reads PROXY headers, and whom clients ask for where that decides what kind of handshake they get. */
  #makeTlsFront(): Server {
    return createServer({ noDelay: true, highWaterMark: HIGH_WATER_BYTES }, (socket) => {
      if (this.#proxyProtocol) this.#accept(socket, 'tls');
      else this.#shake(socket);
    });
  }

  #secureOptions(kind: HandshakeKind): TlsOptions {
    const certificate = this.#defaultCertificate ?? this.#plane.defaultCertificate;
    return {
      ...handshakePolicy(kind),
      ...(this.#ticketKeys === undefined ? {} : { ticketKeys: Buffer.from(this.#ticketKeys) }),
      ...(certificate === undefined ? {} : { cert: pemOf(certificate), key: certificate.keyPem }),
    };
  }

  #tlsServerOf(kind: HandshakeKind): TlsServer {
    const name = nameOfKind(kind);
    const known = this.#tlsServers.get(name);
    if (known !== undefined) return known;
    const server = this.#makeTlsServer(kind);
    this.#tlsServers.set(name, server);
    return server;
  }

  #makeTlsServer(kind: HandshakeKind): TlsServer {
    const { limits } = this.#plane;
    const server = createTlsServer({
      noDelay: true,
      highWaterMark: HIGH_WATER_BYTES,
      ALPNProtocols: ['http/1.1'],
      handshakeTimeout: limits.tlsHandshakeTimeoutMs,
      ...this.#secureOptions(kind),
      // Node calls it on the TLS socket, which it says nowhere: without one the connection ends all the same, with no alert.
      SNICallback: handshakeCallback((serverName, socket, done) => {
        this.#answerServerName(serverName, socket, { done, kind });
      }),
    });
    server.on('secureConnection', (socket) => {
      this.#handshakes -= 1;
      const client = kind.asks ? new ClientCertificate(socket, this.#askedOf.get(socket) ?? []) : undefined;
      this.#serve(socket, { ...socketFacts(socket, tlsFacts(socket)), client }, this.#paths.tls);
    });
    server.on('tlsClientError', (error, socket) => {
      this.#handshakes -= 1;
      if (codeOf(error) === 'ERR_TLS_HANDSHAKE_TIMEOUT') this.#plane.counters.timedOut('tls-handshake');
      this.#plane.log.debug({ code: codeOf(error), reason: reasonOf(error) }, 'TLS handshake failed');
      socket.destroy();
    });
    return server;
  }

  /** Begins TLS. Handshakes over the limit are closed before they cost anything. */
  #shake(socket: Socket): void {
    if (!this.#beginHandshake(socket)) {
      this.#handshakes -= 1; // TLS never sees it, and so never gives it back.
      return;
    }
    const { table, challenges, limits, connectionDeps, counters } = this.#plane;
    if (table.handshakeRoutes === 0 && !challenges.hasCertificates) {
      this.#tlsServerOf(USUAL).emit('connection', socket);
      return;
    }
    readGreeting(socket, { wheel: connectionDeps.wheel, timeoutMs: limits.tlsHandshakeTimeoutMs }, (greeting) => {
      const proof = greeting.kind === 'name' ? challenges.certificateFor(greeting) : undefined;
      if (greeting.kind === 'name' && proof === undefined) {
        this.#tlsServerOf(this.#kindFor(greeting.serverName)).emit('connection', socket);
        return;
      }
      if (proof !== undefined) {
        socket.once('close', () => {
          this.#handshakes -= 1;
        });
        challenges.handshake(socket, proof);
        return;
      }
      this.#handshakes -= 1;
      if (greeting.kind === 'late') counters.timedOut('tls-handshake');
      socket.destroy();
    });
  }

  /** By what routes want now; who asks for what they want later has to come again. */
  #kindFor(serverName: string | undefined): HandshakeKind {
    const name = serverName === undefined ? undefined : normaliseRequestHost(serverName);
    const wish = name === undefined ? undefined : handshakeWishOf(this.#plane.table, name);
    return wish === undefined ? USUAL : { minVersion: wish.minVersion, asks: wish.caBundles.length > 0 };
  }

  #beginHandshake(socket: Socket): boolean {
    this.#handshakes += 1;
    if (this.#handshakes <= this.#plane.limits.tlsHandshakesMax) return true;
    this.#plane.counters.handshakeRefused();
    socket.destroy();
    return false;
  }

  #accept(socket: Socket, layer: 'plain' | 'tls' = 'plain'): void {
    const facts = socketFacts(socket, undefined);
    if (!this.#proxyProtocol || !isTrusted(this.#plane.trusted, facts.address)) {
      this.#handOn(socket, facts, layer);
      return;
    }
    readPreface(socket, { wheel: this.#plane.connectionDeps.wheel, timeoutMs: this.#plane.limits.headTimeoutMs }, (told) => {
      if (typeof told === 'string') {
        this.#plane.log.debug({ peer: facts.address, reason: told }, 'PROXY header refused');
        socket.destroy();
      } else this.#handOn(socket, told.kind === 'local' ? facts : proxied(told), layer);
    });
  }

  #handOn(socket: Socket, facts: PeerFacts, layer: 'plain' | 'tls'): void {
    if (layer === 'plain') {
      this.#serve(socket, facts, this.#paths.plain);
      return;
    }
    const key = connectionKey(socket);
    this.#introduced.set(key, facts);
    socket.once('close', () => {
      this.#introduced.delete(key);
    });
    this.#shake(socket);
  }

  #serve(socket: Socket, facts: PeerFacts, path: ReadPath): void {
    socket.allowHalfOpen = true; // Not on the TLS server: there a client that ends during its handshake would stay until its time-out.
    const introduced =
      this.#introduced.size > 0 && socket instanceof TLSSocket ? this.#introduced.get(connectionKey(socket)) : undefined;
    const told = introduced === undefined ? facts : { ...introduced, tls: facts.tls, client: facts.client };
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

  #answerServerName(
    serverName: string,
    socket: Socket | undefined,
    { done, kind }: { readonly done: ServerNameDone; readonly kind: HandshakeKind },
  ): void {
    this.#names.answer(serverName, { socket: socket instanceof TLSSocket ? socket : undefined, kind }, (answer) => {
      if (answer.kind === 'context') {
        if (socket !== undefined && answer.asked.length > 0) this.#askedOf.set(socket, answer.asked);
        done(null, answer.context);
        return;
      }
      const raw = socket === undefined || socket.destroyed ? undefined : connectionBeneath(socket);
      if (raw !== undefined) sendAlert(raw, answer.alert);
      done(new Error(`no certificate for this name: ${answer.alert}`));
    });
  }
}

/** What handshakes are where no route wants anything of them. */
const USUAL: HandshakeKind = { minVersion: 'TLSv1.2', asks: false };

function nameOfKind({ minVersion, asks }: HandshakeKind): string {
  return `${minVersion} ${asks ? 'asks' : ''}`;
}

function kindNamed(name: string): HandshakeKind {
  return { minVersion: name.startsWith('TLSv1.3') ? 'TLSv1.3' : 'TLSv1.2', asks: name.endsWith('asks') };
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
    client: undefined,
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
    client: undefined,
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
