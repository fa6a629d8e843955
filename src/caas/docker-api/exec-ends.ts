/** When an exec session ends, and with which code: heard from its engine's events, over one stream a host while any session of it is watched. */
import { tryJson } from '#json';
import { createInterface } from 'node:readline';
import * as z from 'zod';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import type { Host } from '#caas/host.ts';

const eventSchema = z.object({ Action: z.string(), Actor: z.object({ Attributes: z.record(z.string(), z.string()) }) });

type OnEnd = (exitCode: number | undefined) => void;

interface Watch {
  readonly stop: AbortController;
  readonly opened: Promise<void>;
  /** By the engine's id of the session. */
  readonly waiting: Map<string, OnEnd>;
}

export class ExecEnds {
  readonly #log: Log;
  /** By host. */
  readonly #watches = new Map<string, Watch>();

  constructor(deps: { readonly log: Log }) {
    this.#log = deps.log;
  }

  /** Must be called before the session starts. `onEnd` is called once; without a code where the engine went away. */
  async expect(host: Host, engineExecId: string, onEnd: OnEnd): Promise<void> {
    let watch = this.#watches.get(host.name);
    if (watch === undefined) {
      const stop = new AbortController();
      const waiting = new Map<string, OnEnd>();
      watch = { stop, waiting, opened: this.#open(host, waiting, stop.signal) };
      this.#watches.set(host.name, watch);
    }
    watch.waiting.set(engineExecId, onEnd);
    await watch.opened;
  }

  /** For one that did not start after all. */
  cancel(host: Host, engineExecId: string): void {
    this.#settle(host.name, engineExecId, undefined);
  }

  async #open(host: Host, waiting: ReadonlyMap<string, OnEnd>, signal: AbortSignal): Promise<void> {
    try {
      const filters = JSON.stringify({ type: ['container'], event: ['exec_die'] });
      const stream = await host.client.stream({ method: 'GET', path: ['events'], query: { filters }, signal });
      stream.socket.unref(); // A node that stops does not wait for sessions of engines that live on.
      void this.#read(host, createInterface({ input: stream })).finally(() => {
        this.#lost(host.name, waiting);
      });
    } catch (error) {
      this.#lost(host.name, waiting);
      throw error;
    }
  }

  async #read(host: Host, lines: AsyncIterable<string>): Promise<void> {
    try {
      for await (const line of lines) {
        const event = eventSchema.safeParse(tryJson(line));
        if (!event.success) continue;
        const { execID, exitCode } = event.data.Actor.Attributes;
        if (execID !== undefined) this.#settle(host.name, execID, Number(exitCode ?? 0));
      }
    } catch (error) {
      this.#log.debug({ host: host.name, reason: reasonOf(error) }, 'the watch for ends of exec sessions ended');
    }
  }

  #settle(host: string, engineExecId: string, exitCode: number | undefined): void {
    const watch = this.#watches.get(host);
    const onEnd = watch?.waiting.get(engineExecId);
    if (watch === undefined || onEnd === undefined) return;
    watch.waiting.delete(engineExecId);
    if (watch.waiting.size === 0) {
      this.#watches.delete(host);
      watch.stop.abort();
    }
    onEnd(exitCode);
  }

  #lost(host: string, waiting: ReadonlyMap<string, OnEnd>): void {
    if (this.#watches.get(host)?.waiting === waiting) this.#watches.delete(host);
    for (const onEnd of waiting.values()) onEnd(undefined);
  }
}
