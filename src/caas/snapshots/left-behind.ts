/**
 * Engine containers that were restored elsewhere while their engine did not answer: taken away as soon as it does, before a restart policy makes two of
 * one. A daemon that ends before that leaves them to the next start, which removes strangers.
 */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import { forgetFinalCounters } from '#isolation/runtime-settings.ts';
import type { Host } from '#caas/host.ts';
import { removePaused } from '#caas/engine/engine-copy.ts';
import type { EngineCopy } from '#caas/engine/engine-copy.ts';
import { dropVolumesOf } from './restore-volumes.ts';
import type { RestoredVolume } from './restore-volumes.ts';

export interface LeftCopy {
  readonly host: Host;
  readonly copy: EngineCopy;
  /** What it had there, and does not have any more. */
  readonly volumes: readonly RestoredVolume[];
}

const PERIOD_MS = 1_000;

export class LeftBehind implements AsyncDisposable {
  readonly #deps: { readonly log: Log; readonly clock: Clock };
  readonly #left = new Set<LeftCopy>();
  readonly #loop: AsyncDisposable;

  constructor(deps: { readonly log: Log; readonly clock: Clock }) {
    this.#deps = deps;
    this.#loop = startLoop(deps, {
      name: 'left behind',
      periodMs: PERIOD_MS,
      round: async () => {
        for (const one of this.#left) await this.#tryRemove(one);
      },
    });
  }

  /** From now on it is no container of ours. */
  add(one: LeftCopy): void {
    this.#left.add(one);
  }

  /** Takes it away now; where its engine does not answer, as soon as it does. */
  async remove(one: LeftCopy): Promise<void> {
    this.add(one);
    await this.#tryRemove(one);
  }

  async #tryRemove(one: LeftCopy): Promise<void> {
    const { host, copy, volumes } = one;
    if (!(await host.client.isAlive())) return;
    try {
      await removePaused(this.#deps.clock, host, copy);
      await forgetFinalCounters(host.runtimeDir, copy.engineId);
      await dropVolumesOf(host, volumes, 'row');
      this.#left.delete(one);
      this.#deps.log.info({ host: host.name, container: copy.id }, 'what was left of a restored container is gone');
    } catch (error) {
      this.#deps.log.warn({ host: host.name, container: copy.id, reason: reasonOf(error) }, 'an old container is still there');
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#loop[Symbol.asyncDispose]();
  }
}
