/** A start that an engine has been told to make, and that runs nothing before its memory is released to it: of a sleeper, or of a move's target. */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { HeldRestore } from '#isolation/held-restore.ts';
import type { RestoreAhead } from '#isolation/held-restore.ts';
import { addressOf } from './engine-answers.ts';
import { inspectCopy, killSandbox } from './engine-copy.ts';
import type { EngineCopy } from './engine-copy.ts';
import type { Host } from '#caas/host.ts';

/** An engine holds a start open for as long as a light sleep lasts, or a pre-copy of many gigabytes over a slow line. */
const START_PATIENCE_MS = 24 * 24 * 3_600_000;
const GATE_LIMIT_MS = 60_000;

export interface HeldStart {
  readonly held: HeldRestore;
  /** Settles when the engine ends the start; never rejects. */
  readonly ended: Promise<Error | undefined>;
  /** At its gate: its engine died, or its sandbox was killed. Nothing waits there that could be woken. */
  isOver: boolean;
}

/** How a container lives whose program has not run yet. */
export interface StartedLife {
  readonly address: string;
  readonly carriedStart: string;
}

export async function beginStart(host: Host, copy: EngineCopy, ahead: RestoreAhead): Promise<HeldStart> {
  const held = await HeldRestore.open({ runtimeDir: host.runtimeDir, engineId: copy.engineId }, ahead);
  const start: HeldStart = { held, ended: callStart(host, copy.engineId), isOver: false };
  void watchEnd(start);
  return start;
}

/** Whether the engine's start came to its gate. */
export async function reachedGate(clock: Clock, { held, ended }: HeldStart): Promise<boolean> {
  return await Promise.race([held.waits(clock, GATE_LIMIT_MS, new AbortController().signal), ended.then(() => false)]);
}

/** Lets the engine end the start, and asks what it made. Nothing runs yet. */
export async function finishStart(host: Host, copy: EngineCopy, { held, ended }: HeldStart): Promise<StartedLife> {
  held.letEngineGoOn();
  const failure = await ended;
  if (failure !== undefined) throw failure;
  const inspect = await inspectCopy(host, copy.engineId);
  if (inspect?.State.Running !== true)
    throw new Error(`the container does not start: ${inspect?.State.Error ?? 'its engine lost it'}`);
  return { address: addressOf(inspect), carriedStart: inspect.State.StartedAt };
}

/** Ends a start that nothing came of. One that nobody passed must not be there at the next, which would wait at it. */
export async function endStart(host: Host, copy: EngineCopy, { held, ended }: HeldStart): Promise<void> {
  await held[Symbol.asyncDispose]();
  await ended;
  await killSandbox(host, copy); // One that an engine has forgotten when it died.
}

async function callStart(host: Host, engineId: string): Promise<Error | undefined> {
  try {
    const path = ['containers', engineId, 'start'];
    const { status } = await host.client.call({ method: 'POST', path, patienceMs: START_PATIENCE_MS });
    return status === 304 ? new Error('its engine says that it runs already') : undefined;
  } catch (error) {
    return error instanceof Error ? error : new Error(reasonOf(error));
  }
}

async function watchEnd(start: HeldStart): Promise<void> {
  await start.ended;
  start.isOver = true;
}
