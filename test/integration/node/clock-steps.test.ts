/**
 * A node whose clock is set, an hour ahead and two back, while it meters: libfaketime changes what its processes are told of the time of day, and leaves
 * them the monotonic clock, as a set clock does. What is billed is held against the kernel's counters, which know no clock.
 */
import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import * as z from 'zod';
import { detectCgroups } from '#isolation/cgroup.ts';
import { busyboxTar } from '../../support/docker-api.ts';
import { addTenant, startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';

const STEPS_S = [3600, -3600, 0, -90, 30];
const STEP_MS = 2_500;
const SAMPLE_MS = 50;
const HOUR_MS = 3_600_000;
/** Of memory × time: commands take their time on a busy machine. */
const MEMORY_ERROR_MAX = 0.05;

const rowSchema = z.object({
  incarnation: z.number(),
  seq: z.number(),
  from_ms: z.number(),
  to_ms: z.number(),
  cpu_ns: z.number(),
  memory_byte_ms: z.number(),
});

let node: TestNode;
let folder: string;

function setClock(offsetS: number): void {
  writeFileSync(join(folder, 'clock'), `${offsetS < 0 ? '' : '+'}${String(offsetS)}\n`);
}

beforeAll(async () => {
  const [library] = globSync('/usr/lib/*/faketime/libfaketimeMT.so.1');
  if (library === undefined) throw new Error('there is no libfaketime: apt-get install faketime');
  folder = await mkdtemp(join(tmpdir(), 'ecl-'));
  setClock(0);
  vi.stubEnv('LD_PRELOAD', library);
  vi.stubEnv('FAKETIME_TIMESTAMP_FILE', join(folder, 'clock'));
  vi.stubEnv('FAKETIME_DONT_FAKE_MONOTONIC', '1');
  vi.stubEnv('FAKETIME_CACHE_DURATION', '1');
  node = await startNode({ hosts: ['a'] });
  vi.unstubAllEnvs(); // The clients' clock stays what it is.
  await addTenant(node, 'acme');
  await node.docker('acme', ['import', '-', 'bb'], await busyboxTar(node.dataDir));
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

test('a clock that is set changes nothing of what is billed', { timeout: 90_000 }, async () => {
  const script = 'dd if=/dev/zero of=/m/x bs=1048576 count=24 2>/dev/null; while :; do :; done';
  const limits = ['--memory', '160m', '--cpus', '0.3', '--tmpfs', '/m:size=32m'];
  const started = await node.docker('acme', ['run', '-d', ...limits, 'bb', '/bin/busybox', 'sh', '-c', script]);
  expect(started.stderr).toBe('');
  const id = started.stdout.trim();
  const cgroup =
    stored(z.object({ cgroup: z.string() }), `SELECT cgroup FROM incarnation WHERE container = '${id}'`)[0]?.cgroup ?? '';
  const cgroups = await detectCgroups();
  // Writes down what there is.
  const flushed = async (): Promise<number> => {
    expect((await node.ecluse('usage', '--json')).stderr).toBe('');
    return ledgerOf(id).reduce((sum, row) => sum + row.memory_byte_ms, 0);
  };
  const billedBefore = await flushed();
  let memoryByteMs = 0;
  const sampled = { atMs: performance.now(), bytes: cgroups.usageOf(cgroup)?.memoryBytes ?? 0 };
  const sampler = setInterval(() => {
    const [atMs, bytes] = [performance.now(), cgroups.usageOf(cgroup)?.memoryBytes ?? 0];
    memoryByteMs += ((atMs - sampled.atMs) * (sampled.bytes + bytes)) / 2;
    Object.assign(sampled, { atMs, bytes });
  }, SAMPLE_MS);
  let billedByteMs = 0;
  for (const offsetS of STEPS_S) {
    setClock(offsetS);
    await sleep(STEP_MS);
    billedByteMs = (await flushed()) - billedBefore;
  }
  clearInterval(sampler);
  expect(Math.abs(billedByteMs / memoryByteMs - 1)).toBeLessThan(MEMORY_ERROR_MAX);
  expect((await node.docker('acme', ['kill', id])).stderr).toBe('');
  await expect.poll(async () => (await node.docker('acme', ['inspect', '-f', '{{.State.Running}}', id])).stdout).toBe('false\n');
  await node.ecluse('usage', '--json');
  const rows = ledgerOf(id);
  expect(rows.map(({ seq }) => seq)).toEqual(rows.map((_, index) => index + 1));
  expect(rows.length).toBeGreaterThanOrEqual(STEPS_S.length);
  // The clock was set, and no interval begins where none ends, or ends before it begins.
  for (const [index, row] of rows.entries()) {
    expect(row.from_ms).toBe(rows[index - 1]?.to_ms ?? row.from_ms);
    expect(Math.min(row.to_ms - row.from_ms, row.cpu_ns, row.memory_byte_ms)).toBeGreaterThanOrEqual(0);
  }
  expect((rows.at(-1)?.to_ms ?? 0) - (rows[0]?.from_ms ?? 0)).toBeGreaterThan(HOUR_MS);
  expect(rows.reduce((sum, row) => sum + row.cpu_ns, 0)).toBe(counterOf(cgroup));
  const verified = await node.ecluse('ledger', 'verify');
  expect([verified.exitCode, verified.stdout]).toEqual([0, expect.stringMatching(/\nacme +fits /)]);
});

function ledgerOf(id: string): readonly z.output<typeof rowSchema>[] {
  return stored(rowSchema, `SELECT * FROM ledger WHERE container = '${id}' ORDER BY incarnation, seq`);
}

function stored<Row>(schema: z.ZodType<Row>, sql: string): readonly Row[] {
  using store = new DatabaseSync(join(node.dataDir, 'ecluse.db'), { readOnly: true });
  return z.array(schema).parse(store.prepare(sql).all());
}

/** The kernel's own counter, past our reader. */
function counterOf(cgroup: string): number {
  const file = `/sys/fs/cgroup/cpuacct${cgroup}/cpuacct.usage`;
  if (existsSync(file)) return Number(readFileSync(file, 'utf8'));
  const text = readFileSync(`/sys/fs/cgroup${cgroup}/cpu.stat`, 'utf8');
  return Number(/^usage_usec (\d+)$/m.exec(text)?.[1]) * 1000;
}
