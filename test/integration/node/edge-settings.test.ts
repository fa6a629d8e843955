/** What operators write of the edge, through a whole node: the file, the commands, the versions, and what is served meanwhile. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request as ask } from 'node:http';
import type { ServerResponse } from 'node:http';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createAdminClient } from '#admin/client.ts';
import { adminSocketOf } from '#node-paths';
import { eventually } from '../../support/edge.ts';
import { ask as askHttp } from '../../support/http-client.ts';
import { writeBusyboxImage } from '../../support/busybox-image.ts';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { ECLUSE, freePorts, freshDataDir, startNode } from '../../support/node.ts';
import type { NodePorts, TestNode } from '../../support/node.ts';
import { startUpstream } from '../../support/upstream.ts';
import type { HttpUpstream } from '../../support/upstream.ts';

const NO_NOTE = { ifVersion: undefined, dryRun: false, note: '' };

describe('services and routes of operators', () => {
  let node: TestNode;
  let dataDir: string;
  let ports: NodePorts;
  let shop: HttpUpstream;
  let beta: HttpUpstream;
  const streams: ServerResponse[] = [];

  beforeAll(async () => {
    dataDir = await freshDataDir();
    ports = await freePorts();
    node = await startNode({ dataDir, ports });
    shop = await startUpstream((request, response) => {
      if (request.url === '/stream') {
        response.write('begun;');
        streams.push(response);
      } else response.end(`shop ${request.url ?? ''}`);
    });
    beta = await startUpstream((request, response) => response.end(`beta ${request.url ?? ''}`));
  });

  afterAll(async () => {
    await node.stop();
    await expectNothingLeft(dataDir);
    await shop[Symbol.asyncDispose]();
    await beta[Symbol.asyncDispose]();
  });

  const done = async (...args: readonly string[]): Promise<string> => {
    const answer = await node.ecluse(...args);
    expect(answer).toMatchObject({ exitCode: 0, stderr: '' });
    return answer.stdout;
  };
  const refused = async (...args: readonly string[]): Promise<string> => {
    const answer = await node.ecluse(...args);
    expect(answer).toMatchObject({ exitCode: 1, stdout: '' });
    return answer.stderr;
  };
  const get = async (
    path: string,
    over: { host?: string; method?: string; headers?: Record<string, string> } = {},
  ): Promise<string> => {
    const { host = 'shop.test', method = 'GET', headers = {} } = over;
    const answer = await askHttp({ port: ports.http, host, path, method, headers });
    return answer.status === 200 ? answer.body.toString() : String(answer.status);
  };
  const url = (upstream: HttpUpstream): string => `http://127.0.0.1:${String(upstream.port)}`;
  const file = async (name: string, text: string): Promise<string> => {
    const path = join(dataDir, name);
    await writeFile(path, text);
    return path;
  };
  const versionNow = async (): Promise<number> => (await createAdminClient(adminSocketOf(dataDir)).edge.settings()).version;

  test('a file becomes what is served, in one version, and is shown again', async () => {
    expect(await get('/')).toBe('404');
    const path = await file(
      'edge.yaml',
      `services:
  shop: { endpoints: ["${url(shop)}"] }
  beta: { endpoints: ["${url(beta)}"] }
routes:
  - match: { host: shop.test }
    service: shop
  - match: { host: shop.test, path: /api/, methods: [POST] }
    service: beta
  - match: { host: shop.test, path: /, headers: { x-beta: "1" } }
    service: beta
  - match: { host: "*.shop.test", path: "~^/v[0-9]+/" }
    service: beta
`,
    );
    expect(await done('diff', path)).toContain('+ route shop.test/api/ POST: beta');
    expect(await versionNow()).toBe(0);
    const applied = await done('apply', path, '--note', 'the first');
    expect(applied).toMatch(/version \d+ is served by 2 workers/);
    expect(await get('/x')).toBe('shop /x');
    expect(await get('/api/x')).toBe('shop /api/x');
    expect(await get('/api/x', { method: 'POST' })).toBe('beta /api/x');
    expect(await get('/x', { headers: { 'x-beta': '1' } })).toBe('beta /x');
    expect(await get('/v1/x', { host: 'a.shop.test' })).toBe('beta /v1/x');
    expect(await get('/x', { host: 'a.shop.test' })).toBe('404');
    expect(await done('apply', path)).toMatch(/^nothing differs; version \d+ stays/);
    const shown = await file('shown.yaml', await done('config', 'show'));
    expect(await done('diff', shown)).toMatch(/^nothing differs/);
    expect(await done('explain', 'http://shop.test/api/x', '-X', 'POST')).toMatch(
      /service: _operator\/beta[^]*endpoint: 127\.0\.0\.1/,
    );
    expect(await done('route', 'ls')).toContain('shop.test/api/ POST');
    expect(await done('service', 'ls')).toContain(url(shop));
    expect(await done('config', 'lint')).toBe('nothing to say\n');
  });

  test('what is wrong is refused with its place, and what was served stays', async () => {
    const before = await versionNow();
    const broken = await file(
      'broken.yaml',
      `services:
  shop:
    endpoints: ["http://localhost:1"]
    balence: x
routes:
  - match: { host: shop.test, path: "~(a+)+(?=b)" }
    service: shop
`,
    );
    const said = await refused('apply', broken);
    expect(said).toContain(`${broken}:3: services.shop.endpoints[0]: write http://ADDRESS:PORT`);
    expect(said).toContain(`${broken}:4: services.shop.balence: unknown key`);
    expect(said).toContain(`${broken}:6: routes[0].match.path: `);
    const unknown = await file('unknown.yaml', 'routes: [{ match: { host: a.test }, service: none }]');
    expect(await refused('apply', unknown)).toContain('routes[0].service: there is no service "none"');
    expect(await refused('apply', join(dataDir, 'not-there'))).toContain('no such file');
    expect(await refused('service', 'rm', 'shop')).toContain('services.shop: 1 routes lead to it');
    expect(await refused('route', 'rm', 'shop.test/none')).toContain('there is no such route of shop.test');
    expect(await refused('service', 'set', 'shop', url(beta), '--if-version', String(before - 1))).toContain(
      `they are at version ${String(before)} by now`,
    );
    const big = await file('big.yaml', `# ${'x'.repeat(33 * 1024 * 1024)}`);
    expect(await refused('apply', big)).toContain('more than 32 MiB');
    expect(await putRaw(Buffer.alloc(50 * 1024 * 1024, 0x20))).toMatch(/^(?:413|cut)$/);
    expect(await putRaw(Buffer.from('{"services":'))).toBe('400');
    expect(await versionNow()).toBe(before);
    expect(await get('/x')).toBe('shop /x');
  });

  test('single changes, dry runs, history, diff and rollback', async () => {
    const first = await versionNow();
    expect(await done('route', 'add', 'shop.test/new', 'beta', '--dry-run')).toContain('+ route shop.test/new: beta');
    expect(await get('/new')).toBe('shop /new');
    await done('route', 'add', 'shop.test/new', 'beta', '--if-version', String(first), '--note', 'new ones to beta');
    expect(await get('/new')).toBe('beta /new');
    await done('service', 'set', 'shop', url(beta));
    expect(await get('/x')).toBe('beta /x');
    const history = await done('history');
    expect(history).toMatch(/transaction +1 +0[^]*transaction +0 +1 +new ones to beta[^]*apply +2 +2 +the first/);
    expect(await done('config', 'diff', String(first))).toBe(
      `~ service shop: ${url(shop)} → ${url(beta)}\n+ route shop.test/new: beta\n`,
    );
    expect(await done('explain', 'shop.test/new', '--version', String(first))).toContain('service: _operator/shop');
    expect(await done('rollback', String(first))).toContain('- route shop.test/new: beta');
    expect(await get('/new')).toBe('shop /new');
    expect(await get('/x')).toBe('shop /x');
    expect(await done('rollback', String(first))).toMatch(/^nothing differs/);
    expect(await refused('rollback', '99999')).toContain('there is no version 99999');
    await done('route', 'rm', '*.shop.test~^/v[0-9]+/');
    expect(await get('/v1/x', { host: 'a.shop.test' })).toBe('404');
  });

  test('a split gives each service its share, also to one connection that asks the same again and again', async () => {
    await done('route', 'add', 'split.test', 'shop=3,beta=1');
    expect(await done('explain', 'split.test')).toMatch(
      /sent to one of 2 endpoints[^]*service: _operator\/shop=3, _operator\/beta=1/,
    );
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const counts = { shop: 0, beta: 0 };
    for (let count = 0; count < 400; count += 1) {
      const body = await new Promise<string>((resolve, reject) => {
        ask({ port: ports.http, path: '/same', headers: { host: 'split.test' }, agent }, (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
          response.once('end', () => {
            resolve(text);
          });
        })
          .on('error', reject)
          .end();
      });
      counts[body === 'beta /same' ? 'beta' : 'shop'] += 1;
    }
    agent.destroy();
    // 300 to 100; five times the standard deviation is 43.
    expect(Math.abs(counts.beta - 100)).toBeLessThan(44);
    expect(await refused('service', 'rm', 'beta')).toContain('routes lead to it');
    expect(await refused('route', 'add', 'split.test', 'shop=1,none=1')).toContain('there is no service "none"');
    expect(await refused('route', 'add', 'split.test', 'shop=0')).toContain('all weights are 0');
    await done('route', 'rm', 'split.test');
  });

  test('an endpoint that is not well is named, with its reason, wherever one looks', async () => {
    const path = await file(
      'sick.yaml',
      `services:
  shop:
    endpoints: ["${url(shop)}", { url: "http://127.0.0.1:1", weight: 3 }]
    balance: round-robin
    health: { path: /healthz, interval: 1s, unhealthyAfter: 1 }
routes:
  - match: { host: shop.test }
    service: shop
`,
    );
    await done('apply', path);
    expect(await done('diff', path)).toMatch(/^nothing differs/);
    const { edge } = createAdminClient(adminSocketOf(dataDir));
    const checked = await eventually(async () => {
      const all = await edge.health();
      return all.some(({ healthy }) => !healthy) ? all : undefined;
    });
    expect(checked.map(({ service, endpoint, healthy, reason }) => [service, endpoint, healthy, reason])).toEqual([
      ['shop', url(shop), true, ''],
      ['shop', 'http://127.0.0.1:1', false, 'it refused the connection'],
    ]);
    expect(await done('service', 'ls')).toContain('http://127.0.0.1:1 (it refused the connection)');
    expect(await done('service', 'ls', '--json')).toContain('"reason": "it refused the connection"');
    const explained = await done('explain', 'http://shop.test/');
    expect(explained).toContain('outcome: sent to its endpoint\n');
    expect(explained).toContain('health of http://127.0.0.1:1: unhealthy: it refused the connection\n');
    const metrics = await askHttp({ port: ports.metrics, path: '/metrics' });
    expect(metrics.body.toString()).toContain('ecluse_checked_endpoints{service="shop",healthy="0"} 1\n');
    for (let index = 0; index < 8; index += 1) expect(await get('/x')).toBe('shop /x');
    const set = ['service', 'set', 'shop', `${url(shop)}=2`, '--health', '/healthz', '--dry-run'];
    expect(await done(...set)).toContain(`~ service shop: ${url(shop)} http://127.0.0.1:1=3 balance=round-robin health={`);
    expect(await refused('service', 'set', 'shop', `${url(shop)}=0`)).toContain(
      'operations[0].service.endpoints: all weights are 0',
    );
  });

  test('apply --watch follows its file, and what is wrong in between changes nothing', { timeout: 60_000 }, async () => {
    const path = await file(
      'watched.yaml',
      `services: { w: { endpoints: ["${url(shop)}"] } }\nroutes: [{ match: { host: w.test }, service: w }]\n`,
    );
    const before = await versionNow();
    const watching = spawn(ECLUSE, ['apply', '--watch', path], {
      env: { ...process.env, ECLUSE_DATA: dataDir },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    for (const stream of [watching.stdout, watching.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (said += text));
    const served = async (wanted: string): Promise<void> => {
      await expect.poll(async () => await get('/', { host: 'w.test' }), { timeout: 15_000 }).toBe(wanted);
    };
    await served('shop /');
    await writeFile(path, 'services: { w: ');
    await expect.poll(() => said, { timeout: 15_000 }).toContain('not YAML');
    await served('shop /');
    await writeFile(
      path,
      `services: { w: { endpoints: ["${url(beta)}"] } }\nroutes: [{ match: { host: w.test }, service: w }]\n`,
    );
    await served('beta /');
    watching.kill('SIGINT');
    await once(watching, 'exit');
    await done('rollback', String(before));
    expect(await get('/', { host: 'w.test' })).toBe('404');
    expect(await get('/x')).toBe('shop /x');
  });

  test('a hundred changes under requests fail none and cut no stream', { timeout: 60_000 }, async () => {
    const client = createAdminClient(adminSocketOf(dataDir));
    const stream = await new Promise<{ text: () => string; ended: Promise<void> }>((resolve, reject) => {
      ask({ port: ports.http, path: '/stream', headers: { host: 'shop.test' }, agent: false }, (response) => {
        let text = '';
        const ended = new Promise<void>((end) => response.once('close', end));
        response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        resolve({ text: () => text, ended });
      })
        .on('error', reject)
        .end();
    });
    const stop = new AbortController();
    const answers = new Set<string>();
    let asked = 0;
    const load = (async () => {
      while (!stop.signal.aborted) {
        answers.add(await get('/load'));
        asked += 1;
      }
    })();
    for (let round = 0; round < 50; round += 1) {
      for (const to of [beta, shop])
        await client.edge.transact([{ op: 'put-service', name: 'shop', service: { endpoints: [url(to)] } }], NO_NOTE);
    }
    stop.abort();
    await load;
    expect(asked).toBeGreaterThan(50);
    expect([...answers].toSorted()).toEqual(['beta /load', 'shop /load']);
    for (const response of streams) response.end('ended');
    await stream.ended;
    expect(stream.text()).toBe('begun;ended');
    expect(await get('/x')).toBe('shop /x');
  });

  test('a route of operators goes before that of a container, which comes back with its end', async () => {
    await node.ecluse('tenant', 'add', 'acme', '--domain', 'mine.test');
    const client = createAdminClient(adminSocketOf(dataDir));
    const explained = async (): Promise<string | undefined> =>
      (await client.edge.explain({ host: 'web.mine.test', target: '/', method: 'GET', headers: {} }, undefined)).serviceId;
    await client.tenantEnv('acme');
    const rootFs = join(dataDir, 'busybox.tar');
    await writeBusyboxImage(rootFs);
    const made = [
      ['import', rootFs, 'app'],
      [
        'run',
        '-d',
        '--name',
        'web',
        '--expose',
        '80',
        '--label',
        'ecluse.http.host=web.mine.test',
        'app',
        '/bin/busybox',
        'sleep',
        '1000',
      ],
    ];
    for (const args of made) expect(await node.docker('acme', args)).toMatchObject({ exitCode: 0, stderr: '' });
    await done('service', 'set', 'front', url(shop));
    await done('route', 'add', 'web.mine.test', 'front');
    expect(await explained()).toBe('_operator/front');
    expect(await get('/c', { host: 'web.mine.test' })).toBe('shop /c');
    expect(await done('config', 'lint')).toContain('web.mine.test/: it hides the route of containers to acme/web.mine.test/');
    await done('route', 'rm', 'web.mine.test');
    expect(await explained()).toBe('acme/web.mine.test/');
    expect(await get('/c', { host: 'web.mine.test' })).toBe('502'); // Nobody listens there.
    await node.docker('acme', ['rm', '-f', 'web']);
    expect(await explained()).toBeUndefined();
  });

  test('a node that is killed, or stopped, comes back with what was acknowledged', { timeout: 120_000 }, async () => {
    await done('service', 'set', 'late', url(beta));
    await done('route', 'add', 'late.test', 'late');
    const version = await versionNow();
    node.process.kill('SIGKILL');
    await new Promise((resolve) => node.process.once('exit', resolve));
    node = await startNode({ dataDir, ports });
    expect(await versionNow()).toBe(version);
    expect(await get('/x', { host: 'late.test' })).toBe('beta /x');
    expect(await get('/x')).toBe('shop /x');
    await done('route', 'rm', 'late.test');
    await node.stop();
    node = await startNode({ dataDir, ports });
    expect(await get('/x', { host: 'late.test' })).toBe('404');
    expect(await done('rollback', String(version))).toContain('+ route late.test/: late');
    expect(await get('/x', { host: 'late.test' })).toBe('beta /x');
  });

  async function putRaw(body: Buffer): Promise<string> {
    return await new Promise((resolve) => {
      const outgoing = ask(
        { socketPath: adminSocketOf(dataDir), path: '/v1/config', method: 'PUT', agent: false },
        (response) => {
          resolve(String(response.statusCode));
          response.resume();
        },
      );
      outgoing.on('error', () => {
        resolve('cut');
      });
      outgoing.end(body);
    });
  }
});
