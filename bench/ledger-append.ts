/**
 * What does the chain cost an append to the ledger?
 *
 * `--containers` (default 100) containers of `--tenants` (5) write an interval each, `--rounds` (20) times, as in a second of a busy node. Side by side, in
 * turns, each into a store of its own on the disk of `--folder` (default: the system's for temporary files): `group`, all of a round through `LedgerWriter`
 * at once; `single`, one append after the other through it; `plain`, the batches that were written before there was a chain. Medians of wall and CPU time.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { openIncarnationWrite } from '#state/ledger.ts';
import type { Incarnation } from '#state/ledger.ts';
import { LedgerWriter } from '#state/ledger-writer.ts';
import type { Sql } from '#state/sql.ts';
import { openSqlite } from '#state/sqlite.ts';
import { machine, quantile } from './machine.ts';

const { values } = parseArgs({
  options: {
    containers: { type: 'string', default: '100' },
    tenants: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '20' },
    folder: { type: 'string', default: tmpdir() },
  },
});
const [containers, tenants, rounds] = [Number(values.containers), Number(values.tenants), Number(values.rounds)];
const INTERVAL_MS = 10_000;

type Append = (at: Incarnation, seed: number) => Promise<Incarnation>;

function intervalOf(at: Incarnation, seed: number) {
  const used = {
    cpuNs: seed * 7919,
    memoryByteMs: BigInt(seed) * 2n ** 40n,
    requests: seed,
    ingressBytes: seed,
    egressBytes: seed,
  };
  return { ...used, heldMs: 0, streamMs: 0, toMs: at.meteredToMs + INTERVAL_MS };
}

function chained(sql: Sql): Append {
  const writer = new LedgerWriter(sql);
  return async (at, seed) => {
    const now = { cpuNs: at.cpuNs + seed, memoryBytes: 1, cgroupIdentity: 'x' };
    const outcome = await writer.append(at, intervalOf(at, seed), now);
    if (outcome.kind === 'conflict') throw new Error('conflict');
    return outcome.at;
  };
}

function plain(sql: Sql): Append {
  return async (at, seed) => {
    const { toMs, cpuNs, memoryByteMs, requests, ingressBytes, egressBytes, heldMs } = intervalOf(at, seed);
    const outcome = await sql.write([
      {
        sql: `INSERT INTO ledger (container, incarnation, seq, tenant, host, from_ms, to_ms, cpu_ns, memory_byte_ms, requests, ingress_bytes,
                egress_bytes, held_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        values: [
          at.container,
          1,
          at.seq + 1,
          at.tenant,
          at.host,
          at.meteredToMs,
          toMs,
          cpuNs,
          memoryByteMs,
          requests,
          ingressBytes,
          egressBytes,
          heldMs,
        ],
      },
      {
        sql: 'UPDATE incarnation SET seq = ?, metered_to_ms = ?, cpu_ns = ? WHERE container = ? AND incarnation = ? AND seq = ? AND closed_ms IS NULL',
        values: [at.seq + 1, toMs, at.cpuNs + seed, at.container, 1, at.seq],
        expectRows: 1,
      },
    ]);
    if (outcome.kind === 'conflict') throw new Error('conflict');
    return { ...at, seq: at.seq + 1, meteredToMs: toMs, cpuNs: at.cpuNs + seed };
  };
}

interface Contender {
  readonly name: 'group' | 'single' | 'plain';
  readonly sql: Sql;
  readonly append: Append;
  running: readonly Incarnation[];
  readonly wallMs: number[];
  readonly cpuMs: number[];
}

async function contender(folder: string, name: Contender['name']): Promise<Contender> {
  const sql = openSqlite(join(folder, `${name}.db`));
  const running: Incarnation[] = [];
  for (let index = 0; index < containers; index += 1) {
    const at: Incarnation = {
      container: index.toString(16).padStart(64, '0'),
      incarnation: 1,
      tenant: `tenant-${String(index % tenants)}`,
      host: 'a',
      name: 'app',
      cgroup: '/x',
      cgroupIdentity: 'x',
      openedMs: 0,
      closedMs: undefined,
      seq: 0,
      meteredToMs: 0,
      cpuNs: 0,
      memoryBytes: 1,
    };
    await sql.write([openIncarnationWrite(at)]);
    running.push(at);
  }
  return { name, sql, append: name === 'plain' ? plain(sql) : chained(sql), running, wallMs: [], cpuMs: [] };
}

function tenth(value: number): number {
  return Math.round(value * 10) / 10;
}

async function roundOf(one: Contender, seed: number): Promise<void> {
  const cpu = process.cpuUsage();
  const fromMs = performance.now();
  if (one.name === 'group') one.running = await Promise.all(one.running.map(async (at) => await one.append(at, seed)));
  else {
    const next: Incarnation[] = [];
    for (const at of one.running) next.push(await one.append(at, seed));
    one.running = next;
  }
  one.wallMs.push(performance.now() - fromMs);
  const { user, system } = process.cpuUsage(cpu);
  one.cpuMs.push((user + system) / 1000);
}

const folder = await mkdtemp(join(values.folder, 'ecluse-ledger-append-'));
try {
  const contenders = [await contender(folder, 'group'), await contender(folder, 'single'), await contender(folder, 'plain')];
  for (let round = 1; round <= rounds; round += 1) for (const one of contenders) await roundOf(one, round);
  const results = contenders.map(({ name, wallMs, cpuMs }) => ({
    name,
    wallMsPerRound: tenth(quantile(wallMs, 0.5)),
    cpuMsPerRound: tenth(quantile(cpuMs, 0.5)),
    cpuMicrosPerAppend: tenth((quantile(cpuMs, 0.5) * 1000) / containers),
  }));
  for (const { sql } of contenders) await sql[Symbol.asyncDispose]();
  console.log(
    JSON.stringify(
      { question: 'what does the chain cost an append', machine: machine(), containers, tenants, rounds, results },
      undefined,
      2,
    ),
  );
} finally {
  await rm(folder, { recursive: true, force: true });
}
