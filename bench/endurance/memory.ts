/** What a worker holds for clients that never read, and whether the origin is made to wait. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { AttackDeps, AttackSettings } from './attack.ts';
import type { EdgeUnderTest, Holding } from './edge-under-test.ts';
import { tcpState } from './kernel.ts';
import { SlowCrowd } from './slow-crowd.ts';
import type { Attack } from './slow-crowd.ts';

export interface MemoryResult {
  readonly name: string;
  readonly connections: number;
  readonly before: Holding;
  /** The highest of each. */
  readonly peak: Pick<Holding, 'rss' | 'heapUsed' | 'external' | 'arrayBuffers'>;
  /** After all have gone, garbage collected. */
  readonly after: Holding;
  readonly peakRssKbPerConnection: number;
  readonly peakBuffersKbPerConnection: number;
  /** Of what is outside of V8's heap, above what there was before. */
  readonly keptMb: number;
  readonly returned: boolean;
  readonly originMbPerConnection: number;
  /** Sent by the origin in the last seconds of the attack: it waits when that is nothing. */
  readonly originMbAtEnd: number;
  readonly paused: boolean;
  readonly openAtEnd: number;
  readonly refusedByBudget: number;
  readonly tcpMb: number;
}

const SAMPLE_MS = 200;
const QUIET_MS = 2000;
const GONE_MS = 3000;
/** Buffers are kept for the next ones: 64 of 128 KiB. */
const KEPT_MB_MAX = 12;
const MIB = 1024 ** 2;

export async function measureMemory(
  { stage, origin }: AttackDeps,
  edge: EdgeUnderTest,
  hosts: readonly string[],
  { connections, seconds }: AttackSettings,
): Promise<MemoryResult> {
  const attack: Attack = { name: 'memory', kind: 'never', path: '/64m' };
  const [before, sentBefore, refusedBefore] = [
    await edge.holding('collected'),
    (await origin.counts()).bytes,
    await refusedOf(edge),
  ];
  const peak = { rss: 0, heapUsed: 0, external: 0, arrayBuffers: 0 };
  const crowd = new SlowCrowd(stage, attack, { port: edge.httpPort, hosts, connections });
  let [sentEarly, sentLate, openAtEnd, tcpBytes] = [0, 0, 0, 0];
  try {
    const opened = crowd.opened();
    await watch(edge, peak, 1000);
    await opened;
    await watch(edge, peak, seconds * 1000);
    sentEarly = (await origin.counts()).bytes;
    await watch(edge, peak, QUIET_MS);
    sentLate = (await origin.counts()).bytes;
    openAtEnd = (await edge.metric('ecluse_downstream_connections', 'none'))[''] ?? 0;
    tcpBytes = tcpState().bytes;
  } finally {
    await crowd[Symbol.asyncDispose]();
  }
  await sleep(GONE_MS);
  const after = await edge.holding('collected');
  const keptMb = (after.external - before.external) / MIB;
  return {
    name: hosts.length === 1 ? 'one tenant' : `${String(hosts.length)} tenants`,
    connections,
    before,
    peak,
    after,
    peakRssKbPerConnection: (peak.rss - before.rss) / 1024 / connections,
    peakBuffersKbPerConnection: (peak.external - before.external) / 1024 / connections,
    keptMb,
    returned: keptMb <= KEPT_MB_MAX,
    originMbPerConnection: (sentLate - sentBefore) / MIB / connections,
    originMbAtEnd: (sentLate - sentEarly) / MIB,
    paused: sentLate - sentEarly < MIB,
    openAtEnd,
    refusedByBudget: (await refusedOf(edge)) - refusedBefore,
    tcpMb: tcpBytes / MIB,
  };
}

type Peak = { -readonly [Name in keyof MemoryResult['peak']]: number };

async function watch(edge: EdgeUnderTest, peak: Peak, ms: number): Promise<void> {
  const endMs = performance.now() + ms;
  while (performance.now() < endMs) {
    const { rss, heapUsed, external, arrayBuffers } = await edge.holding('as-it-is');
    peak.rss = Math.max(peak.rss, rss);
    peak.heapUsed = Math.max(peak.heapUsed, heapUsed);
    peak.external = Math.max(peak.external, external);
    peak.arrayBuffers = Math.max(peak.arrayBuffers, arrayBuffers);
    await sleep(SAMPLE_MS);
  }
}

async function refusedOf(edge: EdgeUnderTest): Promise<number> {
  const kinds = await edge.metric('ecluse_budget_refusals_total', 'kind');
  return kinds['bufferedBytes'] ?? 0;
}
