/**
 * Pull and push, by way of the relay: the engine speaks to the relay, the relay to the registry as the tenant.
 *
 * A pulled image is the tenant's only when the registry has shown its whole content to this tenant. Engines fetch neither a config nor a layer that they
 * have; for those, somebody who knows a digest could name it in a manifest of his own. What was not fetched, and the tenant does not have in
 * another image, is fetched and hashed here.
 */
import { createHash } from 'node:crypto';
import type { EcluseError } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { TenantImage } from '#state/images.ts';
import type { Tenant } from '#state/tenants.ts';
import { chunksOf } from '#caas/byte-stream.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { EngineError } from '#caas/engine/engine-client.ts';
import type { EngineCall } from '#caas/engine/engine-client.ts';
import { failureOf, jsonLines, progressLine } from '#caas/engine/engine-progress.ts';
import type { ProgressLine, ProgressSink } from '#caas/engine/engine-progress.ts';
import { listOn, tagOn } from './image-engines.ts';
import type { EngineHost, ImageEngines, ListedImage } from './image-engines.ts';
import type { ImageEvents } from './image-events.ts';
import type { ImageHoldings } from './image-holdings.ts';
import { familiarReference, parseNamed, splitWhole } from './image-reference.ts';
import type { NamedReference } from './image-reference.ts';
import type { ImageTransfer } from './image-transfer.ts';
import { registryAt } from '#caas/registry/registry-access.ts';
import type { RegistryPolicy } from '#caas/registry/registry-access.ts';
import type { RegistryAuth } from '#caas/registry/registry-auth.ts';
import { brokenBody, throwUnlessGood } from '#caas/registry/registry-client.ts';
import { fetchManifest } from '#caas/registry/registry-manifests.ts';
import type { RegistryRelay } from '#caas/registry/registry-relay.ts';
import type { PulledManifest, RelaySession } from '#caas/registry/registry-session.ts';

/** Each holds connections, and the engine's disk and processors; compose pulls all images of a project at once. */
const PASSAGES_PER_TENANT_MAX = 20;

export interface RegistryParts {
  readonly policy: RegistryPolicy;
  readonly relay: RegistryRelay;
  /** Where engines of a host find the relay (`127.0.0.1:1234`); undefined: they cannot. */
  readonly relayOf: (host: EngineHost) => string | undefined;
}

export interface ImageRegistryDeps extends RegistryParts {
  readonly engines: ImageEngines;
  readonly holdings: ImageHoldings;
  readonly transfer: ImageTransfer;
  readonly events: ImageEvents;
}

export interface RegistryAccess {
  readonly auth: RegistryAuth | undefined;
  /** `linux/arm64`, for a pull. */
  readonly platform?: string | undefined;
  /** Aborts when nobody waits any more. */
  readonly signal?: AbortSignal | undefined;
}

/** A pull or push under way on a host. */
interface Passage {
  readonly tenant: Tenant;
  readonly name: NamedReference;
  readonly host: EngineHost;
  readonly session: RelaySession;
  /** What the engine calls the repository. */
  readonly engineRepository: string;
}

export class ImageRegistry {
  readonly #deps: ImageRegistryDeps;
  /** By tenant and repository: an engine's names of two passages of one repository would be the same. */
  readonly #locks = new KeyedLock();
  readonly #underWay = new Map<string, number>();

  constructor(deps: ImageRegistryDeps) {
    this.#deps = deps;
  }

  /** Counts a passage until it is over. */
  #admit({ name }: Tenant): Disposable {
    const count = this.#underWay.get(name) ?? 0;
    if (count >= PASSAGES_PER_TENANT_MAX) {
      throw dockerError(429, `ecluse: tenant ${name} has ${String(count)} pulls and pushes under way; wait for some to end`);
    }
    this.#underWay.set(name, count + 1);
    return {
      [Symbol.dispose]: () => {
        const left = (this.#underWay.get(name) ?? 1) - 1;
        if (left === 0) this.#underWay.delete(name);
        else this.#underWay.set(name, left);
      },
    };
  }

  async #through<T>(
    wish: {
      readonly tenant: Tenant;
      readonly name: NamedReference;
      readonly access: RegistryAccess;
      readonly actions: string;
      readonly tagsMax: number;
    },
    chooseHost: () => Promise<EngineHost>,
    work: (passage: Passage) => Promise<T>,
  ): Promise<T> {
    const { engines, policy, relay, relayOf } = this.#deps;
    const { tenant, name, access } = wish;
    const [domain = ''] = name.repository.split('/');
    const place = registryAt(policy, domain);
    using count = new DisposableStack();
    count.use(this.#admit(tenant));
    return await this.#locks.run(`${tenant.name} ${name.repository}`, async () => {
      access.signal?.throwIfAborted();
      const host = await chooseHost();
      using busy = new DisposableStack();
      busy.use(engines.begin(host));
      const path = name.repository.slice(domain.length + 1);
      using session = relay.open({
        tenant: tenant.name,
        repository: name.repository,
        target: { place, auth: access.auth, scope: `repository:${path}:${wish.actions}` },
        signal: access.signal,
        tagsMax: wish.tagsMax,
      });
      const engineRepository = `${relayOf(host) ?? ''}/${session.name}`;
      await engines.sweep(host, engineRepository); // What a crash left would be taken for what this passage brought.
      try {
        return await work({ tenant, name, host, session, engineRepository });
      } finally {
        await engines.sweep(host, engineRepository);
      }
    });
  }

  /** The engine's progress, renamed; what it ends with is left to the caller. Throws what went wrong in words for the tenant. */
  async #follow(passage: Passage, call: EngineCall, onLine: (line: ProgressLine) => Promise<void>): Promise<void> {
    const { host, session } = passage;
    const rename = renamer(passage);
    try {
      const answer = await host.client.stream({ ...call, signal: session.signal });
      for await (const line of jsonLines(answer)) {
        const failure = failureOf(line);
        if (failure !== undefined) throw new EngineError(500, failure);
        await onLine(line);
      }
    } catch (error) {
      if (session.failure !== undefined) throw session.failure;
      if (!(error instanceof EngineError)) throw error;
      throw toldFailure(error, session, rename);
    }
  }

  /** `docker pull`. The reference as it was written; without tag and digest, all tags of the repository. */
  async pull(tenant: Tenant, reference: string, access: RegistryAccess, emit: ProgressSink): Promise<void> {
    const { engines, holdings, relayOf } = this.#deps;
    const parsed = parseNamed(reference);
    if (parsed.kind === 'invalid') throw dockerError(400, parsed.why);
    const { name } = parsed;
    const tagsMax = await holdings.checkQuota(tenant);
    const choose = async (): Promise<EngineHost> => await engines.intake((host) => relayOf(host) !== undefined);
    await this.#through({ tenant, name, access, actions: 'pull', tagsMax }, choose, async (passage) => {
      const rename = renamer(passage);
      const query = {
        fromImage: passage.engineRepository,
        tag: name.digest === '' ? (name.tag === '' ? undefined : name.tag) : name.digest,
        platform: access.platform,
      };
      await this.#follow(passage, { method: 'POST', path: ['images', 'create'], query }, async (line) => {
        const progress = progressLine(line, rename);
        // How it ends is said when the image is the tenant's.
        if (progress === undefined || /^(?:Digest|Status): /.test(String(progress['status']))) return;
        // The engine may have a layer for another tenant: that is not for this one to read.
        await emit(progress['status'] === 'Already exists' ? { ...progress, status: 'Pull complete' } : progress);
      });
      const pulled = await listOn(passage.host, passage.engineRepository);
      if (pulled.length === 0) throw dockerError(500, 'ecluse: the engine pulled nothing');
      const news: boolean[] = [];
      for (const image of pulled) news.push(...(await this.#takePulled(passage, image, emit)));
      const isAll = name.tag === '' && name.digest === '';
      const told = familiarReference(isAll ? name.repository : wholeName(name));
      await emit({ status: `Status: ${news.includes(true) ? 'Downloaded newer image' : 'Image is up to date'} for ${told}` });
    });
  }

  /** Makes it the tenant's. Returns for each of its names whether that is news. */
  async #takePulled(passage: Passage, { imageId, names }: ListedImage, emit: ProgressSink): Promise<readonly boolean[]> {
    const { holdings, events } = this.#deps;
    const { tenant, name, host, engineRepository } = passage;
    await this.#deps.engines.learn(host, imageId);
    await this.#prove(passage, imageId);
    const digest = names.find((one) => one.startsWith(`${engineRepository}@`))?.slice(engineRepository.length + 1);
    const tags = names
      .filter((one) => one.startsWith(`${engineRepository}:`))
      .map((one) => one.slice(engineRepository.length + 1));
    const held = digest === undefined ? undefined : { repository: name.repository, digest };
    const before = await holdings.list(tenant.name);
    const wanted = tags.length === 0 ? [undefined] : tags;
    const news: boolean[] = [];
    for (const tag of wanted) {
      const whole = tag === undefined ? `${name.repository}@${digest ?? ''}` : `${name.repository}:${tag}`;
      const isSame = (image: TenantImage): boolean => [...image.references, ...image.digests].includes(whole);
      news.push(!before.some((image) => image.imageId === imageId && isSame(image)));
      await holdings.hold(tenant.name, imageId, host, { reference: tag === undefined ? undefined : whole, digest: held });
      const told = familiarReference(whole);
      if (digest !== undefined) await emit({ status: `Digest: ${digest}` });
      await events.publishAs(tenant.name, 'pull', { actor: told, imageId, name: familiarReference(name.repository) });
    }
    return news;
  }

  /** Throws unless the tenant has been shown everything of an image that the engine says it pulled. */
  async #prove({ tenant, session }: Passage, imageId: string): Promise<void> {
    const held = await this.#deps.holdings.list(tenant.name);
    if (held.some((image) => image.imageId === imageId)) return;
    const manifest = await this.#manifestOf(session, imageId);
    const layersOf = async (id: string): Promise<readonly string[]> =>
      (await this.#deps.engines.inspect(id))?.RootFS?.Layers ?? [];
    const own = new Set((await Promise.all(held.map(async (image) => await layersOf(image.imageId)))).flat());
    const diffIds = await layersOf(imageId);
    // Manifest and config list the same layers in the same order; where they do not, nothing is taken as known.
    const isAligned = diffIds.length === manifest.layers.length;
    const isHeld = (index: number): boolean => isAligned && own.has(diffIds[index] ?? '');
    await proveBlob(session, manifest.config);
    for (const [index, layer] of manifest.layers.entries()) if (!isHeld(index)) await proveBlob(session, layer);
  }

  /** What the registry says of an image. Of a list an engine may have known the image's manifest already, and not have asked for it. */
  async #manifestOf(session: RelaySession, imageId: string): Promise<PulledManifest> {
    const find = (): PulledManifest | undefined => session.manifests.find(({ config }) => config === imageId);
    const known = await this.#deps.engines.inspect(imageId);
    const platform = `${known?.Os ?? ''}/${known?.Architecture ?? ''}`;
    for (const [digest, listed] of session.listed) {
      const found = find();
      if (found !== undefined) return found;
      if (listed === platform && !session.manifests.some((one) => one.digest === digest)) await fetchManifest(session, digest);
    }
    const found = find();
    if (found === undefined) throw dockerError(500, 'ecluse: the engine made another image than the registry described');
    return found;
  }

  /** `docker push`. Without a tag, all tags of the repository. */
  async push(tenant: Tenant, reference: string, access: RegistryAccess, emit: ProgressSink): Promise<void> {
    const { engines, holdings, transfer, events, relayOf } = this.#deps;
    const parsed = parseNamed(reference);
    if (parsed.kind === 'invalid') throw dockerError(400, parsed.why);
    const { name } = parsed;
    if (name.digest !== '') throw dockerError(400, 'cannot push a digest reference');
    // The engine says it; where it is not asked, we do.
    const announce = async (): Promise<void> => {
      await emit({ status: `The push refers to repository [${name.repository}]` });
    };
    const there = (await holdings.list(tenant.name)).flatMap(({ imageId, references }) =>
      references
        .map((whole) => splitWhole(whole))
        .filter(({ repository }) => repository === name.repository)
        .map(({ tag }) => ({ imageId, tag })),
    );
    const wanted = there.filter(({ tag }) => name.tag === '' || tag === name.tag);
    const [first] = wanted.length === 0 ? there : wanted;
    if (first === undefined) {
      await announce();
      throw dockerError(404, `An image does not exist locally with the tag: ${familiarReference(name.repository)}`);
    }
    const choose = async (): Promise<EngineHost> => {
      const having = await engines.hostsWith(first.imageId);
      const fit = having.find((host) => relayOf(host) !== undefined);
      return fit ?? (await engines.intake((host) => relayOf(host) !== undefined));
    };
    await this.#through({ tenant, name, access, actions: 'pull,push', tagsMax: 0 }, choose, async (passage) => {
      const { engineRepository, host } = passage;
      // An engine would try a registry that cannot be reached again and again: all that it knows is the relay.
      await passage.session.client.origin().catch(async (error: unknown) => {
        await announce();
        throw error;
      });
      if (wanted.length === 0) {
        await announce();
        throw dockerError(404, `tag does not exist: ${familiarReference(wholeName(name))}`);
      }
      for (const { imageId, tag } of wanted) {
        await transfer.ensureOn(host, imageId);
        await tagOn(host, imageId, { repository: engineRepository, tag });
      }
      const rename = renamer(passage);
      const call: EngineCall = {
        method: 'POST',
        path: ['images', engineRepository, 'push'],
        query: { tag: name.tag === '' ? undefined : name.tag },
        headers: { 'x-registry-auth': 'e30=' }, // `{}`: the relay has the credentials.
      };
      await this.#follow(passage, call, async (line) => {
        const pushed = pushedOf(line);
        const image = wanted.find(({ tag }) => tag === pushed?.Tag);
        if (pushed !== undefined && image !== undefined) {
          await holdings.name(tenant.name, image.imageId, { digest: { repository: name.repository, digest: pushed.Digest } });
          await emit({ progressDetail: {}, aux: pushed });
          return;
        }
        const progress = progressLine(line, rename);
        if (progress !== undefined) await emit(progress);
      });
      for (const { imageId, tag } of wanted) {
        const actor = familiarReference(`${name.repository}:${tag}`);
        await events.publishAs(tenant.name, 'push', { actor, imageId, name: familiarReference(name.repository) });
      }
    });
  }
}

/** With the tag or digest that it has. */
function wholeName({ repository, tag, digest }: NamedReference): string {
  return digest === '' ? `${repository}:${tag}` : `${repository}@${digest}`;
}

/** Replaces an engine's names in its words. */
function renamer({ engineRepository, session, name }: Passage): (text: string) => string {
  return (text) =>
    text
      .replaceAll(`repository [${engineRepository}]`, `repository [${name.repository}]`)
      .replaceAll(engineRepository, familiarReference(name.repository))
      .replaceAll(session.name, session.path);
}

/** What a tenant is told of an engine's failure. What failed behind the relay is told from there; the engine knows only that the relay said no. */
function toldFailure(error: EngineError, session: RelaySession, rename: (text: string) => string): EcluseError {
  if (session.lastFault !== undefined && /502 Bad Gateway|cannot be reached/.test(error.message)) return session.lastFault;
  return new EngineError(error.status, rename(error.message));
}

/** Fetches a blob and compares its hash, unless the session has had it. */
async function proveBlob(session: RelaySession, digest: string): Promise<void> {
  if (session.proven.has(digest)) return;
  const answer = await session.client.call({ method: 'GET', target: `/v2/${session.path}/blobs/${digest}` });
  await throwUnlessGood(answer);
  const hash = createHash('sha256');
  try {
    for await (const chunk of chunksOf(answer)) {
      session.count(chunk.length);
      hash.update(chunk);
    }
  } catch (error) {
    throw session.failure ?? brokenBody(error);
  }
  if (`sha256:${hash.digest('hex')}` !== digest)
    throw dockerError(500, `filesystem layer verification failed for digest ${digest}`);
  session.proven.add(digest);
}

interface Pushed {
  readonly Tag: string;
  readonly Digest: string;
  readonly Size: number;
}

/** The line of an engine that tells what a tag was pushed as. */
function pushedOf(line: ProgressLine): Pushed | undefined {
  const { aux } = line;
  if (typeof aux !== 'object' || aux === null || !('Tag' in aux) || !('Digest' in aux) || !('Size' in aux)) return undefined;
  const { Tag, Digest, Size } = aux;
  return typeof Tag === 'string' && typeof Digest === 'string' && typeof Size === 'number' ? { Tag, Digest, Size } : undefined;
}
