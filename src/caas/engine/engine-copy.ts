/**
 * A container on one engine, where it may be on two: ended, taken away, or let go on. Everything here may be done again: who was interrupted repeats it.
 */
import { readFileSync } from 'node:fs';
import type { Clock } from '#clock';
import { waitFor } from '#clock';
import { forgetFinalCounters } from '#isolation/runtime-settings.ts';
import { resumeSandbox } from '#isolation/sandbox-pause.ts';
import { callOffStart, unstage } from '#isolation/held-restore.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { Host } from '#caas/host.ts';
import { createdSchema, inspectSchema } from './engine-answers.ts';
import type { EngineInspect } from './engine-answers.ts';
import { EngineError } from './engine-client.ts';
import { forbidRestart } from './restart-policy.ts';

/** The source's side of a move, or the target's. */
export interface EngineCopy {
  readonly tenant: string;
  readonly id: string;
  readonly engineId: string;
}

/** How long an engine may take to notice that a sandbox ended. */
const EXIT_SEEN_LIMIT_MS = 5_000;
/** How long a save that nobody waits for any more may hold the pages of its image. */
const LIMIT_BACK_LIMIT_MS = 5_000;

/** Gives a container the memory limit back that its save had lifted. The image must be gone. */
export async function limitMemory(clock: Clock, host: Host, row: ContainerRow): Promise<void> {
  const cgroup = `${host.cgroupOf(row.tenant, row.id)}/${row.engineId}`;
  const isSet = await waitFor(
    clock,
    async () => ((await host.cgroups.setMemoryLimit(cgroup, row.memoryBytes)) ? true : undefined),
    { limitMs: LIMIT_BACK_LIMIT_MS, stepMs: 50 },
  );
  if (isSet === undefined) throw new Error(`container ${row.name} uses more memory than its limit, which could not be set again`);
}

/** Lets a container go on that was held below its engine; nothing where it is not held, or gone. */
export async function letGoOn(host: Host, copy: EngineCopy): Promise<void> {
  if (!(await isAlive(host, copy))) return;
  await resumeSandbox({ runtimeDir: host.runtimeDir, runscRoot: host.runscRoot, engineId: copy.engineId });
}

/**
 * An engine that was started again while a container was held has found it paused, and goes on saying so when it runs. Only for containers that
 * their tenant has not paused.
 */
export async function correctPaused(host: Host, { engineId }: EngineCopy): Promise<void> {
  const inspect = await inspectCopy(host, engineId);
  if (inspect?.State.Paused === true) await host.client.call({ method: 'POST', path: ['containers', engineId, 'unpause'] });
}

/** Removes a copy with everything that it has on its host. Whether its engine knows that it runs or not. */
export async function removeCopy(host: Host, copy: EngineCopy): Promise<void> {
  const place = { runtimeDir: host.runtimeDir, engineId: copy.engineId };
  await callOffStart(place); // An engine removes nothing that it is starting.
  await killSandbox(host, copy);
  try {
    await host.client.call({ method: 'DELETE', path: ['containers', copy.engineId], query: { force: true, v: true } });
  } catch (error) {
    if (!(error instanceof EngineError && error.status === 404)) throw error;
  }
  await unstage(place);
  await host.cgroups.remove(host.cgroupOf(copy.tenant, copy.id));
}

/** Removes what an engine has under a name that nobody knows the id of, with what was staged for it and what it left. Nothing where it has none. */
export async function removeNamed(host: Host, name: string): Promise<void> {
  try {
    const { json } = await host.client.call({ method: 'GET', path: ['containers', name, 'json'] });
    const { Id } = createdSchema.parse(json);
    await host.client.call({ method: 'DELETE', path: ['containers', Id], query: { force: true, v: true } });
    await unstage({ runtimeDir: host.runtimeDir, engineId: Id });
    await forgetFinalCounters(host.runtimeDir, Id);
  } catch (error) {
    if (!(error instanceof EngineError && error.status === 404)) throw error;
  }
}

/**
 * Ends a paused container without waking it: two running copies must never be. Engines wait 10 s for a paused container to react to a kill, so its
 * processes are ended first. Returns when its engine has seen it.
 */
export async function endPaused(clock: Clock, host: Host, copy: EngineCopy): Promise<void> {
  await forbidRestart(host, copy.engineId);
  await endHeld(clock, host, copy);
}

/** As `endPaused`, where the engine was told before that it is not to come back: it ends even while the engine does not answer. */
export async function endHeld(clock: Clock, host: Host, copy: EngineCopy): Promise<void> {
  await killSandbox(host, copy);
  await waitFor(
    clock,
    async () => {
      const state = (await inspectCopy(host, copy.engineId))?.State.Status ?? 'gone';
      return state === 'running' || state === 'paused' ? undefined : state;
    },
    { limitMs: EXIT_SEEN_LIMIT_MS, stepMs: 20 },
  );
}

/** Ends all processes of a container at once. */
export async function killSandbox(host: Host, copy: EngineCopy): Promise<void> {
  for (const pid of await processesOf(host, copy)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended with its sandbox.
    }
  }
}

/** How runsc names the process that is a container's kernel and holds its memory. */
const SANDBOX_NAME = 'runsc-sandbox';

/**
 * Whether a container's memory is still there. A killed sandbox has lost it long before all of its processes are gone: its gofer looks on for a
 * while, and itself it is listed until its memory is given back, but by then it has no command line any more.
 */
export async function hasSandbox(host: Host, copy: EngineCopy): Promise<boolean> {
  return (await processesOf(host, copy)).some((pid) => {
    try {
      // In this very turn: what was asked of the thread pool is old by the time that it is told.
      return readFileSync(`/proc/${String(pid)}/cmdline`, 'utf8').startsWith(SANDBOX_NAME);
    } catch {
      return false; // It ended just now.
    }
  });
}

/** Whether anything of a container lives. */
async function isAlive(host: Host, copy: EngineCopy): Promise<boolean> {
  return (await processesOf(host, copy)).length > 0;
}

async function processesOf(host: Host, { tenant, id, engineId }: EngineCopy): Promise<readonly number[]> {
  return await host.cgroups.processesIn(`${host.cgroupOf(tenant, id)}/${engineId}`);
}

/** Ends a paused copy and removes it. */
export async function removePaused(clock: Clock, host: Host, copy: EngineCopy): Promise<void> {
  await endPaused(clock, host, copy);
  await removeCopy(host, copy);
}

/** What the engine says; undefined where it does not know the container. */
export async function inspectCopy(host: Host, engineId: string): Promise<EngineInspect | undefined> {
  try {
    const { json } = await host.client.call({ method: 'GET', path: ['containers', engineId, 'json'] });
    return inspectSchema.parse(json);
  } catch (error) {
    if (error instanceof EngineError && error.status === 404) return undefined;
    throw error;
  }
}
