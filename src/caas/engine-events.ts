/**
 * Watches one engine's events, in the order in which the engine said them. An event marks a container, whose truth is asked for afterwards, and may be
 * news for its tenant.
 *
 * stream ──▶ news (waits for nothing) ──▶ truth (takes the container's lock)
 */
import { createInterface } from 'node:readline';
import { reasonOf } from '#errors';
import type { Clock } from '#clock';
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import type { Containers } from './containers.ts';
import { eventSchema } from './engine-answers.ts';
import type { EngineEvent } from './engine-answers.ts';
import type { Host } from './host.ts';

const ACTIONS = ['start', 'restart', 'die', 'stop', 'kill', 'destroy', 'pause', 'unpause', 'oom', 'health_status'] as const;
/** After a lost stream; the first thing a new one does is to look at everything. */
const RECONNECT_MS = 500;
/** Events that wait for their follow-up. Beyond it the stream is read no further, and the engine keeps them. */
const WAITING_MAX = 10_000;

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
  const truth = new Line<{ readonly engineId: string; readonly follow: () => Promise<void> }>(async ({ engineId, follow }) => {
    await quietly(engineId, follow);
  });
  const news = new Line<EngineEvent>(async (event) => {
    const engineId = event.Actor.ID;
    await quietly(engineId, async () => {
      const isTold = await containers.onEngineNews(event);
      const follow = async (): Promise<void> => {
        await containers.onEngineEvent(event, isTold);
      };
      truth.push({ engineId, follow });
    });
  });

  const round = async (signal: AbortSignal): Promise<void> => {
    const stream = await host.client.stream({
      method: 'GET',
      path: ['events'],
      query: { filters: JSON.stringify({ type: ['container'], event: ACTIONS }) },
      signal,
    });
    for (const { host: name, engineId } of await containers.list()) {
      if (name !== host.name || engineId === '') continue;
      const follow = async (): Promise<void> => {
        await containers.syncEngineId(engineId);
      };
      truth.push({ engineId, follow });
    }
    for await (const line of createInterface({ input: stream })) {
      const event = eventSchema.safeParse(JSON.parse(line));
      if (!event.success) continue;
      news.push(event.data);
      if (news.length + truth.length > WAITING_MAX) await truth.done();
    }
  };
  const loop = startLoop(deps, { name: `events ${host.name}`, periodMs: RECONNECT_MS, round });
  return {
    async [Symbol.asyncDispose](): Promise<void> {
      await loop[Symbol.asyncDispose]();
      for (const line of [news, truth]) {
        line.clear();
        await line.done();
      }
    },
  };
}
