/** Generations: an upgrade and a kill of the primary under load, and the ways in which one cannot be had. */
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { freePorts, freshDataDir, startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';
import { UpgradeLoad, openUpgradeEndpoint } from '../../support/upgrade-load.ts';
import { startSteadyLoad } from '../../support/steady-load.ts';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { containing } from '../../support/matchers.ts';

const HOST = 'upgraded.test';
const UPGRADES = 3;
/** The ledger has an interval every 10 s. */
const LEDGER_MS = 13_000;
const statusSchema = z.object({
  pid: z.number(),
  generation: z.number(),
  workers: z.array(z.object({ pid: z.number() })),
  retiring: z.array(z.object({ pid: z.number(), generation: z.number() })),
});

const amount = z.union([z.number(), z.string()]).transform(Number);
const usageSchema = z.array(z.object({ requests: amount, egressBytes: amount, ingressBytes: amount }));
const lineSchema = z.object({ upstreamInBytes: z.number(), upstreamOutBytes: z.number() });
type Moved = z.infer<typeof usageSchema>[number];
const NOTHING: Moved = { requests: 0, egressBytes: 0, ingressBytes: 0 };

function plus(one: Moved, other: Moved, sign: 1 | -1 = 1): Moved {
  return {
    requests: one.requests + sign * other.requests,
    egressBytes: one.egressBytes + sign * other.egressBytes,
    ingressBytes: one.ingressBytes + sign * other.ingressBytes,
  };
}

async function statusOf(node: TestNode): Promise<z.infer<typeof statusSchema>> {
  return statusSchema.parse(JSON.parse((await node.ecluse('status', '--json')).stdout));
}

async function answersOn(port: number): Promise<number | string> {
  const asking = request({ host: '127.0.0.1', port, headers: { host: HOST }, agent: false });
  asking.end();
  const answer: unknown[] = await Promise.race([once(asking, 'response'), once(asking, 'error')]);
  asking.destroy();
  const { statusCode, code } = z.object({ statusCode: z.number().optional(), code: z.string().optional() }).parse(answer[0]);
  return statusCode ?? code ?? '';
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

describe('generations', { timeout: 120_000 }, () => {
  let node: TestNode;
  let endpoint: { readonly port: number } & AsyncDisposable;

  const plan = () => ({
    httpPort: node.ports.http,
    httpsPort: node.ports.https,
    host: HOST,
    caFile: node.caFile,
    keepAlive: 10,
    fresh: 5,
    resuming: 3,
    webSockets: 5,
    eventStreams: 5,
  });

  beforeAll(async () => {
    endpoint = await openUpgradeEndpoint();
    node = await startNode({ dataDir: await freshDataDir(), ports: await freePorts(), demo: true });
    const file = join(node.dataDir, 'routes.yaml');
    await writeFile(
      file,
      `services: { s: { endpoints: ["http://127.0.0.1:${String(endpoint.port)}"] } }\nroutes: [{ match: { host: ${HOST} }, service: s }]\n`,
    );
    expect((await node.ecluse('apply', file)).stderr).toBe('');
  }, 120_000);

  afterAll(async () => {
    await node[Symbol.asyncDispose]();
    await endpoint[Symbol.asyncDispose]();
  });

  test('upgrades under load drop nothing: same process, containers run on, TLS sessions are resumed', async () => {
    const before = await statusOf(node);
    const hello = startSteadyLoad({ port: node.ports.https, host: 'hello.localhost', path: '/count', caFile: node.caFile }, 10);
    const load = await UpgradeLoad.start(plan());
    for (let round = 1; round <= UPGRADES; round += 1) {
      await sleep(500);
      const upgraded = await node.ecluse('upgrade', '--drain', '10m');
      expect(upgraded).toMatchObject({ exitCode: 0, stderr: '' });
      expect(upgraded.stdout).toContain(`generation ${String(before.generation + round)} `);
    }
    await sleep(500);
    const during = await statusOf(node);
    const outcome = await load.stop();
    expect(outcome).toMatchObject({ failures: {}, cutWebSockets: 0, cutEventStreams: 0, tls: { full: 0 } });
    expect(Math.min(...Object.values(outcome.requests), outcome.tls.resumed, outcome.echoes, outcome.events)).toBeGreaterThan(50);
    expect(during).toMatchObject({ pid: before.pid, generation: before.generation + UPGRADES });
    expect(during.workers.map(({ pid }) => pid)).not.toEqual(before.workers.map(({ pid }) => pid));
    expect(during.retiring.map(({ pid }) => pid)).toEqual(expect.arrayContaining(before.workers.map(({ pid }) => pid)));
    const samples = await hello.stop();
    expect(samples.filter(({ status }) => status !== 200)).toEqual([]);
    // One program counted them all.
    const counts = samples.map(({ body }) => Number(/\d+/.exec(body)?.[0]));
    expect(new Set(counts).size).toBe(counts.length);
    expect(Math.max(...counts) - Math.min(...counts)).toBe(counts.length - 1);
    await expect.poll(async () => (await statusOf(node)).retiring, { timeout: 10_000 }).toEqual([]); // Their last connections have ended.
  });

  test.each(['upgrade', 'kill'] as const)('what moves before and after is billed once, to the byte: %s', async (how) => {
    const billed = async (): Promise<Moved> => {
      const usage = usageSchema.parse(JSON.parse((await node.ecluse('usage', '--json')).stdout));
      return usage.reduce((sum, one) => plus(sum, one), NOTHING);
    };
    await sleep(LEDGER_MS); // Until what came before is written down.
    // The demo asks whether its container is well, at each start: what was answered is in the access log.
    const logged = async (): Promise<Moved> => {
      const lines = (await readFile(join(node.dataDir, 'logs', 'access.jsonl'), 'utf8')).split('\n');
      return lines
        .filter((line) => line.includes('"host":"hello.localhost'))
        .map((line) => lineSchema.parse(JSON.parse(line)))
        .reduce(
          (sum, one) => plus(sum, { requests: 1, egressBytes: one.upstreamInBytes, ingressBytes: one.upstreamOutBytes }),
          NOTHING,
        );
    };
    const { generation } = await statusOf(node);
    const before = { billed: await billed(), logged: await logged() };
    const hello = startSteadyLoad({ port: node.ports.https, host: 'hello.localhost', path: '/count', caFile: node.caFile }, 20);
    await sleep(1_700);
    if (how === 'upgrade') await node.ecluse('upgrade');
    else {
      await node.stop('SIGKILL');
      node = await startNode({ dataDir: node.dataDir, ports: node.ports, demo: true });
    }
    await sleep(1_500);
    const { length } = await hello.stop();
    await sleep(LEDGER_MS);
    expect(await statusOf(node)).toMatchObject({ generation: generation + 1 });
    const grown = plus(await logged(), before.logged, -1);
    expect(grown.requests).toBeGreaterThanOrEqual(length);
    expect(grown.egressBytes).toBeGreaterThan(100 * length);
    expect(plus(await billed(), before.billed, -1)).toEqual(grown);
  });

  test('a primary that is killed is missed by nobody', async () => {
    const before = await statusOf(node);
    const load = await UpgradeLoad.start(plan());
    await sleep(500);
    await node.stop('SIGKILL');
    await sleep(500);
    expect(await answersOn(node.ports.http)).toBe(200);
    node = await startNode({ dataDir: node.dataDir, ports: node.ports, demo: true });
    await sleep(500);
    expect(await statusOf(node)).toMatchObject({ generation: before.generation + 1 });
    expect(await load.stop()).toMatchObject({ failures: {}, cutWebSockets: 0, cutEventStreams: 0, tls: { full: 0 } });
  });

  test('workers that nobody comes for end', async () => {
    const { workers } = await statusOf(node);
    await node.stop('SIGKILL');
    expect(workers.map(({ pid }) => isAlive(pid))).toEqual(workers.map(() => true));
    await expect.poll(() => workers.filter(({ pid }) => isAlive(pid)).length, { timeout: 40_000, interval: 500 }).toBe(0);
    node = await startNode({ dataDir: node.dataDir, ports: node.ports, demo: true });
    expect(await answersOn(node.ports.http)).toBe(200);
  });
});

test('a node that is told to stop in the middle of an upgrade stops', { timeout: 60_000 }, async () => {
  const node = await startNode();
  const upgrading = node.ecluse('upgrade');
  await expect.poll(() => node.output(), { timeout: 20_000, interval: 2 }).toContain('handing over');
  expect((await node.stop('SIGTERM')).exitCode).toBe(0);
  expect(node.output()).toContain('SIGTERM: stopping');
  expect((await upgrading).exitCode).toBe(1);
  await node[Symbol.asyncDispose]();
  await expectNothingLeft(node.dataDir);
});

test('an upgrade to what does not start is refused, and nothing changes', { timeout: 60_000 }, async () => {
  await using node = await startNode();
  const file = join(node.dataDir, 'ecluse.yaml');
  const good = await readFile(file, 'utf8');
  await writeFile(file, JSON.stringify({ hosts: [{ name: 'a', engine: 'managed' }], worker: 2 }));
  const refused = await node.ecluse('upgrade');
  expect(refused).toMatchObject({ exitCode: 1, stdout: '' });
  expect(refused.stderr).toMatch(/does not start: .*worker/);
  expect(await statusOf(node)).toMatchObject({ generation: 1, retiring: [] });
  await writeFile(file, good);
  expect(await node.ecluse('upgrade', '--drain', 'soon')).toMatchObject({ exitCode: 2, stderr: containing('--drain') });
  expect(await node.ecluse('upgrade', '--json')).toMatchObject({ exitCode: 0, stdout: containing('"generation": 2') });
  expect(await statusOf(node)).toMatchObject({ generation: 2 });
});
