/**
 * What tenants see of `docker events`: messages of our own, made where something happened, never an engine's. One hub of a node; each tenant hears
 * of its own things only. A migration makes none: to its tenant nothing happened.
 */
import type { Clock } from '#clock';

export type EventType = 'container' | 'image' | 'network' | 'volume' | 'builder' | 'daemon';

export interface TenantEvent {
  readonly type: EventType;
  /** `start`, `exec_create: sh -c true`, `pull`, … in Docker's words. */
  readonly action: string;
  readonly actor: { readonly id: string; readonly attributes: Readonly<Record<string, string>> };
  readonly atMs: number;
  /**
   * Grows by one with every event of the tenant (a count of the node’s would tell what the others do): orders what happened in one millisecond, and is
   * its nanoseconds’ last digits.
   */
  readonly seq: number;
}

/** As Docker keeps them for `--since` (moby `daemon/events`, `eventsLimit`). */
const HISTORY_MAX = 256;
/** Streams of one tenant; each is a client's connection. */
const STREAMS_MAX = 1000;
/** A stream whose client reads too slowly to keep up is ended, as it would not see everything. */
const PENDING_MAX = 4096;

type Listener = (event: TenantEvent) => void;

/** A tenant's events from now on. */
export interface EventStream extends AsyncIterable<TenantEvent>, Disposable {
  /** What happened before, oldest first. */
  readonly history: readonly TenantEvent[];
}

export class Events {
  readonly #clock: Clock;
  readonly #history = new Map<string, TenantEvent[]>();
  readonly #listeners = new Map<string, Set<Listener>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  publish(tenant: string, type: EventType, action: string, actor: TenantEvent['actor']): void {
    const history = this.#history.get(tenant) ?? [];
    const event: TenantEvent = { type, action, actor, atMs: this.#clock.nowMs(), seq: (history.at(-1)?.seq ?? 0) + 1 };
    history.push(event);
    if (history.length > HISTORY_MAX) history.shift();
    this.#history.set(tenant, history);
    for (const listener of this.#listeners.get(tenant) ?? []) listener(event);
  }

  /** Undefined where the tenant has too many streams. Ends (the iteration is over) when `signal` aborts or the reader falls behind. */
  open(tenant: string, signal: AbortSignal): EventStream | undefined {
    const listeners = this.#listeners.get(tenant) ?? new Set<Listener>();
    if (listeners.size >= STREAMS_MAX) return undefined;
    this.#listeners.set(tenant, listeners);
    const pending: TenantEvent[] = [];
    let wake: (() => void) | undefined;
    let isOver = false;
    const end = (): void => {
      isOver = true;
      listeners.delete(listener);
      if (listeners.size === 0 && this.#listeners.get(tenant) === listeners) this.#listeners.delete(tenant);
      wake?.();
    };
    const listener: Listener = (event) => {
      pending.push(event);
      if (pending.length > PENDING_MAX) end();
      wake?.();
    };
    listeners.add(listener);
    signal.addEventListener('abort', end, { once: true });
    const history = [...(this.#history.get(tenant) ?? [])];
    return {
      history,
      async *[Symbol.asyncIterator](): AsyncGenerator<TenantEvent> {
        for (;;) {
          const next = pending.shift();
          if (next !== undefined) yield next;
          else if (isOver) return;
          else {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
            wake = undefined;
          }
        }
      },
      [Symbol.dispose]: end,
    };
  }

  /** A tenant that is gone leaves nothing behind. */
  forget(tenant: string): void {
    this.#history.delete(tenant);
  }
}
