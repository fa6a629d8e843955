/** Whether a port of the machine can be had, tried by having it for a moment. Without sharing: a listener of anybody's makes it fail. */
import { createSocket } from 'node:dgram';
import { createServer, isIPv6 } from 'node:net';
import { codeOf } from '#errors';

export interface ProbedPort {
  readonly protocol: 'tcp' | 'udp';
  readonly address: string;
  readonly port: number;
}

/** `free`, or the error code: EADDRINUSE, EADDRNOTAVAIL, EACCES… Port 0 asks for the address alone. */
export async function probePort({ protocol, address, port }: ProbedPort): Promise<string> {
  return protocol === 'tcp' ? await probeTcp(address, port) : await probeUdp(address, port);
}

async function probeTcp(address: string, port: number): Promise<string> {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<string>();
  server.once('error', (error) => {
    resolve(codeOf(error) ?? 'EIO');
  });
  server.listen({ host: address, port, exclusive: true }, () => {
    server.close(() => {
      resolve('free');
    });
  });
  return await promise;
}

async function probeUdp(address: string, port: number): Promise<string> {
  const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
  const { promise, resolve } = Promise.withResolvers<string>();
  socket.once('error', (error) => {
    resolve(codeOf(error) ?? 'EIO');
    socket.close();
  });
  socket.bind({ address, port, exclusive: true }, () => {
    socket.close(() => {
      resolve('free');
    });
  });
  return await promise;
}
