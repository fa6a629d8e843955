/** Health checks of a service: a primary that asks, and workers that send nothing to who is not well. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { systemClock } from '#clock';
import { createLog } from '#log';
import { Predecessors } from '#proxy/generation/predecessors.ts';
import { WorkerPool } from '#proxy/worker-pool.ts';
import { CertificateIndex } from '#tls/certificate-index.ts';
import { eventually, startEdge } from '../../support/edge.ts';
import type { Edge } from '../../support/edge.ts';
import { ask } from '../../support/http-client.ts';
import { serviceConfig } from '../../support/operator-edge.ts';
import { startUpstream } from '../../support/upstream.ts';
import type { HttpUpstream } from '../../support/upstream.ts';

const HEALTH = { path: '/healthz', interval: '1s', timeout: '500ms', unhealthyAfter: 2, healthyAfter: 1 };
/** A few periods, and a machine that is busy. */
const FOUND_MS = 20_000;
const TEST_MS = 60_000;

/** Serves all that comes, and says of itself what the test says. */
interface App extends AsyncDisposable {
  readonly upstream: HttpUpstream;
  readonly port: number;
  isWell: boolean;
  served: number;
  checks: number;
}

async function startApp(name: string): Promise<App> {
  const app = { isWell: true, served: 0, checks: 0 };
  const upstream = await startUpstream((request, response) => {
    if (request.url === '/healthz') {
      app.checks += 1;
      response.writeHead(app.isWell ? 200 : 500).end();
      return;
    }
    app.served += 1;
    if (request.url !== '/slow') response.end(name);
  });
  const dispose = async (): Promise<void> => await upstream[Symbol.asyncDispose]();
  return Object.assign(app, { upstream, port: upstream.port, [Symbol.asyncDispose]: dispose });
}

async function foundUnhealthy(pool: WorkerPool, count: number): Promise<void> {
  await eventually(() => (pool.health().filter(({ isHealthy }) => !isHealthy).length === count ? true : undefined), FOUND_MS);
  await nextTurn(); // In which workers are told; what they are asked later they answer later.
  await pool.metrics();
}

async function answers(edge: Edge, count: number): Promise<string> {
  let text = '';
  for (let index = 0; index < count; index += 1) text += (await ask({ port: edge.httpPort })).body.toString();
  return text;
}

describe('health checks', { timeout: TEST_MS }, () => {
  test('send no requests to an endpoint that is not well, and send them again when it is', async () => {
    await using a = await startApp('a');
    await using b = await startApp('b');
    const config = serviceConfig([a.port, b.port], { balance: 'round-robin', health: HEALTH });
    await using edge = await startEdge({ config, workers: 2 });
    expect(new Set(await answers(edge, 8))).toEqual(new Set(['a', 'b']));
    b.isWell = false;
    await foundUnhealthy(edge.pool, 1);
    expect(await answers(edge, 8)).toBe('aaaaaaaa');
    const [found] = edge.pool.health().filter(({ isHealthy }) => !isHealthy);
    expect([found?.serviceId, found?.reason]).toEqual(['_operator/shop', 'it answered with status 500']);
    b.isWell = true;
    await foundUnhealthy(edge.pool, 0);
    await eventually(async () => ((await answers(edge, 4)).includes('b') ? true : undefined));
    expect(b.checks).toBeGreaterThanOrEqual(3);
  });

  test('answer 503 at once where none is well, say when to come again, and let what is under way end', async () => {
    await using app = await startApp('a');
    const limits = { connections: 1, pending: 5 };
    await using edge = await startEdge({ config: serviceConfig([app.port], { health: { ...HEALTH, interval: '2s' }, limits }) });
    const abort = new AbortController();
    const slow = ask({ port: edge.httpPort, path: '/slow', signal: abort.signal }).catch(() => 'aborted');
    await eventually(() => (app.served === 1 ? true : undefined));
    const waits = ask({ port: edge.httpPort, path: '/waits' }); // For the slow one to end.
    app.isWell = false;
    expect((await waits).status).toBe(503);
    const refused = await ask({ port: edge.httpPort, path: '/refused' });
    expect(refused.status).toBe(503);
    expect([refused.headers['proxy-status'], refused.headers['retry-after']]).toEqual([
      'ecluse; error=destination_unavailable',
      '2',
    ]);
    const lines = new Map((await edge.accessLog(2)).map((line) => [line.path, line]));
    expect([lines.get('/waits')?.errorCode, lines.get('/refused')?.errorCode]).toEqual(['unhealthy', 'unhealthy']);
    expect([lines.get('/refused')?.holdMs, lines.has('/slow'), app.served]).toEqual([0, false, 1]);
    abort.abort();
    expect(await slow).toBe('aborted');
  });

  test('tell a worker that starts what they found, and keep it over a change of the service', async () => {
    await using a = await startApp('a');
    await using b = await startApp('b');
    const health = { ...HEALTH, healthyAfter: 20 };
    await using edge = await startEdge({ config: serviceConfig([a.port, b.port], { health }), workers: 2 });
    b.isWell = false;
    await foundUnhealthy(edge.pool, 1);
    b.isWell = true; // It takes twenty checks until anybody believes that.
    const before = edge.pool.status().map(({ pid }) => pid);
    for (const pid of before) process.kill(pid, 'SIGKILL');
    await eventually(() => {
      const now = edge.pool.status();
      return now.length === 2 && now.every(({ pid, state }) => state === 'listening' && !before.includes(pid)) ? true : undefined;
    }, FOUND_MS);
    expect(await answers(edge, 6)).toBe('aaaaaa');
    await edge.apply(
      serviceConfig(
        [
          [a.port, 1],
          [b.port, 3],
        ],
        { health: { ...health, path: '/healthz?again' } },
        2,
      ),
      [],
    );
    expect(await answers(edge, 6)).toBe('aaaaaa');
    // An endpoint that comes anew is new.
    await edge.apply(serviceConfig([a.port], { health }, 3), []);
    await edge.apply(serviceConfig([a.port, b.port], { health }, 4), []);
    expect(new Set(await answers(edge, 8))).toEqual(new Set(['a', 'b']));
  });

  test('are forgotten with the last word about them', async () => {
    await using a = await startApp('a');
    a.isWell = false;
    await using edge = await startEdge({ config: serviceConfig([a.port], { health: HEALTH }) });
    await foundUnhealthy(edge.pool, 1);
    await eventually(async () => ((await ask({ port: edge.httpPort })).status === 503 ? true : undefined));
    await edge.apply(serviceConfig([a.port], { balance: 'random-two' }, 2), []);
    await eventually(async () => ((await ask({ port: edge.httpPort })).status === 200 ? true : undefined));
    expect(edge.pool.health()).toEqual([]);
    const { checks } = a;
    await edge.apply(serviceConfig([a.port], { health: HEALTH }, 3), []);
    expect((await ask({ port: edge.httpPort })).status).toBe(200); // Until it was checked anew.
    await eventually(() => (a.checks > checks ? true : undefined), FOUND_MS);
  });

  test('are handed on by the workers of a primary that was killed', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'ecluse-health-'));
    await using stack = new AsyncDisposableStack();
    stack.defer(async () => {
      await rm(folder, { recursive: true, force: true });
    });
    const a = stack.use(await startApp('a'));
    const b = stack.use(await startApp('b'));
    const endpoints = [a.port, b.port];
    const wishes = { health: { ...HEALTH, healthyAfter: 20 } };
    b.isWell = false;
    const order = JSON.stringify({ folder, endpoints, wishes });
    const script = resolve(import.meta.dirname, '../../support/generation-primary.ts');
    const primary = spawn(process.execPath, [script, order], { stdio: ['ignore', 'pipe', 'inherit'] });
    stack.defer(() => {
      primary.kill('SIGKILL');
    });
    const said = await createInterface({ input: primary.stdout })[Symbol.asyncIterator]().next();
    const port = Number(said.value);
    const served = async (): Promise<string> => {
      let text = '';
      for (let index = 0; index < 6; index += 1) text += (await ask({ port })).body.toString();
      return text;
    };
    await eventually(async () => ((await served()) === 'aaaaaa' ? true : undefined), FOUND_MS);
    b.isWell = true;
    const { served: before } = b;
    primary.kill('SIGKILL');
    await once(primary, 'exit');
    const log = createLog('silent');
    const socketPath = join(folder, 'workers.sock');
    const predecessors = await Predecessors.open(log, socketPath);
    await eventually(() => (predecessors.all().length === 2 ? true : undefined));
    const pool = stack.use(
      await WorkerPool.open(
        { log, clock: systemClock },
        {
          workers: 2,
          workerFile: resolve(import.meta.dirname, '../../../src/worker.ts'),
          listen: { http: { host: '127.0.0.1', port }, https: undefined },
          accessLogFile: join(folder, 'access.log'),
          logLevel: 'silent',
          initial: { config: serviceConfig(endpoints, wishes, 2), certificates: CertificateIndex.of([]) },
          succession: { generation: 2, socketPath, predecessors },
          onTraffic: () => undefined,
          onWake: () => undefined,
        },
      ),
    );
    expect(pool.health().map(({ isHealthy }) => isHealthy)).toEqual([true, false]);
    expect(pool.health()[1]?.reason).toBe('found by the primary before this one');
    expect([await served(), await served(), b.served]).toEqual(['aaaaaa', 'aaaaaa', before]);
  });
});
