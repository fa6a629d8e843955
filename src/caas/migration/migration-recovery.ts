/**
 * The engines' side of undoing and finishing a move, and what a daemon that died in the middle left of one.
 *
 * Until the journal says `committed` the source is the container and the target a copy to remove; from then on it is the other way round.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#clock';
import { waitFor } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { unstageImage } from '#isolation/checkpoint.ts';
import { resumeSandbox } from '#isolation/sandbox-pause.ts';
import { callOffStart } from '#isolation/start-gate.ts';
import type { ContainerRow } from '#state/containers.ts';
import { listOpenMigrations, setMigrationState } from '#state/migrations.ts';
import type { MigrationRow } from '#state/migrations.ts';
import type { Sql } from '#state/sql.ts';
import type { Containers } from '#caas/containers.ts';
import { inspectSchema } from '#caas/engine/engine-answers.ts';
import { EngineError } from '#caas/engine/engine-client.ts';
import { forbidRestart } from '#caas/engine/restart-policy.ts';
import type { Host } from '#caas/host.ts';

export interface MigrationRecoveryDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: Containers;
  readonly imageFolder: string;
}

/** A container on one engine: the source's side of a move, or the target's. */
export interface EngineCopy {
  readonly tenant: string;
  readonly id: string;
  readonly engineId: string;
}

/** How long an engine may take to notice that a sandbox ended. */
const EXIT_SEEN_LIMIT_MS = 5_000;
/** How long a save that nobody waits for any more may hold the pages of its image. */
const LIMIT_BACK_LIMIT_MS = 5_000;

/** Lets a source go on as it was: awake, and with the memory limit that its save had lifted. The image must be gone. */
export async function limitMemory(clock: Clock, host: Host, row: ContainerRow): Promise<void> {
  const cgroup = `${host.cgroupOf(row.tenant, row.id)}/${row.engineId}`;
  const isSet = await waitFor(
    clock,
    async () => ((await host.cgroups.setMemoryLimit(cgroup, row.memoryBytes)) ? true : undefined),
    { limitMs: LIMIT_BACK_LIMIT_MS, stepMs: 50 },
  );
  if (isSet === undefined) throw new Error(`container ${row.name} uses more memory than its limit, which could not be set again`);
}

/** Removes a copy with everything that it has on its host. */
export async function removeCopy(host: Host, copy: EngineCopy): Promise<void> {
  await callOffStart(host.runtimeDir, copy.engineId); // An engine removes nothing that it is starting.
  try {
    await host.client.call({ method: 'DELETE', path: ['containers', copy.engineId], query: { force: true, v: true } });
  } catch (error) {
    if (!(error instanceof EngineError && error.status === 404)) throw error;
  }
  await unstageImage(host.runtimeDir, copy.engineId);
  await host.cgroups.remove(host.cgroupOf(copy.tenant, copy.id));
}

/**
 * Ends a paused container without waking it: two running copies must never be. Engines wait 10 s for a paused container to react to a kill, so its
 * processes are ended first. Returns when its engine has seen it.
 */
export async function endPaused(clock: Clock, host: Host, copy: EngineCopy): Promise<void> {
  await forbidRestart(host, copy.engineId);
  await killSandbox(host, copy);
  await waitFor(
    clock,
    async () => {
      const state = await stateOf(host, copy.engineId);
      return state === 'running' || state === 'paused' ? undefined : state;
    },
    { limitMs: EXIT_SEEN_LIMIT_MS, stepMs: 20 },
  );
}

/** Ends all processes of a container at once. */
export async function killSandbox(host: Host, { tenant, id, engineId }: EngineCopy): Promise<void> {
  for (const pid of await host.cgroups.processesIn(`${host.cgroupOf(tenant, id)}/${engineId}`)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended with its sandbox.
    }
  }
}

/** Ends a paused copy and removes it. */
export async function removePaused(clock: Clock, host: Host, copy: EngineCopy): Promise<void> {
  await endPaused(clock, host, copy);
  await removeCopy(host, copy);
}

async function stateOf(host: Host, engineId: string): Promise<string> {
  try {
    const { json } = await host.client.call({ method: 'GET', path: ['containers', engineId, 'json'] });
    return inspectSchema.parse(json).State.Status;
  } catch (error) {
    if (error instanceof EngineError && error.status === 404) return 'gone';
    throw error;
  }
}

/** Finishes or undoes what a daemon left in the middle. Called before anything serves. */
export async function recoverMigrations(deps: MigrationRecoveryDeps): Promise<void> {
  const { sql, clock, log, containers, imageFolder } = deps;
  for (const journal of await listOpenMigrations(sql)) {
    log.warn({ container: journal.container, state: journal.state }, 'a migration was interrupted');
    const row = await containers.find(journal.container);
    await rm(join(imageFolder, journal.id), { recursive: true, force: true });
    const isCommitted = journal.state === 'committed';
    if (isCommitted) await finish(deps, journal, row);
    else await undo(deps, journal, row);
    await setMigrationState(sql, journal, isCommitted ? 'done' : 'rolled-back', clock.nowMs());
  }
  await rm(imageFolder, { recursive: true, force: true });
}

async function finish(
  { hosts, clock }: MigrationRecoveryDeps,
  journal: MigrationRow,
  row: ContainerRow | undefined,
): Promise<void> {
  const source = hosts.get(journal.sourceHost);
  if (source === undefined) return;
  await removePaused(clock, source, { tenant: row?.tenant ?? '', id: journal.container, engineId: journal.sourceEngineId });
}

async function undo(
  { hosts, clock, containers, log }: MigrationRecoveryDeps,
  journal: MigrationRow,
  row: ContainerRow | undefined,
): Promise<void> {
  const source = hosts.get(journal.sourceHost);
  const target = hosts.get(journal.targetHost);
  // A restore onto the container's own host: what was half made there is a stranger, and the name would be the container's own.
  const isUnknown = journal.targetHost === journal.sourceHost && journal.targetEngineId === undefined;
  if (target !== undefined && !isUnknown) {
    const engineId = journal.targetEngineId ?? containers.engineNameOf(target, journal.container);
    await removeCopy(target, { tenant: row?.tenant ?? '', id: journal.container, engineId });
  }
  if (source === undefined || row === undefined) return;
  try {
    const { runtimeDir, runscRoot } = source;
    await resumeSandbox({ runtimeDir, runscRoot, engineId: row.engineId });
    await limitMemory(clock, source, row);
  } catch (error) {
    log.error({ container: row.id, reason: reasonOf(error) }, 'the source of an interrupted migration could not go on');
  }
}
