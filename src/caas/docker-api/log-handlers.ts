/**
 * `GET /containers/{id}/logs`. What is not followed goes through as the engine sends it. What is followed goes on after a migration, on whatever host
 * the container is by then.
 */
import { reasonOf } from '#errors';
import type { Log } from '#log';
import type { ContainerRow } from '#state/containers.ts';
import { chunksOf } from '#caas/byte-stream.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import { withVirtualNames } from '#caas/container-errors.ts';
import type { Containers } from '#caas/containers.ts';
import { openEngineBody } from '#caas/engine/engine-body.ts';
import { EngineError } from '#caas/engine/engine-client.ts';
import type { Query } from '#caas/engine/engine-client.ts';
import { dockerError } from './docker-error.ts';
import { FollowedLog, sinceOf } from './log-entries.ts';
import { GatheringWriter, streamType } from './raw-stream.ts';
import { booleanOf, numberOf } from './request.ts';
import type { DockerRequest } from './request.ts';
import { movedTo } from './moved.ts';

export interface LogHandlerDeps {
  readonly log: Log;
  readonly containers: Containers;
}

/** Seconds, with nanoseconds behind a dot. */
function timeOf(query: URLSearchParams, name: 'since' | 'until'): string | undefined {
  const value = query.get(name);
  if (value === null || value === '') return undefined;
  if (!/^-?\d{1,12}(?:\.\d{1,9})?$/.test(value)) throw dockerError(400, `invalid value for "${name}": ${value.slice(0, 60)}`);
  return value;
}

/** Docker reads anything that is no number as `all`. */
function tailOf(query: URLSearchParams): string {
  const value = query.get('tail') ?? '';
  return /^\d{1,9}$/.test(value) ? value : 'all';
}

function engineQuery(query: URLSearchParams): Query {
  return {
    follow: booleanOf(query, 'follow'),
    stdout: booleanOf(query, 'stdout'),
    stderr: booleanOf(query, 'stderr'),
    timestamps: booleanOf(query, 'timestamps'),
    details: booleanOf(query, 'details') ? true : undefined,
    since: timeOf(query, 'since'),
    until: timeOf(query, 'until'),
    tail: tailOf(query),
  };
}

/** Copies one engine's log to the client. An engine that died in the middle is an error, as its silence looks like the end. */
async function copyFrom(
  deps: LogHandlerDeps,
  row: ContainerRow,
  request: DockerRequest,
  log: { readonly query: Query; readonly followed: FollowedLog | undefined },
): Promise<void> {
  const { client } = deps.containers.hostOf(row);
  const { signal, response } = request;
  const source = await openEngineBody(client, { path: ['containers', row.engineId, 'logs'], query: log.query, signal }).catch(
    (error: unknown) => {
      throw withVirtualNames(error, row);
    },
  );
  if (!response.headersSent) {
    // Before 1.42 Docker named no type here, and its documents know none.
    const isTyped = numberOf(request.apiVersion) >= numberOf('1.42');
    const type = streamType(request.apiVersion, parseStoredSpec(row.spec).config.Tty);
    response.writeHead(200, isTyped ? { 'content-type': type } : {});
    response.flushHeaders();
  }
  const writer = new GatheringWriter(response, signal);
  try {
    for await (const chunk of chunksOf(source)) {
      const bytes = log.followed === undefined ? chunk : log.followed.push(chunk);
      if (bytes.length > 0) await writer.write(bytes);
    }
    const rest = log.followed?.end();
    if (rest !== undefined && rest.length > 0) await writer.write(rest);
  } finally {
    writer.flush();
  }
  if (!(await client.isAlive())) throw new EngineError(502, 'the engine went away');
}

async function follow(deps: LogHandlerDeps, start: ContainerRow, request: DockerRequest, query: Query): Promise<void> {
  const isTty = parseStoredSpec(start.spec).config.Tty;
  const followed = new FollowedLog({ isTty, withTime: query['timestamps'] === true });
  let row = start;
  for (;;) {
    let broken: unknown;
    const { cursor } = followed;
    const from = cursor === '' ? {} : { since: sinceOf(cursor), tail: 'all' };
    followed.resume();
    try {
      await copyFrom(deps, row, request, { query: { ...query, timestamps: true, ...from }, followed });
    } catch (error) {
      if (request.signal.aborted) return;
      if (!request.response.headersSent) throw error;
      deps.log.debug({ container: row.id, reason: reasonOf(error) }, 'log stream of an engine broke');
      broken = error;
    }
    const next = await movedTo(deps, row, request.signal);
    if (next === undefined && broken !== undefined) throw new EngineError(502, `the engine ended the log: ${reasonOf(broken)}`);
    if (next === undefined) return;
    row = next;
  }
}

export async function logs(deps: LogHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const { query: asked } = request;
  const row = await deps.containers.resolve(request.tenant.name, reference);
  if (!booleanOf(asked, 'stdout') && !booleanOf(asked, 'stderr')) {
    throw dockerError(400, 'Bad parameters: you must choose at least one stream');
  }
  const query = engineQuery(asked);
  if (query['follow'] === true) await follow(deps, row, request, query);
  else await copyFrom(deps, row, request, { query, followed: undefined });
  request.response.end();
}
