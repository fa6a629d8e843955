/**
 * Watches one engine's events. An event marks a container, whose truth is asked for afterwards, and may be news for its tenant; in the order in which
 * the engine said them.
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

/** Keeps the containers of `host` in step until disposed. */
export function watchEngine(
  deps: { readonly log: Log; readonly clock: Clock; readonly containers: Containers },
  host: Host,
): AsyncDisposable {
  const { containers, log } = deps;
  const waiting: (EngineEvent | string)[] = [];
  let working: Promise<void> | undefined;

  const followUp = async (next: EngineEvent | string): Promise<void> => {
    const engineId = typeof next === 'string' ? next : next.Actor.ID;
    try {
      await (typeof next === 'string' ? containers.syncEngineId(next) : containers.onEngineEvent(next));
    } catch (error) {
      log.warn({ host: host.name, engineId, reason: reasonOf(error) }, 'an engine event could not be followed up');
    }
  };

  /** One worker at a time; what comes while it ends starts the next one. */
  const work = (): void => {
    if (working !== undefined || waiting.length === 0) return;
    working = (async () => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await followUp(next);
    })().finally(() => {
      working = undefined;
      work();
    });
  };

  const round = async (signal: AbortSignal): Promise<void> => {
    const stream = await host.client.stream({
      method: 'GET',
      path: ['events'],
      query: { filters: JSON.stringify({ type: ['container'], event: ACTIONS }) },
      signal,
    });
    for (const row of await containers.list()) if (row.host === host.name && row.engineId !== '') waiting.push(row.engineId);
    work();
    for await (const line of createInterface({ input: stream })) {
      const event = eventSchema.safeParse(JSON.parse(line));
      if (!event.success) continue;
      waiting.push(event.data);
      work();
      if (waiting.length > WAITING_MAX) await working;
    }
  };
  const loop = startLoop(deps, { name: `events ${host.name}`, periodMs: RECONNECT_MS, round });
  return {
    async [Symbol.asyncDispose](): Promise<void> {
      await loop[Symbol.asyncDispose]();
      waiting.length = 0;
      await working;
    },
  };
}
