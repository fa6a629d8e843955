/** `POST /containers/{id}/update`: the engine, the store and the tenant's quota agree afterwards. */
import type { Clock } from '#clock';
import { updateSpec } from '#state/containers.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { Sql } from '#state/sql.ts';
import type { Tenant } from '#state/tenants.ts';
import { cpuMilliOf } from '#caas/container-creation.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import { parseUpdate } from '#caas/spec/container-update.ts';
import type { UpdateResult } from '#caas/spec/container-update.ts';
import { withVirtualNames } from '#caas/container-errors.ts';
import type { Containers } from '#caas/containers.ts';
import { EngineError } from '#caas/engine/engine-client.ts';
import { dockerError, noSuchContainer, refusedSpec } from './docker-error.ts';
import { readJson, requireJson, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';

export interface UpdateHandlerDeps {
  readonly clock: Clock;
  readonly sql: Sql;
  readonly containers: Containers;
}

type Update = Extract<UpdateResult, { kind: 'update' }>;

export class ContainerUpdate {
  readonly #deps: UpdateHandlerDeps;

  constructor(deps: UpdateHandlerDeps) {
    this.#deps = deps;
  }

  async answer(request: DockerRequest, reference: string): Promise<void> {
    const { tenant, incoming } = request;
    requireJson(incoming);
    const body = await readJson(incoming);
    const found = await this.#deps.containers.resolve(tenant.name, reference);
    await this.apply(tenant, found.id, body);
    sendJson(request.response, 200, { Warnings: null });
  }

  /** An update as a tenant would ask for it. Errors are Docker's. */
  async apply(tenant: Tenant, id: string, body: unknown): Promise<void> {
    const { locks, quotaLocks, events } = this.#deps.containers;
    const update = async (): Promise<ContainerRow> => await this.#update(tenant, id, body);
    events.publish(await locks.run(id, async () => await quotaLocks.run(tenant.name, update)), 'update');
  }

  async #update(tenant: Tenant, id: string, body: unknown): Promise<ContainerRow> {
    const { containers, sql, clock } = this.#deps;
    const row = await containers.find(id);
    if (row === undefined) throw noSuchContainer(id);
    const update = parseUpdate(body, parseStoredSpec(row.spec), row.memoryBytes);
    if (update.kind === 'refused') throw refusedSpec(update);
    await this.#checkQuota(tenant, row, update);
    try {
      const path = ['containers', row.engineId, 'update'];
      await containers.hostOf(row).client.call({ method: 'POST', path, body: update.engineBody });
    } catch (error) {
      throw error instanceof EngineError ? withVirtualNames(error, row) : error;
    }
    const change = { spec: JSON.stringify(update.spec), memoryBytes: update.memoryBytes };
    if ((await updateSpec(sql, row, change, clock.nowMs())).kind === 'conflict') throw noSuchContainer(id);
    return { ...row, ...change };
  }

  async #checkQuota({ name, quota }: Tenant, row: ContainerRow, update: Update): Promise<void> {
    const others = (await this.#deps.containers.listOf(name)).filter((other) => other.id !== row.id);
    const memorySum = others.reduce((sum, other) => sum + other.memoryBytes, update.memoryBytes);
    if (update.memoryBytes > row.memoryBytes && memorySum > quota.memoryBytesMax) {
      throw dockerError(
        403,
        `ecluse: the memory limits of tenant ${name} would add up to ${String(memorySum)} bytes, its quota is ${String(quota.memoryBytesMax)}; set a smaller one with --memory`,
      );
    }
    if (quota.cpuMilliMax === 0 || cpuMilliOf(update.spec) <= cpuMilliOf(parseStoredSpec(row.spec))) return;
    const cpuSum = others.reduce((sum, other) => sum + cpuMilliOf(parseStoredSpec(other.spec)), cpuMilliOf(update.spec));
    if (cpuSum > quota.cpuMilliMax) {
      throw dockerError(
        403,
        `ecluse: the processors of tenant ${name}'s containers would add up to ${String(cpuSum / 1000)}, its quota is ${String(quota.cpuMilliMax / 1000)}; set fewer with --cpus`,
      );
    }
  }
}
