/** `/images/…`. */
import type { Clock } from '#clock';
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { parseStoredSpec } from '#caas/container-spec.ts';
import type { Containers } from '#caas/containers.ts';
import type { Images } from '#caas/images.ts';
import { familiarReference } from '#caas/image-reference.ts';
import { answerTo, dockerError, noSuchImage } from './docker-error.ts';
import { booleanOf, filtersOf, sendEmpty, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';
import { namesToList } from './image-filters.ts';
import { imageInspectView, imageSummaryView } from './image-views.ts';

export interface ImageHandlerDeps {
  readonly clock: Clock;
  readonly images: Images;
  readonly containers: Containers;
}

async function usesOf(deps: ImageHandlerDeps, tenant: string, imageId: string): Promise<number> {
  return (await deps.containers.listOf(tenant)).filter((row) => parseStoredSpec(row.spec).imageId === imageId).length;
}

async function list(deps: ImageHandlerDeps, request: DockerRequest): Promise<void> {
  const filters = filtersOf(request.query);
  const views = [];
  for (const image of await deps.images.list(request.tenant.name)) {
    const known = await deps.images.inspect(image.imageId);
    const names = namesToList(filters, image.references.map(familiarReference), known);
    if (names === undefined) continue;
    views.push(imageSummaryView(image, names, known, await usesOf(deps, request.tenant.name, image.imageId)));
  }
  sendJson(request.response, 200, views);
}

async function inspect(deps: ImageHandlerDeps, request: DockerRequest, name: string): Promise<void> {
  const image = await deps.images.find(request.tenant.name, name);
  const known = image === undefined ? undefined : await deps.images.inspect(image.imageId);
  if (image === undefined || known === undefined) throw noSuchImage(name);
  sendJson(request.response, 200, imageInspectView(image, known));
}

async function load(deps: ImageHandlerDeps, request: DockerRequest): Promise<void> {
  const { response } = request;
  const archive: Readable = request.incoming;
  const progress = deps.images.load(request.tenant, archive, booleanOf(request.query, 'quiet'));
  try {
    for await (const line of progress) {
      if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/json' });
      if (!response.write(`${JSON.stringify(line)}\r\n`)) await once(response, 'drain', { signal: request.signal });
    }
  } catch (error) {
    if (!response.headersSent) throw error;
    // Docker reports a failure behind the head as a line of the stream.
    const { message } = answerTo(error);
    response.write(`${JSON.stringify({ errorDetail: { message }, error: message })}\r\n`);
  }
  if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/json' });
  response.end();
}

/** `docker import` (`fromSrc=-`) and `docker pull` (`fromImage`). */
async function create(deps: ImageHandlerDeps, request: DockerRequest): Promise<void> {
  const { query } = request;
  const fromImage = query.get('fromImage');
  if (fromImage !== null && fromImage !== '') {
    throw dockerError(501, `ecluse: pulling ${fromImage.slice(0, 200)} is not implemented yet; use docker load or docker import`);
  }
  if (query.get('fromSrc') !== '-') throw dockerError(400, 'ecluse: only an upload can be imported (docker import - NAME)');
  const repository = query.get('repo') ?? '';
  const suffix = query.get('tag') ?? '';
  const imageId = await deps.images.import(request.tenant, request.incoming, {
    reference: repository === '' ? undefined : `${repository}${suffix === '' ? '' : `:${suffix}`}`,
    message: (query.get('message') ?? '').slice(0, 1000),
    changes: query.getAll('changes').map((change) => change.slice(0, 4096)),
  });
  request.response.writeHead(200, { 'content-type': 'application/json' });
  request.response.end(`${JSON.stringify({ status: imageId })}\r\n`);
}

async function tag(deps: ImageHandlerDeps, request: DockerRequest, name: string): Promise<void> {
  const target = `${request.query.get('repo') ?? ''}:${request.query.get('tag') ?? ''}`.replace(/:$/, '');
  await deps.images.tag(request.tenant.name, name, target);
  sendEmpty(request.response, 201);
}

async function remove(deps: ImageHandlerDeps, request: DockerRequest, name: string): Promise<void> {
  const { tenant } = request;
  const users = (await deps.containers.listOf(tenant.name)).map((row) => ({ row, imageId: parseStoredSpec(row.spec).imageId }));
  const done = await deps.images.remove(tenant.name, name, {
    force: booleanOf(request.query, 'force'),
    usersOf: (imageId) => users.filter((user) => user.imageId === imageId).map((user) => user.row),
  });
  sendJson(request.response, 200, done);
}

export function imageRoutes(deps: ImageHandlerDeps): readonly DockerRoute[] {
  return [
    { method: 'GET', pattern: '/images/json', answer: async (request) => await list(deps, request) },
    { method: 'POST', pattern: '/images/load', answer: async (request) => await load(deps, request) },
    { method: 'POST', pattern: '/images/create', answer: async (request) => await create(deps, request) },
    { method: 'GET', pattern: '/images/{*}/json', answer: async (request, name) => await inspect(deps, request, name) },
    { method: 'POST', pattern: '/images/{*}/tag', answer: async (request, name) => await tag(deps, request, name) },
    { method: 'DELETE', pattern: '/images/{*}', answer: async (request, name) => await remove(deps, request, name) },
  ];
}
