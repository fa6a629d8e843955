/** One attack on one proxy: the canary alone, beside a crowd of slow clients, and alone again. */
import { setTimeout as sleep } from 'node:timers/promises';
import { BENCH_HOST } from '../proxy/configs.ts';
import type { Stage } from '../proxy/stage.ts';
import { machineBusyUs, treeOf, usageOf } from '../proxy/usage.ts';
import { Canary, latencyOf } from './canary.ts';
import type { CanarySettings, Latency, Seen } from './canary.ts';
import { openFiles, tcpState } from './kernel.ts';
import type { SlowOrigin, Target } from './scene.ts';
import { SlowCrowd } from './slow-crowd.ts';
import type { Attack, CrowdCounts } from './slow-crowd.ts';

export interface AttackSettings {
  readonly seconds: number;
  readonly connections: number;
  readonly canary: CanarySettings;
}

interface Window {
  readonly seen: Seen;
  /** Share of its core that the proxy used. */
  readonly cores: number;
  /** Of what is neither ours nor the proxy's. */
  readonly othersCores: number;
}

export interface AttackResult {
  readonly target: string;
  readonly attack: string;
  /** Before and after the attack together. */
  readonly alone: Latency;
  readonly beside: Latency;
  /** While the crowd connects. */
  readonly arriving: Latency;
  readonly before: Latency;
  readonly after: Latency;
  readonly p50Ratio: number;
  readonly p99Ratio: number;
  readonly aloneCores: number;
  readonly besideCores: number;
  readonly othersCores: number;
  readonly rssMb: { readonly before: number; readonly during: number; readonly after: number };
  readonly files: { readonly before: number; readonly during: number; readonly after: number };
  readonly crowd: CrowdCounts;
  readonly originMb: number;
  readonly tcpMb: number;
  readonly canaryFailures: number;
}

export interface AttackDeps {
  readonly stage: Stage;
  readonly origin: SlowOrigin;
}

const STEADY_MS = 1000;
const SETTLE_MS = 1000;
const GONE_MS_MAX = 15_000;
const STEP_MS = 100;
/** Idle connections to the origin that a proxy keeps. */
const FILES_SPARE = 80;
const MIB = 1024 ** 2;

export async function measureAttack(
  deps: AttackDeps,
  target: Target,
  attack: Attack,
  settings: AttackSettings,
): Promise<AttackResult> {
  const { stage, origin } = deps;
  await using canary = new Canary(stage, target.httpPort, settings.canary);
  await canary.ready();
  const start = stateOf(target);
  const before = await windowOf(canary, target, settings.seconds);
  const originBytes = (await origin.counts()).bytes;
  const middle = await underAttack(deps, canary, target, { attack, settings });
  await filesBelow(target, start.files + FILES_SPARE);
  await sleep(SETTLE_MS);
  const after = await windowOf(canary, target, settings.seconds);
  const end = stateOf(target);
  const alone = latencyOf(before.seen, after.seen);
  const beside = latencyOf(middle.window.seen);
  return {
    target: target.name,
    attack: attack.name,
    alone,
    beside,
    arriving: latencyOf(middle.arriving),
    before: latencyOf(before.seen),
    after: latencyOf(after.seen),
    p50Ratio: beside.p50Us / alone.p50Us,
    p99Ratio: beside.p99Us / alone.p99Us,
    aloneCores: (before.cores + after.cores) / 2,
    besideCores: middle.window.cores,
    othersCores: Math.max(before.othersCores, middle.window.othersCores, after.othersCores),
    rssMb: { before: start.rssMb, during: middle.state.rssMb, after: end.rssMb },
    files: { before: start.files, during: middle.state.files, after: end.files },
    crowd: middle.crowd,
    originMb: (middle.originBytes - originBytes) / MIB,
    tcpMb: middle.tcpBytes / MIB,
    canaryFailures: sum(
      [before.seen, middle.arriving, middle.window.seen, after.seen].flatMap(({ failures }) => Object.values(failures)),
    ),
  };
}

interface Middle {
  readonly arriving: Seen;
  readonly window: Window;
  readonly state: ReturnType<typeof stateOf>;
  readonly crowd: CrowdCounts;
  readonly originBytes: number;
  readonly tcpBytes: number;
}

async function underAttack(
  { stage, origin }: AttackDeps,
  canary: Canary,
  target: Target,
  { attack, settings }: { readonly attack: Attack; readonly settings: AttackSettings },
): Promise<Middle> {
  await canary.begin();
  await using crowd = new SlowCrowd(stage, attack, {
    port: target.httpPort,
    hosts: [BENCH_HOST],
    connections: settings.connections,
  });
  await crowd.opened();
  await sleep(STEADY_MS);
  const arriving = await canary.end();
  const window = await windowOf(canary, target, settings.seconds);
  const { bytes } = await origin.counts();
  return {
    arriving,
    window,
    state: stateOf(target),
    crowd: await crowd.counts(),
    originBytes: bytes,
    tcpBytes: tcpState().bytes,
  };
}

async function windowOf(canary: Canary, target: Target, seconds: number): Promise<Window> {
  await canary.begin();
  const [startMs, usedUs, machineUs, oursUs] = clocks(target);
  await sleep(seconds * 1000);
  const [endMs, usedNowUs, machineNowUs, oursNowUs] = clocks(target);
  const seen = await canary.end();
  const spanUs = (endMs - startMs) * 1000;
  return {
    seen,
    cores: (usedNowUs - usedUs) / spanUs,
    othersCores: Math.max(0, (machineNowUs - machineUs - (oursNowUs - oursUs)) / spanUs),
  };
}

function clocks(target: Target): [number, number, number, number] {
  return [performance.now(), usageOf(target.pids()).exactUs, machineBusyUs(), usageOf(treeOf(process.pid)).exactUs];
}

function stateOf(target: Target): { readonly rssMb: number; readonly files: number } {
  const pids = target.pids();
  return { rssMb: usageOf(pids).rssBytes / MIB, files: openFiles(pids) };
}

async function filesBelow(target: Target, most: number): Promise<void> {
  const endMs = performance.now() + GONE_MS_MAX;
  while (openFiles(target.pids()) > most && performance.now() < endMs) await sleep(STEP_MS);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
