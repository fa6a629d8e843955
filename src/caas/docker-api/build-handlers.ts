/** `/build`: the classic builder. */
import { once } from 'node:events';
import type { Clock } from '#clock';
import type { Log } from '#log';
import type { Sql } from '#state/sql.ts';
import { failureLine } from '#caas/build/build-output.ts';
import type { BuildLine } from '#caas/build/build-output.ts';
import { parseBuildQuery, registryLoginsOf } from '#caas/build/build-query.ts';
import { Builds } from '#caas/build/builds.ts';
import type { Containers } from '#caas/containers.ts';
import type { Host } from '#caas/host.ts';
import type { Images } from '#caas/images/images.ts';
import type { Meter } from '#caas/meter.ts';
import { answerTo } from './docker-error.ts';
import { filtersOf, integerOfQuery, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';

export interface BuildHandlerDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly images: Images;
  readonly containers: Containers;
  readonly meter: Meter;
}

/** From API 1.30 on the image's id comes as data too (moby `postBuild`). */
function wantsAux(apiVersion: string): boolean {
  const [major = '0', minor = '0'] = apiVersion.split('.');
  return Number(major) > 1 || Number(minor) >= 30;
}

async function build(deps: BuildHandlerDeps, builds: Builds, request: DockerRequest): Promise<void> {
  const { response, incoming, signal } = request;
  const emit = async (line: BuildLine): Promise<void> => {
    signal.throwIfAborted();
    if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/json' });
    if (!response.write(`${JSON.stringify(line)}\r\n`)) await once(response, 'drain', { signal });
  };
  try {
    await builds.run({
      tenant: request.tenant,
      options: parseBuildQuery(request.query),
      logins: registryLoginsOf(incoming.headers['x-registry-config']),
      context: incoming,
      signal,
      wantsAux: wantsAux(request.apiVersion),
      emit,
    });
  } catch (error) {
    if (!response.headersSent) throw error;
    const { message, told } = answerTo(error);
    if (!told && !signal.aborted) deps.log.error({ err: error }, 'a build failed');
    if (!signal.aborted) await emit(failureLine(message));
  }
  if (!response.headersSent) response.writeHead(200, { 'content-type': 'application/json' });
  response.end();
}

/** BuildKit's cache is what Docker prunes here; the classic builder's is images. */
async function prune(request: DockerRequest): Promise<void> {
  filtersOf(request.query);
  integerOfQuery(request.query, 'keep-storage');
  sendJson(request.response, 200, { CachesDeleted: null, SpaceReclaimed: 0 });
  await Promise.resolve();
}

export function buildRoutes(deps: BuildHandlerDeps): readonly DockerRoute[] {
  const builds = new Builds(deps);
  return [
    { method: 'POST', pattern: '/build', answer: async (request) => await build(deps, builds, request) },
    { method: 'POST', pattern: '/build/prune', answer: prune },
  ];
}
