/**
 * Removes from engines what nobody holds: images whose removal failed because a container still used them, and names that a transfer left when the
 * node died in the middle. What is held and has lost its name gets it again.
 *
 * What is being made looks the same as what was left. So a thing is removed only when it was seen unheld for a while, and everything that was
 * under way when it was first seen has ended.
 */
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import { startLoop } from '#lifecycle';
import type { Log } from '#log';
import { listHeld } from '#state/images.ts';
import type { Sql } from '#state/sql.ts';
import { deleteOn, ENGINE_NAMES, engineReference, listOn, tagOn } from './image-engines.ts';
import type { EngineHost, ImageEngines, ListedImage } from './image-engines.ts';
import type { ImageHoldings } from './image-holdings.ts';

const PERIOD_MS = 60_000;
/** Longer than the steps between an image's arrival on an engine and its place in the store. */
const GRACE_MS = 10 * 60_000;
/** Names under which engines know the relay's repositories (registry-relay.ts). */
const RELAY_NAME = /^(?:127\.0\.0\.1|10\.\d+\.0\.1):\d+\/[0-9a-f]{32}\//;

export interface CollectorDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly engines: ImageEngines;
  readonly holdings: ImageHoldings;
}

interface Sighting {
  readonly atMs: number;
  /** What was under way then. */
  readonly marks: ReadonlySet<symbol>;
}

/** Names of an image on an engine that nothing of ours stands for; an empty one is the image itself. Pure. */
export function leftNames(image: ListedImage, isHeld: boolean, isManaged: boolean): readonly string[] {
  const { repository, tag } = engineReference(image.imageId);
  const ours = image.names.filter((name) => name.startsWith(ENGINE_NAMES) || RELAY_NAME.test(name));
  const left = isHeld ? ours.filter((name) => name !== `${repository}:${tag}`) : ours;
  // On an engine of somebody else an image without a name is somebody else's.
  return !isHeld && isManaged && image.names.length === 0 ? [''] : left;
}

export class ImageCollector {
  readonly #deps: CollectorDeps;
  #sightings: ReadonlyMap<string, Sighting> = new Map();

  constructor(deps: CollectorDeps) {
    this.#deps = deps;
  }

  start(): AsyncDisposable {
    return startLoop(this.#deps, {
      name: 'images that nobody holds',
      periodMs: PERIOD_MS,
      round: async (signal) => {
        await this.round(signal);
      },
    });
  }

  /** One look at all hosts. One that is down is looked at another time. */
  async round(signal?: AbortSignal): Promise<void> {
    const { imageIds } = await listHeld(this.#deps.sql);
    const seen = new Map<string, Sighting>();
    for (const host of this.#deps.engines.hosts) {
      if (signal?.aborted === true) return;
      try {
        for (const image of await listOn(host)) await this.#look(host, image, imageIds.has(image.imageId), seen);
      } catch (error) {
        if (!(error instanceof EcluseError)) throw error;
        this.#deps.log.debug(
          { host: host.name, reason: error.message },
          'a host could not be looked at for images that nobody holds',
        );
      }
    }
    this.#sightings = seen;
  }

  async #look(host: EngineHost, image: ListedImage, isHeld: boolean, seen: Map<string, Sighting>): Promise<void> {
    const { clock, engines } = this.#deps;
    const own = engineReference(image.imageId);
    if (isHeld && !image.names.includes(`${own.repository}:${own.tag}`)) await tagOn(host, image.imageId, own);
    const underWay = engines.underWay();
    for (const name of leftNames(image, isHeld, host.isManaged)) {
      const key = `${host.name} ${image.imageId} ${name}`;
      const sighting = this.#sightings.get(key) ?? { atMs: clock.monotonicMs(), marks: underWay };
      const isOld = clock.monotonicMs() - sighting.atMs >= GRACE_MS && [...sighting.marks].every((mark) => !underWay.has(mark));
      if (isOld) await this.#collect(host, image.imageId, name, isHeld);
      else seen.set(key, sighting);
    }
  }

  async #collect(host: EngineHost, imageId: string, name: string, isHeld: boolean): Promise<void> {
    const remove = async (): Promise<void> => {
      const isGone = await deleteOn(host, name === '' ? imageId : name, { force: false });
      this.#deps.log.info({ host: host.name, imageId, name, isGone }, 'an image or name that nobody holds');
    };
    // A name beside the right one takes nothing along; an image must not be taken up while it goes.
    if (isHeld) await remove();
    else await this.#deps.holdings.whileUnheld(imageId, remove);
  }
}
