/** The two ends of a node's life, for its containers: what a start takes over, and what a stop leaves behind. */
import * as z from 'zod';
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { deleteContainer, listUnmetered, setResume } from '#state/containers.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { Sql } from '#state/sql.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { Containers } from './containers.ts';
import type { Host } from './host.ts';
import { incarnationBaseOf } from './incarnation-base.ts';
import type { Meter } from './meter.ts';
import type { Volumes } from '#caas/volumes/volumes.ts';

export interface RecoveryDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly containers: Containers;
  readonly volumes: Volumes;
}

const listedSchema = z.array(z.object({ Id: z.string(), Names: z.array(z.string()).nullish() }));

/** Before the node stops: every running container is stopped, and those with a restart policy are marked to be started again. */
export async function stopAll(deps: RecoveryDeps, graceSeconds: number): Promise<void> {
  const rows = await deps.containers.list();
  await Promise.all(
    rows
      .filter((row) => row.snapshot === '' && ['running', 'paused', 'restarting'].includes(row.state))
      .map(async (row) => await stopOne(deps, row, graceSeconds)),
  );
}

async function stopOne(deps: RecoveryDeps, row: ContainerRow, graceSeconds: number): Promise<void> {
  const { containers, sql, log } = deps;
  const policy = parseStoredSpec(row.spec).hostConfig.RestartPolicy?.Name ?? '';
  if (policy === 'always' || policy === 'unless-stopped') {
    // A full disk must not keep the container from being stopped.
    await setResume(sql, row.id, true).catch((error: unknown) => {
      log.error({ container: row.id, reason: reasonOf(error) }, 'a container will not be started again by itself');
    });
  }
  try {
    if (row.state === 'paused') {
      await containers.hostOf(row).client.call({ method: 'POST', path: ['containers', row.engineId, 'unpause'] });
    }
    await containers.operate(row, { method: 'POST', verb: ['stop'], query: { t: graceSeconds } });
  } catch (error) {
    log.warn({ container: row.id, reason: reasonOf(error) }, 'a container could not be stopped in order');
  }
}

/** At a start: takes over what engines say, removes what they have that is not ours, starts what the last stop owes a start. */
export async function reconcile(deps: RecoveryDeps & { readonly meter: Meter }): Promise<void> {
  const { containers, hosts, sql, clock, volumes, log, meter } = deps;
  await volumes.reopenSockets();
  for (const row of await containers.list()) {
    const host = hosts.get(row.host);
    if (row.state === 'creating') {
      if (host !== undefined) await containers.unmake(row);
      await deleteContainer(sql, row, clock.nowMs());
      await volumes.removeAnonymousOf(row.tenant, parseStoredSpec(row.spec).mounts);
    } else if (host !== undefined) await containers.sync(row.id);
  }
  for (const row of await listUnmetered(sql)) {
    const host = hosts.get(row.host);
    if (host === undefined) continue;
    log.error({ container: row.id, tenant: row.tenant }, 'a container was not metered; it is from now on');
    await meter.openIncarnation(await meter.startingPoint(incarnationBaseOf(row, host)));
  }
  for (const host of hosts.values()) {
    await removeStrangers(deps, host);
    await volumes.collectGarbage(host);
  }
  await Promise.all((await containers.list()).filter((row) => row.resume).map(async (row) => await startAgain(deps, row)));
}

async function startAgain(deps: RecoveryDeps, row: ContainerRow): Promise<void> {
  await setResume(deps.sql, row.id, false);
  if (row.state !== 'exited' && row.state !== 'created') return;
  try {
    await deps.containers.operate(row, { method: 'POST', verb: ['start'] });
  } catch (error) {
    deps.log.error({ container: row.id, tenant: row.tenant, reason: reasonOf(error) }, 'a container could not be started again');
  }
}

/** Engine containers with our prefix that the store does not place here: left by a crash. Others on a foreign engine are not ours to touch. */
async function removeStrangers(deps: RecoveryDeps, host: Host): Promise<void> {
  const { json } = await host.client.call({ method: 'GET', path: ['containers', 'json'], query: { all: true } });
  const placed = new Set((await deps.containers.list()).filter((row) => row.host === host.name).map((row) => row.engineId));
  for (const { Id, Names } of listedSchema.parse(json)) {
    const isOurs = (Names ?? []).some((name) => name.startsWith(`/ecluse-${host.network.scope}-`));
    if (!isOurs || placed.has(Id)) continue;
    deps.log.warn({ host: host.name, engineId: Id }, 'a leftover container is removed');
    await host.client.call({ method: 'DELETE', path: ['containers', Id], query: { force: true, v: true } });
  }
}
