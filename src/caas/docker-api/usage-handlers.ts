/** `GET /system/df`: what a tenant's own images, containers and volumes take. */
import type { Containers } from '#caas/containers.ts';
import type { Images } from '#caas/images/images.ts';
import type { Volumes } from '#caas/volumes/volumes.ts';
import { ContainerList } from './container-list.ts';
import type { ContainerListDeps } from './container-list.ts';
import { dockerError } from './docker-error.ts';
import { imageUsage } from './image-handlers.ts';
import { numberOf, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';
import { volumeUsageView } from './volume-views.ts';

export interface UsageHandlerDeps extends ContainerListDeps {
  readonly containers: Containers;
  readonly images: Images;
  readonly volumes: Volumes;
}

const KINDS = ['container', 'image', 'volume', 'build-cache'] as const;
/** From here on a client may ask for some of them. */
const KINDS_SINCE = numberOf('1.42');

/** What of the four is wanted. */
function kindsOf({ query, apiVersion }: DockerRequest): ReadonlySet<string> {
  const given = numberOf(apiVersion) < KINDS_SINCE ? [] : query.getAll('type');
  const unknown = given.find((kind) => !KINDS.some((known) => known === kind));
  if (unknown !== undefined) throw dockerError(400, `unknown object type: ${unknown.slice(0, 40)}`);
  return new Set(given.length === 0 ? KINDS : given);
}

async function usage(deps: UsageHandlerDeps, list: ContainerList, request: DockerRequest): Promise<void> {
  const { tenant, apiVersion, response } = request;
  const wanted = kindsOf(request);
  const images = wanted.has('image') ? await imageUsage(deps, request) : undefined;
  const containers = wanted.has('container') ? await list.measured(tenant) : undefined;
  const volumes = wanted.has('volume') ? await deps.volumes.usage(tenant.name) : undefined;
  sendJson(response, 200, {
    LayersSize: images?.layersBytes ?? 0,
    Images: images?.views ?? null,
    Containers: containers ?? null,
    Volumes: volumes?.map((use) => volumeUsageView(use, apiVersion)) ?? null,
    BuildCache: wanted.has('build-cache') ? [] : null,
    BuilderSize: 0,
  });
}

export function usageRoutes(deps: UsageHandlerDeps): readonly DockerRoute[] {
  const list = new ContainerList(deps);
  return [{ method: 'GET', pattern: '/system/df', answer: async (request) => await usage(deps, list, request) }];
}
