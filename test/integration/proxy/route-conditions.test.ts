/** Routes that ask for more than a host and a prefix: exact paths, expressions, methods and header fields, over kept connections. */
import type { Socket } from 'node:net';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Route } from '#routing/route-table.ts';
import { startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { readAll } from '../../support/http-client.ts';
import { startRawUpstream } from '../../support/upstream.ts';
import type { Upstream } from '../../support/upstream.ts';

const HOST = 'a.test';
const ROUTES: readonly (Partial<Route> & { readonly serviceId: string })[] = [
  { serviceId: 'any', path: '/' },
  { serviceId: 'below', path: '/x' },
  { serviceId: 'exact', path: '=/x' },
  { serviceId: 'version', path: '~^/v[0-9]+/' },
  { serviceId: 'post', path: '/x', methods: ['POST', 'BREW'] },
  { serviceId: 'beta', path: '/x', headers: { 'X-Beta': '1' } },
  { serviceId: 'both', path: '/x', methods: ['POST'], headers: { 'x-beta': '1' } },
];

/** Says which of the endpoints it is, whatever it is asked. */
async function named(name: string): Promise<Upstream> {
  return await startRawUpstream((socket: Socket) => {
    socket.on('data', () => socket.write(`HTTP/1.1 200 OK\r\nX-At: ${name}\r\nContent-Length: 0\r\n\r\n`));
  });
}

describe('a route', () => {
  const endpoints: Upstream[] = [];
  let edge: Edge;

  beforeAll(async () => {
    const services = [];
    for (const { serviceId } of ROUTES) {
      const endpoint = await named(serviceId);
      endpoints.push(endpoint);
      services.push({ id: serviceId, tenant: 'acme', endpoints: [endpoint.endpoint({ id: serviceId })] });
    }
    const routes = ROUTES.map((route) => ({ host: HOST, path: '/', ...route }));
    // The prefix `/` is there, so expressions are asked of other hosts only.
    const expression = { host: 'v.test', path: '~^/v[0-9]+/', serviceId: 'version' };
    edge = await startEdge({ config: { version: 1, services, routes: [...routes, expression] } });
  });

  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    for (const endpoint of endpoints) await endpoint[Symbol.asyncDispose]();
  });

  /** Where each of the requests goes that are sent over one connection, or its status. */
  async function places(requests: readonly string[]): Promise<readonly string[]> {
    const socket = connect({ host: '127.0.0.1', port: edge.httpPort, allowHalfOpen: true });
    const text = readAll(socket);
    socket.end(requests.join(''));
    const answers = (await text).split('HTTP/1.1 ').slice(1);
    return answers.map((answer) => /^X-At: (\w+)/m.exec(answer)?.[1] ?? answer.slice(0, 3));
  }

  function request(method: string, path: string, fields: readonly string[] = [], host = HOST): string {
    return `${[`${method} ${path} HTTP/1.1`, `Host: ${host}`, ...fields, 'Content-Length: 0'].join('\r\n')}\r\n\r\n`;
  }

  test('for an exact path is not for what is below it, and has no query', async () => {
    const asked = ['/x', '/x?y=1', '/x/', '/x/y', '/xy', '/y/../x'].map((path) => request('GET', path));
    expect(await places(asked)).toEqual(['exact', 'exact', 'below', 'below', 'any', 'exact']);
  });

  test('for a method or a field is for the requests that have it', async () => {
    const asked = [
      request('GET', '/x/1'),
      request('POST', '/x/1'),
      request('BREW', '/x/1'),
      request('GET', '/x/1', ['x-BETA:1']),
      request('GET', '/x/1', ['X-Beta: 1', 'X-Beta: 1']),
      request('GET', '/x/1', ['X-Beta: 12']),
      request('POST', '/x/1', ['X-Beta: 1']),
      request('POST', '/x/1', ['X-Beta: 2']),
    ];
    expect(await places(asked)).toEqual(['below', 'post', 'post', 'beta', 'below', 'below', 'both', 'post']);
  });

  test('is found again where a request is repeated', async () => {
    const post = request('POST', '/x/1', ['X-Beta: 1']);
    const get = request('GET', '/x/1');
    expect(await places([post, post, get, get, post])).toEqual(['both', 'both', 'below', 'below', 'both']);
  });

  test('for an expression is for the paths that it finds', async () => {
    const ask = async (path: string): Promise<readonly string[]> => await places([request('GET', path, [], 'v.test')]);
    for (const path of ['/v1/', '/v22/users']) expect(await ask(path)).toEqual(['version']);
    for (const path of ['/v/', '/x/v1/', '/v1']) expect(await ask(path)).toEqual(['404']);
  });
});
