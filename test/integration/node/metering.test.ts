/** A real node over a store with a ledger from before the chain: taken up once, priced, proved, and the same after it was killed. */
import { rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openIncarnationWrite } from '#state/ledger.ts';
import { openSqlite } from '#state/sqlite.ts';
import { freePorts, freshDataDir, run, startNode } from '../../support/node.ts';
import type { NodePorts, TestNode } from '../../support/node.ts';

const VERIFIER = fileURLToPath(new URL('../../../scripts/verify-ledger.mjs', import.meta.url));
const HOUR_MS = 3_600_000;
const FROM_MS = Date.UTC(2026, 9, 5);
const ROWS = 1234;
/** A hundredth of a second each: half of a processor for a fiftieth of it. */
const CPU_NS = 10_000_000;

let dataDir: string;
let ports: NodePorts;

beforeAll(async () => {
  dataDir = await freshDataDir();
  ports = await freePorts();
  await using sql = openSqlite(join(dataDir, 'ecluse.db'));
  const container = 'ab'.repeat(32);
  await sql.write([
    openIncarnationWrite({
      container,
      incarnation: 1,
      tenant: 'acme',
      host: 'a',
      name: 'web',
      cgroup: '/x',
      cgroupIdentity: '',
      openedMs: FROM_MS,
      closedMs: undefined,
      seq: ROWS,
      meteredToMs: FROM_MS + ROWS * 10_000,
      cpuNs: 0,
      memoryBytes: 0,
    }),
    { sql: 'UPDATE incarnation SET closed_ms = ?', values: [FROM_MS + ROWS * 10_000] },
    ...Array.from({ length: ROWS }, (_, index) => ({
      sql: `INSERT INTO ledger (container, incarnation, seq, tenant, host, from_ms, to_ms, cpu_ns, memory_byte_ms, requests, ingress_bytes,
              egress_bytes, held_ms) VALUES (?, 1, ?, 'acme', 'a', ?, ?, ?, 0, 0, 0, 0, 0)`,
      values: [container, index + 1, FROM_MS + index * 10_000, FROM_MS + (index + 1) * 10_000, CPU_NS],
    })),
  ]);
});

afterAll(async () => {
  await rm(dataDir, { recursive: true, force: true });
});

async function out(node: TestNode, line: string): Promise<string> {
  const { exitCode, stdout, stderr } = await node.ecluse(...line.split(' '));
  expect(exitCode, stderr).toBe(0);
  return stdout;
}

test('rows from before are taken up, summed up, priced and proved, also after kill -9', async () => {
  const prices = join(dataDir, 'prices.json');
  await writeFile(
    prices,
    JSON.stringify({ currency: 'EUR', from: new Date(FROM_MS - HOUR_MS).toISOString(), prices: { vcpuHour: '3.6' } }),
  );
  const wanted = (ROWS / 100_000).toFixed(6);
  let key = '';
  {
    await using node = await startNode({ dataDir, ports });
    expect((await stat(join(dataDir, 'tls', 'ledger.key'))).mode & 0o777).toBe(0o600);
    expect(await out(node, 'ledger verify')).toMatch(
      new RegExp(`\\nacme +fits +${String(ROWS)} +${String(ROWS)} +\\d +${String(ROWS)} +0 +0\\n`),
    );
    await out(node, `prices apply ${prices}`);
    expect(await out(node, 'invoice --tenant acme --month 2026-10')).toMatch(
      new RegExp(`\\ntotal +EUR +0\\.${wanted.slice(2)}\\n`),
    );
    key = (await out(node, 'ledger key')).split(' ')[0] ?? '';
    await node.stop('SIGKILL');
  }
  await using node = await startNode({ dataDir, ports });
  expect((await out(node, 'ledger key')).split(' ')[0]).toBe(key);
  expect(await out(node, 'ledger verify')).toMatch(new RegExp(`\\nacme +fits +${String(ROWS)} `));
  expect(await out(node, 'invoice --tenant acme --month 2026-10')).toContain(wanted);
  expect(await out(node, 'usage --tenant acme --since 2026-10-01T00:00:00Z --format csv')).toContain(
    `,${String(ROWS * CPU_NS)},`,
  );
  const file = join(dataDir, 'acme.jsonl');
  await writeFile(file, await out(node, 'ledger export --tenant acme'));
  const proof = await run(process.execPath, [VERIFIER, '--key', key, file]);
  expect([proof.exitCode, proof.stderr]).toEqual([0, '']);
  expect(proof.stdout).toContain(`${String(ROWS)} rows are from before the chain`);
  // Whoever opens the store and takes a second of processor time away is found out.
  await using sql = openSqlite(join(dataDir, 'ecluse.db'));
  await sql.write([{ sql: 'UPDATE ledger SET cpu_ns = 1 WHERE number = 700', values: [] }]);
  const misfit = await node.ecluse('ledger', 'verify');
  expect([misfit.exitCode, misfit.stderr]).toEqual([
    1,
    expect.stringContaining('acme, row 700: its hash is not that of its fields'),
  ]);
});
