/** What a daemon that died left of snapshots and sleeps: finished or undone, before anything serves. */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import type { SnapshotVault } from '#isolation/snapshot-vault.ts';
import { callOffStart, hasRun, unstage } from '#isolation/held-restore.ts';
import type { ContainerRow } from '#state/containers.ts';
import { forgetSnapshot, listSnapshots, sleepOn, wakeUp } from '#state/snapshots.ts';
import type { SnapshotRow } from '#state/snapshots.ts';
import type { Sql } from '#state/sql.ts';
import type { Containers } from '#caas/containers.ts';
import { addressOf } from '#caas/engine/engine-answers.ts';
import { correctPaused, endPaused, hasSandbox, inspectCopy, letGoOn, limitMemory } from '#caas/engine/engine-copy.ts';
import type { StartedLife } from '#caas/engine/held-start.ts';
import { restartAsAllowed } from '#caas/engine/restart-policy.ts';
import type { Host } from '#caas/host.ts';

export interface SleepRecoveryDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: Containers;
  readonly vault: SnapshotVault;
}

export async function recoverSnapshots(deps: SleepRecoveryDeps): Promise<void> {
  const { sql, vault, log, containers } = deps;
  for (const snapshot of await listSnapshots(sql)) {
    const row = await containers.find(snapshot.container);
    try {
      if (snapshot.state === 'making') await unmake(deps, snapshot, row);
      else if (snapshot.kind === 'sleep') await recoverSleep(deps, snapshot, row);
      else if (row === undefined) await forgetSnapshot(sql, snapshot.id, deps.clock.nowMs());
    } catch (error) {
      log.error(
        { container: snapshot.container, snapshot: snapshot.id, reason: reasonOf(error) },
        'a snapshot was not put in order',
      );
    }
  }
  const strangers = await vault.keepOnly(new Set((await listSnapshots(sql)).map(({ id }) => id)));
  if (strangers.length > 0) log.warn({ strangers }, 'files of snapshots that nobody has were removed');
}

/** It was not whole: its container goes on. */
async function unmake(
  { log, clock, sql, hosts }: SleepRecoveryDeps,
  snapshot: SnapshotRow,
  row: ContainerRow | undefined,
): Promise<void> {
  log.warn({ container: snapshot.container, snapshot: snapshot.id }, 'a snapshot was interrupted');
  const host = row === undefined ? undefined : hosts.get(row.host);
  if (row !== undefined && host !== undefined && row.engineId !== '') {
    await letGoOn(host, row);
    await correctPaused(host, row);
    await limitMemory(clock, host, row);
    await restartAsAllowed(host, row);
  }
  await forgetSnapshot(sql, snapshot.id, clock.nowMs()); // Last: a daemon that dies before finds it again.
}

async function recoverSleep(deps: SleepRecoveryDeps, snapshot: SnapshotRow, row: ContainerRow | undefined): Promise<void> {
  const { sql, clock, hosts } = deps;
  if (row?.snapshot !== snapshot.id) {
    await forgetSnapshot(sql, snapshot.id, clock.nowMs());
    return;
  }
  const host = hosts.get(row.host);
  if (host === undefined) return;
  // Nobody holds its start any more: what waits ends.
  const place = { runtimeDir: host.runtimeDir, engineId: row.engineId };
  await callOffStart(place);
  if (snapshot.state === 'waking') {
    const life = await lifeOfRun(clock, host, row);
    if (life !== undefined) {
      await wakeUp(sql, snapshot, life, clock.nowMs());
      await unstage(place);
      await restartAsAllowed(host, row);
      return;
    }
    await sleepOn(sql, snapshot.id);
  }
  await endPaused(clock, host, row); // It was to end when it had been saved.
}

/** How a container lives, or lived until it ended, that has run since it was told to wake. Undefined: it has not. */
export async function lifeOfRun(clock: Clock, host: Host, row: ContainerRow): Promise<StartedLife | undefined> {
  const place = { runtimeDir: host.runtimeDir, engineId: row.engineId };
  if (!(await hasRun(clock, place, async () => await hasSandbox(host, row)))) return undefined;
  const inspect = await inspectCopy(host, row.engineId);
  return { address: inspect === undefined ? '' : addressOf(inspect), carriedStart: inspect?.State.StartedAt ?? '' };
}
