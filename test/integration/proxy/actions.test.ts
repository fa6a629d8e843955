/** What routes do beside leading to a service, through real workers: rewriting, limits, authentication, answers of their own, copies. */
import type { IncomingHttpHeaders, RequestListener } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { actionsOf } from '#routing/operator/action-schema.ts';
import type { ActionSettings } from '#routing/operator/action-schema.ts';
import type { Route } from '#routing/route-table.ts';
import { hashPassword } from '#proxy/actions/password.ts';
import { startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask, exchangeBytes } from '../../support/http-client.ts';
import type { Answer } from '../../support/http-client.ts';
import { bodyOf, startRawUpstream, startUpstream } from '../../support/upstream.ts';
import type { Upstream } from '../../support/upstream.ts';

interface Seen {
  readonly url: string;
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

const serviceIdOf = (name: string): string => name;

function route(host: string, actions: ActionSettings, more: Partial<Route> = {}): Route {
  return { host, path: '/', serviceId: 'app', actions: actionsOf(actions, serviceIdOf), ...more };
}

const ANSWERS: Partial<Route> = { serviceId: '', tenant: '_operator' };

describe('actions', () => {
  const seen: Seen[] = [];
  const copies: Seen[] = [];
  const asked: Seen[] = [];
  const upstreams: Upstream[] = [];
  let password = '';
  let edge: Edge;
  let routes: readonly Route[];
  let services: { id: string; tenant: string; endpoints: ReturnType<Upstream['endpoint']>[] }[];

  /** Notes each request in `list` when it is whole, and answers then. */
  async function noting(list: Seen[], answer: RequestListener): Promise<Upstream> {
    const take = async (...[request, response]: Parameters<RequestListener>): Promise<void> => {
      const body = (await bodyOf(request)).toString();
      list.push({ url: request.url ?? '', method: request.method ?? '', headers: request.headers, body });
      answer(request, response);
    };
    return await startUpstream((request, response) => {
      void take(request, response).catch(() => response.destroy());
    });
  }

  beforeAll(async () => {
    const app = await noting(seen, (_request, response) => {
      response.writeHead(200, { server: 'inner', 'x-from': 'app' }).end('app');
    });
    const copy = await noting(copies, (_request, response) => {
      response.writeHead(500).end('never seen');
    });
    const login = await noting(asked, (request, response) => {
      const { cookie = '' } = request.headers;
      if (cookie === 'session=ann') response.writeHead(204, { 'x-user': 'ann', 'x-secret': 'kept' }).end();
      else if (cookie === 'session=broken') response.writeHead(500).end();
      else response.writeHead(302, { location: 'https://login.test/', 'set-cookie': ['a=1', 'b=2'] }).end('log in');
    });
    const silent = await startRawUpstream(() => undefined);
    upstreams.push(app, copy, login, silent);
    password = await hashPassword('open sesame');
    services = [
      { id: 'app', tenant: 'acme', endpoints: [app.endpoint({ id: 'app' })] },
      { id: 'copy', tenant: 'acme', endpoints: [copy.endpoint({ id: 'copy' })] },
      { id: 'login', tenant: 'acme', endpoints: [login.endpoint({ id: 'login' })] },
      { id: 'silent', tenant: 'acme', endpoints: [silent.endpoint({ id: 'silent' })] },
    ];
    routes = [
      route('strip.test', { stripPrefix: '/api' }, { path: '/api' }),
      route('strip.test', {}, { path: '/' }),
      route('fields.test', {
        setRequestHeaders: { 'X-Env': 'prod', 'X-Debug': null, Host: 'inner.test:81' },
        setResponseHeaders: { 'X-Frame-Options': 'DENY', Server: null },
      }),
      route('other-fields.test', { setResponseHeaders: { 'X-Frame-Options': 'SAMEORIGIN' } }),
      route('redirect.test', { redirect: { to: 'https://{host}{uri}', status: 308 } }, ANSWERS),
      route('redirect.test', { stripPrefix: '/old', redirect: { to: '/new{path}' } }, { ...ANSWERS, path: '/old' }),
      route(
        'respond.test',
        { respond: { status: 410, body: 'grüße\n' }, setResponseHeaders: { 'Content-Type': 'text/html', 'X-A': '1' } },
        ANSWERS,
      ),
      route('empty.test', { respond: { status: 204 } }, ANSWERS),
      route('limit.test', { rateLimit: { requests: 5, per: '1h', by: 'header:X-Key' }, setResponseHeaders: { 'X-A': '1' } }),
      route('basic.test', { auth: { basic: { realm: 'staff', users: { ann: password } } } }),
      route('forward.test', { auth: { forward: { service: 'login', path: '/check?x=1', pass: ['X-User'] } } }),
      route('silent.test', { auth: { forward: { service: 'silent', timeout: '200ms' } } }),
      route('mirror.test', { stripPrefix: '/api', mirror: 'copy' }),
      route('never.test', { mirror: { service: 'copy', percent: 0 } }),
    ];
    edge = await startEdge({ workers: 2, config: { version: 1, services, routes } });
  });

  afterAll(async () => {
    await edge[Symbol.asyncDispose]();
    for (const upstream of upstreams) await upstream[Symbol.asyncDispose]();
  });

  async function get(host: string, path = '/', headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
    return await ask({ port: edge.httpPort, host, path, headers });
  }

  test('stripPrefix takes the prefix off, and nothing else', async () => {
    for (const path of ['/api', '/api/', '/api/x?y=/api', '/apix', '/a/../api/z']) await get('strip.test', path);
    expect(seen.splice(0).map(({ url }) => url)).toEqual(['/', '/', '/x?y=/api', '/apix', '/z']);
  });

  test('stripPrefix does the same for a head that comes again over one connection, and for pipelined ones', async () => {
    const one = 'GET /api/x HTTP/1.1\r\nHost: strip.test\r\n\r\n';
    const other = 'GET /api/y HTTP/1.1\r\nHost: strip.test\r\n\r\n';
    const last = 'GET /z HTTP/1.1\r\nHost: strip.test\r\nConnection: close\r\n\r\n';
    const text = await exchangeBytes(edge.httpPort, one + one + one + other + one + last);
    expect(text.match(/^HTTP\/1\.1 200/gm)).toHaveLength(6);
    const urls = seen.splice(0);
    expect(urls.map(({ url }) => url)).toEqual(['/x', '/x', '/x', '/y', '/x', '/z']);
    expect(new Set(urls.map(({ headers }) => headers['x-request-id'])).size).toBe(6);
  });

  test('fields are set, replaced and taken away, on both sides', async () => {
    const answer = await get('fields.test', '/', { 'x-debug': '1', 'x-env': 'mine', x_env: 'sly', 'x-kept': '1' });
    expect(answer.headers).toMatchObject({ 'x-frame-options': 'DENY', 'x-from': 'app' });
    expect(answer.headers['server']).toBeUndefined();
    const headers = seen.splice(0)[0]?.headers ?? {};
    expect(headers).toMatchObject({ host: 'inner.test:81', 'x-env': 'prod', 'x-kept': '1', 'x-forwarded-host': 'fields.test' });
    expect([headers['x-debug'], headers['x_env']]).toEqual([undefined, undefined]);
  });

  test('fields of one route are not those of another that has the same endpoint', async () => {
    for (let index = 0; index < 3; index += 1) {
      expect((await get('fields.test')).headers['x-frame-options']).toBe('DENY');
      expect((await get('other-fields.test')).headers['x-frame-options']).toBe('SAMEORIGIN');
      expect((await get('strip.test')).headers['x-frame-options']).toBeUndefined();
    }
    seen.splice(0);
  });

  test('a redirect says where, also to HEAD and with a body, and keeps the connection', async () => {
    const text = await exchangeBytes(
      edge.httpPort,
      'POST /a?b HTTP/1.1\r\nHost: redirect.test:8080\r\nContent-Length: 3\r\n\r\nabc' +
        'HEAD /c HTTP/1.1\r\nHost: redirect.test\r\n\r\n' +
        'GET /old/x?y HTTP/1.1\r\nHost: redirect.test\r\nConnection: close\r\n\r\n',
    );
    expect(text.match(/^HTTP\/1\.1 \d+/gm)).toEqual(['HTTP/1.1 308', 'HTTP/1.1 308', 'HTTP/1.1 302']);
    expect(text.match(/^Location: .*$/gm)?.map((line) => line.trim())).toEqual([
      'Location: https://redirect.test/a?b',
      'Location: https://redirect.test/c',
      'Location: /new/x',
    ]);
  });

  test('a response of the route has what is set for it, and its length in octets', async () => {
    const answer = await get('respond.test');
    expect([answer.status, answer.body.toString()]).toEqual([410, 'grüße\n']);
    expect(answer.headers).toMatchObject({ 'content-type': 'text/html', 'x-a': '1', 'content-length': '8' });
    const empty = await get('empty.test');
    expect([empty.status, empty.headers['content-length'], empty.body.length]).toEqual([204, undefined, 0]);
  });

  test('a rate limit counts over all workers and connections, by key', async () => {
    const statuses: number[] = [];
    for (let index = 0; index < 12; index += 1) {
      statuses.push((await get('limit.test', '/', { 'x-key': 'one' })).status);
      await new Promise((resolve) => setTimeout(resolve, 150)); // Until the workers have told each other.
    }
    expect(statuses.filter((status) => status === 200)).toHaveLength(5);
    const refused = await get('limit.test', '/', { 'x-key': 'one' });
    expect([refused.status, refused.headers['x-a']]).toEqual([429, '1']);
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(600);
    expect((await get('limit.test', '/', { 'x-key': 'two' })).status).toBe(200);
    seen.splice(0);
  });

  test('a rate limit is known to a worker that was started anew', async () => {
    const [{ pid } = { pid: 0 }] = edge.pool.status();
    const pids = edge.pool.status().map((worker) => worker.pid);
    for (const each of pids) {
      process.kill(each, 'SIGKILL');
      await expect
        .poll(() => edge.pool.status().filter((worker) => worker.state === 'listening' && worker.pid !== each).length, {
          timeout: 10_000,
        })
        .toBe(2);
    }
    expect(edge.pool.status().map((worker) => worker.pid)).not.toContain(pid);
    expect((await get('limit.test', '/', { 'x-key': 'one' })).status).toBe(429);
  });

  test('basic authentication lets through who knows the password, and tells the endpoint who it is', async () => {
    const sent = (text: string) => ({ authorization: `Basic ${Buffer.from(text).toString('base64')}` });
    const without = await get('basic.test');
    expect([without.status, without.headers['www-authenticate']]).toEqual([401, 'Basic realm="staff", charset="UTF-8"']);
    expect((await get('basic.test', '/', sent('ann:wrong'))).status).toBe(401);
    expect((await get('basic.test', '/', sent('bob:open sesame'))).status).toBe(401);
    expect(seen).toEqual([]);
    for (let index = 0; index < 3; index += 1)
      expect((await get('basic.test', '/', { ...sent('ann:open sesame'), 'x-forwarded-user': 'root' })).status).toBe(200);
    for (const { headers } of seen.splice(0))
      expect([headers['x-forwarded-user'], headers.authorization]).toEqual(['ann', undefined]);
  });

  test('a service that is asked lets through with its fields, or answers, or refuses all', async () => {
    const allowed = await ask({
      port: edge.httpPort,
      host: 'forward.test',
      path: '/page?q=1',
      method: 'POST',
      headers: { cookie: 'session=ann', 'x-user': 'root', 'content-type': 'text/plain' },
      body: 'a body that is not asked about',
    });
    expect(allowed.status).toBe(200);
    const [{ url, method, headers, body } = { url: '', method: '', headers: {}, body: '' }] = asked.splice(0);
    expect([url, method, body]).toEqual(['/check?x=1', 'GET', '']);
    expect(headers).toMatchObject({
      'x-forwarded-method': 'POST',
      'x-forwarded-uri': '/page?q=1',
      'x-forwarded-host': 'forward.test',
      'x-forwarded-proto': 'http',
      'x-forwarded-for': '127.0.0.1',
      'content-type': 'text/plain',
    });
    const [passed] = seen.splice(0);
    expect(passed).toMatchObject({ url: '/page?q=1', method: 'POST', body: 'a body that is not asked about' });
    expect([passed?.headers['x-user'], passed?.headers['x-secret']]).toEqual(['ann', undefined]);

    const refused = await get('forward.test', '/', { 'x-user': 'root' });
    expect([refused.status, refused.headers.location, refused.body.toString()]).toEqual([302, 'https://login.test/', 'log in']);
    expect(refused.headers['set-cookie']).toEqual(['a=1', 'b=2']);
    expect((await get('forward.test', '/', { cookie: 'session=broken' })).status).toBe(503);
    expect((await get('silent.test')).status).toBe(503);
    expect(seen).toEqual([]);
    asked.splice(0);
  });

  test('a client that leaves while it is asked about harms nobody', async () => {
    const leaving = Array.from({ length: 5 }, async () => {
      await ask({ port: edge.httpPort, host: 'silent.test', signal: AbortSignal.timeout(50) }).catch(() => undefined);
    });
    await Promise.all(leaving);
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect((await get('strip.test', '/after')).status).toBe(200);
    seen.splice(0);
  });

  test('a mirror gets what the endpoint gets, bodies of any length included, and changes nothing for the client', async () => {
    const long = 'x'.repeat(300_000);
    for (const [path, body] of [
      ['/api/short', 'short'],
      ['/api/long', long],
    ] as const) {
      const answer = await ask({ port: edge.httpPort, host: 'mirror.test', path, method: 'POST', body });
      expect([answer.status, answer.body.toString()]).toEqual([200, 'app']);
    }
    const chunked =
      'POST /api/c HTTP/1.1\r\nHost: mirror.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n';
    expect(await exchangeBytes(edge.httpPort, chunked)).toMatch(/^HTTP\/1\.1 200/);
    await expect.poll(() => copies.length, { timeout: 5000 }).toBe(3);
    const told = seen.splice(0).map(({ url, body, headers }) => [url, body.length, headers['x-request-id']]);
    expect(copies.splice(0).map(({ url, body, headers }) => [url, body.length, headers['x-request-id']])).toEqual(told);
    expect(told.map(([url, length]) => [url, length])).toEqual([
      ['/short', 5],
      ['/long', 300_000],
      ['/c', 3],
    ]);
    await get('never.test');
    seen.splice(0);
    expect(copies).toEqual([]);
  });

  test('the access log names why a request was refused, and nothing for what a route answers', async () => {
    const path = '/logged';
    await get('limit.test', path, { 'x-key': 'one' });
    await get('basic.test', path);
    await get('redirect.test', path);
    await get('silent.test', path);
    const told = async (): Promise<readonly string[]> =>
      (await edge.accessLog(1))
        .filter((line) => line.path === path)
        .map(({ host, status, errorCode }) => `${String(host)} ${String(status)} ${String(errorCode)}`)
        .toSorted();
    await expect
      .poll(told, { timeout: 10_000 })
      .toEqual([
        'basic.test 401 unauthenticated',
        'limit.test 429 rate-limited',
        'redirect.test 308 null',
        'silent.test 503 auth-unavailable',
      ]);
  });

  test('a change of actions takes effect with its version', async () => {
    const changed = routes.map((each) =>
      each.host === 'empty.test' ? route('empty.test', { respond: { status: 200, body: 'new' } }, ANSWERS) : each,
    );
    await edge.apply({ version: 2, services, routes: changed }, []);
    expect((await get('empty.test')).body.toString()).toBe('new');
  });
});
