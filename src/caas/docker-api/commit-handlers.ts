/** `POST /commit`: an image of the tenant's from a container's files. */
import * as z from 'zod';
import { whilePaused } from '#isolation/sandbox-pause.ts';
import type { ContainerRow } from '#state/containers.ts';
import { readWhole } from '#caas/byte-stream.ts';
import { parseCreate } from '#caas/spec/container-spec.ts';
import { withVirtualNames } from '#caas/container-errors.ts';
import type { Containers } from '#caas/containers.ts';
import { EngineError } from '#caas/engine/engine-client.ts';
import type { EngineCall } from '#caas/engine/engine-client.ts';
import type { Host } from '#caas/host.ts';
import { familiarReference, parseReference, wholeReference } from '#caas/images/image-reference.ts';
import type { Images } from '#caas/images/images.ts';
import { dockerError, noSuchContainer } from './docker-error.ts';
import { foldKey } from './go-json.ts';
import { booleanOf, readJson, requireJson, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';

export interface CommitHandlerDeps {
  readonly containers: Containers;
  readonly images: Images;
}

const TEXT_CHARS_MAX = 4096;
const CHANGES_CHARS_MAX = 64 * 1024;
const ANSWER_BYTES_MAX = 64 * 1024;

/** Keys of a body that are no configuration: the query's own, which dockerode sends here too, and the image, which is the container's. */
const NOT_OF_CONFIG: ReadonlySet<string> = new Set([
  'image',
  'container',
  'repo',
  'tag',
  'comment',
  'author',
  'pause',
  'changes',
]);

const idSchema = z.object({ Id: z.string().regex(/^sha256:[0-9a-f]{64}$/) });

function textOf(query: URLSearchParams, name: string, charsMax: number = TEXT_CHARS_MAX): string {
  const text = query.get(name) ?? '';
  if (text.length > charsMax) throw dockerError(400, `ecluse: ${name} is longer than ${String(charsMax)} characters`);
  return text;
}

/** The whole reference of `repo` and `tag`; undefined where there is none. */
function targetOf(query: URLSearchParams): string | undefined {
  const repo = query.get('repo') ?? '';
  if (repo === '') return undefined;
  const tag = query.get('tag') ?? '';
  const parsed = parseReference(tag === '' ? repo : `${repo}:${tag}`);
  if (parsed === undefined) throw dockerError(400, 'invalid reference format');
  return wholeReference(parsed);
}

/** The configuration that replaces the container's: by the allow-list of `create`, and only what was given. */
function configOf(body: unknown): Readonly<Record<string, unknown>> | undefined {
  if (body === undefined || body === null) return undefined;
  if (typeof body !== 'object' || Array.isArray(body)) throw dockerError(400, 'ecluse: the body must be an object');
  const given = Object.entries(body).filter(([key]) => !NOT_OF_CONFIG.has(foldKey(key)));
  if (given.length === 0) return undefined;
  const parsed = parseCreate(Object.fromEntries([...given, ['Image', 'commit']]));
  if (parsed.kind === 'refused') throw dockerError(parsed.status, `ecluse: ${parsed.reason}`);
  const keys = new Set(given.map(([key]) => foldKey(key)));
  const config = Object.entries(parsed.spec.config).filter(([key]) => keys.has(foldKey(key)));
  return config.length === 0 ? undefined : Object.fromEntries(config);
}

/** Asks the engine. Whoever wants no pause gets one that is not seen: dockerd reads files as root, while the container could swap them for links. */
async function commitOn(host: Host, row: ContainerRow, call: EngineCall, pause: boolean): Promise<string> {
  const { client, runtimeDir, runscRoot } = host;
  const work = async (): Promise<string> => {
    const answer = await client.stream(call);
    const text = await readWhole(answer, ANSWER_BYTES_MAX);
    if (text === undefined) throw new EngineError(502, 'the engine answered a commit with too much');
    return idSchema.parse(JSON.parse(text.toString('utf8'))).Id;
  };
  if (pause || row.state !== 'running') return await work();
  return await whilePaused({ runtimeDir, runscRoot, engineId: row.engineId }, work);
}

/** What a request asks for, checked. */
interface CommitWish {
  readonly config: Readonly<Record<string, unknown>> | undefined;
  readonly target: string | undefined;
  readonly pause: boolean;
  readonly query: Readonly<Record<'author' | 'comment', string>>;
  readonly changes: string;
}

async function wishOf({ query, incoming }: DockerRequest): Promise<CommitWish> {
  requireJson(incoming);
  const config = configOf(await readJson(incoming));
  const changes = query.getAll('changes').join('\n');
  if (changes.length > CHANGES_CHARS_MAX) throw dockerError(400, 'ecluse: the changes are too long');
  return {
    config,
    target: targetOf(query),
    pause: booleanOf(query, 'pause', true) || query.get('pause') === '',
    query: { author: textOf(query, 'author'), comment: textOf(query, 'comment') },
    changes,
  };
}

/** Makes the image, under the container's lock. The engine gives it no name: names are the store's. */
async function makeImage(
  deps: CommitHandlerDeps,
  found: ContainerRow,
  wish: CommitWish,
): Promise<{ readonly row: ContainerRow; readonly imageId: string }> {
  const { containers } = deps;
  return await containers.locks.run(found.id, async () => {
    const row = await containers.find(found.id);
    if (row === undefined) throw noSuchContainer(found.id);
    if (row.state === 'dead' || row.state === 'lost') {
      throw dockerError(409, `You cannot commit container ${row.id} which is Dead`);
    }
    const { config, pause, changes } = wish;
    const call: EngineCall = {
      method: 'POST',
      path: ['commit'],
      query: { ...wish.query, container: row.engineId, pause, changes: changes === '' ? undefined : changes },
      ...(config === undefined ? {} : { body: config }),
      headers: { 'content-type': 'application/json' },
    };
    try {
      return { row, imageId: await commitOn(containers.hostOf(row), row, call, pause) };
    } catch (error) {
      throw withVirtualNames(error, row);
    }
  });
}

async function commit(deps: CommitHandlerDeps, request: DockerRequest): Promise<void> {
  const { tenant, query } = request;
  const wish = await wishOf(request);
  const found = await deps.containers.resolve(tenant.name, query.get('container') ?? '');
  await deps.images.checkQuota(tenant);
  const unheld = deps.images.protect();
  try {
    const { row, imageId } = await makeImage(deps, found, wish);
    await deps.images.hold(tenant.name, imageId, wish.target);
    const imageRef = wish.target === undefined ? '' : familiarReference(wish.target);
    deps.containers.events.publish(row, 'commit', { comment: wish.query.comment, imageID: imageId, imageRef });
    sendJson(request.response, 201, { Id: imageId });
  } finally {
    unheld[Symbol.dispose]();
  }
}

export function commitRoutes(deps: CommitHandlerDeps): readonly DockerRoute[] {
  return [
    {
      method: 'POST',
      pattern: '/commit',
      answer: async (request) => {
        await commit(deps, request);
      },
    },
  ];
}
