/** Watches one engine's events. An event only marks a container; what is true is asked for afterwards (docs/decisions). */
import { createInterface } from 'node:readline';
import { reasonOf } from '#errors';
import type { Clock } from '#clock';
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import type { Containers } from './containers.ts';
import { eventSchema } from './engine-answers.ts';
import type { Host } from './host.ts';

const ACTIONS = ['start', 'die', 'destroy', 'pause', 'unpause', 'oom'] as const;
/** After a lost stream; the first thing a new one does is to look at everything. */
const RECONNECT_MS = 500;

/** Keeps the containers of `host` in step until disposed. */
export function watchEngine(
  deps: { readonly log: Log; readonly clock: Clock; readonly containers: Containers },
  host: Host,
): AsyncDisposable {
  const { containers, log } = deps;
  const dirty = new Set<string>();
  let working: Promise<void> | undefined;

  const work = async (): Promise<void> => {
    for (const engineId of dirty) {
      dirty.delete(engineId);
      await containers.onEngineEvent(engineId).catch((error: unknown) => {
        log.warn({ host: host.name, engineId, reason: reasonOf(error) }, 'an engine event could not be followed up');
      });
    }
  };

  /** One worker at a time; what is marked while it ends starts the next one. */
  const followUp = (): void => {
    if (working !== undefined || dirty.size === 0) return;
    working = work().finally(() => {
      working = undefined;
      followUp();
    });
  };

  const round = async (signal: AbortSignal): Promise<void> => {
    const stream = await host.client.stream({
      method: 'GET',
      path: ['events'],
      query: { filters: JSON.stringify({ type: ['container'], event: ACTIONS }) },
      signal,
    });
    for (const row of await containers.list()) if (row.host === host.name && row.engineId !== '') dirty.add(row.engineId);
    followUp();
    for await (const line of createInterface({ input: stream })) {
      const event = eventSchema.safeParse(JSON.parse(line));
      if (!event.success) continue;
      dirty.add(event.data.Actor.ID);
      followUp();
    }
  };
  const loop = startLoop(deps, { name: `events ${host.name}`, periodMs: RECONNECT_MS, round });
  return {
    async [Symbol.asyncDispose](): Promise<void> {
      await loop[Symbol.asyncDispose]();
      await working;
    },
  };
}
