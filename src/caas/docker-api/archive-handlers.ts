/**
 * `docker cp`: `/containers/{id}/archive`.
 *
 * Dockerd resolves paths and mounts volumes through directories that the container itself can change at that moment (moby `daemon/archive.go`,
 * `Container.DetachAndUnmount`), as root, on the host. So a container that runs is held still while the engine works on its files; the archive waits
 * in a spool, so that this does not last as long as a client likes.
 */
import { tryJson } from '#json';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import * as z from 'zod';
import { whilePaused } from '#isolation/sandbox-pause.ts';
import type { ContainerRow } from '#state/containers.ts';
import { chunksOf } from '#caas/byte-stream.ts';
import { withVirtualNames } from '#caas/container-errors.ts';
import type { Containers } from '#caas/containers.ts';
import { EngineError } from '#caas/engine/engine-client.ts';
import type { Query } from '#caas/engine/engine-client.ts';
import type { Host } from '#caas/host.ts';
import { rewriteArchive } from './archive-rewrite.ts';
import { dockerError, noSuchContainer } from './docker-error.ts';
import { booleanOf } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';
import { Spool } from './spool.ts';
import { TenantSlots } from './tenant-slots.ts';

export interface ArchiveHandlerDeps {
  readonly containers: Containers;
}

const STAT_HEADER = 'x-docker-container-path-stat';
const PATH_CHARS_MAX = 4096;
/** Copies of one tenant at once; more wait. Each may hold an archive on the disk. */
const COPIES_PER_TENANT_MAX = 4;

const statSchema = z.object({
  name: z.string(),
  size: z.number(),
  mode: z.number(),
  mtime: z.string(),
  linkTarget: z.string(),
});

function pathOf(query: URLSearchParams): string {
  const path = query.get('path') ?? '';
  if (path === '') throw dockerError(400, 'bad parameter: pathcannot be empty'); // As moby spells it.
  if (path.length > PATH_CHARS_MAX || path.includes('\0')) throw dockerError(400, 'bad parameter: path is too long');
  return path;
}

/** What the engine says about the path, rebuilt. */
function statHeader(answer: IncomingMessage): string {
  const value = answer.headers[STAT_HEADER];
  const text = Buffer.from(typeof value === 'string' ? value : '', 'base64').toString('utf8');
  const stat = statSchema.safeParse(tryJson(text));
  if (!stat.success) throw new EngineError(502, 'the engine did not say what is at the path');
  return Buffer.from(JSON.stringify(stat.data)).toString('base64');
}

/** Runs one call on a container's files: under its lock, and with its sandbox held still. */
async function onStillFiles<T>(
  deps: ArchiveHandlerDeps,
  subject: { readonly row: ContainerRow; readonly reference: string },
  work: (host: Host, row: ContainerRow) => Promise<T>,
): Promise<T> {
  const { containers } = deps;
  return await containers.locks.run(subject.row.id, async () => {
    const row = await containers.find(subject.row.id);
    if (row === undefined) throw noSuchContainer(subject.reference);
    const host = containers.hostOf(row);
    const call = async (): Promise<T> => await work(host, row);
    const { runtimeDir, runscRoot } = host;
    try {
      return row.state === 'running' ? await whilePaused({ runtimeDir, runscRoot, engineId: row.engineId }, call) : await call();
    } catch (error) {
      throw withReference(error, row, subject.reference);
    }
  });
}

/** Engine messages name the container by the id that we gave; Docker's by what the client gave. */
function withReference(error: unknown, row: ContainerRow, reference: string): unknown {
  if (!(error instanceof EngineError)) return error;
  return withVirtualNames(new EngineError(error.status, error.message.replaceAll(row.engineId, reference)), row);
}

async function head(deps: ArchiveHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const path = pathOf(request.query);
  const row = await deps.containers.resolve(request.tenant.name, reference);
  const stat = await onStillFiles(deps, { row, reference }, async ({ client }, { engineId }) => {
    const answer = await client.stream({ method: 'HEAD', path: ['containers', engineId, 'archive'], query: { path } });
    answer.resume();
    return statHeader(answer);
  });
  request.response.writeHead(200, { [STAT_HEADER]: stat });
  request.response.end();
}

async function get(deps: ArchiveHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const path = pathOf(request.query);
  const row = await deps.containers.resolve(request.tenant.name, reference);
  await using spool = new Spool(spoolFolder(deps.containers.hostOf(row)));
  const stat = await onStillFiles(deps, { row, reference }, async ({ client }, { engineId }) => {
    const { signal } = request;
    const answer = await client.stream({ method: 'GET', path: ['containers', engineId, 'archive'], query: { path }, signal });
    const header = statHeader(answer);
    await spool.fill(chunksOf(answer));
    return header;
  });
  deps.containers.events.publish(row, 'archive-path');
  request.response.writeHead(200, {
    'content-type': 'application/x-tar',
    'content-length': String(spool.bytes),
    [STAT_HEADER]: stat,
  });
  await pipeline(spool.read(), request.response);
}

async function put(deps: ArchiveHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const { query, incoming } = request;
  const path = pathOf(query);
  const row = await deps.containers.resolve(request.tenant.name, reference);
  const engineQuery: Query = {
    path,
    noOverwriteDirNonDir: booleanOf(query, 'noOverwriteDirNonDir'),
    copyUIDGID: booleanOf(query, 'copyUIDGID'),
  };
  await using spool = new Spool(spoolFolder(deps.containers.hostOf(row)));
  await spool.fill(rewriteArchive(incoming));
  await onStillFiles(deps, { row, reference }, async ({ client }, { engineId }) => {
    const headers = { 'content-type': 'application/x-tar', 'content-length': String(spool.bytes) };
    const call = { method: 'PUT', path: ['containers', engineId, 'archive'], query: engineQuery, headers } as const;
    (await client.stream(call, spool.read())).resume();
  });
  deps.containers.events.publish(row, 'extract-to-dir');
  request.response.writeHead(200, { 'content-length': '0' });
  request.response.end();
}

function spoolFolder(host: Host): string {
  return join(host.runtimeDir, 'spool');
}

export function archiveRoutes(deps: ArchiveHandlerDeps): readonly DockerRoute[] {
  const slots = new TenantSlots(COPIES_PER_TENANT_MAX);
  const on = (method: 'HEAD' | 'GET' | 'PUT', handler: typeof get): DockerRoute => ({
    method,
    pattern: '/containers/{}/archive',
    answer: async (request, reference = '') => {
      await slots.run(request.tenant.name, request.signal, async () => {
        await handler(deps, request, reference);
      });
    },
  });
  return [on('HEAD', head), on('GET', get), on('PUT', put)];
}
