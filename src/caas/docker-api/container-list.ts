/** `GET /containers/json`: from the store, with what engines said last. */
import { LRUCache } from 'lru-cache';
import type { Clock } from '#clock';
import type { ContainerRow } from '#state/containers.ts';
import type { Tenant } from '#state/tenants.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { Containers } from '#caas/containers.ts';
import { parseReference, wholeReference } from '#caas/images/image-reference.ts';
import type { Host } from '#caas/host.ts';
import type { Images } from '#caas/images/images.ts';
import type { Networks } from '#caas/networks/networks.ts';
import type { PublishedPorts } from '#caas/ports/published-ports.ts';
import { dockerState, summaryView } from './container-views.ts';
import type { ContainerSubject } from './container-views.ts';
import type { EngineSummaries, EngineSummary } from './engine-summaries.ts';
import { compileFilters } from './filters.ts';
import type { FilterFacts, Filters, ListCandidate } from './filters.ts';
import { containerNetworks } from './network-handlers.ts';
import { booleanOf, filtersOf, integerOfQuery, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';

export interface ContainerListDeps {
  readonly clock: Clock;
  readonly containers: Containers;
  readonly images: Images;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly networks: Networks;
  readonly ports: PublishedPorts;
  readonly summaries: EngineSummaries;
}

const PARENTS_KEPT_MAX = 5000;
/** Images made from images made from images: builds have a step a line. */
const ANCESTORS_MAX = 500;

export class ContainerList {
  readonly #deps: ContainerListDeps;
  /** Image id → the image it was made from; images never change. */
  readonly #parents = new LRUCache<string, string>({ max: PARENTS_KEPT_MAX });

  constructor(deps: ContainerListDeps) {
    this.#deps = deps;
  }

  async answer(request: DockerRequest): Promise<void> {
    const { query, tenant } = request;
    const filters = filtersOf(query);
    const limit = Math.max(0, integerOfQuery(query, 'limit') ?? 0);
    const rows = await this.#deps.containers.listOf(tenant.name);
    const ancestries = await this.#ancestriesOf(tenant.name, filters, rows);
    const facts: FilterFacts = { rows, ancestry: (reference) => ancestries.get(reference) ?? new Set() };
    const test = compileFilters(filters, facts);
    const all = booleanOf(query, 'all') || limit > 0 || (filters.get('status')?.length ?? 0) > 0;
    let shown = all ? rows : rows.filter((row) => ['running', 'paused', 'restarting'].includes(row.state));
    if (filters.size === 0 && limit > 0) shown = shown.slice(0, limit);
    const matched = (await this.#candidates(tenant, rows, shown)).filter(test);
    const candidates = limit > 0 ? matched.slice(0, limit) : matched;
    sendJson(request.response, 200, await this.#views(tenant.name, candidates, { size: booleanOf(query, 'size') }));
  }

  /** All of a tenant's containers with their sizes, for `system df`. */
  async measured(tenant: Tenant): Promise<readonly Readonly<Record<string, unknown>>[]> {
    const rows = await this.#deps.containers.listOf(tenant.name);
    return await this.#views(tenant.name, await this.#candidates(tenant, rows, rows), { size: true });
  }

  async #candidates(
    tenant: Tenant,
    rows: readonly ContainerRow[],
    shown: readonly ContainerRow[],
  ): Promise<readonly ListCandidate[]> {
    const summaries = await this.#deps.summaries.of(shown, { size: false });
    const networks = await containerNetworks(this.#deps, tenant, rows);
    const ports = await this.#deps.ports.listOfTenant(tenant.name);
    const nowMs = this.#deps.clock.nowMs();
    return shown.map((row) => {
      const subject = { row, spec: parseStoredSpec(row.spec), networks: networks(row), ports: ports.get(row.id) ?? [] };
      return this.#candidate(subject, { summary: summaries.get(row.id), nowMs });
    });
  }

  async #views(
    tenant: string,
    candidates: readonly ListCandidate[],
    options: { readonly size: boolean },
  ): Promise<readonly Readonly<Record<string, unknown>>[]> {
    const imageName = await this.#imageNames(tenant);
    const sizes = options.size ? await this.#sizesOf(candidates) : undefined;
    return candidates.map(({ row, view, imageId }) => ({
      ...view,
      Image: imageName(String(view['Image']), imageId),
      ...sizes?.(row),
    }));
  }

  #candidate(
    subject: ContainerSubject,
    { summary, nowMs }: { readonly summary: EngineSummary | undefined; readonly nowMs: number },
  ): ListCandidate {
    const { row, spec } = subject;
    return {
      row,
      imageId: spec.imageId,
      state: dockerState(row),
      labels: summary?.labels ?? spec.config.Labels ?? {},
      exitCode: summary?.exitCode ?? 0,
      health: summary?.health ?? 'none',
      view: summaryView(subject, summary, nowMs),
    };
  }

  async #sizesOf(candidates: readonly ListCandidate[]): Promise<(row: ContainerRow) => Readonly<Record<string, number>>> {
    const measured = await this.#deps.summaries.of(
      candidates.map(({ row }) => row),
      { size: true },
    );
    return (row) => {
      const summary = measured.get(row.id);
      return { SizeRw: summary?.sizeRwBytes ?? 0, SizeRootFs: summary?.sizeRootFsBytes ?? 0 };
    };
  }

  /** The reference that a container was made with while it still means the same image, else the image's id (moby `refreshImage`). */
  async #imageNames(tenant: string): Promise<(reference: string, imageId: string) => string> {
    const held = new Map<string, string>();
    for (const image of await this.#deps.images.list(tenant)) {
      for (const reference of image.references) held.set(reference, image.imageId);
    }
    const known = new Map<string, string>();
    return (reference, imageId) => {
      const key = `${reference} ${imageId}`;
      const found = known.get(key);
      if (found !== undefined) return found;
      const parsed = parseReference(reference);
      const isStill = parsed !== undefined && held.get(wholeReference(parsed)) === imageId;
      const isId =
        /^(?:sha256:)?[0-9a-f]{4,64}$/.test(reference) && imageId.startsWith(`sha256:${reference.replace('sha256:', '')}`);
      const name = isStill || isId ? reference : imageId;
      known.set(key, name);
      return name;
    };
  }

  /** For each value of the `ancestor` filter: the image's id, and those of the containers' images that were made from it. */
  async #ancestriesOf(
    tenant: string,
    filters: Filters,
    rows: readonly ContainerRow[],
  ): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
    const wanted = filters.get('ancestor') ?? [];
    const found = new Map<string, ReadonlySet<string>>();
    if (wanted.length === 0) return found;
    const used = new Set(rows.map((row) => parseStoredSpec(row.spec).imageId));
    for (const reference of wanted) {
      const image = await this.#deps.images.find(tenant, reference);
      if (image === undefined) continue;
      const ids = new Set([image.imageId]);
      for (const id of used) if (await this.#isMadeFrom(id, image.imageId)) ids.add(id);
      found.set(reference, ids);
    }
    return found;
  }

  async #isMadeFrom(imageId: string, ancestor: string): Promise<boolean> {
    let id = imageId;
    for (let step = 0; step < ANCESTORS_MAX && id !== ''; step += 1) {
      if (id === ancestor) return true;
      let parent = this.#parents.get(id);
      if (parent === undefined) {
        parent = (await this.#deps.images.inspect(id))?.Parent ?? '';
        this.#parents.set(id, parent);
      }
      id = parent;
    }
    return false;
  }
}
