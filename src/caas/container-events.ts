/**
 * The news of containers, in Docker's words: what a tenant's request did is published where it is done, what happens by itself (an exit, a restart, a
 * failed health check) follows from engines' events, rebuilt. A migration pauses, kills and starts; to the tenant nothing of it happened.
 */
import type { ContainerRow } from '#state/containers.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { EngineEvent } from '#caas/engine/engine-answers.ts';
import type { Events } from './events.ts';

/** What engines tell that no request of the tenant says already, with the attributes that go on. */
const RELAYED: ReadonlyMap<string, readonly string[]> = new Map([
  ['start', []],
  ['restart', []],
  ['die', ['exitCode']],
  ['stop', []],
  ['kill', ['signal']],
  ['pause', []],
  ['unpause', []],
  ['oom', []],
]);
/** An engine that lost its event stream must not hold a removal up. */
const LEAVE_LIMIT_MS = 500;
const HEALTH = /^health_status: (?:healthy|unhealthy|starting)$/;

export class ContainerEvents {
  readonly #events: Events;
  /** Containers that a migration moves: nothing that their engines say is news. By id, until when. */
  readonly #quiet = new Map<string, { fromMs: number; toMs: number }>();

  /** Engine containers that are being removed: what their engines say is told at once, because the row goes. */
  readonly #leaving = new Map<string, PromiseWithResolvers<undefined>>();

  constructor(deps: { readonly events: Events }) {
    this.#events = deps.events;
  }

  publish(row: ContainerRow, action: string, attributes: Readonly<Record<string, string>> = {}): void {
    const spec = parseStoredSpec(row.spec);
    this.#events.publish(row.tenant, 'container', action, {
      id: row.id,
      attributes: { ...spec.config.Labels, ...attributes, image: spec.config.Image, name: row.name },
    });
  }

  /** From now on, until `loud` and for what was said until then. Times are of this machine, as engines' are. */
  hush(container: string, fromMs: number): void {
    this.#quiet.set(container, { fromMs, toMs: Number.POSITIVE_INFINITY });
  }

  loud(container: string, toMs: number): void {
    const span = this.#quiet.get(container);
    if (span !== undefined) span.toMs = toMs;
  }

  /** A container that is gone needs no memory of its moves. */
  forget(container: string): void {
    this.#quiet.delete(container);
  }

  /** From now on what an engine says of this container is told at once: what ends it comes before `destroy`. */
  leave(engineId: string): void {
    if (!this.#leaving.has(engineId)) this.#leaving.set(engineId, Promise.withResolvers<undefined>());
  }

  /** It was not removed after all. */
  stay(engineId: string): void {
    this.#leaving.delete(engineId);
  }

  /** Resolves when its engine said that it destroyed the container, or soon. */
  async left(engineId: string): Promise<void> {
    const leaving = this.#leaving.get(engineId);
    if (leaving === undefined) return;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    const timer = setTimeout(resolve, LEAVE_LIMIT_MS, undefined);
    await Promise.race([leaving.promise, promise]);
    clearTimeout(timer);
    this.#leaving.delete(engineId);
  }

  isLeaving(engineId: string): boolean {
    return this.#leaving.has(engineId);
  }

  /** Its engine said `destroy`. */
  gone(engineId: string): void {
    this.#leaving.get(engineId)?.resolve(undefined);
  }

  /** Whether an engine's event is anything to its tenant. */
  isNews(row: ContainerRow, event: EngineEvent): boolean {
    const quiet = this.#quiet.get(row.id);
    const atMs = Math.floor((event.timeNano ?? 0) / 1e6);
    return quiet === undefined || atMs < quiet.fromMs || atMs > quiet.toMs;
  }

  /** An engine's event about a container of ours that is news. */
  relay(row: ContainerRow, event: EngineEvent): void {
    const isHealth = HEALTH.test(event.Action);
    const kept = isHealth ? [] : RELAYED.get(event.Action);
    if (kept === undefined) return;
    const given = event.Actor.Attributes ?? {};
    const attributes: Record<string, string> = {};
    for (const key of kept) if (given[key] !== undefined) attributes[key] = given[key];
    this.publish(row, event.Action, attributes);
  }
}
