/**
 * Streams of containers: logs, attach, wait, exec. All with backpressure; those that can go on after a migration (logs, wait) do,
 * on whatever host the container is by then.
 */
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import * as z from 'zod';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import type { ContainerRow } from '#state/containers.ts';
import { parseStoredSpec } from '../container-spec.ts';
import type { Containers } from '../containers.ts';
import { EngineError } from '../engine-client.ts';
import { withVirtualNames } from '../containers.ts';
import { dockerError } from './docker-error.ts';
import type { Execs } from './execs.ts';
import { foldFields } from './go-json.ts';
import { encodeEntry, LogEntryParser, sinceOf } from './log-entries.ts';
import type { LogEntry } from './log-entries.ts';
import { booleanOf, readJson, sendEmpty, sendJson } from './request.ts';
import type { DockerRequest, HijackRequest } from './request.ts';

export interface StreamHandlerDeps {
  readonly log: Log;
  readonly containers: Containers;
  readonly execs: Execs;
}

const RAW_STREAM = 'application/vnd.docker.raw-stream';
const WAIT_CONDITIONS = new Set(['', 'not-running', 'next-exit', 'removed']);

async function write(response: ServerResponse, chunk: Buffer, signal: AbortSignal): Promise<void> {
  if (!response.write(chunk)) await once(response, 'drain', { signal });
}

interface LogCursor {
  time: string;
}

export function streamHandlers(deps: StreamHandlerDeps) {
  const { containers, execs, log } = deps;

  const engineLogs = async (row: ContainerRow, request: DockerRequest, cursor: LogCursor): Promise<IncomingMessage> => {
    const resumed = cursor.time !== '';
    return await containers.hostOf(row).client.stream({
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
  };

  /** Copies one engine's log stream to the client, from the cursor on. */
  const copyLogs = async (source: IncomingMessage, request: DockerRequest, options: { readonly tty: boolean; readonly cursor: LogCursor }): Promise<void> => {
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
    for await (const chunk of source) await emit(parser.push(Buffer.from(chunk as Uint8Array)));
    await emit(parser.end());
  };

  const logs = async (request: DockerRequest, reference: string): Promise<void> => {
    let row = await containers.resolve(request.tenant.name, reference);
    if (!booleanOf(request.query, 'stdout') && !booleanOf(request.query, 'stderr')) {
      throw dockerError(400, 'Bad parameters: you must choose at least one stream');
    }
    const tty = parseStoredSpec(row.spec).config.Tty;
    const cursor: LogCursor = { time: '' };
    let source = await engineLogs(row, request, cursor);
    request.response.writeHead(200, { 'content-type': RAW_STREAM });
    request.response.flushHeaders();
    for (;;) {
      try {
        await copyLogs(source, request, { tty, cursor });
      } catch (error) {
        if (request.signal.aborted) return;
        log.debug({ container: row.id, reason: reasonOf(error) }, 'log stream of an engine broke');
      }
      const next = booleanOf(request.query, 'follow') ? await movedTo(row) : undefined;
      if (next === undefined) break;
      row = next;
      source = await engineLogs(row, request, cursor);
    }
    request.response.end();
  };

  /** Where a container is now, if it moved away from where `row` says; waits for a migration that is under way. */
  const movedTo = async (row: ContainerRow): Promise<ContainerRow | undefined> =>
    await containers.locks.run(row.id, async () => {
      const now = await containers.find(row.id);
      return now === undefined || now.engineId === row.engineId ? undefined : now;
    });

  const waitOnce = async (row: ContainerRow, condition: string, signal: AbortSignal): Promise<IncomingMessage> =>
    await containers.hostOf(row).client.stream({
      method: 'POST',
      path: ['containers', row.engineId, 'wait'],
      query: { condition: condition === '' ? undefined : condition },
      signal,
    });

  const wait = async (request: DockerRequest, reference: string): Promise<void> => {
    const condition = request.query.get('condition') ?? '';
    if (!WAIT_CONDITIONS.has(condition)) throw dockerError(400, `invalid condition: "${condition.slice(0, 40)}"`);
    let row = await containers.resolve(request.tenant.name, reference);
    let answer = await waitOnce(row, condition, request.signal);
    // The head goes out at once: clients start the container when they see it.
    request.response.writeHead(200, { 'content-type': 'application/json' });
    request.response.flushHeaders();
    for (;;) {
      const text = await textOf(answer);
      const next = await movedTo(row);
      if (next === undefined) {
        // The store follows before the client hears of it, so that its next `ps` agrees.
        await containers.sync(row.id);
        request.response.end(text);
        return;
      }
      row = next;
      answer = await waitOnce(row, condition, request.signal);
    }
  };

  const attachQuery = (query: URLSearchParams): Readonly<Record<string, boolean>> =>
    Object.fromEntries(['stream', 'stdin', 'stdout', 'stderr', 'logs'].map((name) => [name, booleanOf(query, name)]));

  const attach = async (request: HijackRequest, reference: string): Promise<void> => {
    const row = await containers.resolve(request.tenant.name, reference);
    await readJson(request.incoming);
    const engine = await hijackOn(row, ['containers', row.engineId, 'attach'], attachQuery(request.query), undefined);
    join(request, engine);
  };

  const hijackOn = async (
    row: ContainerRow,
    path: readonly string[],
    query: Readonly<Record<string, boolean>>,
    body: unknown,
  ): Promise<Duplex> => {
    try {
      return await containers.hostOf(row).client.hijack({ method: 'POST', path, query, body });
    } catch (error) {
      throw withVirtualNames(error, row);
    }
  };

  /** Attach without an upgrade: output only, which is all that such clients read. */
  const attachOutput = async (request: DockerRequest, reference: string): Promise<void> => {
    const row = await containers.resolve(request.tenant.name, reference);
    await readJson(request.incoming);
    const query = { ...attachQuery(request.query), stdin: false };
    await pump(await hijackOn(row, ['containers', row.engineId, 'attach'], query, undefined), request);
  };

  const execCreate = async (request: DockerRequest, reference: string): Promise<void> => {
    const row = await containers.resolve(request.tenant.name, reference);
    sendJson(request.response, 201, { Id: await execs.create(row, await readJson(request.incoming)) });
  };

  const execPlace = async (tenant: string, id: string): Promise<{ readonly row: ContainerRow; readonly engineExecId: string; readonly tty: boolean }> => {
    const exec = execs.find(tenant, id);
    const row = await containers.find(exec.container);
    if (row === undefined || row.host !== exec.host) throw dockerError(409, `Container ${exec.container} is not running`);
    return { row, engineExecId: exec.engineExecId, tty: exec.tty };
  };

  const startBody = (body: unknown, tty: boolean): { readonly Detach: boolean; readonly Tty: boolean } => {
    const folded = foldFields(body, '', ['Detach', 'Tty', 'ConsoleSize']);
    if (folded.kind === 'refused') throw dockerError(400, `ecluse: ${folded.reason}`);
    return { Detach: folded.fields['Detach'] === true, Tty: tty };
  };

  const execStartHijacked = async (request: HijackRequest, id: string): Promise<void> => {
    const { row, engineExecId, tty } = await execPlace(request.tenant.name, id);
    const body = await readJson(request.incoming);
    const engine = await hijackOn(row, ['exec', engineExecId, 'start'], {}, { ...startBody(body, tty), Detach: false });
    join(request, engine);
  };

  const execStart = async (request: DockerRequest, id: string): Promise<void> => {
    const { row, engineExecId, tty } = await execPlace(request.tenant.name, id);
    const body = startBody(await readJson(request.incoming), tty);
    if (body.Detach) {
      await containers.hostOf(row).client.call({ method: 'POST', path: ['exec', engineExecId, 'start'], body });
      sendEmpty(request.response, 200);
      return;
    }
    await pump(await hijackOn(row, ['exec', engineExecId, 'start'], {}, body), request);
  };

  const execInspect = async (request: DockerRequest, id: string): Promise<void> => {
    const { row, engineExecId } = await execPlace(request.tenant.name, id);
    const { json } = await containers.hostOf(row).client.call({ method: 'GET', path: ['exec', engineExecId, 'json'] });
    const exec = execSchema.parse(json);
    sendJson(request.response, 200, { ...exec, ID: id, ContainerID: row.id, Pid: exec.Running ? 1 : 0 });
  };

  const execResize = async (request: DockerRequest, id: string): Promise<void> => {
    const { row, engineExecId } = await execPlace(request.tenant.name, id);
    const query = { h: Number(request.query.get('h')) || 0, w: Number(request.query.get('w')) || 0 };
    await containers.hostOf(row).client.call({ method: 'POST', path: ['exec', engineExecId, 'resize'], query });
    sendEmpty(request.response, 201);
  };

  return { logs, wait, attach, attachOutput, execCreate, execStart, execStartHijacked, execInspect, execResize };
}

const execSchema = z.object({
  Running: z.boolean(),
  ExitCode: z.int().nullable(),
  ProcessConfig: z.object({
    tty: z.boolean(),
    entrypoint: z.string(),
    arguments: z.array(z.string()).nullish(),
    privileged: z.boolean().nullish(),
    user: z.string().optional(),
  }),
  OpenStdin: z.boolean(),
  OpenStderr: z.boolean(),
  OpenStdout: z.boolean(),
  CanRemove: z.boolean().optional(),
  DetachKeys: z.string().optional(),
});

async function textOf(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of answer) chunks.push(Buffer.from(chunk as Uint8Array));
  } catch (error) {
    throw new EngineError(502, `the engine ended the wait: ${reasonOf(error)}`);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Joins a client's raw connection with an engine's, each direction ending for itself (`echo x | docker run -i` needs that). */
function join(request: HijackRequest, engine: Duplex): void {
  const { socket, head } = request;
  socket.write(`HTTP/1.1 101 UPGRADED\r\nContent-Type: ${RAW_STREAM}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n`);
  if (head.length > 0) engine.write(head);
  const end = (): void => {
    socket.destroy();
    engine.destroy();
  };
  socket.on('error', end);
  engine.on('error', end);
  socket.on('close', () => engine.destroy());
  engine.on('close', () => socket.end());
  socket.pipe(engine);
  engine.pipe(socket);
}

async function pump(engine: Duplex, request: DockerRequest): Promise<void> {
  engine.end();
  request.signal.addEventListener('abort', () => engine.destroy(), { once: true });
  request.response.writeHead(200, { 'content-type': RAW_STREAM });
  request.response.flushHeaders();
  for await (const chunk of engine) await write(request.response, Buffer.from(chunk as Uint8Array), request.signal);
  request.response.end();
}
