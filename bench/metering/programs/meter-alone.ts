/**
 * What metering costs by itself: the node's own meter and books over cgroups of containers that run, in a process that does nothing else, with a store of
 * its own on a disk. `node meter-alone.ts WARM_MS MEASURE_MS [CGROUP…]`; prints the CPU of the measured time, all threads, as a share of one core.
 */
import { generateKeyPairSync } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LedgerKeeper } from '#caas/ledger-keeper.ts';
import { Meter } from '#caas/meter.ts';
import { systemClock } from '#clock';
import { detectCgroups } from '#isolation/cgroup.ts';
import { createLog } from '#log';
import { ledgerKeyOf } from '#metering/ledger-head.ts';
import { openSqlite } from '#state/sqlite.ts';

const [warmMs = '', measureMs = '', ...paths] = process.argv.slice(2);
const folder = await mkdtemp(join(tmpdir(), 'ecluse-meter-alone-'));
try {
  await using sql = openSqlite(join(folder, 'ecluse.db'));
  const deps = { log: createLog('silent'), clock: systemClock, sql };
  await using meter = await Meter.open({ ...deps, cgroups: await detectCgroups() });
  const key = ledgerKeyOf(generateKeyPairSync('ed25519').privateKey);
  await using keeper = new LedgerKeeper({ ...deps, key });
  keeper.start();
  for (const cgroup of paths) {
    const container = basename(cgroup);
    const base = { container, incarnation: 1, tenant: 'acme', host: 'a', name: container.slice(0, 12), cgroup };
    await meter.openIncarnation(await meter.startingPoint(base));
  }
  await delay(Number(warmMs));
  const [before, fromMs] = [process.cpuUsage(), performance.now()];
  const rowsBefore = await rows();
  await delay(Number(measureMs));
  const { user, system } = process.cpuUsage(before);
  const share = (user + system) / 1000 / (performance.now() - fromMs);
  const [read] = await sql.read(
    'SELECT COUNT(DISTINCT container) AS metered FROM ledger WHERE cpu_ns > 0 AND memory_byte_ms > 0',
    [],
  );
  console.log(JSON.stringify({ share, rows: (await rows()) - rowsBefore, metered: Number(read?.['metered']) }));

  async function rows(): Promise<number> {
    return Number((await sql.read('SELECT COUNT(*) AS rows FROM ledger', []))[0]?.['rows']);
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
