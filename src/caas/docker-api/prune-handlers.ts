/** `POST /containers/prune`. */
import { reasonOf } from '#errors';
import type { Clock } from '#clock';
import type { Log } from '#log';
import type { ContainerRow } from '#state/containers.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { Containers } from '#caas/containers.ts';
import type { Events } from '#caas/events.ts';
import { dockerError } from './docker-error.ts';
import type { EngineSummaries } from './engine-summaries.ts';
import { checkFilterKeys } from './filters.ts';
import { matchesLabels, untilMsOf } from './label-filters.ts';
import { filtersOf, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';

export interface PruneHandlerDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly containers: Containers;
  readonly events: Events;
  readonly summaries: EngineSummaries;
}

const KEYS = new Set(['label', 'label!', 'until']);
const RUNS: ReadonlySet<ContainerRow['state']> = new Set(['creating', 'running', 'paused', 'restarting']);

export class ContainerPrune {
  readonly #deps: PruneHandlerDeps;
  readonly #busy = new Set<string>();

  constructor(deps: PruneHandlerDeps) {
    this.#deps = deps;
  }

  async answer(request: DockerRequest): Promise<void> {
    const { name } = request.tenant;
    if (this.#busy.has(name)) throw dockerError(409, 'a prune operation is already running');
    this.#busy.add(name);
    try {
      sendJson(request.response, 200, await this.#prune(request));
    } finally {
      this.#busy.delete(name);
    }
  }

  async #prune({ query, tenant, signal }: DockerRequest): Promise<Readonly<Record<string, unknown>>> {
    const filters = filtersOf(query);
    checkFilterKeys(filters, KEYS);
    const untilMs = untilMsOf(filters, this.#deps.clock.nowMs());
    const stopped = (await this.#deps.containers.listOf(tenant.name)).filter(
      (row) => !RUNS.has(row.state) && (untilMs === undefined || row.createdMs <= untilMs),
    );
    const summaries = await this.#deps.summaries.of(stopped, { size: true });
    const unwanted = filters.get('label!') ?? [];
    const deleted: string[] = [];
    let reclaimedBytes = 0;
    for (const row of stopped) {
      if (signal.aborted) break;
      const summary = summaries.get(row.id);
      const labels = summary?.labels ?? parseStoredSpec(row.spec).config.Labels ?? {};
      if (!matchesLabels(labels, filters.get('label') ?? [])) continue;
      if (unwanted.length > 0 && matchesLabels(labels, unwanted)) continue;
      if (!(await this.#remove(row))) continue;
      deleted.push(row.id);
      reclaimedBytes += summary?.sizeRwBytes ?? 0;
    }
    this.#deps.events.publish(tenant.name, 'container', 'prune', { id: '', attributes: { reclaimed: String(reclaimedBytes) } });
    return { ContainersDeleted: deleted.length === 0 ? null : deleted, SpaceReclaimed: reclaimedBytes };
  }

  /** One that cannot go (it was started meanwhile) stays, as in moby. */
  async #remove(row: ContainerRow): Promise<boolean> {
    try {
      await this.#deps.containers.remove(row, { force: false, volumes: false });
      return true;
    } catch (error) {
      this.#deps.log.debug({ container: row.id, reason: reasonOf(error) }, 'a container was not pruned');
      return false;
    }
  }
}
