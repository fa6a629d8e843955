/**
 * Services that grow and shrink with what is asked of them: copies by `Clones`, memory by `docker update`, as the labels of the original allow.
 *
 * INVARIANTS: one action a service at a time. Only copies that were made here are removed, which their label says. A copy that goes is frozen at the
 * edge first: new requests go to the others, and those that it has end.
 */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import type { Activator } from '#routing/activator.ts';
import { changeWrite } from '#state/change-log.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { Sql } from '#state/sql.ts';
import { findTenant } from '#state/tenants.ts';
import type { Containers } from '#caas/containers.ts';
import { ContainerUpdate } from '#caas/docker-api/update-handlers.ts';
import type { Meter } from '#caas/meter.ts';
import type { Clones } from '#caas/snapshots/clones.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import { memoryStep, NO_MEMORY_STATE } from './memory-plan.ts';
import type { MemoryState } from './memory-plan.ts';
import { SCALE_OF_LABEL, scaleLabelsOf } from './scale-labels.ts';
import type { MemoryWish, ScaleLabels, ScaleWish } from './scale-labels.ts';
import { firstScaleState, scaled, scaleStep } from './scale-plan.ts';
import type { ScaleState } from './scale-plan.ts';
import { servicesOf } from './scaled-services.ts';
import type { ScaledService } from './scaled-services.ts';

export interface ScalerDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly containers: Containers;
  readonly clones: Clones;
  readonly meter: Meter;
  readonly activator: Activator;
}

/** As often as workers tell what they have. */
const PERIOD_MS = 1_000;
/** What failed (a quota, no room) is tried again after this. */
const FAILED_PAUSE_MS = 60_000;
/** A copy's requests get this long to end by themselves; then they are cut, as at a stop. */
const DRAIN_MS = 60_000;
const HOLD_DEADLINE_MS = 90_000;

interface Watched {
  scale: ScaleState;
  memory: MemoryState;
  notBeforeMs: number;
  action: Promise<void> | undefined;
}

export class Scaler implements AsyncDisposable {
  readonly #deps: ScalerDeps;
  readonly #update: ContainerUpdate;
  /** By the id of the original. */
  readonly #watched = new Map<string, Watched>();
  #loop: AsyncDisposable | undefined;

  constructor(deps: ScalerDeps) {
    this.#deps = deps;
    this.#update = new ContainerUpdate(deps);
  }

  start(): this {
    this.#loop = startLoop(this.#deps, {
      name: 'scale',
      periodMs: PERIOD_MS,
      round: async () => {
        await this.#round();
      },
    });
    return this;
  }

  async #round(): Promise<void> {
    const nowMs = this.#deps.clock.monotonicMs();
    const services = servicesOf(await this.#deps.containers.list());
    for (const [id, { action }] of this.#watched) if (action === undefined && !services.has(id)) this.#watched.delete(id);
    const usedBytes = new Map(this.#deps.meter.readings().map(({ container, memoryBytes }) => [container, memoryBytes]));
    for (const [id, service] of services) {
      const watched = this.#watched.get(id) ?? {
        scale: firstScaleState(nowMs),
        memory: NO_MEMORY_STATE,
        notBeforeMs: nowMs,
        action: undefined,
      };
      this.#watched.set(id, watched);
      const work = this.#wanted(service, watched, { nowMs, usedBytes: usedBytes.get(id) });
      if (work === undefined || watched.action !== undefined || nowMs < watched.notBeforeMs) continue;
      watched.action = this.#act(service, watched, work);
    }
  }

  /** What is to be done for a service now; undefined: nothing. Samples are taken in also while something is under way. */
  #wanted(
    service: ScaledService,
    watched: Watched,
    sample: { readonly nowMs: number; readonly usedBytes: number | undefined },
  ): (() => Promise<void>) | undefined {
    const { original } = service;
    if (original === undefined || original.state === 'exited' || original.state === 'dead') {
      // A node that stops or starts owes its containers their start: nothing is over.
      const goes = original?.resume === true ? undefined : service.made.at(-1);
      const why = original === undefined ? 'its original was removed' : 'its original was stopped';
      return goes === undefined ? undefined : async () => await this.#takeOut(goes, why);
    }
    if (original.state !== 'running') return undefined;
    const { copies, memory } = labelsOf(original);
    const scaling = copies === undefined ? undefined : this.#scaling(service, original, { watched, wish: copies, ...sample });
    const resizing = memory === undefined ? undefined : this.#resizing(original, { watched, wish: memory, ...sample });
    return scaling ?? resizing;
  }

  #scaling(
    service: ScaledService,
    original: ContainerRow,
    { watched, wish, nowMs }: { readonly watched: Watched; readonly wish: ScaleWish; readonly nowMs: number },
  ): (() => Promise<void>) | undefined {
    const serving = [original, ...service.copies].filter(({ state }) => state === 'running');
    const uses = serving.map(({ id }) => this.#deps.activator.useOf(id));
    const inFlight = uses.reduce((sum, use) => sum + use.inFlight, 0);
    // Every endpoint of a service says how many wait for all of them.
    const held = uses.reduce((most, use) => Math.max(most, use.held), 0);
    const step = scaleStep(watched.scale, { nowMs, copies: serving.length, inFlight, held }, wish);
    watched.scale = step.state;
    const { wanted, why } = step;
    if (wanted > serving.length) return async () => await this.#grow(original, { from: serving.length, to: wanted, why });
    // One that sleeps goes first: nobody uses it. Else the youngest, which others know the least.
    const goes =
      wanted < serving.length ? (service.made.find(({ snapshot }) => snapshot !== '') ?? service.made.at(-1)) : undefined;
    return goes === undefined ? undefined : async () => await this.#takeOut(goes, why);
  }

  #resizing(
    original: ContainerRow,
    sample: {
      readonly watched: Watched;
      readonly wish: MemoryWish;
      readonly nowMs: number;
      readonly usedBytes: number | undefined;
    },
  ): (() => Promise<void>) | undefined {
    const { watched, wish, nowMs, usedBytes } = sample;
    if (usedBytes === undefined) return undefined;
    const step = memoryStep(watched.memory, { nowMs, usedBytes, limitBytes: original.memoryBytes }, wish);
    watched.memory = step.state;
    const { limitBytes } = step;
    return limitBytes === undefined ? undefined : async () => await this.#resize(original, limitBytes, usedBytes);
  }

  async #act(service: ScaledService, watched: Watched, work: () => Promise<void>): Promise<void> {
    const { log, clock } = this.#deps;
    try {
      await work();
    } catch (error) {
      log.warn({ container: service.id, tenant: service.tenant, reason: reasonOf(error) }, 'a service was not scaled');
      watched.notBeforeMs = clock.monotonicMs() + FAILED_PAUSE_MS;
      await this.#tell('scale.failed', service.id, { tenant: service.tenant, why: reasonOf(error) });
    } finally {
      watched.scale = scaled(watched.scale, clock.monotonicMs());
      watched.action = undefined;
    }
  }

  async #grow(
    original: ContainerRow,
    change: { readonly from: number; readonly to: number; readonly why: string },
  ): Promise<void> {
    const { clones } = await this.#deps.clones.clone(original.id, change.to - change.from, { [SCALE_OF_LABEL]: original.id });
    await this.#tell('scale.up', original.id, { tenant: original.tenant, name: original.name, ...change, copies: clones });
  }

  async #takeOut(copy: ContainerRow, why: string): Promise<void> {
    const { containers, activator } = this.#deps;
    await activator.freeze([copy.id], { deadlineMs: HOLD_DEADLINE_MS, drainMs: DRAIN_MS });
    try {
      // As at any stop it may write down what it has; one that sleeps is not woken for that.
      if (copy.snapshot === '') await containers.operate(copy, { method: 'POST', verb: ['stop'] });
      await containers.remove(copy, { force: true, volumes: true });
    } finally {
      await activator.thaw([copy.id]);
    }
    await this.#tell('scale.down', copy.id, { tenant: copy.tenant, name: copy.name, why });
  }

  async #resize(original: ContainerRow, limitBytes: number, usedBytes: number): Promise<void> {
    const tenant = await findTenant(this.#deps.sql, original.tenant);
    if (tenant === undefined) return;
    await this.#update.apply(tenant, original.id, { Memory: limitBytes });
    const { tenant: owner, name, memoryBytes } = original;
    await this.#tell('scale.memory', original.id, {
      tenant: owner,
      name,
      from: memoryBytes,
      to: limitBytes,
      why: `it uses ${String(Math.round((usedBytes * 100) / memoryBytes))} % of its limit`,
    });
  }

  async #tell(kind: string, key: string, data: Readonly<Record<string, unknown>>): Promise<void> {
    await this.#deps.sql.write([changeWrite(this.#deps.clock.nowMs(), kind, key, data)]);
  }

  /** An action under way ends by itself: a clone is a transaction. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#loop?.[Symbol.asyncDispose]();
    await Promise.allSettled([...this.#watched.values()].map(async ({ action }) => await action));
  }
}

/** Labels were checked at creation; of a container from before that, what is wrong counts as absent. */
function labelsOf(row: ContainerRow): ScaleLabels {
  const reading = scaleLabelsOf(parseStoredSpec(row.spec).config.Labels ?? {}, row.memoryBytes);
  return reading.kind === 'labels' ? reading.labels : { copies: undefined, memory: undefined };
}
