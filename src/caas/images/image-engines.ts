/**
 * Images as engines have them: by content. An engine keeps what somebody holds under one name that follows from the image's id, so that nothing of the
 * engine's own sweeps it away; tenants' names are in the store only.
 */
import { randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import * as z from 'zod';
import { EcluseError } from '#errors';
import type { Log } from '#log';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { imageSchema } from '#caas/engine/engine-answers.ts';
import type { EngineImage } from '#caas/engine/engine-answers.ts';
import { EngineError } from '#caas/engine/engine-client.ts';
import type { Host } from '#caas/host.ts';

/** What is used of a host here. */
export type EngineHost = Pick<Host, 'name' | 'client' | 'isManaged'>;

/** What begins so on an engine is ours. */
export const ENGINE_NAMES = 'ecluse/';
const TEMPORARY = 'ecluse/new-';
/** Facts of an image are some kilobytes, and never change. */
const FACTS_MAX = 2000;

const historySchema = z.array(
  z.object({ Id: z.string(), Created: z.int(), CreatedBy: z.string(), Size: z.int(), Comment: z.string() }),
);
export type EngineHistory = z.infer<typeof historySchema>;

const listedSchema = z.array(
  z.object({ Id: z.string(), RepoTags: z.array(z.string()).nullish(), RepoDigests: z.array(z.string()).nullish() }),
);
export interface ListedImage {
  readonly imageId: string;
  /** Names with tags and names with digests. */
  readonly names: readonly string[];
}

/** The engine's name for an image that somebody holds. */
export function engineReference(imageId: string): { readonly repository: string; readonly tag: string } {
  return { repository: `${ENGINE_NAMES}${imageId.slice('sha256:'.length, 'sha256:'.length + 40)}`, tag: 'held' };
}

/** A name for what is being made, until somebody holds it. */
export function temporaryRepository(): string {
  return `${TEMPORARY}${randomBytes(16).toString('hex')}`;
}

export async function inspectOn(host: EngineHost, name: string): Promise<EngineImage | undefined> {
  try {
    const { json } = await host.client.call({ method: 'GET', path: ['images', name, 'json'] });
    return imageSchema.parse(json);
  } catch (error) {
    if (error instanceof EngineError && error.status === 404) return undefined;
    throw error;
  }
}

/** The images of an engine that have a name which matches `pattern`; undefined: all that are no intermediate ones. */
export async function listOn(host: EngineHost, pattern?: string): Promise<readonly ListedImage[]> {
  const filters = pattern === undefined ? undefined : JSON.stringify({ reference: [pattern] });
  const { json } = await host.client.call({ method: 'GET', path: ['images', 'json'], query: { filters } });
  return listedSchema.parse(json).map(({ Id, RepoTags, RepoDigests }) => ({
    imageId: Id,
    names: [...(RepoTags ?? []), ...(RepoDigests ?? [])].filter((name) => !name.startsWith('<none>')),
  }));
}

/** Takes a name, or an image with all of its names, from an engine. False: it stays, because a container uses it. */
export async function deleteOn(host: EngineHost, name: string, options: { readonly force: boolean }): Promise<boolean> {
  try {
    await host.client.call({ method: 'DELETE', path: ['images', name], query: { force: options.force } });
    return true;
  } catch (error) {
    if (error instanceof EngineError && error.status === 404) return true;
    if (error instanceof EngineError && error.status === 409) return false;
    throw error;
  }
}

export async function tagOn(
  host: EngineHost,
  imageId: string,
  name: { readonly repository: string; readonly tag: string },
): Promise<void> {
  await host.client.call({ method: 'POST', path: ['images', imageId, 'tag'], query: { repo: name.repository, tag: name.tag } });
}

function isUnreachable(error: unknown): error is EcluseError {
  return error instanceof EcluseError && error.code === 'ECLUSE_ENGINE_UNREACHABLE';
}

export class ImageEngines {
  readonly #log: Log;
  readonly #hosts: ReadonlyMap<string, EngineHost>;
  readonly #facts = new LRUCache<string, EngineImage>({ max: FACTS_MAX });
  readonly #histories = new LRUCache<string, EngineHistory>({ max: FACTS_MAX });
  /** Transfers under way, by host. */
  readonly #transfers = new Map<string, number>();
  /** When what is under way began (monotonic order of a counter): the collector leaves alone what came since. */
  readonly #underWay = new Set<symbol>();

  constructor(log: Log, hosts: ReadonlyMap<string, EngineHost>) {
    this.#log = log;
    this.#hosts = hosts;
  }

  get hosts(): readonly EngineHost[] {
    return [...this.#hosts.values()];
  }

  /** Asks hosts in order until one has an answer. A host that is down only matters where no other has one. */
  async #firstOf<T>(ask: (host: EngineHost) => Promise<T | undefined>): Promise<T | undefined> {
    let down: EcluseError | undefined;
    for (const host of this.#hosts.values()) {
      try {
        const answer = await ask(host);
        if (answer !== undefined) return answer;
      } catch (error) {
        if (!isUnreachable(error)) throw error;
        down = error;
      }
    }
    if (down !== undefined) throw down;
    return undefined;
  }

  /** What engines know of an image; undefined where no host has it. */
  async inspect(imageId: string): Promise<EngineImage | undefined> {
    const known = this.#facts.get(imageId);
    if (known !== undefined) return known;
    const image = await this.#firstOf(async (host) => await inspectOn(host, imageId));
    if (image !== undefined) this.#facts.set(imageId, image);
    return image;
  }

  /** Asks one host, whatever others are doing. False: it does not have the image. */
  async learn(host: EngineHost, imageId: string): Promise<boolean> {
    const image = await inspectOn(host, imageId);
    if (image !== undefined) this.#facts.set(imageId, image);
    return image !== undefined;
  }

  async history(imageId: string): Promise<EngineHistory | undefined> {
    const known = this.#histories.get(imageId);
    if (known !== undefined) return known;
    const host = await this.hostWith(imageId);
    if (host === undefined) return undefined;
    const { json } = await host.client.call({ method: 'GET', path: ['images', imageId, 'history'] });
    const history = historySchema.parse(json);
    this.#histories.set(imageId, history);
    return history;
  }

  async hostWith(imageId: string): Promise<EngineHost | undefined> {
    return await this.#firstOf(async (host) => ((await inspectOn(host, imageId)) === undefined ? undefined : host));
  }

  /** Every host that answers and has the image. */
  async hostsWith(imageId: string): Promise<readonly EngineHost[]> {
    const has = await Promise.all(
      this.hosts.map(async (host) => (await inspectOn(host, imageId).catch(() => undefined)) !== undefined),
    );
    return this.hosts.filter((_host, index) => has[index] === true);
  }

  /**
   * The host that new images go to: of those that answer, the one with the fewest transfers under way; then the first, because layers are shared within
   * an engine only. Hosts of a node share one disk, so room decides nothing.
   */
  async intake(isFit: (host: EngineHost) => boolean = () => true): Promise<EngineHost> {
    const fit = this.hosts.filter((host) => isFit(host));
    const busy = (host: EngineHost): number => this.#transfers.get(host.name) ?? 0;
    for (const host of fit.toSorted((one, other) => busy(one) - busy(other))) if (await host.client.isAlive()) return host;
    throw dockerError(503, 'ecluse: no host can take an image now; try again');
  }

  /** A transfer of an image to or from a host, until disposed of. */
  begin(host: EngineHost): Disposable {
    this.#transfers.set(host.name, (this.#transfers.get(host.name) ?? 0) + 1);
    const protection = this.protect();
    return {
      [Symbol.dispose]: () => {
        protection[Symbol.dispose]();
        this.#transfers.set(host.name, (this.#transfers.get(host.name) ?? 1) - 1);
      },
    };
  }

  /** While held, what engines have and nobody holds yet is left alone if it came since. */
  protect(): Disposable {
    const mark = Symbol('under way');
    this.#underWay.add(mark);
    return {
      [Symbol.dispose]: () => {
        this.#underWay.delete(mark);
      },
    };
  }

  /** What is under way now; one that is still in the set later has been under way all the time. */
  underWay(): ReadonlySet<symbol> {
    return new Set(this.#underWay);
  }

  /** Removes the names of a repository of ours from a host; what nobody else names goes with them. Never fails: the collector comes by. */
  async sweep(host: EngineHost, repository: string): Promise<void> {
    try {
      for (const { names } of await listOn(host, repository)) {
        for (const name of names) {
          if (name.startsWith(`${repository}:`) || name.startsWith(`${repository}@`))
            await deleteOn(host, name, { force: false });
        }
      }
    } catch (error) {
      this.#log.warn({ host: host.name, repository, err: error }, 'names of a transfer are left on a host');
    }
  }

  /** Lets all hosts forget an image that nobody holds. */
  async forget(imageId: string): Promise<void> {
    for (const host of this.#hosts.values()) {
      try {
        // By its name first: by id an image with several names is not removed, and the others may be of a transfer under way.
        const { repository, tag } = engineReference(imageId);
        const isGone = await deleteOn(host, `${repository}:${tag}`, { force: false });
        if (!isGone) this.#log.debug({ host: host.name, imageId }, 'image kept on host: a container uses it');
      } catch (error) {
        if (!isUnreachable(error)) throw error; // A host that is down forgets it when the collector comes by.
      }
    }
  }
}
