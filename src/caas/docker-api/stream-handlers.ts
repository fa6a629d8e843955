/**
 * Streams of containers: logs, attach, wait. All with backpressure; those that can go on after a migration (logs, wait) do,
 * on whatever host the container is by then.
 */
import type { IncomingMessage } from 'node:http';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import type { ContainerRow } from '#state/containers.ts';
import { chunksOf, readWhole } from '#caas/byte-stream.ts';
import { parseStoredSpec } from '#caas/container-spec.ts';
import { withVirtualNames } from '#caas/containers.ts';
import type { Containers } from '#caas/containers.ts';
import { EngineError } from '#caas/engine-client.ts';
import type { EngineCall } from '#caas/engine-client.ts';
import { dockerError } from './docker-error.ts';
import { encodeEntry, LogEntryParser, sinceOf } from './log-entries.ts';
import type { LogEntry } from './log-entries.ts';
import { hijackOn, join, pump, RAW_STREAM, write } from './raw-stream.ts';
import { booleanOf, readJson } from './request.ts';
import type { DockerRequest, HijackRequest } from './request.ts';
import type { DockerRoute } from './router.ts';

export interface StreamHandlerDeps {
  readonly log: Log;
  readonly containers: Containers;
}

const WAIT_CONDITIONS = new Set(['', 'not-running', 'next-exit', 'removed']);

/** `{"StatusCode":0,"Error":null}`, and room for an error's text. */
const WAIT_ANSWER_BYTES_MAX = 64 * 1024;

interface LogCursor {
  time: string;
}

/** A stream of the engine that a container lives on; errors name what the tenant knows. */
async function streamOf(deps: StreamHandlerDeps, row: ContainerRow, call: EngineCall): Promise<IncomingMessage> {
  try {
    return await deps.containers.hostOf(row).client.stream(call);
  } catch (error) {
    throw withVirtualNames(error, row);
  }
}

async function engineLogs(
  deps: StreamHandlerDeps,
  row: ContainerRow,
  request: DockerRequest,
  cursor: LogCursor,
): Promise<IncomingMessage> {
  const resumed = cursor.time !== '';
  return await streamOf(deps, row, {
    method: 'GET',
    path: ['containers', row.engineId, 'logs'],
    query: {
      follow: booleanOf(request.query, 'follow'),
      stdout: booleanOf(request.query, 'stdout'),
      stderr: booleanOf(request.query, 'stderr'),
      timestamps: true,
      since: resumed ? sinceOf(cursor.time) : (request.query.get('since') ?? undefined),
      until: request.query.get('until') ?? undefined,
      tail: resumed ? 'all' : (request.query.get('tail') ?? undefined),
    },
    signal: request.signal,
  });
}

/** Copies one engine's log stream to the client, from the cursor on. */
async function copyLogs(
  source: IncomingMessage,
  request: DockerRequest,
  options: { readonly tty: boolean; readonly cursor: LogCursor },
): Promise<void> {
  const withTime = booleanOf(request.query, 'timestamps');
  const parser = new LogEntryParser(options.tty);
  const resumedAt = options.cursor.time;
  const emit = async (entries: readonly LogEntry[]): Promise<void> => {
    for (const entry of entries) {
      // `since` is inclusive: what was sent before the move is not sent again.
      if (resumedAt !== '' && entry.time !== '' && entry.time <= resumedAt) continue;
      await write(request.response, encodeEntry(entry, withTime), request.signal);
      if (entry.time !== '') options.cursor.time = entry.time;
    }
  };
  for await (const chunk of chunksOf(source)) await emit(parser.push(chunk));
  await emit(parser.end());
}

async function logs(deps: StreamHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  let row = await deps.containers.resolve(request.tenant.name, reference);
  if (!booleanOf(request.query, 'stdout') && !booleanOf(request.query, 'stderr')) {
    throw dockerError(400, 'Bad parameters: you must choose at least one stream');
  }
  const tty = parseStoredSpec(row.spec).config.Tty;
  const cursor: LogCursor = { time: '' };
  let source = await engineLogs(deps, row, request, cursor);
  request.response.writeHead(200, { 'content-type': RAW_STREAM });
  request.response.flushHeaders();
  for (;;) {
    let broken: unknown;
    try {
      await copyLogs(source, request, { tty, cursor });
    } catch (error) {
      if (request.signal.aborted) return;
      deps.log.debug({ container: row.id, reason: reasonOf(error) }, 'log stream of an engine broke');
      broken = error;
    }
    const next = booleanOf(request.query, 'follow') ? await movedTo(deps, row) : undefined;
    if (next === undefined && broken !== undefined) throw new EngineError(502, `the engine ended the log: ${reasonOf(broken)}`);
    if (next === undefined) break;
    row = next;
    source = await engineLogs(deps, row, request, cursor);
  }
  request.response.end();
}

/** Where a container is now, if it moved away from where `row` says; waits for a migration that is under way. */
async function movedTo(deps: StreamHandlerDeps, row: ContainerRow): Promise<ContainerRow | undefined> {
  return await deps.containers.locks.run(row.id, async () => {
    const now = await deps.containers.find(row.id);
    return now === undefined || now.engineId === row.engineId ? undefined : now;
  });
}

async function waitOnce(
  deps: StreamHandlerDeps,
  row: ContainerRow,
  condition: string,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  return await streamOf(deps, row, {
    method: 'POST',
    path: ['containers', row.engineId, 'wait'],
    query: { condition: condition === '' ? undefined : condition },
    signal,
  });
}

async function wait(deps: StreamHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const condition = request.query.get('condition') ?? '';
  if (!WAIT_CONDITIONS.has(condition)) throw dockerError(400, `invalid condition: "${condition.slice(0, 40)}"`);
  let row = await deps.containers.resolve(request.tenant.name, reference);
  let answer = await waitOnce(deps, row, condition, request.signal);
  // The head goes out at once: clients start the container when they see it.
  request.response.writeHead(200, { 'content-type': 'application/json' });
  request.response.flushHeaders();
  for (;;) {
    const text = await textOf(answer);
    const next = await movedTo(deps, row);
    if (next === undefined) {
      // The store follows before the client hears of it, so that its next `ps` agrees.
      await deps.containers.sync(row.id);
      request.response.end(text);
      return;
    }
    row = next;
    answer = await waitOnce(deps, row, condition, request.signal);
  }
}

function attachQuery(query: URLSearchParams): Readonly<Record<string, boolean>> {
  return Object.fromEntries(['stream', 'stdin', 'stdout', 'stderr', 'logs'].map((name) => [name, booleanOf(query, name)]));
}

async function attach(deps: StreamHandlerDeps, request: HijackRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  await readJson(request.incoming);
  const engine = await hijackOn(deps, row, { path: ['containers', row.engineId, 'attach'], query: attachQuery(request.query) });
  join(request, engine);
}

/** Attach without an upgrade: output only, which is all that such clients read. */
async function attachOutput(deps: StreamHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  await readJson(request.incoming);
  const query = { ...attachQuery(request.query), stdin: false };
  await pump(await hijackOn(deps, row, { path: ['containers', row.engineId, 'attach'], query }), request);
}

export function streamRoutes(deps: StreamHandlerDeps): readonly DockerRoute[] {
  return [
    { method: 'GET', pattern: '/containers/{}/logs', answer: async (request, id) => await logs(deps, request, id) },
    { method: 'POST', pattern: '/containers/{}/wait', answer: async (request, id) => await wait(deps, request, id) },
    {
      method: 'POST',
      pattern: '/containers/{}/attach',
      answer: async (request, id) => await attachOutput(deps, request, id),
      join: async (request, id) => await attach(deps, request, id),
    },
  ];
}

async function textOf(answer: IncomingMessage): Promise<string> {
  let text: Buffer | undefined;
  try {
    text = await readWhole(answer, WAIT_ANSWER_BYTES_MAX);
  } catch (error) {
    throw new EngineError(502, `the engine ended the wait: ${reasonOf(error)}`);
  }
  if (text === undefined) throw new EngineError(502, 'the engine answered a wait with too much');
  return text.toString('utf8');
}
