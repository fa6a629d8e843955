/** What judges nothing: a relay of bytes in place of an edge. Rows that are to be refused have to fail with it, or they show nothing. */
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { startRawEndpoint } from './raw-endpoint.ts';
import type { EndpointBehaviour } from './raw-endpoint.ts';
import type { Lane, Lanes } from './raw-lanes.ts';
import { startRawUpstream } from './upstream.ts';

export async function startRelay(behaviour?: EndpointBehaviour): Promise<Lanes> {
  await using stack = new AsyncDisposableStack();
  const a = stack.use(await startRawEndpoint(behaviour));
  const b = stack.use(await startRawEndpoint(behaviour));
  const relay = stack.use(
    await startRawUpstream((client) => {
      pass(client, connect({ host: '127.0.0.1', port: a.port, allowHalfOpen: true }));
    }),
  );
  let ids = 0;
  const lane: Lane = {
    hostA: 'c.test',
    hostB: '0.test',
    a,
    b,
    nextId: () => {
      ids += 1;
      return `r${String(ids)}`;
    },
  };
  const parts = stack.move();
  return {
    httpPort: relay.port,
    httpsPort: 0,
    all: [lane],
    take: async (work) => await work(lane),
    [Symbol.asyncDispose]: async () => {
      await parts[Symbol.asyncDispose]();
    },
  };
}

function pass(client: Socket, endpoint: Socket): void {
  client.pipe(endpoint).pipe(client);
  endpoint.on('error', () => {
    client.destroy();
  });
  client.on('close', () => endpoint.destroy());
  endpoint.on('close', () => client.destroy());
}
