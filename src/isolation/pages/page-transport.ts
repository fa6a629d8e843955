/**
 * The wire between two nodes: TLS 1.3, both ends with a certificate of the internal CA and of the right name. Who speaks is thereby known; which
 * migration it is about, and that it may, the first frame says.
 */
import { once } from 'node:events';
import { isIP } from 'node:net';
import type { AddressInfo } from 'node:net';
import { checkServerIdentity, connect, createServer } from 'node:tls';
import type { TLSSocket, Server } from 'node:tls';
import type { PeerTls } from './exchange.ts';
import { connectionLost, stalled } from './page-errors.ts';

/** A handshake takes a round trip and a millisecond of CPU. */
const HANDSHAKE_MS = 5_000;
/** Connections of all kinds at once, those in their handshake included. A node migrates a few containers at a time. */
const CONNECTIONS_MAX = 32;
const KEEP_ALIVE_MS = 10_000;

const PROTOCOL = { minVersion: 'TLSv1.3', maxVersion: 'TLSv1.3', ALPNProtocols: ['ecluse-pages/1'] } as const;

export async function connectPages(address: { readonly host: string; readonly port: number }, tls: PeerTls): Promise<TLSSocket> {
  const socket = connect({
    ...address,
    ...PROTOCOL,
    ca: tls.caPem,
    cert: tls.certPem,
    key: tls.keyPem,
    ...(isIP(tls.peerName) === 0 ? { servername: tls.peerName } : {}),
    checkServerIdentity: (_host, certificate) => checkServerIdentity(tls.peerName, certificate),
  });
  socket.setNoDelay(true);
  socket.setKeepAlive(true, KEEP_ALIVE_MS);
  try {
    await once(socket, 'secureConnect', { signal: AbortSignal.timeout(HANDSHAKE_MS) });
  } catch (error) {
    socket.destroy();
    throw error instanceof Error && error.name === 'AbortError'
      ? stalled('the handshake did not end', HANDSHAKE_MS)
      : connectionLost(error);
  }
  return socket;
}

export interface PageListener extends AsyncDisposable {
  readonly port: number;
}

/** Hands on connections whose other end has the right name. The others are closed without a word. */
export async function listenForPages(
  address: { readonly host: string; readonly port: number },
  tls: PeerTls,
  onConnection: (socket: TLSSocket) => void,
): Promise<PageListener> {
  const server: Server = createServer({
    ...PROTOCOL,
    ca: tls.caPem,
    cert: tls.certPem,
    key: tls.keyPem,
    requestCert: true,
    rejectUnauthorized: true,
    handshakeTimeout: HANDSHAKE_MS,
  });
  const sockets = new Set<TLSSocket>();
  server.maxConnections = CONNECTIONS_MAX;
  server.on('secureConnection', (socket) => {
    if (!socket.authorized || socket.getPeerCertificate().subject.CN !== tls.peerName) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    onConnection(socket);
  });
  server.listen(address.port, address.host);
  await once(server, 'listening');
  return {
    port: portOf(server.address()),
    async [Symbol.asyncDispose](): Promise<void> {
      server.close();
      for (const socket of sockets) socket.destroy();
      await once(server, 'close');
    },
  };
}

function portOf(address: AddressInfo | string | null): number {
  return typeof address === 'object' && address !== null ? address.port : 0;
}
