/** What tenants see in `docker events` of their images, with Docker's attributes: the image's labels, and a name. */
import type { Events } from '#caas/events.ts';
import type { ImageEngines } from './image-engines.ts';

export type ImageAction = 'pull' | 'push' | 'tag' | 'untag' | 'delete' | 'import' | 'load' | 'save';

export class ImageEvents {
  readonly #events: Events;
  readonly #engines: ImageEngines;

  constructor(events: Events, engines: ImageEngines) {
    this.#events = events;
    this.#engines = engines;
  }

  /** `name`: absent, it is the id, as Docker has it where no name matters. */
  async publish(tenant: string, action: ImageAction, imageId: string, name = imageId): Promise<void> {
    await this.publishAs(tenant, action, { actor: imageId, imageId, name });
  }

  /** Pulls and pushes are told under the reference in place of the id. */
  async publishAs(
    tenant: string,
    action: ImageAction,
    subject: { readonly actor: string; readonly imageId: string; readonly name: string },
  ): Promise<void> {
    // An event tells what happened; that no host can be asked for labels just now does not undo it.
    const known = await this.#engines.inspect(subject.imageId).catch(() => undefined);
    const attributes = { ...known?.Config?.Labels, name: subject.name };
    this.#events.publish(tenant, 'image', action, { id: subject.actor, attributes });
  }

  prune(tenant: string, reclaimedBytes: number): void {
    this.#events.publish(tenant, 'image', 'prune', { id: '', attributes: { reclaimed: String(reclaimedBytes) } });
  }
}
