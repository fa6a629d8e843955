/** One move: what it needs, what is known of it before anything is touched, and what is told of it afterwards. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Clock } from '#clock';
import type { Log } from '#log';
import { checkImageRoom } from '#isolation/checkpoint.ts';
import type { Activator } from '#routing/activator.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { MigrationRow } from '#state/migrations.ts';
import type { Sql } from '#state/sql.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import type { Containers } from '#caas/containers.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import type { Host } from '#caas/host.ts';
import type { Meter } from '#caas/meter.ts';
import type { NetworkFabric } from '#caas/networks/network-fabric.ts';
import { sharedVolumeOf } from '#caas/volumes/volume-moves.ts';
import type { Volumes } from '#caas/volumes/volumes.ts';
import type { ImageTransfers } from './image-transfer.ts';
import { refusalOf } from './migration-check.ts';
import type { MoveCause } from './migration-check.ts';
import { moveRefused } from './move-error.ts';
import { untilQuiet } from './move-source.ts';
import type { MoveTimes, PhaseTime } from './move-times.ts';

/** A health check that takes longer is waited for no more; the move is refused. */
export const QUIET_LIMIT_MS = 10_000;

export interface MigrationDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: Containers;
  readonly meter: Meter;
  readonly activator: Activator;
  readonly fabric: NetworkFabric;
  readonly volumes: Volumes;
  /** Memory-backed folder for images; what is in it goes at the end of each migration. */
  readonly imageFolder: string;
  readonly transfers: ImageTransfers;
  /** Takes so much memory, which disposing gives back just before the pause in which it will be wanted. */
  readonly warm: (bytes: number) => Promise<AsyncDisposable>;
  /** Moves at one time. */
  readonly atOnce: number;
}

export interface MigrationReport {
  readonly container: string;
  readonly from: string;
  readonly to: string;
  readonly totalMs: number;
  /** From the moment requests were held to the moment they were released. */
  readonly heldMs: number;
  /** How long the program itself stood still. */
  readonly pausedMs: number;
  /** What the program used before it was paused. */
  readonly memoryBytes: number;
  readonly imageBytes: number;
  /** Sent to the target while the program ran, and after its requests were held; 0 where both hosts share the image. */
  readonly bytesPreCopied: number;
  readonly bytesAfterFreeze: number;
  /** Requests and streams that did not end by themselves in time and were cut. */
  readonly cut: number;
  readonly closedWebSockets: number;
  readonly endedEventStreams: number;
  /** Requests that were under way, and were sent again to the target because that was safe. */
  readonly replayed: number;
  readonly phases: readonly PhaseTime[];
}

/** What is known before anything is touched. */
export interface Move {
  readonly journal: MigrationRow;
  readonly row: ContainerRow;
  readonly spec: ContainerSpec;
  readonly source: Host;
  readonly target: Host;
  readonly sourceInspect: EngineInspect;
  /** What it used when it was looked at. */
  readonly memoryBytes: number;
  readonly imageDir: string;
  readonly times: MoveTimes;
  readonly signal: AbortSignal;
  readonly cause: MoveCause;
  readonly endSessions: boolean;
}

/** Why a move is made, and what may be done for it. */
export interface MoveOrder {
  readonly cause: MoveCause;
  /** Whether exec sessions, which cannot be carried, are ended before it; otherwise they keep the container where it is. */
  readonly endSessions: boolean;
  /** Throws where the container is not as it has to be for the order. Asked when nothing else can change it any more. */
  readonly confirm?: ((row: ContainerRow) => void) | undefined;
}

/** Everything that can be known before something is touched. Error: ECLUSE_MIGRATION_REFUSED. */
export async function checkMove(
  deps: MigrationDeps,
  id: string,
  targetName: string,
  run: Pick<Move, 'times' | 'signal' | 'cause' | 'endSessions'> & Pick<MoveOrder, 'confirm'>,
): Promise<Move> {
  const { containers, hosts, meter, sql, imageFolder } = deps;
  // A first interval after a restart of the node renews the incarnation; that must have happened before the row is read.
  await meter.flush(id);
  const row = await containers.find(id);
  const target = hosts.get(targetName);
  if (row === undefined) throw moveRefused(`container ${id} does not exist`, 'see: ecluse ps');
  run.confirm?.(row);
  if (target === undefined)
    throw moveRefused(`host ${targetName} does not exist`, `choose one of: ${[...hosts.keys()].join(', ')}`);
  const source = containers.hostOf(row);
  const spec = parseStoredSpec(row.spec);
  const sourceInspect = run.endSessions ? await containers.inspect(row) : await inspectQuiet(deps, row, spec);
  const refusal = refusalOf({
    cause: run.cause,
    endSessions: run.endSessions,
    row,
    spec,
    inspect: sourceInspect,
    source,
    target,
    sharedVolume: await sharedVolumeOf(sql, row.id, row.tenant, spec.mounts),
  });
  if (refusal !== undefined || sourceInspect === undefined) {
    throw moveRefused(
      refusal?.why ?? `the engine of host ${source.name} lost the container`,
      refusal?.mend ?? 'remove it and create it again',
    );
  }
  const usage = source.cgroups.usageOf(source.cgroupOf(row.tenant, row.id));
  const memoryBytes = usage?.memoryBytes ?? row.memoryBytes;
  await checkImageRoom(imageFolder, memoryBytes);
  const journal: MigrationRow = {
    id: randomUUID(),
    container: row.id,
    sourceHost: source.name,
    targetHost: target.name,
    sourceEngineId: row.engineId,
    targetEngineId: undefined,
    state: 'preparing',
  };
  return {
    journal,
    row,
    spec,
    source,
    target,
    sourceInspect,
    memoryBytes,
    imageDir: join(imageFolder, journal.id),
    ...run,
  };
}

/** A command of a health check ends by itself; one of a tenant's session may not. */
async function inspectQuiet(
  { clock, containers }: MigrationDeps,
  row: ContainerRow,
  spec: ContainerSpec,
): Promise<EngineInspect | undefined> {
  const inspect = async (): Promise<EngineInspect | undefined> => await containers.inspect(row);
  if (spec.config.Healthcheck !== null) await untilQuiet(clock, inspect, QUIET_LIMIT_MS);
  return await inspect();
}
