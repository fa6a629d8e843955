/**
 * Whether the ports can be had, asked before any worker is started: workers share ports (`reusePort`), so a second daemon of the same user
 * would not fail but take half of the connections.
 */
import { createServer } from 'node:net';
import { codeOf, EcluseError, reasonOf } from '#errors';
import type { ListenAddress, ListenAddresses } from './protocol.ts';

/**
 * The addresses with port 0 replaced by a free port. Rejects where an address cannot be listened on. `isShared`: workers of an earlier primary of this
 * node listen there, and will end.
 */
export async function probeAddresses(
  { http, https }: ListenAddresses,
  isShared: (address: ListenAddress) => boolean = () => false,
): Promise<ListenAddresses> {
  const look = async (address: ListenAddress | undefined, key: string): Promise<ListenAddress | undefined> =>
    address === undefined || isShared(address) ? address : await probe(address, key);
  return { http: await look(http, 'listen.http'), https: await look(https, 'listen.https') };
}

/** The error for an address that cannot be listened on. `key` is the config key that chooses another. */
export function listenError(
  address: ListenAddress | undefined,
  key: string,
  cause: { readonly code: string | undefined; readonly reason: string },
): EcluseError {
  const at = address === undefined ? key : `${address.host}:${String(address.port)}`;
  if (cause.code === 'EADDRINUSE') {
    return new EcluseError({
      code: 'ECLUSE_PORT_IN_USE',
      source: 'config',
      message: `cannot listen on ${at}: another program has this port`,
      mend: `stop it, or set another address under ${key} in ecluse.yaml`,
    });
  }
  return new EcluseError({
    code: 'ECLUSE_PORT_REFUSED',
    source: 'config',
    message: `cannot listen on ${at}: ${cause.reason}`,
    mend: `set another address under ${key} in ecluse.yaml${cause.code === 'EACCES' ? ', or run as root or with CAP_NET_BIND_SERVICE' : ''}`,
  });
}

async function probe(address: ListenAddress, key: string): Promise<ListenAddress> {
  const server = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<ListenAddress>();
  server.once('error', (error) => {
    reject(listenError(address, key, { code: codeOf(error), reason: reasonOf(error) }));
  });
  server.listen({ ...address, exclusive: true }, () => {
    const bound = server.address();
    const port = typeof bound === 'object' && bound !== null ? bound.port : address.port;
    server.close(() => {
      resolve({ host: address.host, port });
    });
  });
  return await promise;
}
