/** What tenants ask of registries without an engine: `docker login`, `docker search`, the digest and platforms of a name. */
import type { IncomingMessage } from 'node:http';
import * as z from 'zod';
import { readWhole } from '#caas/byte-stream.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { parseNamed } from '#caas/images/image-reference.ts';
import { registryAt } from './registry-access.ts';
import type { RegistryPlace, RegistryPolicy } from './registry-access.ts';
import type { RegistryAuth } from './registry-auth.ts';
import { brokenBody, RegistryClient, throwUnlessGood } from './registry-client.ts';
import { DIGEST, MANIFEST_TYPES } from './registry-manifests.ts';

const ANSWER_BYTES_MAX = 4 * 1024 * 1024;
const LISTS = new Set(['application/vnd.docker.distribution.manifest.list.v2+json', 'application/vnd.oci.image.index.v1+json']);

const platform = z.object({
  architecture: z.string().default(''),
  os: z.string().default(''),
  'os.version': z.string().optional(),
  'os.features': z.array(z.string()).optional(),
  variant: z.string().optional(),
});
const listSchema = z.object({ manifests: z.array(z.object({ platform: platform.optional() })) });
const manifestSchema = z.object({ config: z.object({ digest: z.string().regex(DIGEST) }) });
const searchSchema = z.object({
  results: z.array(
    z.object({
      star_count: z.int().default(0),
      is_official: z.boolean().default(false),
      name: z.string(),
      is_automated: z.boolean().default(false),
      description: z.string().default(''),
    }),
  ),
});
export type SearchResult = z.infer<typeof searchSchema>['results'][number];

export interface DistributionAnswer {
  readonly Descriptor: { readonly mediaType: string; readonly digest: string; readonly size: number };
  readonly Platforms: readonly z.infer<typeof platform>[];
}

export interface QueryAccess {
  readonly auth: RegistryAuth | undefined;
  readonly signal: AbortSignal;
}

/** The registry that `docker login` names: a host, or the URL that Docker gives its hub. */
function serverOf(address: string): string {
  const host = address.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
  return host === '' || host === 'index.docker.io' ? 'docker.io' : host;
}

async function bodyOf(answer: IncomingMessage): Promise<Buffer> {
  await throwUnlessGood(answer);
  const body = await readWhole(answer, ANSWER_BYTES_MAX).catch((error: unknown) => {
    throw brokenBody(error);
  });
  if (body === undefined) throw dockerError(502, 'ecluse: the registry answered with too much');
  return body;
}

function parsed<T>(schema: z.ZodType<T>, body: Buffer): T {
  try {
    return schema.parse(JSON.parse(body.toString('utf8')));
  } catch {
    throw dockerError(502, 'ecluse: the registry answered with something else than was asked for');
  }
}

export class RegistryQueries {
  readonly #policy: RegistryPolicy;

  constructor(policy: RegistryPolicy) {
    this.#policy = policy;
  }

  #client(place: RegistryPlace, access: QueryAccess, scope?: string): RegistryClient {
    return new RegistryClient(this.#policy, { place, auth: access.auth, scope, signal: access.signal });
  }

  async logIn(access: QueryAccess): Promise<void> {
    const place = registryAt(this.#policy, serverOf(access.auth?.serverAddress ?? ''));
    using client = this.#client(place, access);
    await client.logIn();
  }

  async distribution(reference: string, access: QueryAccess): Promise<DistributionAnswer> {
    const named = parseNamed(reference);
    if (named.kind === 'invalid') throw dockerError(400, named.why);
    const { repository, tag, digest } = named.name;
    const [domain = ''] = repository.split('/');
    const path = repository.slice(domain.length + 1);
    using client = this.#client(registryAt(this.#policy, domain), access, `repository:${path}:pull`);
    const wanted = digest === '' ? (tag === '' ? 'latest' : tag) : digest;
    const target = `/v2/${path}/manifests/${wanted}`;
    const answer = await client.call({ method: 'GET', target, headers: { accept: MANIFEST_TYPES.join(', ') }, toldAs: 'HEAD' });
    const body = await bodyOf(answer);
    const mediaType = (answer.headers['content-type'] ?? '').split(';')[0] ?? '';
    const told = answer.headers['docker-content-digest'];
    const Descriptor = { mediaType, digest: typeof told === 'string' && DIGEST.test(told) ? told : digest, size: body.length };
    if (LISTS.has(mediaType)) {
      const { manifests } = parsed(listSchema, body);
      return { Descriptor, Platforms: manifests.flatMap((one) => one.platform ?? []) };
    }
    const { config } = parsed(manifestSchema, body);
    const blob = await bodyOf(await client.call({ method: 'GET', target: `/v2/${path}/blobs/${config.digest}` }));
    return { Descriptor, Platforms: [parsed(platform, blob)] };
  }

  /** The hub's index, or that of the registry that the term begins with. */
  async search(term: string, limit: number, access: QueryAccess): Promise<readonly SearchResult[]> {
    const slash = term.indexOf('/');
    const first = slash === -1 ? '' : term.slice(0, slash);
    const hasDomain = /[.:]/.test(first) || first === 'localhost';
    const place = registryAt(this.#policy, hasDomain ? serverOf(`${first}/`) : 'docker.io');
    using client = this.#client(hasDomain ? place : { ...place, host: 'index.docker.io' }, access);
    const query = new URLSearchParams({ q: hasDomain ? term.slice(slash + 1) : term, n: String(limit) });
    const answer = await client.visit(`/v1/search?${query.toString()}`);
    return parsed(searchSchema, await bodyOf(answer)).results.slice(0, limit);
  }
}
