/** What must be in the books whatever comes in between: a sleep that is over soon, and a container that a killed creation left without any. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import * as z from 'zod';
import { openSqlite, openSqliteReader } from '#state/sqlite.ts';
import { busyboxTar } from '../../support/docker-api.ts';
import { eventually } from '../../support/edge.ts';
import { addTenant, freePorts, freshDataDir, startNode } from '../../support/node.ts';
import type { NodePorts, TestNode } from '../../support/node.ts';

const BUSY = 'while :; do i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; usleep 50000; done';
const totalSchema = z.object({ key: z.string(), cpuNs: z.number(), snapshotByteMs: z.number(), memoryByteMs: z.number() });

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

async function usedBy(id: string): Promise<z.output<typeof totalSchema> | undefined> {
  return z
    .array(totalSchema)
    .parse(JSON.parse(await ecluse('usage', '--format', 'json')))
    .find(({ key }) => key === id);
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

test('a sleep of some seconds is billed for what it had on disk, as soon as it is over', async () => {
  const id = await docker('run', '-d', '--name', 'web', 'bb', 'sh', '-c', BUSY);
  await ecluse('suspend', 'acme/web');
  const begunMs = Date.now();
  const bytes = await (async () => {
    await using sql = openSqliteReader(join(node.dataDir, 'ecluse.db'));
    const [row] = await sql.read('SELECT file_bytes FROM snapshot WHERE container = ?', [id]);
    return Number(row?.['file_bytes']);
  })();
  expect(bytes).toBeGreaterThan(0);
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  const atLeastMs = Date.now() - begunMs;
  await ecluse('wake', 'acme/web');
  const atMostMs = Date.now() - begunMs + 10_000;
  const byteMs = await eventually(async () => {
    const used = (await usedBy(id))?.snapshotByteMs ?? 0;
    return used > 0 ? used : undefined;
  }, 60_000);
  expect(byteMs / bytes).toBeGreaterThanOrEqual(atLeastMs);
  expect(byteMs / bytes).toBeLessThan(atMostMs);
}, 180_000);

test('a container without books is metered from the next start on, and the log says so', async () => {
  const id = await docker('run', '-d', '--name', 'left', '--restart', 'always', 'bb', 'sh', '-c', BUSY);
  await node.stop('SIGKILL');
  {
    await using sql = openSqlite(join(node.dataDir, 'ecluse.db'));
    await sql.write([{ sql: 'DELETE FROM incarnation WHERE container = ?', values: [id], expectRows: 1 }]);
  }
  node = await startNode({ hosts: ['a'], dataDir: node.dataDir, ports });
  const before = (await usedBy(id))?.cpuNs ?? 0;
  await eventually(async () => (((await usedBy(id))?.cpuNs ?? 0) > before + 10_000_000 ? true : undefined), 60_000);
  expect(await ecluse('ledger', 'verify')).toMatch(/\nacme +fits /);
}, 180_000);
