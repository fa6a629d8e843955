/** What the primary knows of endpoints: what is under way there in all workers, and how long nothing was. */
import { connect } from 'node:net';
import { describe, expect, test } from 'vitest';
import type { EndpointUse } from '#routing/activator.ts';
import { configOf, eventually, startEdge } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import { startUpstream } from '../../support/upstream.ts';
import { acceptWebSocket } from '../../support/websocket-peer.ts';

describe('WorkerPool.useOf()', () => {
  test('follows requests, streams, holds, and the death of a worker', async () => {
    const answers: (() => void)[] = [];
    await using upstream = await startUpstream((request, response) => {
      if (request.url === '/slow') answers.push(() => response.end());
      else response.end();
    });
    upstream.server.on('upgrade', acceptWebSocket);
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]), workers: 2 });
    const used = async (wanted: Partial<EndpointUse>): Promise<EndpointUse> =>
      await eventually(() => {
        const use = edge.pool.useOf('c1');
        return Object.entries(wanted).every(([key, value]) => Object.is(Reflect.get(use, key), value)) ? use : undefined;
      });
    expect(edge.pool.useOf('c1')).toEqual({ inFlight: 0, held: 0, quietMs: undefined });
    const slow = [1, 2, 3].map(async () => await ask({ port: edge.httpPort, path: '/slow' }).catch(() => undefined));
    const stream = connect({ host: '127.0.0.1', port: edge.httpPort });
    stream.write('GET / HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    await used({ inFlight: 4, held: 0, quietMs: 0 });
    for (const answer of answers) answer();
    await Promise.all(slow);
    await used({ inFlight: 1 });
    stream.destroy();
    await used({ inFlight: 0 });
    const { quietMs } = edge.pool.useOf('c1');
    await eventually(() => ((edge.pool.useOf('c1').quietMs ?? 0) > (quietMs ?? 0) + 1_000 ? true : undefined));
    await ask({ port: edge.httpPort });
    await eventually(() => ((edge.pool.useOf('c1').quietMs ?? 0) < 1_000 ? true : undefined));
    await edge.pool.freeze(['c1'], { deadlineMs: 60_000, drainMs: 100 });
    const held = ask({ port: edge.httpPort });
    await used({ inFlight: 0, held: 1 });
    await edge.pool.thaw(['c1']);
    await held;
    const lost = [1, 2, 3, 4].map(async () => await ask({ port: edge.httpPort, path: '/slow' }).catch(() => undefined));
    await used({ inFlight: 4 });
    for (const { pid } of edge.pool.status()) process.kill(pid, 'SIGKILL');
    await used({ inFlight: 0 });
    await Promise.all(lost);
  });
});
