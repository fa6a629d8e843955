/**
 * What builds leave on an engine: containers of their steps, and images that nobody holds. The classic builder gives its containers invented
 * names, so they are told by their cgroup, which is ours.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as z from 'zod';
import type { Clock } from '#clock';
import { waitFor } from '#clock';
import type { Log } from '#log';
import { forgetFinalCounters } from '#isolation/runtime-settings.ts';
import { countHolders } from '#state/images.ts';
import { listOpenIncarnations } from '#state/ledger.ts';
import type { Sql } from '#state/sql.ts';
import { imageSchema } from '#caas/engine/engine-answers.ts';
import { EngineError } from '#caas/engine/engine-client.ts';
import type { EngineCall } from '#caas/engine/engine-client.ts';
import type { Host } from '#caas/host.ts';
import type { Meter } from '#caas/meter.ts';

export interface LeftoverDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
}

/** A cancelled build ends with the step that it is in, and takes that step's container along; this is how long that may last. */
const END_LIMIT_MS = 15_000;
const LOOK_PERIOD_MS = 300;
/** How long a container that is gone may still count as a user of its image. */
const USER_LIMIT_MS = 3000;

/** What the ledger and the cgroups call a build. */
const BUILD_PREFIX = 'build-';

export function buildName(id: string): string {
  return `${BUILD_PREFIX}${id}`;
}

const listedSchema = z.array(z.object({ Id: z.string().regex(/^[0-9a-f]{64}$/), Names: z.array(z.string()).nullish() }));
const cgroupSchema = z.object({ HostConfig: z.object({ CgroupParent: z.string().default('') }) });
const listedImageSchema = z.array(
  z.object({ Id: z.string(), ParentId: z.string().default(''), RepoTags: z.array(z.string()).nullish() }),
);

/** An answer, or undefined where the engine does not know the thing (any more), or will not touch it: still in use, already going. */
async function ask(host: Host, call: EngineCall): Promise<unknown> {
  try {
    return (await host.client.call(call)).json;
  } catch (error) {
    if (error instanceof EngineError && (error.status === 404 || error.status === 409)) return undefined;
    throw error;
  }
}

/** Containers of steps whose cgroup begins with `cgroup`. */
async function stepContainers(host: Host, cgroup: string): Promise<readonly string[]> {
  const listed = listedSchema.parse(await ask(host, { method: 'GET', path: ['containers', 'json'], query: { all: true } }));
  const found: string[] = [];
  for (const { Id, Names } of listed) {
    if ((Names ?? []).some((name) => name.startsWith(`/ecluse-${host.network.scope}-`))) continue;
    const parsed = cgroupSchema.safeParse(await ask(host, { method: 'GET', path: ['containers', Id, 'json'] }));
    if (parsed.success && parsed.data.HostConfig.CgroupParent.startsWith(cgroup)) found.push(Id);
  }
  return found;
}

async function removeContainers(host: Host, cgroup: string): Promise<number> {
  const found = await stepContainers(host, cgroup);
  for (const id of found) await ask(host, { method: 'DELETE', path: ['containers', id], query: { force: true, v: true } });
  return found.length;
}

/** The counters that the runtime wrote for step containers at their end. */
async function forgetCounters(host: Host, mark: RegExp): Promise<void> {
  const folder = join(host.runtimeDir, 'final');
  for (const id of await readdir(folder).catch(() => [])) {
    const text = await readFile(join(folder, id), 'utf8').catch(() => '');
    if (mark.test(text)) await forgetFinalCounters(host.runtimeDir, id);
  }
}

/** Takes an image away that has no name and that no tenant holds. False where the engine still needs it. */
async function removeImage(deps: LeftoverDeps, host: Host, name: string): Promise<boolean> {
  const known = imageSchema.safeParse(await ask(host, { method: 'GET', path: ['images', name, 'json'] }));
  if (!known.success || (known.data.RepoTags ?? []).length > 0 || (await countHolders(deps.sql, known.data.Id)) > 0) return true;
  return (await ask(host, { method: 'DELETE', path: ['images', known.data.Id], query: { noprune: true } })) !== undefined;
}

/** The same, with patience: a container that has just gone counts as a user for a moment. */
async function removeImageSoon(deps: LeftoverDeps, host: Host, name: string): Promise<void> {
  await waitFor(deps.clock, async () => ((await removeImage(deps, host, name)) ? true : undefined), {
    limitMs: USER_LIMIT_MS,
    stepMs: LOOK_PERIOD_MS,
  });
}

/** What one build brought to its engine. */
export interface BuildTraces {
  /** Images of its steps: ids or the beginnings of ids, in the order in which they were made. */
  readonly made: readonly string[];
  /** Images that were brought for it alone. */
  readonly borrowed: readonly string[];
}

/** `cut`: its end was not heard of. */
export type Ending = 'succeeded' | 'failed' | 'cut';

/** After a build: its containers are gone, and where no image came of it those of its steps too. */
export async function clearBuild(
  deps: LeftoverDeps,
  host: Host,
  build: { readonly cgroup: string; readonly traces: BuildTraces; readonly ending: Ending },
): Promise<void> {
  const endMs = deps.clock.monotonicMs() + END_LIMIT_MS;
  // A cancelled one may be about to make one more container: it is over when two looks find nothing.
  let quietLooks = build.ending === 'cut' ? 0 : 1;
  while (quietLooks < 2 && deps.clock.monotonicMs() < endMs) {
    quietLooks = (await removeContainers(host, build.cgroup)) === 0 ? quietLooks + 1 : 0;
    if (quietLooks < 2) await deps.clock.sleep(LOOK_PERIOD_MS);
  }
  await forgetCounters(host, new RegExp(`"cgroup":"${build.cgroup}"`));
  for (const image of build.traces.borrowed) await removeImageSoon(deps, host, image);
  if (build.ending === 'succeeded') return;
  for (const image of await withDescendants(host, build.traces.made)) await removeImageSoon(deps, host, image);
}

/** Ends what is left in a build's cgroup (a sandbox whose start failed may stay) and removes it. Its counters must be read by then. */
export async function removeBuildCgroup(deps: LeftoverDeps, host: Host, cgroup: string): Promise<void> {
  const isGone = await waitFor(
    deps.clock,
    async () => {
      if (await host.cgroups.remove(cgroup)) return true;
      for (const pid of await host.cgroups.processesIn(cgroup)) killIfThere(pid);
      return undefined;
    },
    { limitMs: END_LIMIT_MS, stepMs: LOOK_PERIOD_MS },
  );
  if (isGone === undefined) deps.log.warn({ host: host.name, cgroup }, 'the cgroup of a build could not be removed');
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself between the look and the kill.
  }
}

/** Images and what was made from them since, children first. */
async function withDescendants(host: Host, images: readonly string[]): Promise<readonly string[]> {
  const listed = listedImageSchema.parse(await ask(host, { method: 'GET', path: ['images', 'json'], query: { all: true } }));
  const found = [...images];
  for (const image of found) {
    const children = listed.filter(({ ParentId, RepoTags }) => {
      const isNamed = (RepoTags ?? []).some((name) => name !== '<none>:<none>');
      return ParentId !== '' && !isNamed && ParentId.replace(/^sha256:/, '').startsWith(image.replace(/^sha256:/, ''));
    });
    for (const { Id } of children) if (!found.includes(Id)) found.push(Id);
  }
  return found.toReversed();
}

/** At a start, when no build runs: what builds of a node that crashed left on a host. Their images go with all others that nobody holds. */
export async function clearCrashedBuilds(deps: LeftoverDeps, host: Host): Promise<void> {
  const removed = await removeContainers(host, `${host.cgroupPrefix}/`);
  if (removed > 0) deps.log.warn({ host: host.name, removed }, 'containers of builds that were cut off are removed');
  await forgetCounters(host, new RegExp(`"cgroup":"${host.cgroupPrefix}/[^/"]+/${BUILD_PREFIX}`));
}

/** Closes the books of builds that a crash cut off. */
export async function closeCrashedBuilds(deps: LeftoverDeps, meter: Meter, hosts: ReadonlyMap<string, Host>): Promise<void> {
  for (const { container, host, cgroup } of await listOpenIncarnations(deps.sql)) {
    if (!container.startsWith(BUILD_PREFIX)) continue;
    await meter.close(container);
    const place = hosts.get(host);
    if (place !== undefined) await removeBuildCgroup(deps, place, cgroup);
  }
}
