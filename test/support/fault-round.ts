/** One round: something is done to the container, at a step of it something breaks, and then everything must be in order again by itself. */
import { setTimeout as sleep } from 'node:timers/promises';
import { createAdminClient } from '#admin/client.ts';
import { reasonOf } from '#errors';
import { adminSocketOf } from '#node-paths';
import { violationsOf, numbersIn } from './fault-checks.ts';
import { emptyDisk, fillMost, strike } from './fault-kinds.ts';
import type { Fault, Struck } from './fault-kinds.ts';
import { TWIN, removeSnapshots, removeTwins, runTwin, twinViolations } from './fault-copies.ts';
import { CONTAINER, TENANT, otherHost, placeOf } from './fault-scene.ts';
import type { FaultScene, Place } from './fault-scene.ts';
import type { Count } from './fault-load.ts';

/** Steps of a move, as it reports them, the two halves of a sleep, and what is made beside a container that goes on. */
export const STEPS = [
  'prepare',
  'copy',
  'prestart',
  'warm',
  'freeze',
  'pause',
  'checkpoint',
  'restore',
  'probe',
  'commit',
  'thaw',
  'settle',
  'clean up',
  'suspend',
  'wake',
  'snapshot',
  'clone',
] as const;
export type Step = (typeof STEPS)[number];

export interface RoundPlan {
  readonly step: Step;
  readonly fault: Fault;
  /** From the beginning of the step. */
  readonly delayMs: number;
  readonly lastsMs: number;
}

export interface RoundResult extends RoundPlan {
  /** `missed`: the step had no such thing to break, or was over before. */
  readonly outcome: 'moved' | 'stayed' | 'missed';
  /** What the command said that was under way. */
  readonly said: string;
  /** From the blow until all was in order. */
  readonly settledMs: number;
  readonly violations: readonly string[];
}

const SETTLE_LIMIT_MS = 60_000;
const LOOK_PERIOD_MS = 250;
const ASK_LIMIT_MS = 40_000;
const COPIES = 3;

export async function faultRound(scene: FaultScene, plan: RoundPlan): Promise<RoundResult> {
  const before = placeOf(scene);
  const numbers = await numbersIn(scene);
  const memory = await untilAnswers(scene);
  const twinBoot = plan.step === 'clone' ? await runTwin(scene) : '';
  if (plan.fault === 'full disk') await fillMost(scene);
  let blow: Promise<Struck> | undefined;
  let strikeMs = performance.now();
  const phases = new PhaseClock();
  const hit = async (): Promise<void> => {
    await sleep(plan.delayMs);
    strikeMs = performance.now();
    blow = strike(scene, plan.fault, { source: before.host, lastsMs: plan.lastsMs });
    blow.catch(() => undefined); // It is waited for below.
    await blow.catch(() => undefined);
  };
  const said = await act(scene, plan, { before, hit, phases });
  const struck = await blow;
  await struck?.lift();
  if (plan.fault === 'full disk') await emptyDisk(scene);
  scene.load.run(true);
  const twins = await takeAway(scene, plan.step, async () => await twinViolations(scene, twinBoot, plan.fault === 'stop node'));
  const left = [...twins, ...(await untilInOrder(async () => await violationsOf(scene)))];
  // Between the last look and the end of the commit's write nobody can tell; before that the source must go on, with its memory.
  const isTooLate = (struck?.goneMs ?? 0) >= (phases.beganMs('commit') ?? Infinity);
  const mayForget = struck?.mayForget === true || (plan.fault === 'kill target sandbox' && isTooLate);
  const violations = [...left, ...(await lostOf(scene, { memory, numbers, mayForget }))];
  const outcome = struck?.hit !== true ? 'missed' : placeOf(scene).host === before.host ? 'stayed' : 'moved';
  return { ...plan, outcome, said, settledMs: Math.round(performance.now() - strikeMs), violations };
}

interface Act {
  readonly before: Place;
  readonly hit: () => Promise<void>;
  readonly phases: PhaseClock;
}

/** When a move's phases began. What it says of them arrives late on a busy machine; how late is known by what came fastest. */
class PhaseClock {
  #startMs = Infinity;
  readonly #elapsedMs = new Map<string, number>();

  heard({ phase, elapsedMs }: { readonly phase: string; readonly elapsedMs: number }): void {
    this.#startMs = Math.min(this.#startMs, performance.now() - elapsedMs);
    if (!this.#elapsedMs.has(phase)) this.#elapsedMs.set(phase, elapsedMs);
  }

  /** Undefined where it did not begin. */
  beganMs(phase: string): number | undefined {
    const elapsedMs = this.#elapsedMs.get(phase);
    return elapsedMs === undefined ? undefined : this.#startMs + elapsedMs;
  }
}

/** Does what the step belongs to; `hit` is begun at the step. Returns what came of it, in words. */
async function act(scene: FaultScene, { step }: RoundPlan, { before, hit, phases }: Act): Promise<string> {
  const client = createAdminClient(adminSocketOf(scene.dataDir));
  const reference = `${TENANT}/${CONTAINER}`;
  let hitting: Promise<void> | undefined;
  try {
    if (step === 'snapshot' || step === 'clone') {
      hitting = hit();
      await (step === 'snapshot' ? client.snapshot(reference) : client.clone(`${TENANT}/${TWIN}`, COPIES));
    } else if (step === 'suspend' || step === 'wake') {
      scene.load.run(false);
      if (step === 'wake') await client.suspend(reference);
      hitting = hit();
      await (step === 'wake' ? client.wake(reference) : client.suspend(reference));
    } else {
      await client.migrate(reference, { to: otherHost(before.host), endSessions: false }, (progress) => {
        phases.heard(progress);
        if (progress.phase === step) hitting ??= hit();
      });
    }
    return 'done';
  } catch (error) {
    return reasonOf(error);
  } finally {
    await hitting;
  }
}

async function untilAnswers(scene: FaultScene): Promise<Count> {
  const endMs = performance.now() + ASK_LIMIT_MS;
  for (;;) {
    const answer = await scene.load.ask();
    if (answer !== undefined) return answer;
    if (performance.now() > endMs) throw new Error('the app does not answer before the round');
    await sleep(LOOK_PERIOD_MS);
  }
}

/** What was made beside the container goes again, when it was seen to be whole: the scene is to be as it was. Returns what was wrong with it. */
async function takeAway(scene: FaultScene, step: Step, look: () => Promise<readonly string[]>): Promise<readonly string[]> {
  if (step === 'clone') {
    const violations = await untilInOrder(look);
    await removeTwins(scene);
    return violations;
  }
  if (step === 'snapshot') await removeSnapshots(scene);
  return [];
}

/** What is still wrong when the time is over. */
async function untilInOrder(look: () => Promise<readonly string[]>): Promise<readonly string[]> {
  const endMs = performance.now() + SETTLE_LIMIT_MS;
  for (;;) {
    const violations = await look().catch((error: unknown) => [`no look was possible: ${reasonOf(error)}`]);
    if (violations.length === 0 || performance.now() > endMs) return violations;
    await sleep(LOOK_PERIOD_MS);
  }
}

interface Had {
  readonly memory: Count;
  readonly numbers: Awaited<ReturnType<typeof numbersIn>>;
  readonly mayForget: boolean;
}

async function lostOf(scene: FaultScene, { memory, numbers, mayForget }: Had): Promise<readonly string[]> {
  const lost: string[] = [];
  const first = await scene.load.ask();
  const highest = first === undefined ? 0 : scene.load.highest(first.boot);
  const answer = await scene.load.ask();
  if (first === undefined || answer === undefined) lost.push('no answer at the end');
  else if (answer.boot !== memory.boot && !mayForget) lost.push('the program began anew: its memory was lost');
  else if (answer.boot !== first.boot || answer.count <= highest)
    lost.push(`after ${String(highest)} it counted ${String(answer.count)}`);
  const now = await numbersIn(scene);
  if (now.root.length < numbers.root.length || now.volume.length < numbers.volume.length)
    lost.push('files are shorter than before');
  if (scene.load.repeated.length > 0) lost.push(`counts were answered twice: ${scene.load.repeated.slice(0, 5).join('; ')}`);
  return lost;
}
