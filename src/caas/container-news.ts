/** What engines' news of a container mean to its volumes and networks, which have events of their own. */
import type { ContainerRow } from '#state/containers.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { EngineEvent } from '#caas/engine/engine-answers.ts';
import type { Networks } from '#caas/networks/networks.ts';
import type { Volumes } from '#caas/volumes/volumes.ts';
import type { ContainerEvents } from './container-events.ts';

export interface ContainerNewsDeps {
  readonly volumes: Volumes;
  readonly networks: Networks;
}

export class ContainerNews {
  readonly #deps: ContainerNewsDeps;
  readonly #events: ContainerEvents;

  constructor(deps: ContainerNewsDeps, events: ContainerEvents) {
    this.#deps = deps;
    this.#events = events;
  }

  /** A start that was hushed. */
  async tellStart(row: ContainerRow): Promise<void> {
    await this.#connect(row);
    this.#events.publish(row, 'start');
  }

  /** What an engine says, where it is news. */
  async tell(row: ContainerRow, event: EngineEvent): Promise<void> {
    if (!this.#events.isNews(row, event)) return;
    if (event.Action === 'start') await this.#connect(row);
    this.#events.relay(row, event);
    if (event.Action !== 'die') return;
    await this.#deps.networks.announceMembersOf(row, 'disconnect');
    this.#deps.volumes.announce(row, parseStoredSpec(row.spec).mounts, 'unmount');
  }

  async #connect(row: ContainerRow): Promise<void> {
    this.#deps.volumes.announce(row, parseStoredSpec(row.spec).mounts, 'mount');
    await this.#deps.networks.announceMembersOf(row, 'connect');
  }
}
