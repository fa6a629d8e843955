/** An endpoint that speaks TLS, and remembers what it was shown. */
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { ServerOptions } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import type { TLSSocket } from 'node:tls';

export interface SecureEndpoint extends Disposable {
  readonly url: string;
  readonly port: number;
  /** What each of its connections showed: the common name of a certificate, and the name that was asked for. */
  readonly connections: { readonly client: string; readonly name: string }[];
  readonly requests: string[];
}

export function portOf(server: Server): number {
  const address: AddressInfo | string | null = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** Node gives an empty object for a client without a certificate. */
function hasKeys(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).length > 0;
}

export async function startSecure(options: ServerOptions): Promise<SecureEndpoint> {
  const [connections, requests]: [SecureEndpoint['connections'], string[]] = [[], []];
  const server = createServer({ ALPNProtocols: ['http/1.1'], ...options }, (request, response) => {
    requests.push(request.url ?? '');
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => response.end(chunks.length === 0 ? 'secure app' : Buffer.concat(chunks)));
  });
  server.on('secureConnection', (socket: TLSSocket) => {
    const { subject } = socket.getPeerCertificate();
    connections.push({
      client: String(hasKeys(subject) ? subject.CN : ''),
      name: typeof socket.servername === 'string' ? socket.servername : '',
    });
  });
  server.on('tlsClientError', () => undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const port = portOf(server);
  return {
    url: `https://127.0.0.1:${String(port)}`,
    port,
    connections,
    requests,
    [Symbol.dispose]: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
