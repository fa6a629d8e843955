/** Gathers what the planner knows: hosts from their engines, containers from the store, use from the windows, moves from the journal. */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { ContainerRow } from '#state/containers.ts';
import { listHosts } from '#state/hosts.ts';
import { listMovesSince, listOpenMigrations } from '#state/migrations.ts';
import type { Sql } from '#state/sql.ts';
import { cpuMilliOf } from '#caas/container-creation.ts';
import type { Containers } from '#caas/containers.ts';
import type { Host } from '#caas/host.ts';
import { serviceOf } from '#caas/host-loads.ts';
import { stuckReasonOf } from '#caas/migration/migration-check.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import { sharedVolumeOf } from '#caas/volumes/volume-moves.ts';
import { migrateLabelOf } from './fleet-facts.ts';
import type { FleetContainer, FleetFacts, FleetHost } from './fleet-facts.ts';
import type { UsageWindows } from './usage-window.ts';

export interface FleetReaderDeps {
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: Containers;
  readonly windows: UsageWindows;
}

/** A container that moved longer ago has been where it is for as long as any rule asks. */
const MOVES_MS = 3_600_000;

/** Runs, or sleeps and would go on: what takes room on a host and must leave it when that is emptied. */
export function isAlive(row: ContainerRow): boolean {
  return row.state === 'running' || row.state === 'restarting' || row.state === 'paused';
}

async function hostFacts(host: Host, states: ReadonlyMap<string, FleetHost['state']>): Promise<FleetHost> {
  const base = { name: host.name, state: states.get(host.name) ?? 'active' };
  try {
    const info = await host.info();
    return { ...base, outOfService: undefined, cpuMilli: info.NCPU * 1000, memoryBytes: info.MemTotal };
  } catch (error) {
    return { ...base, outOfService: `its engine does not answer: ${reasonOf(error)}`, cpuMilli: 0, memoryBytes: 0 };
  }
}

/** Why it cannot leave its host as it is now. One that sleeps is woken for its move, so only what it shares can keep it. */
async function stuckOf(
  { sql, containers }: FleetReaderDeps,
  row: ContainerRow,
  endSessions: boolean,
): Promise<string | undefined> {
  const spec = parseStoredSpec(row.spec);
  const sharedVolume = await sharedVolumeOf(sql, row.id, row.tenant, spec.mounts);
  if (row.snapshot !== '')
    return sharedVolume === undefined ? undefined : `it shares the volume ${sharedVolume} with another container`;
  const inspect = await containers.inspectEngine(row).catch(() => undefined); // An engine that is down: it is not known there.
  return stuckReasonOf({ row, spec, inspect, sharedVolume, endSessions, source: { name: row.host } })?.why;
}

export interface FleetQuestion {
  /** Only containers there are asked of their engine what keeps them; undefined: all are. */
  readonly ofHost?: string;
  /** Whether exec sessions would be ended for a move. */
  readonly endSessions?: boolean;
}

/** The facts of this moment. */
export async function readFleet(deps: FleetReaderDeps, question: FleetQuestion = {}): Promise<FleetFacts> {
  const { ofHost, endSessions = false } = question;
  const { clock, sql } = deps;
  const nowMs = clock.nowMs();
  const states = new Map((await listHosts(sql)).map(({ name, state }) => [name, state]));
  const moves = await listMovesSince(sql, nowMs - MOVES_MS);
  const movedMs = new Map(moves.filter(({ state }) => state === 'done').map((move) => [move.container, move.startedMs]));
  const onTheWay = new Map((await listOpenMigrations(sql)).map((move) => [move.container, move.targetHost]));
  const hosts = await Promise.all([...deps.hosts.values()].map(async (host) => await hostFacts(host, states)));
  const containers: FleetContainer[] = [];
  for (const row of (await deps.containers.list()).filter(isAlive)) {
    const spec = parseStoredSpec(row.spec);
    const cpuMilli = cpuMilliOf(spec);
    containers.push({
      id: row.id,
      name: row.name,
      tenant: row.tenant,
      host: row.host,
      service: serviceOf(spec),
      label: migrateLabelOf(spec.config.Labels ?? undefined),
      stuck: ofHost === undefined || ofHost === row.host ? await stuckOf(deps, row, endSessions) : undefined,
      migratingTo: onTheWay.get(row.id),
      movedMs: row.carriedStart === '' ? undefined : movedMs.get(row.id),
      usage: deps.windows.summaryOf(row.id, nowMs),
      limits: { cpuMilli: cpuMilli === 0 ? undefined : cpuMilli, memoryBytes: row.memoryBytes },
      dirtyBytesPerSecond: undefined,
    });
  }
  return { nowMs, hosts, containers, recentMoves: moves.map(({ tenant, startedMs }) => ({ tenant, atMs: startedMs })) };
}
