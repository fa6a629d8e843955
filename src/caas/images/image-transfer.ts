/** Images as archives: from tenants to an engine (load, import), back to them (save), and from engine to engine. */
import { PassThrough } from 'node:stream';
import type { Readable } from 'node:stream';
import { EcluseError } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { TenantImage } from '#state/images.ts';
import type { Tenant } from '#state/tenants.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { EngineError } from '#caas/engine/engine-client.ts';
import { errorLine, failureOf, jsonLines } from '#caas/engine/engine-progress.ts';
import type { ProgressSink } from '#caas/engine/engine-progress.ts';
import { DamagedTar, rewriteImageArchive } from './image-archive.ts';
import type { ArchivedImage } from './image-archive.ts';
import { engineReference, inspectOn, tagOn, temporaryRepository } from './image-engines.ts';
import type { EngineHost, ImageEngines } from './image-engines.ts';
import type { ImageEvents } from './image-events.ts';
import { findImage } from './image-holdings.ts';
import type { ImageHoldings } from './image-holdings.ts';
import { familiarReference, parseNamed, splitWhole } from './image-reference.ts';
import { nameSavedArchive } from './image-save.ts';
import { plainArchive } from './plain-archive.ts';

export interface TransferDeps {
  readonly engines: ImageEngines;
  readonly holdings: ImageHoldings;
  readonly events: ImageEvents;
}

export interface ImportWish {
  /** `name:tag`, as it was written. */
  readonly reference: string | undefined;
  readonly message: string;
  readonly changes: readonly string[];
  readonly platform: string | undefined;
}

const TAR = { 'content-type': 'application/x-tar' };

export class ImageTransfer {
  readonly #deps: TransferDeps;
  /** By host and image: two who want the same wait for one transfer. */
  readonly #locks = new KeyedLock();

  constructor(deps: TransferDeps) {
    this.#deps = deps;
  }

  /** `docker load`. The engine gets names of ours; the tenant's are given when everything is there. */
  async load(tenant: Tenant, source: Readable, emit: ProgressSink, options: { readonly quiet: boolean }): Promise<void> {
    const { engines, holdings } = this.#deps;
    const imagesMax = await holdings.checkQuota(tenant);
    const host = await engines.intake();
    using busy = new DisposableStack();
    busy.use(engines.begin(host));
    const repository = temporaryRepository();
    const known = await this.#layersOf((await holdings.list(tenant.name)).map(({ imageId }) => imageId));
    const archive = await plainArchive(source);
    const rewritten = rewriteImageArchive(archive, { imagesMax, nameOf: (index) => `${repository}:${String(index)}` });
    try {
      const answer = await host.client.stream(
        // Quietly: the engine tells of the layers that it lacks, and so whether some other tenant has one.
        { method: 'POST', path: ['images', 'load'], query: { quiet: true }, headers: TAR },
        rewritten.archive,
        rewritten.onSent,
      );
      let failure: string | undefined;
      for await (const line of jsonLines(answer)) {
        failure ??= failureOf(line);
      }
      const images = await rewritten.images;
      if (failure !== undefined) throw new EngineError(500, failure);
      for (const image of images) {
        if ((await inspectOn(host, image.engineName))?.Id !== image.imageId) {
          throw dockerError(500, `ecluse: the engine did not take the image ${image.imageId} as the archive has it`);
        }
      }
      const loaded = options.quiet ? new Set<string>() : await this.#layersOf(images.map(({ imageId }) => imageId));
      for (const layer of loaded.difference(known)) {
        await emit({ status: 'Loading layer', progressDetail: {}, id: layer.replace('sha256:', '').slice(0, 12) });
      }
      for (const image of images) await this.#take(tenant.name, image, host, emit);
    } catch (error) {
      if (!(error instanceof DamagedTar)) throw error;
      await emit(errorLine(error.message));
    } finally {
      rewritten.archive.destroy();
      await engines.sweep(host, repository);
    }
  }

  /** The layers of some images, in their order. */
  async #layersOf(imageIds: readonly string[]): Promise<Set<string>> {
    const images = await Promise.all(imageIds.map(async (imageId) => await this.#deps.engines.inspect(imageId)));
    return new Set(images.flatMap((image) => image?.RootFS?.Layers ?? []));
  }

  async #take(tenant: string, { imageId, references }: ArchivedImage, host: EngineHost, emit: ProgressSink): Promise<void> {
    const { holdings, events } = this.#deps;
    if (references.length === 0) {
      await holdings.hold(tenant, imageId, host);
      await emit({ stream: `Loaded image ID: ${imageId}\n` });
    }
    for (const reference of references) {
      const before = (await holdings.list(tenant)).find((image) => image.references.includes(reference));
      await holdings.hold(tenant, imageId, host, { reference });
      const name = familiarReference(reference);
      if (before !== undefined && before.imageId !== imageId) {
        const told = `The image ${name} already exists, renaming the old one with ID ${before.imageId} to empty string\n`;
        await emit({ stream: told });
      }
      await emit({ stream: `Loaded image: ${name}\n` });
    }
    await events.publish(tenant, 'load', imageId);
  }

  /** `docker import`: a root file system as an image. Returns its id. */
  async import(tenant: Tenant, source: Readable, wish: ImportWish): Promise<string> {
    const { engines, holdings, events } = this.#deps;
    await holdings.checkQuota(tenant);
    const reference = wish.reference === undefined ? undefined : importReference(wish.reference);
    const host = await engines.intake();
    using busy = new DisposableStack();
    busy.use(engines.begin(host));
    const repository = temporaryRepository();
    const archive = await plainArchive(source);
    try {
      const answer = await host.client.stream(
        {
          method: 'POST',
          path: ['images', 'create'],
          query: {
            fromSrc: '-',
            repo: repository,
            tag: '0',
            message: wish.message,
            platform: wish.platform,
            changes: wish.changes.length === 0 ? undefined : wish.changes.join('\n'),
          },
          headers: TAR,
        },
        archive,
        (piece) => {
          archive.giveBack(piece);
        },
      );
      for await (const line of jsonLines(answer)) {
        const failure = failureOf(line);
        if (failure !== undefined) throw new EngineError(500, failure);
      }
      const image = await inspectOn(host, `${repository}:0`);
      if (image === undefined) throw dockerError(500, 'the engine did not say which image it made');
      await holdings.hold(tenant.name, image.Id, host, { reference });
      if (reference !== undefined) await events.publish(tenant.name, 'tag', image.Id, familiarReference(reference));
      await events.publish(tenant.name, 'import', image.Id);
      return image.Id;
    } finally {
      archive.destroy();
      await engines.sweep(host, repository);
    }
  }

  /** `docker save`. The caller reads the archive to its end or destroys it. */
  async save(tenant: string, names: readonly string[]): Promise<Readable> {
    const { engines, holdings, events } = this.#deps;
    const held = await holdings.list(tenant);
    const wanted = new Map<string, Set<string>>();
    for (const name of names) {
      for (const { imageId, references } of savedAs(held, name)) {
        const known = wanted.get(imageId) ?? new Set<string>();
        for (const reference of references) known.add(reference);
        wanted.set(imageId, known);
      }
    }
    const [first = ''] = wanted.keys();
    const host = await engines.hostWith(first);
    if (host === undefined) throw imageLost(first);
    const busy = engines.begin(host);
    // One repository of ours with all of them: an engine saves several images by one name so.
    const repository = temporaryRepository();
    const end = (): void => {
      void engines.sweep(host, repository).finally(() => {
        busy[Symbol.dispose]();
      });
    };
    try {
      let index = 0;
      for (const imageId of wanted.keys()) {
        await this.ensureOn(host, imageId);
        await tagOn(host, imageId, { repository, tag: String(index) });
        index += 1;
      }
      const answer = await host.client.stream({ method: 'GET', path: ['images', repository, 'get'] });
      answer.once('close', end);
      for (const imageId of wanted.keys()) await events.publish(tenant, 'save', imageId);
      return nameSavedArchive(answer, new Map([...wanted].map(([imageId, references]) => [imageId, [...references]])));
    } catch (error) {
      end();
      throw error;
    }
  }

  /** Brings an image to a host that lacks it, from one that has it. */
  async ensureOn(target: EngineHost, imageId: string): Promise<void> {
    await this.#locks.run(`${target.name} ${imageId}`, async () => {
      if ((await inspectOn(target, imageId)) !== undefined) return;
      const source = await this.#deps.engines.hostWith(imageId);
      if (source === undefined) throw imageLost(imageId);
      using busy = new DisposableStack();
      for (const host of [source, target]) busy.use(this.#deps.engines.begin(host));
      const archive = await source.client.stream({ method: 'GET', path: ['images', imageId, 'get'] });
      const answer = await target.client.stream(
        { method: 'POST', path: ['images', 'load'], query: { quiet: true }, headers: TAR },
        archive.pipe(new PassThrough()),
      );
      for await (const line of jsonLines(answer)) {
        const failure = failureOf(line);
        if (failure !== undefined) throw new EngineError(500, failure);
      }
      await tagOn(target, imageId, engineReference(imageId));
    });
  }
}

function imageLost(imageId: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_IMAGE_LOST',
    source: 'upstream',
    status: 404,
    message: `no host has the image ${imageId} any more`,
    mend: 'load it again',
  });
}

function importReference(text: string): string {
  const parsed = parseNamed(text);
  if (parsed.kind === 'invalid') throw dockerError(400, parsed.why);
  const { repository, tag, digest } = parsed.name;
  if (digest !== '') throw dockerError(400, 'cannot import digest reference');
  return `${repository}:${tag === '' ? 'latest' : tag}`;
}

interface SavedImage {
  readonly imageId: string;
  readonly references: readonly string[];
}

/** The images that a name to save means, and under which names they go: a bare repository means all of its tags, an id goes without. */
export function savedAs(held: readonly TenantImage[], name: string): readonly SavedImage[] {
  const byId = (): readonly SavedImage[] => {
    const image = findImage(held, name);
    if (image === undefined) throw dockerError(404, `No such image: ${name}`); // Here moby searches ids, which have no tags.
    return [{ imageId: image.imageId, references: [] }];
  };
  if (/^(?:sha256:)?[0-9a-f]{64}$/.test(name) || name.startsWith('sha256:')) return byId();
  const parsed = parseNamed(name);
  if (parsed.kind === 'invalid') throw dockerError(400, parsed.why);
  const { repository, tag, digest } = parsed.name;
  if (tag === '' && digest === '') {
    const tagged = held.flatMap(({ imageId, references }) => {
      const own = references.filter((whole) => splitWhole(whole).repository === repository);
      return own.length === 0 ? [] : [{ imageId, references: own }];
    });
    return tagged.length === 0 ? byId() : tagged;
  }
  const image = findImage(held, name);
  if (image === undefined || (digest === '' && !image.references.includes(`${repository}:${tag}`))) {
    throw dockerError(404, 'reference does not exist');
  }
  return [{ imageId: image.imageId, references: digest === '' ? [`${repository}:${tag}`] : [] }];
}
