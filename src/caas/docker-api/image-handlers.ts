/** `/images/…`. */
import { once } from 'node:events';
import { pipeline } from 'node:stream/promises';
import { EcluseError } from '#errors';
import type { Clock } from '#clock';
import type { ContainerRow } from '#state/containers.ts';
import type { TenantImage } from '#state/images.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { Containers } from '#caas/containers.ts';
import type { EngineImage } from '#caas/engine/engine-answers.ts';
import { errorLine } from '#caas/engine/engine-progress.ts';
import type { ProgressSink } from '#caas/engine/engine-progress.ts';
import type { Images } from '#caas/images/images.ts';
import { layerSizesOf, sharedSizeOf } from '#caas/images/image-layers.ts';
import { familiarReference, parseNamed, withTag } from '#caas/images/image-reference.ts';
import { parseRegistryAuth } from '#caas/registry/registry-auth.ts';
import { answerTo, dockerError, noSuchImage } from './docker-error.ts';
import { listFilter, pruneFilter } from './image-filters.ts';
import type { ImageCandidate } from './image-filters.ts';
import { createdMsOf, historyView, imageInspectView, imageSummaryView } from './image-views.ts';
import { booleanOf, filtersOf, numberOf, sendEmpty, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';
import { TenantSlots } from './tenant-slots.ts';

export interface ImageHandlerDeps {
  readonly clock: Clock;
  readonly images: Images;
  readonly containers: Containers;
}

/** A Dockerfile's instruction on the way of an import. */
const CHANGE_CHARS_MAX = 4096;
const CHANGES_MAX = 200;
/** Images of one archive; each is named in the request's target. */
const SAVED_MAX = 200;
/** Loads, imports and saves of one tenant at once; more wait. An archive that is read has up to 40 MiB of this process. */
const ARCHIVES_PER_TENANT_MAX = 8;

/** The tenant's containers by the image that they are of. */
async function usersOf(
  deps: Pick<ImageHandlerDeps, 'containers'>,
  tenant: string,
): Promise<(imageId: string) => readonly ContainerRow[]> {
  const byImage = Map.groupBy(await deps.containers.listOf(tenant), (row) => parseStoredSpec(row.spec).imageId);
  return (imageId) => byImage.get(imageId) ?? [];
}

function candidateOf(image: TenantImage, known: EngineImage | undefined): ImageCandidate {
  return {
    tags: image.references.map(familiarReference),
    digests: image.digests.map(familiarReference),
    createdMs: createdMsOf(image, known),
    labels: known?.Config?.Labels ?? {},
  };
}

/** The filters, with the parameter that older clients have for one of them. */
function listFiltersOf({ query, apiVersion }: DockerRequest): ReadonlyMap<string, readonly string[]> {
  const filters = filtersOf(query);
  const legacy = query.get('filter') ?? '';
  if (legacy === '' || numberOf(apiVersion) >= 1041) return filters;
  return new Map([...filters, ['reference', [...(filters.get('reference') ?? []), legacy]]]);
}

async function sharedSizes(deps: ImageHandlerDeps, held: readonly TenantImage[]): Promise<ReadonlyMap<string, number>> {
  const layers = await Promise.all(held.map(async ({ imageId }) => await deps.images.removal.layers(imageId)));
  return new Map(
    held.map(({ imageId }, index) => {
      const others = layers.filter((_facts, other) => other !== index);
      const own = layers[index];
      return [imageId, own === undefined ? 0 : sharedSizeOf(own, others)];
    }),
  );
}

async function list(deps: ImageHandlerDeps, request: DockerRequest): Promise<void> {
  const held = await deps.images.list(request.tenant.name);
  const facts = await Promise.all(held.map(async (image) => ({ image, known: await deps.images.inspect(image.imageId) })));
  const filter = await listFilter(listFiltersOf(request), deps.clock.nowMs(), async (reference) => {
    const image = await deps.images.require(request.tenant.name, reference);
    return createdMsOf(image, await deps.images.inspect(image.imageId));
  });
  const shared = booleanOf(request.query, 'shared-size') ? await sharedSizes(deps, held) : undefined;
  const views = facts
    .toSorted((one, other) => createdMsOf(other.image, other.known) - createdMsOf(one.image, one.known))
    .flatMap(({ image, known }) => {
      const names = filter.namesOf(candidateOf(image, known));
      const sharedSize = shared?.get(image.imageId) ?? -1;
      return names === undefined ? [] : [imageSummaryView({ held: image, known, sharedSize }, names, request.apiVersion)];
    });
  sendJson(request.response, 200, views);
}

/** A tenant's images with what they share, for `system df`; `layersBytes` counts each layer once. */
export async function imageUsage(
  deps: Pick<ImageHandlerDeps, 'images' | 'containers'>,
  { tenant, apiVersion }: Pick<DockerRequest, 'tenant' | 'apiVersion'>,
): Promise<{ readonly layersBytes: number; readonly views: readonly Readonly<Record<string, unknown>>[] }> {
  const held = await deps.images.list(tenant.name);
  const users = await usersOf(deps, tenant.name);
  const layers = await Promise.all(held.map(async ({ imageId }) => await deps.images.removal.layers(imageId)));
  const sizes = new Map(layers.flatMap((facts) => [...layerSizesOf(facts)]));
  const views = await Promise.all(
    held.map(async (image, index) => {
      const own = layers[index];
      const others = layers.filter((_facts, other) => other !== index);
      const names = { tags: image.references.map(familiarReference), digests: image.digests.map(familiarReference) };
      const known = await deps.images.inspect(image.imageId);
      const sharedSize = own === undefined ? 0 : sharedSizeOf(own, others);
      return {
        ...imageSummaryView({ held: image, known, sharedSize }, names, apiVersion),
        Containers: users(image.imageId).length,
      };
    }),
  );
  return { layersBytes: sizes.values().reduce((sum, size) => sum + size, 0), views };
}

/** As moby says it here: which image was asked for, and then why there is none. */
function notInspected(name: string, error: unknown): unknown {
  if (!(error instanceof EcluseError)) return error;
  const { status, message } = answerTo(error);
  return status === 404 || status === 400 ? dockerError(status, `no such image: ${name}: ${message}`) : error;
}

async function inspect(deps: ImageHandlerDeps, request: DockerRequest, name: string): Promise<void> {
  const image = await deps.images.require(request.tenant.name, name).catch((error: unknown) => {
    throw notInspected(name, error);
  });
  const known = await deps.images.inspect(image.imageId);
  if (known === undefined) throw noSuchImage(name);
  const held = new Set((await deps.images.list(request.tenant.name)).map(({ imageId }) => imageId));
  const { apiVersion } = request;
  sendJson(request.response, 200, imageInspectView(image, known, { apiVersion, isHeld: (imageId) => held.has(imageId) }));
}

async function history(deps: ImageHandlerDeps, request: DockerRequest, name: string): Promise<void> {
  const image = await deps.images.require(request.tenant.name, name);
  const known = await deps.images.history(image.imageId);
  if (known === undefined) throw noSuchImage(name);
  sendJson(request.response, 200, historyView(known, await deps.images.list(request.tenant.name)));
}

/**
 * Work whose progress the client reads line by line. What fails before the first line is an answer of its own; behind it, a line of the stream,
 * as in Docker.
 */
async function withProgress(request: DockerRequest, work: (emit: ProgressSink) => Promise<void>): Promise<void> {
  const { response, signal } = request;
  const emit: ProgressSink = async (line) => {
    signal.throwIfAborted();
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/json' });
    if (!response.write(`${JSON.stringify(line)}\r\n`)) await once(response, 'drain', { signal });
  };
  try {
    await work(emit);
  } catch (error) {
    if (!response.headersSent || signal.aborted) throw error;
    await emit(errorLine(answerTo(error).message));
  }
  if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/json' });
  response.end();
}

async function load(deps: ImageHandlerDeps, request: DockerRequest): Promise<void> {
  const quiet = booleanOf(request.query, 'quiet');
  await withProgress(request, async (emit) => {
    await deps.images.transfer.load(request.tenant, request.incoming, emit, { quiet });
  });
}

function platformOf({ query }: DockerRequest): string | undefined {
  const platform = query.get('platform') ?? '';
  if (platform === '') return undefined;
  if (/^[\w.-]{1,60}(?:\/[\w.-]{1,60}){0,2}$/.test(platform)) return platform;
  throw dockerError(400, `"${platform.slice(0, 100)}" is an invalid platform specifier`);
}

/** `docker pull`: `fromImage`. */
async function pull(deps: ImageHandlerDeps, request: DockerRequest): Promise<void> {
  const fromImage = request.query.get('fromImage') ?? '';
  const reference = withTag(fromImage.replace(/:$/, ''), request.query.get('tag') ?? '');
  if (reference.kind === 'invalid') throw dockerError(400, reference.why);
  const access = {
    auth: parseRegistryAuth(request.incoming.headers['x-registry-auth']),
    platform: platformOf(request),
    signal: request.signal,
  };
  await withProgress(request, async (emit) => {
    await deps.images.pull(request.tenant, reference.text, access, emit);
  });
}

/** `docker import`: `fromSrc=-`. */
async function importImage(deps: ImageHandlerDeps, request: DockerRequest): Promise<void> {
  const { query } = request;
  if (query.get('fromSrc') !== '-') throw dockerError(400, 'ecluse: only an upload can be imported (docker import - NAME)');
  const changes = query.getAll('changes');
  if (changes.length > CHANGES_MAX || changes.some((change) => change.length > CHANGE_CHARS_MAX)) {
    throw dockerError(
      400,
      `ecluse: more than ${String(CHANGES_MAX)} changes, or one of more than ${String(CHANGE_CHARS_MAX)} characters`,
    );
  }
  const repository = query.get('repo') ?? '';
  const reference = repository === '' ? undefined : withTag(repository, query.get('tag') ?? '');
  if (reference?.kind === 'invalid') throw dockerError(400, reference.why);
  const imageId = await deps.images.transfer.import(request.tenant, request.incoming, {
    reference: reference?.text,
    message: (query.get('message') ?? '').slice(0, 1000),
    changes,
    platform: platformOf(request),
  });
  request.response.writeHead(200, { 'content-type': 'application/json' });
  request.response.end(`${JSON.stringify({ status: imageId })}\r\n`);
}

async function push(deps: ImageHandlerDeps, request: DockerRequest, name: string): Promise<void> {
  const reference = withTag(name, request.query.get('tag') ?? '');
  if (reference.kind === 'invalid') throw dockerError(400, reference.why);
  request.incoming.resume();
  const access = { auth: parseRegistryAuth(request.incoming.headers['x-registry-auth']), signal: request.signal };
  await withProgress(request, async (emit) => {
    await deps.images.push(request.tenant, reference.text, access, emit);
  });
}

async function tag(deps: ImageHandlerDeps, request: DockerRequest, name: string): Promise<void> {
  await deps.images.require(request.tenant.name, name);
  const repository = request.query.get('repo') ?? '';
  const target = parseNamed(repository);
  if (target.kind === 'named' && target.name.digest !== '')
    throw dockerError(400, 'refusing to create a tag with a digest reference');
  const reference = withTag(repository, request.query.get('tag') ?? '');
  if (reference.kind === 'invalid') throw dockerError(400, reference.why);
  await deps.images.tag(request.tenant.name, name, reference.text);
  sendEmpty(request.response, 201);
}

async function remove(deps: ImageHandlerDeps, request: DockerRequest, name: string): Promise<void> {
  const { tenant } = request;
  // `noprune` is about images below this one that have no name: those are nobody's here.
  const { lines } = await deps.images.removal.remove(tenant.name, name, {
    force: booleanOf(request.query, 'force'),
    usersOf: await usersOf(deps, tenant.name),
  });
  sendJson(request.response, 200, lines);
}

async function prune(deps: ImageHandlerDeps, request: DockerRequest): Promise<void> {
  const filter = pruneFilter(filtersOf(request.query), deps.clock.nowMs());
  const { lines, bytes } = await deps.images.removal.prune(request.tenant.name, {
    danglingOnly: filter.danglingOnly,
    usersOf: await usersOf(deps, request.tenant.name),
    isWanted: async (image) => filter.isWanted(candidateOf(image, await deps.images.inspect(image.imageId))),
  });
  sendJson(request.response, 200, { ImagesDeleted: lines.length === 0 ? null : lines, SpaceReclaimed: bytes });
}

async function save(deps: ImageHandlerDeps, request: DockerRequest, names: readonly string[]): Promise<void> {
  if (names.length === 0 || names.length > SAVED_MAX)
    throw dockerError(400, `ecluse: name 1 to ${String(SAVED_MAX)} images to save`);
  const archive = await deps.images.transfer.save(request.tenant.name, names);
  request.response.writeHead(200, { 'content-type': 'application/x-tar' });
  await pipeline(archive, request.response);
}

export function imageRoutes(deps: ImageHandlerDeps): readonly DockerRoute[] {
  const slots = new TenantSlots(ARCHIVES_PER_TENANT_MAX);
  const inTurn = async (request: DockerRequest, work: () => Promise<void>): Promise<void> => {
    await slots.run(request.tenant.name, request.signal, work);
  };
  const saveInTurn = async (request: DockerRequest, names: readonly string[]): Promise<void> => {
    await inTurn(request, async () => {
      await save(deps, request, names);
    });
  };
  return [
    { method: 'GET', pattern: '/images/json', answer: async (request) => await list(deps, request) },
    {
      method: 'GET',
      pattern: '/images/get',
      answer: async (request) => await saveInTurn(request, request.query.getAll('names')),
    },
    {
      method: 'POST',
      pattern: '/images/load',
      answer: async (request) => await inTurn(request, async () => await load(deps, request)),
    },
    {
      method: 'POST',
      pattern: '/images/create',
      answer: async (request) => {
        if ((request.query.get('fromImage') ?? '') === '') await inTurn(request, async () => await importImage(deps, request));
        else await pull(deps, request);
      },
    },
    { method: 'POST', pattern: '/images/prune', answer: async (request) => await prune(deps, request) },
    { method: 'GET', pattern: '/images/{*}/json', answer: async (request, name) => await inspect(deps, request, name) },
    { method: 'GET', pattern: '/images/{*}/history', answer: async (request, name) => await history(deps, request, name) },
    { method: 'GET', pattern: '/images/{*}/get', answer: async (request, name) => await saveInTurn(request, [name]) },
    { method: 'POST', pattern: '/images/{*}/push', answer: async (request, name) => await push(deps, request, name) },
    { method: 'POST', pattern: '/images/{*}/tag', answer: async (request, name) => await tag(deps, request, name) },
    { method: 'DELETE', pattern: '/images/{*}', answer: async (request, name) => await remove(deps, request, name) },
  ];
}
