/** The store's rows and the parts of a node as operators see them. */
import type { ContainerExplanation, HostSettings, NodeStatus, SnapshotView } from '#admin/node-control.ts';
import { checkPrecondition } from '#admin/entity-tag.ts';
import type { Precondition } from '#admin/entity-tag.ts';
import type { Host } from '#caas/host.ts';
import { placementRecord } from '#caas/placement.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { HostRow, HostState } from '#state/hosts.ts';
import type { SnapshotRow } from '#state/snapshots.ts';
import { formatListenAddress } from './listen-address.ts';

export function addressText(address: { readonly host: string; readonly port: number } | undefined): string | undefined {
  return address === undefined ? undefined : formatListenAddress(address);
}

/** What its engine says of itself, and what is on it. */
export async function hostStatus(
  host: Host,
  rows: readonly ContainerRow[],
  use: HostState,
): Promise<NodeStatus['hosts'][number]> {
  const base = { name: host.name, use, engine: host.engineKind, containers: rows.filter((row) => row.host === host.name).length };
  try {
    const info = await host.info();
    return { ...base, state: 'up', engineVersion: info.ServerVersion, memoryBytes: info.MemTotal, cpus: info.NCPU };
  } catch {
    return { ...base, state: 'down', engineVersion: '', memoryBytes: 0, cpus: 0 }; // The state is the answer.
  }
}

export function explanationOf(row: ContainerRow): ContainerExplanation {
  const placement = row.placement === '' ? undefined : placementRecord.parse(JSON.parse(row.placement));
  return { id: row.id, tenant: row.tenant, name: row.name, host: row.host, placement };
}

export function settingsOfHost({ name, engine, state }: HostRow): HostSettings {
  return { name, engine, use: state };
}

/** Refuses what a host has none of the tags for. */
export function confirmHost(ifMatch: Precondition): (host: HostRow) => void {
  return (host) => {
    checkPrecondition(ifMatch, settingsOfHost(host), `host ${host.name}`);
  };
}

export function snapshotView({
  id,
  tenant,
  name,
  container,
  host,
  kind,
  createdMs,
  imageBytes,
  fileBytes,
  runtime,
}: SnapshotRow): SnapshotView {
  return {
    id,
    tenant,
    name,
    container,
    host,
    kind: kind === 'automatic' ? 'automatic' : 'manual',
    createdMs,
    imageBytes,
    keptBytes: fileBytes,
    runtime,
  };
}
