/** Whether the edge cuts slow clients by its limits, and what that costs those who are not slow. */
import { setTimeout as sleep } from 'node:timers/promises';
import { BENCH_HOST } from '../proxy/configs.ts';
import type { AttackDeps, AttackSettings } from './attack.ts';
import { Canary, latencyOf } from './canary.ts';
import type { Latency } from './canary.ts';
import type { EdgeUnderTest } from './edge-under-test.ts';
import { openFiles, tcpState } from './kernel.ts';
import { targetOf } from './scene.ts';
import { SlowCrowd } from './slow-crowd.ts';
import type { Attack, CrowdCounts } from './slow-crowd.ts';

/**
 * Short, so that a run sees the end of all. The kernel takes a response of 1 MiB whole from the edge, whose connection is idle then: what ends it is
 * the limit for idle ones.
 */
export const SHORT_LIMITS = { headTimeoutMs: 2_000, progressWindowMs: 2_000, idleTimeoutMs: 4_000 } as const;

export interface CutResult {
  readonly attack: string;
  /** Connections of the crowd that the edge still had at the end of the wait. */
  readonly left: number;
  /** From the last connection of the crowd to the end of the last one. */
  readonly allGoneMs: number;
  readonly crowd: CrowdCounts;
  /** By kind: how many time-outs the worker counted. */
  readonly timeouts: Readonly<Record<string, number>>;
  readonly beside: Latency;
  readonly canaryFailures: number;
  /** Connections that the kernel still holds for the edge after it has closed them, and bytes of TCP on the whole machine. */
  readonly orphans: number;
  readonly tcpMbPeak: number;
  readonly tcpMbAfter: number;
  readonly others: readonly string[];
}

const STEP_MS = 50;
/** A slow client is noticed one or two windows after it began. A slow reader moves on as long as the kernel finds room for what it does not read. */
const CUT_MS_MAX = 40_000;
const CONNECTIONS_METRIC = 'ecluse_downstream_connections';
const MIB = 1024 ** 2;

export async function measureCut(
  deps: AttackDeps,
  edge: EdgeUnderTest,
  attack: Attack,
  settings: AttackSettings,
): Promise<CutResult> {
  const { stage } = deps;
  const target = targetOf(edge);
  await using canary = new Canary(stage, edge.httpPort, settings.canary);
  await canary.ready();
  const [connections, timeouts, orphans] = [await connectionsOf(edge), await timeoutsOf(edge), tcpState().orphans];
  await canary.begin();
  await using crowd = new SlowCrowd(stage, attack, {
    port: edge.httpPort,
    hosts: [BENCH_HOST],
    connections: settings.connections,
  });
  await crowd.opened();
  const startMs = performance.now();
  let [left, tcpPeak] = [await connectionsOf(edge), tcpState().bytes];
  while (left > connections && performance.now() - startMs < CUT_MS_MAX) {
    await sleep(STEP_MS);
    left = await connectionsOf(edge);
    tcpPeak = Math.max(tcpPeak, tcpState().bytes);
  }
  const allGoneMs = left > connections ? Number.NaN : performance.now() - startMs;
  const seen = await canary.end();
  const now = await timeoutsOf(edge);
  const after = tcpState();
  return {
    attack: attack.name,
    left: Math.max(0, left - connections),
    allGoneMs,
    crowd: await crowd.counts(),
    timeouts: Object.fromEntries(
      Object.entries(now)
        .map(([kind, count]) => [kind, count - (timeouts[kind] ?? 0)] as const)
        .filter(([, count]) => count > 0),
    ),
    beside: latencyOf(seen),
    canaryFailures: Object.values(seen.failures).reduce((sum, count) => sum + count, 0),
    orphans: Math.max(0, after.orphans - orphans),
    tcpMbPeak: tcpPeak / MIB,
    tcpMbAfter: after.bytes / MIB,
    others: [`${String(openFiles(target.pids()))} open files`],
  };
}

async function connectionsOf(edge: EdgeUnderTest): Promise<number> {
  return (await edge.metric(CONNECTIONS_METRIC, 'none'))[''] ?? 0;
}

async function timeoutsOf(edge: EdgeUnderTest): Promise<Record<string, number>> {
  return await edge.metric('ecluse_timeouts_total', 'kind');
}
