/** What a container wrote and what is in a volume, from a real engine's directories into the ledger, the usage and the invoice. */
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import * as z from 'zod';
import { openSqliteReader } from '#state/sqlite.ts';
import { busyboxTar } from '../../support/docker-api.ts';
import { eventually } from '../../support/edge.ts';
import { addTenant, freePorts, freshDataDir, run, startNode } from '../../support/node.ts';
import type { NodePorts, TestNode } from '../../support/node.ts';

const MIB = 1024 ** 2;
const useSchema = z.object({ id: z.string(), host: z.string(), bytes: z.bigint(), closed_ms: z.bigint().nullable() });
const totalSchema = z.object({ key: z.string(), name: z.string(), diskByteMs: z.number() });

let node: TestNode;
let ports: NodePorts;

async function docker(...args: readonly string[]): Promise<string> {
  const answer = await node.docker('acme', args);
  expect(answer, `docker ${args.join(' ')}: ${answer.stderr}`).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

async function ecluse(...args: readonly string[]): Promise<string> {
  const answer = await node.ecluse(...args);
  expect(answer, answer.stderr).toMatchObject({ exitCode: 0 });
  return answer.stdout;
}

async function known(): Promise<readonly z.output<typeof useSchema>[]> {
  await using sql = openSqliteReader(join(node.dataDir, 'ecluse.db'));
  return z.array(useSchema).parse(await sql.read('SELECT id, host, bytes, closed_ms FROM disk_use', []));
}

/** Of one volume of the engine, by another program. */
async function volumeBytes(host: string): Promise<bigint> {
  const folder = join(node.dataDir, 'hosts', host, 'docker', 'volumes');
  const [name] = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const { stdout } = await run('du', ['-sx', '--block-size=1', join(folder, name?.name ?? '', '_data')]);
  return BigInt(stdout.split('\t')[0] ?? '');
}

/** Writes so many MiB and sleeps before anybody has looked: its engine does not answer about it then. */
async function runAndSuspend(name: string, mib: number): Promise<string> {
  const write = `dd if=/dev/zero of=/file bs=1M count=${String(mib)} && sync && touch /ready && sleep 1000`;
  const id = await docker('run', '-d', '--name', name, 'bb', 'sh', '-c', write);
  const isReady = async (): Promise<boolean> => (await node.docker('acme', ['exec', name, 'ls', '/ready'])).exitCode === 0;
  await eventually(async () => ((await isReady()) ? true : undefined));
  await ecluse('suspend', `acme/${name}`);
  return id;
}

beforeAll(async () => {
  ports = await freePorts();
  node = await startNode({ hosts: ['a'], dataDir: await freshDataDir(), ports });
  await addTenant(node, 'acme');
  await node.docker('acme', ['import', '-', 'bb'], await busyboxTar(node.dataDir));
}, 120_000);

afterAll(async () => {
  await node[Symbol.asyncDispose]();
  await rm(node.dataDir, { recursive: true, force: true });
});

test('is found half a minute after it was made, counts while the container is stopped, and is billed to the byte', async () => {
  const prices = join(node.dataDir, 'prices.yaml');
  await writeFile(prices, 'currency: EUR\nfrom: 2026-01-01T00:00:00Z\nprices: { diskGibMonth: 900000 }\n');
  await ecluse('prices', 'apply', prices);
  const write = 'dd if=/dev/zero of=/file bs=1M count=20 && dd if=/dev/zero of=/data/file bs=1M count=30 && sync';
  const id = await docker('run', '-d', '--name', 'web', '-v', 'data:/data', 'bb', 'sh', '-c', write);
  await runAndSuspend('sleeper', 5);
  await docker('wait', 'web');
  const found = await eventually(async () => {
    const uses = await known();
    return uses.length === 3 && uses.every(({ bytes }) => bytes > 0n) ? uses : undefined;
  }, 60_000);
  const foundMs = Date.now();
  const layer = found.find((use) => use.id === id)?.bytes ?? 0n;
  const volume = found.find((use) => use.id.startsWith('volume/'));
  expect(volume?.bytes).toBe(await volumeBytes('a'));
  expect(volume?.bytes).toBeGreaterThanOrEqual(30 * MIB);
  expect(layer).toBeGreaterThanOrEqual(20 * MIB);
  expect(layer).toBeLessThan(21 * MIB);

  const slept = found.filter((use) => use.id !== id && use.id !== volume?.id).map(({ bytes }) => Number(bytes));
  expect(slept).toEqual([expect.closeTo(5 * MIB, -6)]);
  await docker('rm', '-f', 'sleeper');

  await docker('rm', 'web');
  await docker('volume', 'rm', 'data');
  const goneMs = Date.now();
  await eventually(async () => ((await known()).every((use) => use.closed_ms !== null) ? true : undefined), 30_000);
  const missedMs = Date.now();
  const totals = z.array(totalSchema).parse(JSON.parse(await ecluse('usage', '--format', 'json')));
  const byName = new Map(totals.map((total) => [total.name, total]));
  // Each was found some seconds before it was seen to be.
  const slackMs = 12_000;
  const [web, data] = [byName.get('web')?.diskByteMs ?? 0, byName.get('data')?.diskByteMs ?? 0];
  expect(web / Number(layer)).toBeGreaterThan(0);
  expect(web / Number(layer)).toBeLessThan(goneMs - foundMs + slackMs);
  expect(data / Number(volume?.bytes)).toBeGreaterThan(0);
  expect(data / Number(volume?.bytes)).toBeLessThan(missedMs - foundMs + slackMs);
  expect(byName.get('data')?.key).toBe(volume?.id);

  const table = await ecluse('usage');
  expect(table).toMatch(/DISK GIB·H +STREAM H/);
  expect(table).toMatch(new RegExp(` data +${(volume?.id ?? '').slice(0, 19)} `));
  const invoice = await ecluse('invoice', '--tenant', 'acme');
  expect(invoice).toContain('Disk of web');
  expect(invoice).toContain('Disk of volume data');
  const focus = await ecluse('invoice', '--tenant', 'acme', '--format', 'focus');
  expect(focus).toMatch(/,volume\/[0-9a-f]{16},data,Volume,/);
  // A correction of a volume takes what it names, and nothing else.
  const reason = ['--reason', 'a test'];
  await ecluse('ledger', 'correct', (volume?.id ?? '').slice(0, 19), '--disk-gib-hours=-1', ...reason);
  const corrected = z.array(totalSchema).parse(JSON.parse(await ecluse('usage', '--format', 'json')));
  const after = corrected.find(({ name }) => name === 'data')?.diskByteMs ?? 0;
  expect(Math.round((data - after) / 1024 ** 3 / 3_600_000)).toBe(1);
  expect(await ecluse('ledger', 'verify')).toMatch(/\nacme +fits /);
}, 180_000);

test('what slept before it was ever looked at is found after the node was killed and started anew', async () => {
  const id = await runAndSuspend('restarted', 7);
  await node.stop('SIGKILL');
  node = await startNode({ hosts: ['a'], dataDir: node.dataDir, ports });
  const found = await eventually(async () => {
    const use = (await known()).find((one) => one.id === id);
    return use !== undefined && use.bytes > 0n ? use : undefined;
  }, 60_000);
  expect(found).toMatchObject({ host: 'a', closed_ms: null });
  expect(Number(found.bytes)).toBeGreaterThanOrEqual(7 * MIB);
  expect((await node.ecluse('ps')).stdout).toContain('(asleep)');
}, 180_000);
