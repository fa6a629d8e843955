/** One slot of a pool: a worker, and the one after it whenever it ends, later each time while none lives long. */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { WORKER_BACKOFF_FIRST_MS, WORKER_BACKOFF_MAX_MS, WORKER_BACKOFF_RESET_MS, WORKER_START_TIMEOUT_MS } from './limits.ts';
import { startFailed } from './worker-answers.ts';
import type { WorkerProcess } from './worker-process.ts';

export interface Member {
  readonly process: WorkerProcess;
  readonly startMs: number;
  booted: boolean;
  listening: boolean;
  version: number;
  /** It took in some of what it boots with: its time begins anew. */
  progressed: () => void;
}

export interface Forked {
  readonly member: Member;
  /** It listens. Rejects where it does not come up. */
  readonly up: Promise<void>;
}

export interface SlotDeps {
  readonly log: Log;
  readonly clock: Clock;
  /** The slot ends: whoever ends then is not replaced. */
  readonly signal: AbortSignal;
  readonly fork: () => Forked;
}

/** Each answer of a worker that boots gives it its time anew. */
export function learner(member: Member): Pick<WorkerProcess, 'ask'> {
  return {
    ask: async (message, timeoutMs) => {
      const reply = await member.process.ask(message, timeoutMs);
      member.progressed();
      return reply;
    },
  };
}

/** Lives until the signal. */
export async function keepSlot({ log, clock, signal, fork }: SlotDeps, first: Member): Promise<void> {
  let member = first;
  let backoffMs = WORKER_BACKOFF_FIRST_MS;
  for (;;) {
    const how = await member.process.exit;
    if (signal.aborted) return;
    if (clock.monotonicMs() - member.startMs > WORKER_BACKOFF_RESET_MS) backoffMs = WORKER_BACKOFF_FIRST_MS;
    log.warn({ pid: member.process.pid, how, backoffMs }, 'worker ended and is replaced');
    try {
      await clock.sleep(backoffMs, signal);
    } catch {
      return; // Only the stop signal ends the sleep early.
    }
    backoffMs = Math.min(backoffMs * 2, WORKER_BACKOFF_MAX_MS);
    const next = fork();
    member = next.member;
    try {
      await next.up;
      log.info({ pid: member.process.pid, version: member.version }, 'worker listens');
    } catch (error) {
      log.error({ pid: member.process.pid, reason: reasonOf(error) }, 'worker did not start');
      member.process.kill();
    }
  }
}

/** Resolves with `listening`, where that comes in time. `onEnd`: the process ended, now or any time later. */
export async function upWithin(member: Member, listening: Promise<undefined>, onEnd: () => void): Promise<void> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    late.reject(startFailed(`did not listen in ${String(WORKER_START_TIMEOUT_MS)} ms`));
  }, WORKER_START_TIMEOUT_MS);
  member.progressed = () => timer.refresh();
  const ended = member.process.exit.then((how) => {
    onEnd();
    clearTimeout(timer);
    throw startFailed(`ended (${how})`);
  });
  ended.catch(() => undefined); // It ends some day; only before it listens is that a failure here.
  try {
    await Promise.race([listening, late.promise, ended]);
  } finally {
    clearTimeout(timer);
    member.progressed = () => undefined;
  }
}
