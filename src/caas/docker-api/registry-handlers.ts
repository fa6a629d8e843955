/** `/auth`, `/distribution/…`, `/images/search`: what is asked of registries, without an engine. */
import type { Images } from '#caas/images/images.ts';
import { parseRegistryAuth, registryAuthOf } from '#caas/registry/registry-auth.ts';
import type { SearchResult } from '#caas/registry/registry-queries.ts';
import { dockerError } from './docker-error.ts';
import { filtersOf, integerOfQuery, readJson, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';

export interface RegistryHandlerDeps {
  readonly images: Images;
}

const SEARCH_LIMIT_DEFAULT = 25;
const SEARCH_LIMIT_MAX = 100;
const SEARCH_KEYS = new Set(['is-automated', 'is-official', 'stars']);

async function logIn(deps: RegistryHandlerDeps, request: DockerRequest): Promise<void> {
  const auth = registryAuthOf(await readJson(request.incoming));
  if (auth === undefined) throw dockerError(400, 'ecluse: the body is no AuthConfig');
  await deps.images.queries.logIn({ auth, signal: request.signal });
  sendJson(request.response, 200, { IdentityToken: '', Status: 'Login Succeeded' });
}

async function distribution(deps: RegistryHandlerDeps, request: DockerRequest, name: string): Promise<void> {
  const auth = parseRegistryAuth(request.incoming.headers['x-registry-auth']);
  sendJson(request.response, 200, await deps.images.queries.distribution(name, { auth, signal: request.signal }));
}

/** Which results are wanted, in moby's words (`registry/search.go`). */
function searchTest(filters: ReadonlyMap<string, readonly string[]>): (result: SearchResult) => boolean {
  for (const key of filters.keys()) if (!SEARCH_KEYS.has(key)) throw dockerError(400, `Invalid filter '${key.slice(0, 60)}'`);
  const flag = (key: string): boolean | undefined => {
    const given = filters.get(key);
    if (given === undefined) return undefined;
    const [value = ''] = given;
    if (given.length !== 1 || !/^(?:1|0|true|false)$/.test(value)) {
      throw dockerError(400, `Invalid filter '${key}=[${given.join(' ').slice(0, 60)}]'`);
    }
    return value === '1' || value === 'true';
  };
  const [isAutomated, isOfficial] = [flag('is-automated'), flag('is-official')];
  const stars = (filters.get('stars') ?? []).map((text) => {
    if (!/^\d{1,9}$/.test(text)) throw dockerError(400, `Invalid filter 'stars=${text.slice(0, 60)}'`);
    return Number(text);
  });
  return (result) =>
    (isAutomated === undefined || result.is_automated === isAutomated) &&
    (isOfficial === undefined || result.is_official === isOfficial) &&
    result.star_count >= Math.max(0, ...stars);
}

async function search(deps: RegistryHandlerDeps, request: DockerRequest): Promise<void> {
  const { query } = request;
  const limit = integerOfQuery(query, 'limit') ?? 0;
  if (limit < 0 || limit > SEARCH_LIMIT_MAX) {
    throw dockerError(400, `Limit ${String(limit)} is outside the range of [1, ${String(SEARCH_LIMIT_MAX)}]`);
  }
  const term = query.get('term') ?? '';
  if (term.includes('://')) {
    throw dockerError(500, 'Invalid repository name (ex: "registry.domain.tld/myrepos")');
  }
  const isWanted = searchTest(filtersOf(query));
  const auth = parseRegistryAuth(request.incoming.headers['x-registry-auth']);
  const found = await deps.images.queries.search(term.slice(0, 255), limit === 0 ? SEARCH_LIMIT_DEFAULT : limit, {
    auth,
    signal: request.signal,
  });
  sendJson(request.response, 200, found.filter(isWanted));
}

export function registryRoutes(deps: RegistryHandlerDeps): readonly DockerRoute[] {
  return [
    { method: 'POST', pattern: '/auth', answer: async (request) => await logIn(deps, request) },
    { method: 'GET', pattern: '/images/search', answer: async (request) => await search(deps, request) },
    {
      method: 'GET',
      pattern: '/distribution/{*}/json',
      answer: async (request, name) => await distribution(deps, request, name),
    },
  ];
}
