/** Manifests and tags of a registry, fetched for an engine and remembered for the proof of what it pulled. */
import { createHash } from 'node:crypto';
import * as z from 'zod';
import type { EcluseError } from '#errors';
import { tryJson } from '#json';
import { readWhole } from '#caas/byte-stream.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { throwUnlessGood } from './registry-client.ts';
import type { RelaySession } from './registry-session.ts';

/** As in registries (OCI distribution: 4 MiB). */
export const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;
export const DIGEST = /^sha256:[0-9a-f]{64}$/;
const TAG = /^\w[\w.-]{0,127}$/;

export const MANIFEST_TYPES: readonly string[] = [
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.oci.image.index.v1+json',
];

const descriptor = z.object({ digest: z.string().regex(DIGEST) });
const imageManifest = z.object({ config: descriptor, layers: z.array(descriptor).max(1000) });
const listManifest = z.object({
  manifests: z
    .array(
      descriptor.extend({ platform: z.object({ os: z.string().default(''), architecture: z.string().default('') }).optional() }),
    )
    .max(1000),
});
const tagsAnswer = z.object({ tags: z.array(z.string().regex(TAG)).nullish() });

/** A tag or a digest, from the path of a request. */
export function manifestReference(text: string): string {
  const reference = decodeURIComponent(text);
  if (!DIGEST.test(reference) && !TAG.test(reference)) throw dockerError(400, 'invalid reference format');
  return reference;
}

/** A path of the registry. */
export function targetOf(session: RelaySession, rest: string): string {
  return `/v2/${session.path}/${rest}`;
}

export function digestOf(content: Buffer): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`;
}

const manifestUnsupported = (): EcluseError =>
  dockerError(
    400,
    'ecluse: the registry has this image in a format that is not taken (manifest schema 1); push it there again with a newer Docker',
  );

/**
 * A manifest of the registry, whole and checked. Also where an engine only asks whether it is there: it may have the manifest itself from somebody's
 * earlier pull, and would believe the digest that the registry says.
 */
export async function fetchManifest(
  session: RelaySession,
  reference: string,
  toldAs?: 'HEAD',
): Promise<{ readonly type: string; readonly digest: string; readonly body: Buffer }> {
  const answer = await session.client.call({
    method: 'GET',
    ...(toldAs === undefined ? {} : { toldAs }),
    target: targetOf(session, `manifests/${reference}`),
    headers: { accept: MANIFEST_TYPES.join(', ') },
  });
  await throwUnlessGood(answer);
  const type = (answer.headers['content-type'] ?? '').split(';')[0]?.trim() ?? '';
  if (!MANIFEST_TYPES.includes(type)) throw manifestUnsupported();
  const body = await readWhole(answer, MANIFEST_BYTES_MAX);
  if (body === undefined) throw dockerError(413, `ecluse: the manifest is larger than ${String(MANIFEST_BYTES_MAX)} bytes`);
  const digest = digestOf(body);
  if (DIGEST.test(reference) && digest !== reference)
    throw dockerError(502, `manifest verification failed for digest ${reference}`);
  rememberManifest(session, digest, body);
  session.count(body.length);
  return { type, digest, body };
}

function rememberManifest(session: RelaySession, digest: string, body: Buffer): void {
  const value = tryJson(body.toString('utf8'));
  const list = listManifest.safeParse(value);
  if (list.success) {
    for (const one of list.data.manifests)
      session.listed.set(one.digest, `${one.platform?.os ?? ''}/${one.platform?.architecture ?? ''}`);
    return;
  }
  const parsed = imageManifest.safeParse(value);
  if (!parsed.success) throw dockerError(502, 'ecluse: the registry gave a manifest that is none');
  const { config, layers } = parsed.data;
  session.manifests.push({ digest, config: config.digest, layers: layers.map((layer) => layer.digest) });
}

/** One page of a repository's tags. */
export async function fetchTags(session: RelaySession, query: URLSearchParams): Promise<readonly string[]> {
  const page = new URLSearchParams();
  for (const key of ['n', 'last']) {
    const value = query.get(key);
    if (value !== null) page.set(key, value);
  }
  const answer = await session.client.call({ method: 'GET', target: `${targetOf(session, 'tags/list')}?${page.toString()}` });
  await throwUnlessGood(answer);
  const body = await readWhole(answer, MANIFEST_BYTES_MAX);
  const parsed = tagsAnswer.safeParse(tryJson(body?.toString('utf8') ?? ''));
  if (!parsed.success) throw dockerError(502, 'ecluse: the registry gave a list of tags that is none');
  const tags = parsed.data.tags ?? [];
  if (tags.length > session.tagsMax) {
    throw dockerError(
      403,
      `ecluse: the repository has ${String(tags.length)} tags, and the quota of images leaves room for ${String(session.tagsMax)}`,
    );
  }
  return tags;
}
