/**
 * Watches one engine's events, those of a container in the order in which the engine said them. An event marks a container, whose truth is asked for
 * afterwards, and may be news for its tenant.
 *
 * stream ──▶ news (waits for nothing) ──▶ truth, a line for each container (takes its lock)
 */
import { createInterface } from 'node:readline';
import { reasonOf } from '#errors';
import type { Clock } from '#clock';
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import type { Containers } from '#caas/containers.ts';
import { eventSchema } from './engine-answers.ts';
import type { EngineEvent } from './engine-answers.ts';
import type { Host } from '#caas/host.ts';

const ACTIONS = ['start', 'restart', 'die', 'stop', 'kill', 'destroy', 'pause', 'unpause', 'oom', 'health_status'] as const;
/** After a lost stream; the first thing a new one does is to look at everything. */
const RECONNECT_MS = 500;
/** Events that wait to be looked at. Beyond it the stream is read no further, and the engine keeps them. */
const WAITING_MAX = 10_000;
/** Of one container, that wait for its lock. */
const WAITING_PER_CONTAINER_MAX = 100;

/** Does one thing after the other; what fails is the caller's to log. */
class Line<Item> {
  readonly #items: Item[] = [];
  readonly #work: (item: Item) => Promise<void>;
  #working: Promise<void> | undefined;

  constructor(work: (item: Item) => Promise<void>) {
    this.#work = work;
  }

  get length(): number {
    return this.#items.length;
  }

  push(item: Item): void {
    this.#items.push(item);
    this.#start();
  }

  #start(): void {
    if (this.#working !== undefined || this.#items.length === 0) return;
    this.#working = this.#drain().finally(() => {
      this.#working = undefined;
      this.#start();
    });
  }

  async #drain(): Promise<void> {
    for (let next = this.#items.shift(); next !== undefined; next = this.#items.shift()) await this.#work(next);
  }

  /** When all that is in it now is done. */
  async done(): Promise<void> {
    await this.#working;
  }

  clear(): void {
    this.#items.length = 0;
  }
}

/**
 * Follow-ups, a line for each container: one whose lock is held for long (by `docker stop -t 600`) must not keep the others of the host, which are other
 * tenants', waiting.
 */
class Truths {
  readonly #lines = new Map<string, Line<() => Promise<void>>>();
  readonly #quietly: (engineId: string, work: () => Promise<void>) => Promise<void>;

  constructor(quietly: (engineId: string, work: () => Promise<void>) => Promise<void>) {
    this.#quietly = quietly;
  }

  /** Those of one container that has too many already are dropped: the one that waits will ask for the truth. */
  push(engineId: string, follow: () => Promise<void>): void {
    const line = this.#lines.get(engineId) ?? this.#begin(engineId);
    if (line.length < WAITING_PER_CONTAINER_MAX) line.push(follow);
  }

  #begin(engineId: string): Line<() => Promise<void>> {
    const line = new Line<() => Promise<void>>(async (follow) => {
      await this.#quietly(engineId, follow);
      if (line.length === 0 && this.#lines.get(engineId) === line) this.#lines.delete(engineId);
    });
    this.#lines.set(engineId, line);
    return line;
  }

  /** When what is under way is done; what waits is not begun. */
  async end(): Promise<void> {
    const lines = [...this.#lines.values()];
    for (const line of lines) line.clear();
    await Promise.all(
      lines.map(async (line) => {
        await line.done();
      }),
    );
  }
}

/** Keeps the containers of `host` in step until disposed. */
export function watchEngine(
  deps: { readonly log: Log; readonly clock: Clock; readonly containers: Containers },
  host: Host,
): AsyncDisposable {
  const { containers, log } = deps;
  const quietly = async (engineId: string, work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      log.warn({ host: host.name, engineId, reason: reasonOf(error) }, 'an engine event could not be followed up');
    }
  };
  const truths = new Truths(quietly);
  // One after the other: a thousand at once would keep the engine from all else.
  const looks = new Line<{ readonly engineId: string; readonly look: () => Promise<void> }>(async ({ engineId, look }) => {
    await quietly(engineId, look);
  });
  const news = new Line<EngineEvent>(async (event) => {
    const engineId = event.Actor.ID;
    await quietly(engineId, async () => {
      const isTold = await containers.onEngineNews(event);
      truths.push(engineId, async () => {
        await containers.onEngineEvent(event, isTold);
      });
    });
  });

  const round = async (signal: AbortSignal): Promise<void> => {
    const stream = await host.client.stream({
      method: 'GET',
      path: ['events'],
      query: { filters: JSON.stringify({ type: ['container'], event: ACTIONS }) },
      signal,
    });
    for (const { id, host: name, engineId } of await containers.list()) {
      if (name !== host.name || engineId === '') continue;
      const look = async (): Promise<void> => {
        await containers.syncEngineId(engineId);
      };
      if (containers.locks.held(id)) truths.push(engineId, look);
      else looks.push({ engineId, look });
    }
    for await (const line of createInterface({ input: stream })) {
      const event = eventSchema.safeParse(JSON.parse(line));
      if (!event.success) continue;
      news.push(event.data);
      if (news.length > WAITING_MAX) await news.done();
    }
  };
  const loop = startLoop(deps, { name: `events ${host.name}`, periodMs: RECONNECT_MS, round });
  return {
    async [Symbol.asyncDispose](): Promise<void> {
      await loop[Symbol.asyncDispose]();
      for (const line of [news, looks]) {
        line.clear();
        await line.done();
      }
      await truths.end();
    },
  };
}
