/** One measurement of one peer in one case. */
import { openSync, readSync, closeSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { BENCH_HOST } from './configs.ts';
import type { LoadedCase } from './cases.ts';
import { startLoad } from './load.ts';
import type { LoadDeps, LoadResult, Settings } from './load.ts';
import type { Peer } from './peers.ts';
import { LOAD_CORE } from './stage.ts';
import type { Stage } from './stage.ts';
import { machineBusyUs, treeOf, usageOf } from './usage.ts';
import type { Usage } from './usage.ts';

/** Times are µs per operation; NaN (null in JSON) where a case has no such figure. */
export interface Sample {
  /** What is compared, in the case's unit. */
  readonly value: number;
  readonly operations: number;
  readonly perSecond: number;
  /** By schedstat; then by /proc/PID/stat, in all and apart. */
  readonly cpuUs: number;
  readonly statUs: number;
  readonly userUs: number;
  readonly systemUs: number;
  /** Of Écluse's primary, and of HAProxy's log reader. */
  readonly helperUs: number;
  /** Share of its core that the proxy used. */
  readonly utilisation: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly rawP99Us: number;
  readonly rssMb: number;
  /** Lines of the access log per request. */
  readonly logShare: number;
  readonly loadPerSecond: number;
  /** Cores that were busy with what is not ours. */
  readonly othersCores: number;
  readonly errors: readonly string[];
}

interface Snapshot {
  readonly atMs: number;
  readonly operations: number;
  readonly peer: Usage;
  readonly helper: Usage;
  readonly machineUs: number;
  readonly oursUs: number;
}

const IDLE_RESULT = z.object({ open: z.int(), errors: z.array(z.string()) });
const RATE_HELD = 0.95;
const SETTLE_MS = 200;
const IDLE_SETTLE_MS = 2_000;
export const IDLE_CONNECTIONS = 10_000;
const IDLE_MS_MAX = 120_000;
const LOG_SAMPLE_BYTES = 65_536;

/** `during`: what else is to happen in the measured time. */
export async function measureLoad(
  deps: LoadDeps,
  what: LoadedCase,
  settings: Settings,
  during: (ms: number) => Promise<void> = sleep,
): Promise<Sample> {
  const { peer } = deps;
  for (const file of peer.logs) truncate(file);
  const load = startLoad(deps, what, settings);
  await sleep(load.rampMs);
  const before = await snapshot(peer, load.operations);
  await during(settings.seconds * 1000);
  const after = await snapshot(peer, load.operations);
  const result = await load.finish();
  await sleep(SETTLE_MS);
  const operations = after.operations - before.operations;
  const seconds = (after.atMs - before.atMs) / 1000;
  const per = (field: (snap: Snapshot) => number): number => (field(after) - field(before)) / operations;
  const cpuUs = per((snap) => snap.peer.exactUs);
  const userUs = per((snap) => snap.peer.userUs);
  const systemUs = per((snap) => snap.peer.systemUs);
  return {
    value: what.kind === 'latency' ? latencyOf(result, operations / seconds, settings.rate) : cpuUs,
    operations,
    perSecond: operations / seconds,
    cpuUs,
    statUs: userUs + systemUs,
    userUs,
    systemUs,
    helperUs: per((snap) => snap.helper.exactUs),
    utilisation: (after.peer.exactUs - before.peer.exactUs) / 1e6 / seconds,
    p50Us: result.p50Us,
    p99Us: result.p99Us,
    rawP99Us: result.rawP99Us ?? Number.NaN,
    rssMb: after.peer.rssBytes / 1024 ** 2,
    logShare: peer.logs.length === 0 || what.kind === 'websocket' ? Number.NaN : linesIn(peer.logs) / result.requests,
    loadPerSecond: result.perSecond,
    othersCores: (after.machineUs - before.machineUs - (after.oursUs - before.oursUs)) / 1e6 / seconds,
    errors: operations > 0 ? result.errors : [...result.errors, 'nothing was carried'],
  };
}

/** Latency at a rate that was not held says nothing: it is worse than any. */
function latencyOf({ p99Us }: LoadResult, perSecond: number, rate: number): number {
  return perSecond < RATE_HELD * rate ? Number.POSITIVE_INFINITY : p99Us;
}

async function snapshot(peer: Peer, operations: () => Promise<number>): Promise<Snapshot> {
  const counted = await operations();
  return {
    atMs: performance.now(),
    operations: counted,
    peer: usageOf(peer.pids()),
    helper: usageOf(peer.helpers()),
    machineUs: machineBusyUs(),
    oursUs: usageOf(treeOf(process.pid)).exactUs,
  };
}

/** Memory per idle connection: opens many, after one request each. */
export async function measureIdle(stage: Stage, peer: Peer, tls: boolean): Promise<Sample> {
  const program = join(import.meta.dirname, 'programs', 'idle-client.ts');
  const to = tls ? ['https', String(peer.httpsPort)] : ['http', String(peer.httpPort)];
  const argv = [process.execPath, program, ...to, BENCH_HOST, String(IDLE_CONNECTIONS)];
  const before = usageOf(peer.pids());
  const child = stage.start({ core: LOAD_CORE, argv });
  const endMs = performance.now() + IDLE_MS_MAX;
  while (!child.out().includes('\n') && child.running() && performance.now() < endMs) await sleep(50);
  await sleep(IDLE_SETTLE_MS);
  const after = usageOf(peer.pids());
  const said = child.out();
  await child.stop();
  const { open, errors } = said === '' ? { open: 0, errors: [child.err().slice(-300)] } : IDLE_RESULT.parse(JSON.parse(said));
  const none = Number.NaN;
  const times = { perSecond: none, cpuUs: (after.exactUs - before.exactUs) / open, statUs: none, userUs: none, systemUs: none };
  const others = {
    helperUs: none,
    utilisation: none,
    p50Us: none,
    p99Us: none,
    rawP99Us: none,
    logShare: none,
    loadPerSecond: none,
    othersCores: none,
  };
  return {
    value: (after.rssBytes - before.rssBytes) / 1024 / open,
    operations: open,
    ...times,
    ...others,
    rssMb: after.rssBytes / 1024 ** 2,
    errors:
      open === IDLE_CONNECTIONS ? errors : [...errors, `${String(open)} of ${String(IDLE_CONNECTIONS)} connections stayed open`],
  };
}

function truncate(file: string): void {
  try {
    truncateSync(file);
  } catch {
    // It is not there before the first line.
  }
}

/** Lines in the logs, from their size and the length of the first ones. */
function linesIn(files: readonly string[]): number {
  return files.reduce((sum, file) => {
    try {
      const { size } = statSync(file);
      const bytes = Buffer.alloc(LOG_SAMPLE_BYTES);
      const fd = openSync(file, 'r');
      const length = readSync(fd, bytes);
      closeSync(fd);
      const end = bytes.lastIndexOf(0x0a, length - 1) + 1;
      const lines = bytes.subarray(0, end).filter((byte) => byte === 0x0a).length;
      return sum + (lines === 0 ? 0 : (size / end) * lines);
    } catch {
      return sum;
    }
  }, 0);
}
