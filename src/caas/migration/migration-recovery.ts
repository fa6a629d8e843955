/**
 * Finishes or undoes a move from its journal alone: what a daemon that died in the middle left, and what an engine that was away did not let us do.
 *
 * Until the journal says `committed` the source is the container and the target a copy to remove; from then on it is the other way round.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { unstage } from '#isolation/held-restore.ts';
import { forgetFinalCounters } from '#isolation/runtime-settings.ts';
import type { ContainerRow } from '#state/containers.ts';
import { setMigrationState } from '#state/migrations.ts';
import type { MigrationRow } from '#state/migrations.ts';
import type { Sql } from '#state/sql.ts';
import type { Containers } from '#caas/containers.ts';
import { correctPaused, letGoOn, limitMemory, removeCopy, removePaused } from '#caas/engine/engine-copy.ts';
import { restartAsAllowed } from '#caas/engine/restart-policy.ts';
import type { Host } from '#caas/host.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import { dropForeignVolumes } from '#caas/volumes/volume-moves.ts';

export interface MigrationRecoveryDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: Containers;
  readonly imageFolder: string;
}

type Step = readonly [name: string, work: () => Promise<void>];

/** Puts the container of a journal in order. Where a step fails the others are taken all the same, the journal stays open, and this is false. */
export async function recoverMove(deps: MigrationRecoveryDeps, journal: MigrationRow): Promise<boolean> {
  const { sql, clock, containers, imageFolder } = deps;
  const row = await containers.find(journal.container);
  const isCommitted = journal.state === 'committed';
  const removeImage = async (): Promise<void> => {
    for (const image of [journal.id, `${journal.id}.received`])
      await rm(join(imageFolder, image), { recursive: true, force: true });
  };
  const isDone = await takeSteps(deps, journal.container, [
    ['image', removeImage],
    ...(isCommitted ? finishing(deps, journal, row) : undoing(deps, journal, row)),
  ]);
  if (isDone) await setMigrationState(sql, journal, isCommitted ? 'done' : 'rolled-back', clock.nowMs());
  return isDone;
}

async function takeSteps({ log }: MigrationRecoveryDeps, container: string, steps: readonly Step[]): Promise<boolean> {
  let isDone = true;
  for (const [step, work] of steps) {
    try {
      await work();
    } catch (error) {
      isDone = false;
      log.error({ container, step, reason: reasonOf(error) }, 'an interrupted migration is not in order yet');
    }
  }
  return isDone;
}

function finishing(
  { hosts, sql, clock }: MigrationRecoveryDeps,
  journal: MigrationRow,
  row: ContainerRow | undefined,
): readonly Step[] {
  const source = hosts.get(journal.sourceHost);
  const target = hosts.get(journal.targetHost);
  const steps: Step[] = [];
  if (source !== undefined) {
    const copy = { tenant: row?.tenant ?? '', id: journal.container, engineId: journal.sourceEngineId };
    steps.push([
      'source',
      async () => {
        await removePaused(clock, source, copy);
        await forgetFinalCounters(source.runtimeDir, journal.sourceEngineId);
        if (row !== undefined) await dropForeignVolumes(sql, source, row.tenant, parseStoredSpec(row.spec).mounts);
      },
    ]);
  }
  if (target !== undefined && row !== undefined)
    steps.push([
      'policy',
      async () => {
        await unstage({ runtimeDir: target.runtimeDir, engineId: row.engineId });
        await restartAsAllowed(target, row);
      },
    ]);
  return steps;
}

function undoing(
  { hosts, sql, clock, containers }: MigrationRecoveryDeps,
  journal: MigrationRow,
  row: ContainerRow | undefined,
): readonly Step[] {
  const source = hosts.get(journal.sourceHost);
  const target = hosts.get(journal.targetHost);
  const steps: Step[] = [];
  // A restore onto the container's own host: what was half made there is a stranger, and the name would be the container's own.
  const isUnknown = journal.targetHost === journal.sourceHost && journal.targetEngineId === undefined;
  if (target !== undefined && !isUnknown) {
    const engineId = journal.targetEngineId ?? containers.engineNameOf(target, journal.container);
    steps.push([
      'target',
      async () => {
        await removeCopy(target, { tenant: row?.tenant ?? '', id: journal.container, engineId });
        await forgetFinalCounters(target.runtimeDir, engineId);
        if (row !== undefined) await dropForeignVolumes(sql, target, row.tenant, parseStoredSpec(row.spec).mounts);
      },
    ]);
  }
  if (source === undefined || row === undefined) return steps;
  steps.push([
    'source',
    async () => {
      await letGoOn(source, row);
      await correctPaused(source, row);
    },
  ]);
  steps.push([
    'limit',
    async () => {
      await limitMemory(clock, source, row);
    },
  ]);
  steps.push([
    'policy',
    async () => {
      await restartAsAllowed(source, row);
    },
  ]);
  return steps;
}
