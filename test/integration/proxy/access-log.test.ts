/** The access log: one line per exchange, with a fixed schema. */
import { describe, expect, test } from 'vitest';
import { configOf, startEdge } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import { startUpstream } from '../../support/upstream.ts';

const KEYS = [
  [
    'time',
    'requestId',
    'traceId',
    'configVersion',
    'route',
    'service',
    'endpoint',
    'tenant',
    'client',
    'method',
    'host',
    'path',
    'status',
  ],
  [
    'downstreamInBytes',
    'downstreamOutBytes',
    'upstreamInBytes',
    'upstreamOutBytes',
    'totalMs',
    'holdMs',
    'connectMs',
    'firstByteMs',
  ],
  ['tlsVersion', 'sni', 'alpn', 'errorCode'],
].flat();

describe('the access log', () => {
  test('has one line per exchange and exactly these keys', async () => {
    await using upstream = await startUpstream((request, response) => {
      if (request.url === '/die') response.destroy();
      else response.end('ok');
    });
    await using edge = await startEdge({ config: configOf([upstream.endpoint({ id: 'c1' })]) });
    const traceparent = `00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01`;
    for (let index = 0; index < 5; index += 1) await ask({ port: edge.httpPort, path: '/a?secret=1', headers: { traceparent } });
    await ask({ port: edge.httpPort, host: 'nobody.test' });
    await ask({ port: edge.httpPort, method: 'POST', path: '/die', body: 'x' });
    const lines = await edge.accessLog(7);
    expect(lines.length).toBe(7);
    for (const line of lines) expect(Object.keys(line)).toEqual(KEYS);
    expect(lines[0]).toMatchObject({
      traceId: 'ab'.repeat(16),
      configVersion: 1,
      route: 'app.test/',
      service: 'app',
      endpoint: 'c1',
      tenant: 'acme',
      path: '/a',
    });
    expect(lines[0]).toMatchObject({ method: 'GET', host: 'app.test', status: 200, client: '127.0.0.1', errorCode: null });
    expect(lines[5]).toMatchObject({ status: 404, errorCode: 'unknown-host', endpoint: null, tenant: null });
    expect(lines[6]).toMatchObject({ status: 502, errorCode: 'upstream-reset' });
  });
});
