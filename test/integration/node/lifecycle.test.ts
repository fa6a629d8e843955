/** A node's life with real engines and sandboxes: starts, stops, and every part of it killed. After each test nothing may be left. */
import { once } from 'node:events';
import { readdir, readFile, rm } from 'node:fs/promises';
import { request as httpRequest } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { scopeOf } from '#caas/host.ts';
import { expectNothingLeft, forwardingToKeep, leftoversOf } from '../../support/leftovers.ts';
import { freePort, freePorts, freshDataDir, run, startNode } from '../../support/node.ts';
import type { NodePorts, TestNode } from '../../support/node.ts';

const TENANT = 'demo';
const HELLO = 'hello.localhost';
/** How far a bill may be from the kernel's counter. */
const BILLING_ERROR_MAX = 0.001;

let dataDir: string;
let ports: NodePorts;
let forwarding: string | undefined;

beforeAll(async () => {
  dataDir = await freshDataDir();
  ports = await freePorts();
  forwarding = await forwardingToKeep();
});

afterAll(async () => {
  await rm(dataDir, { recursive: true, force: true });
});

/** The demo's node, each time with the same data and ports; the first start makes the image. */
async function startDemo(): Promise<TestNode> {
  return await startNode({ demo: true, dataDir, ports });
}

/** Asks an app of the demo over HTTPS, on a connection of its own, trusting the node's CA and nothing else. */
async function open(node: TestNode, path: string, options: { readonly host?: string; readonly method?: string } = {}) {
  const { host = HELLO, method = 'GET' } = options;
  const ca = await readFile(node.caFile);
  const outgoing = request({
    host: '127.0.0.1',
    port: node.ports.https,
    path,
    method,
    ca,
    servername: host,
    headers: { host },
    agent: false,
    timeout: 20_000,
  });
  const response = new Promise<IncomingMessage>((resolve, reject) => {
    outgoing.once('response', (incoming) => {
      incoming.on('error', () => undefined); // Whoever reads it is told; it may break before anybody does.
      resolve(incoming);
    });
    outgoing.on('error', reject);
    outgoing.once('timeout', () => outgoing.destroy(new Error('no answer')));
  });
  return { outgoing, response };
}

async function get(node: TestNode, path: string, host = HELLO): Promise<{ readonly status: number; readonly body: string }> {
  const { outgoing, response } = await open(node, path, { host });
  outgoing.end();
  const head = await response;
  return { status: head.statusCode ?? 0, body: await text(head) };
}

async function countOf(node: TestNode, host = HELLO): Promise<number> {
  const { status, body } = await get(node, '/count', host);
  expect({ status, body }).toMatchObject({ status: 200 });
  return Number(field(JSON.parse(body), 'count'));
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value.map((item: unknown) => item) : [];
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}

/** A `docker` command that must work; what it printed. */
async function docker(node: TestNode, ...args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await node.docker(TENANT, args);
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  return stdout.trim();
}

async function stateOf(node: TestNode, name: string): Promise<string> {
  return await docker(node, 'inspect', '--format', '{{.State.Status}}', name);
}

async function json(node: TestNode, ...args: readonly string[]): Promise<unknown> {
  const { exitCode, stdout, stderr } = await node.ecluse(...args, '--json');
  expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  return JSON.parse(stdout);
}

async function workersOf(node: TestNode): Promise<readonly number[]> {
  return listOf(field(await json(node, 'status'), 'workers')).map((worker) => Number(field(worker, 'pid')));
}

async function hostOf(node: TestNode, name: string): Promise<string> {
  const rows = await json(node, 'ps', '-a');
  const list: readonly unknown[] = Array.isArray(rows) ? rows : [];
  return String(
    field(
      list.find((row) => field(row, 'name') === name),
      'host',
    ),
  );
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** The kernel's own count of a container's processor time, read past the program under test. */
async function cpuOfCgroup(id: string, host: string): Promise<number> {
  const cgroup = `ecluse/${scopeOf(dataDir)}-${host}/${TENANT}/${id}`;
  const v1 = await readFile(join('/sys/fs/cgroup/cpuacct', cgroup, 'cpuacct.usage'), 'utf8').catch(() => '');
  if (v1 !== '') return Number(v1);
  const v2 = await readFile(join('/sys/fs/cgroup', cgroup, 'cpu.stat'), 'utf8');
  return Number(/^usage_usec (\d+)$/m.exec(v2)?.[1]) * 1000;
}

async function cpuBilled(node: TestNode, id: string): Promise<number> {
  const totals = listOf(await json(node, 'usage', '--by', 'container'));
  return Number(
    field(
      totals.find((total) => field(total, 'key') === id),
      'cpuNs',
    ),
  );
}

function expectSameCpu(billed: number, counted: number): void {
  expect(Math.abs(billed - counted) / counted).toBeLessThan(BILLING_ERROR_MAX);
}

/** Every incarnation's intervals: numbered from 1 without gaps, each beginning where the one before ended. */
function expectContiguousLedger(): void {
  using database = new DatabaseSync(join(dataDir, 'ecluse.db'), { readOnly: true });
  const rows = database.prepare(`SELECT * FROM ledger WHERE kind = 'interval' ORDER BY container, incarnation, seq`).all();
  expect(rows.length).toBeGreaterThan(0);
  for (const [index, row] of rows.entries()) {
    const before = rows[index - 1];
    const isFirst = before?.['container'] !== row['container'] || before?.['incarnation'] !== row['incarnation'];
    expect(row['seq']).toBe(isFirst ? 1 : Number(before?.['seq']) + 1);
    expect(row['from_ms']).toBe(isFirst ? row['from_ms'] : before?.['to_ms']);
    expect(Number(row['to_ms'])).toBeGreaterThanOrEqual(Number(row['from_ms']));
    expect(Number(row['cpu_ns'])).toBeGreaterThanOrEqual(0);
  }
}

/** What an engine has, asked past the node. */
async function engineContainers(host: string): Promise<readonly unknown[]> {
  const socket = join(dataDir, 'hosts', host, 'docker.sock');
  const { stdout } = await run('curl', ['-s', '--max-time', '10', '--unix-socket', socket, 'http://x/containers/json?all=1']);
  return listOf(JSON.parse(stdout));
}

/** SIGKILL to the node's primary process, as the kernel's memory killer would. */
async function killNode(node: TestNode): Promise<void> {
  node.process.kill('SIGKILL');
  if (node.process.exitCode === null && node.process.signalCode === null) await once(node.process, 'exit');
}

/** Asks on and on until `done`; the answers that were not 200. Requests that begin together with what breaks them are the caller's to bear. */
async function failuresUntil(node: TestNode, done: () => Promise<boolean>): Promise<readonly string[]> {
  const failures: string[] = [];
  const stop = new AbortController();
  const asking = (async (): Promise<void> => {
    while (!stop.signal.aborted) {
      const answer = await get(node, '/count').catch((error: unknown) => ({ status: 0, body: String(error) }));
      if (answer.status !== 200) failures.push(`${String(answer.status)} ${answer.body}`);
      await sleep(20);
    }
  })();
  try {
    await expect.poll(done, { timeout: 15_000, interval: 100 }).toBe(true);
  } finally {
    stop.abort();
    await asking;
  }
  return failures;
}

/** Asks for a move and kills the node as soon as it says that it has come to `phase`. */
async function killAtPhase(node: TestNode, target: string, phase: string): Promise<void> {
  const outgoing = httpRequest({
    socketPath: join(dataDir, 'admin.sock'),
    path: '/v1/containers/hello/migrate',
    method: 'POST',
    headers: { 'content-type': 'application/json' },
  });
  outgoing.end(JSON.stringify({ to: target }));
  const response = await new Promise<IncomingMessage>((resolve, reject) =>
    outgoing.once('response', resolve).once('error', reject),
  );
  const seen: string[] = [];
  response.on('error', () => undefined); // The node is killed while it talks.
  for await (const line of createInterface({ input: response })) {
    seen.push(line);
    if (field(field(JSON.parse(line), 'progress'), 'phase') !== phase) continue;
    await killNode(node);
    return;
  }
  throw new Error(`the migration ended without the phase ${phase}:\n${seen.join('\n')}`);
}

/** The kernel's memory limit of the one container on a host. */
async function memoryLimitOf(host: string): Promise<number> {
  const [container] = await engineContainers(host);
  const engineId = String(field(container, 'Id'));
  const folder = `ecluse/${scopeOf(dataDir)}-${host}/${TENANT}`;
  const read = async (root: string, file: string): Promise<string> => {
    const entries = await readdir(join(root, folder), { withFileTypes: true }).catch(() => []);
    const id = entries.find((entry) => entry.isDirectory())?.name ?? '';
    return await readFile(join(root, folder, id, engineId, file), 'utf8').catch(() => '');
  };
  const v1 = await read('/sys/fs/cgroup/memory', 'memory.limit_in_bytes');
  return Number(v1 === '' ? await read('/sys/fs/cgroup', 'memory.max') : v1);
}

describe('a life', () => {
  afterEach(async () => {
    await expectNothingLeft(dataDir, forwarding);
  });

  test('the demo answers, ends what is under way at SIGTERM, and is back within ten seconds', async () => {
    {
      await using node = await startDemo();
      expect(await get(node, '/healthz')).toMatchObject({ status: 200 });
      const wait = ['hello', '/bin/busybox', 'sh', '-c', 'trap exit TERM; sleep 1000 & wait'];
      await docker(node, 'run', '--detach', '--name', 'once', ...wait);
      await docker(node, 'run', '--detach', '--name', 'keeper', '--restart', 'always', ...wait);
      const echo = await open(node, '/echo', { method: 'POST' });
      echo.outgoing.write('begun before the signal');
      const response = await echo.response;
      const body = text(response);
      const stopped = node.stop('SIGTERM');
      await sleep(1000);
      echo.outgoing.end(', ended after it');
      expect(await body).toBe('begun before the signal, ended after it');
      const { exitCode, tookMs } = await stopped;
      expect(exitCode).toBe(0);
      expect(tookMs).toBeLessThan(10_000);
      expect(await leftoversOf(dataDir)).toEqual([]);
    }
    const startMs = performance.now();
    await using node = await startDemo();
    const tookMs = performance.now() - startMs;
    process.stdout.write(`the second start took ${(tookMs / 1000).toFixed(1)} s\n`);
    expect(tookMs).toBeLessThan(10_000);
    expect(await stateOf(node, 'keeper')).toBe('running');
    expect(await stateOf(node, 'once')).toBe('exited');
    expect(await countOf(node)).toBe(1);
    await docker(node, 'rm', '--force', 'keeper', 'once');
  });

  test('SIGINT ends it within ten seconds whatever is open', async () => {
    await using node = await startDemo();
    const ignore = 'trap "" TERM; while :; do nc -l -p 7000 -e sleep 1000; sleep 1; done';
    const port = await freePort();
    const flags = ['--detach', '--rm', '--name', 'stubborn', '--publish', `${String(port)}:7000`, '--volume', '/data'];
    await docker(node, 'run', ...flags, 'hello', '/bin/busybox', 'sh', '-c', ignore);
    const stream = await open(node, '/stream');
    stream.outgoing.end();
    const events = text(await stream.response).catch((error: unknown) => String(error));
    const published = connect({ host: '127.0.0.1', port });
    await once(published, 'connect');
    published.on('error', () => undefined); // It is reset.
    const cut = new Promise((resolve) => published.once('close', resolve));
    const env = { ...node.dockerEnv(TENANT), DOCKER_BUILDKIT: '0' };
    const clients = [
      ['logs', '--follow', 'hello'],
      ['events'],
      ['wait', 'hello'],
      ['stats'],
      ['exec', 'hello', '/bin/busybox', 'sleep', '1000'],
    ];
    const ended = async (child: ChildProcess): Promise<void> => void (await once(child, 'exit'));
    const followed = clients.map(async (args) => {
      await ended(spawn('docker', args, { env, stdio: 'ignore' }));
    });
    const build = spawn('docker', ['build', '-'], { env, stdio: ['pipe', 'pipe', 'ignore'] });
    followed.push(ended(build));
    build.stdin.end('FROM hello\nRUN ["/bin/busybox", "sh", "-c", "echo built; sleep 1000"]\n');
    let told = '';
    build.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      told += chunk;
    });
    await expect.poll(() => told, { timeout: 30_000 }).toMatch(/^built$/m);
    const { exitCode, tookMs } = await node.stop('SIGINT');
    expect(exitCode).toBe(0);
    expect(tookMs).toBeLessThan(10_000);
    process.stdout.write(`the slowest stop took ${(tookMs / 1000).toFixed(1)} s\n`);
    await Promise.all([events, cut, ...followed]);
  });

  test('after kill -9 running containers are adopted and nothing is counted twice', async () => {
    const name = 'adopted';
    const host = `${name}-${TENANT}.localhost`;
    await using first = await startDemo();
    const id = await docker(first, 'run', '--detach', '--name', name, 'hello');
    await expect.poll(async () => (await get(first, '/healthz', host)).status).toBe(200);
    for (let count = 1; count <= 20; count += 1) expect(await countOf(first, host)).toBe(count);
    const startedAt = await docker(first, 'inspect', '--format', '{{.State.StartedAt}}', name);
    expect(await cpuBilled(first, id)).toBeGreaterThan(0); // An interval is in the ledger; the use after it is not.
    for (let count = 21; count <= 60; count += 1) await countOf(first, host);
    const workers = await workersOf(first);
    await killNode(first);

    await using node = await startDemo();
    expect(await stateOf(node, name)).toBe('running');
    expect(await docker(node, 'inspect', '--format', '{{.State.StartedAt}}', name)).toBe(startedAt);
    expect(await countOf(node, host)).toBe(61);
    await expect.poll(() => workers.filter(isAlive), { timeout: 8000 }).toEqual([]);
    await docker(node, 'kill', name);
    await docker(node, 'wait', name);
    expectSameCpu(await cpuBilled(node, id), await cpuOfCgroup(id, await hostOf(node, name)));
    expectContiguousLedger();
    await docker(node, 'rm', name);
  });

  test.each([
    { phase: 'checkpoint', moves: false },
    { phase: 'restore', moves: false },
    { phase: 'clean up', moves: true },
  ])('a migration that is cut off at "$phase" leaves one container', async ({ phase, moves }) => {
    await using first = await startDemo();
    const source = await hostOf(first, 'hello');
    const target = source === 'a' ? 'b' : 'a';
    const before = await countOf(first);
    await killAtPhase(first, target, phase);

    await using node = await startDemo();
    const host = await hostOf(node, 'hello');
    const other = host === 'a' ? 'b' : 'a';
    expect(host).toBe(moves ? target : source);
    expect(await countOf(node)).toBe(before + 1);
    expect(await stateOf(node, 'hello')).toBe('running');
    expect(await engineContainers(host)).toMatchObject([{ State: 'running' }]);
    expect(await engineContainers(other)).toEqual([]);
    expect(await readdir(join(dataDir, 'hosts', other, 'runsc', 'staged'))).toEqual([]);
    // The folder for images is the running node's; no image is in it.
    expect(await readdir(`/dev/shm/ecluse-${scopeOf(dataDir)}`)).toEqual([]);
    const inside = await docker(node, 'exec', 'hello', '/bin/busybox', 'echo', 'awake');
    expect(inside).toBe('awake');
    expect(await memoryLimitOf(host)).toBe(256 * 1024 ** 2);
    expectContiguousLedger();
  });
});

describe('while it runs', () => {
  let node: TestNode;

  beforeAll(async () => {
    node = await startDemo();
  });

  afterAll(async () => {
    await node.stop();
    await expectNothingLeft(dataDir, forwarding);
  });

  test('a container that is gone is billed what the kernel counted', async () => {
    const burn = 'while :; do :; done';
    const id = await docker(
      node,
      'run',
      '--detach',
      '--name',
      'burner',
      'hello',
      '/bin/busybox',
      'timeout',
      '3',
      '/bin/busybox',
      'sh',
      '-c',
      burn,
    );
    await docker(node, 'wait', 'burner');
    const counted = await cpuOfCgroup(id, await hostOf(node, 'burner'));
    expect(counted).toBeGreaterThan(2e9);
    await docker(node, 'rm', 'burner');
    expectSameCpu(await cpuBilled(node, id), counted);
    expectContiguousLedger();
  });

  test('an engine that is killed is started again while its containers go on', async () => {
    const host = await hostOf(node, 'hello');
    const startedAt = await docker(node, 'inspect', '--format', '{{.State.StartedAt}}', 'hello');
    const before = await countOf(node);
    const pid = Number(await readFile(join(dataDir, 'hosts', host, 'dockerd.pid'), 'utf8'));
    process.kill(pid, 'SIGKILL');
    await expect.poll(() => isAlive(pid)).toBe(false);
    const failures = await failuresUntil(node, async () => {
      const { exitCode, stdout } = await node.docker(TENANT, ['ps', '--format', '{{.Names}}']);
      const engine = Number(await readFile(join(dataDir, 'hosts', host, 'dockerd.pid'), 'utf8').catch(() => '0'));
      return (
        exitCode === 0 && stdout.includes('hello') && engine !== pid && (await engineContainers(host).catch(() => [])).length > 0
      );
    });
    expect(failures).toEqual([]);
    expect(await countOf(node)).toBeGreaterThan(before);
    expect(await docker(node, 'inspect', '--format', '{{.State.StartedAt}}', 'hello')).toBe(startedAt);
    expect(await docker(node, 'exec', 'hello', '/bin/busybox', 'echo', 'still there')).toBe('still there');
  });

  test('a worker that is killed is replaced while requests go on', async () => {
    const before = await workersOf(node);
    const [victim = 0] = before;
    process.kill(victim, 'SIGKILL');
    await expect.poll(() => isAlive(victim)).toBe(false);
    const failures = await failuresUntil(node, async () => {
      const now = await workersOf(node);
      return now.length === before.length && !now.includes(victim);
    });
    expect(failures).toEqual([]);
  });
});
