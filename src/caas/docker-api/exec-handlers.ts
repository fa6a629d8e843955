/** `docker exec`: `/containers/{id}/exec` and `/exec/…`. */
import type { Duplex } from 'node:stream';
import * as z from 'zod';
import { EcluseError } from '#errors';
import type { ContainerRow } from '#state/containers.ts';
import type { Containers } from '#caas/containers.ts';
import { withVirtualNames } from '#caas/container-errors.ts';
import { dockerError, noSuchContainer } from './docker-error.ts';
import { checkExecutable } from './execs.ts';
import type { Exec, Execs } from './execs.ts';
import { foldFields } from './go-json.ts';
import { hijackOn, join, joinWithoutUpgrade, pump, streamType } from './raw-stream.ts';
import { integerOfQuery, readJson, requireJson, sendEmpty, sendJson } from './request.ts';
import type { DockerRequest, HijackRequest } from './request.ts';
import type { DockerRoute } from './router.ts';

export interface ExecHandlerDeps {
  readonly containers: Containers;
  readonly execs: Execs;
}

/** A terminal's size is two bytes a side. */
const SIZE_MAX = 65_535;

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

async function execCreate(deps: ExecHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  requireJson(request.incoming);
  const row = await deps.containers.resolve(request.tenant.name, reference);
  sendJson(request.response, 201, { Id: await deps.execs.create(row, reference, await readJson(request.incoming)) });
}

interface Place {
  readonly row: ContainerRow;
  readonly exec: Exec;
}

async function execPlace(deps: ExecHandlerDeps, tenant: string, id: string): Promise<Place> {
  const exec = deps.execs.find(tenant, id);
  const row = await deps.containers.find(exec.container);
  if (row === undefined) throw noSuchContainer(id); // Moby's words, the session's id included.
  if (row.engineId !== exec.engineId) throw dockerError(409, `Container ${exec.container} is not running`);
  return { row, exec };
}

function startBody(body: unknown, tty: boolean): { readonly Detach: boolean; readonly Tty: boolean } {
  if (body === undefined) throw dockerError(400, 'got EOF while reading request body');
  // The last ones are dockerode's own options, which it leaves in the body.
  const folded = foldFields(body, '', ['Detach', 'Tty', 'ConsoleSize', 'hijack', 'stdin', 'abortSignal']);
  if (folded.kind === 'refused') throw dockerError(400, `ecluse: ${folded.reason}`);
  return { Detach: folded.fields['Detach'] === true, Tty: tty };
}

/** Engine messages name the engine's id of a session too. */
function withOwnId(error: unknown, { row, exec }: Place): unknown {
  const renamed = withVirtualNames(error, row);
  if (!(renamed instanceof EcluseError)) return renamed;
  return dockerError(renamed.status, renamed.message.replaceAll(exec.engineExecId, exec.id));
}

/** Starts a session and gives its raw stream. */
async function startAttached(deps: ExecHandlerDeps, place: Place, body: ReturnType<typeof startBody>): Promise<Duplex> {
  const { row, exec } = place;
  checkExecutable(row, row.id);
  await deps.execs.started(row, exec);
  try {
    return await hijackOn(deps, row, { path: ['exec', exec.engineExecId, 'start'], body });
  } catch (error) {
    deps.execs.failed(row, exec);
    throw withOwnId(error, place);
  }
}

async function execStartHijacked(deps: ExecHandlerDeps, request: HijackRequest, id: string): Promise<void> {
  requireJson(request.incoming);
  const place = await execPlace(deps, request.tenant.name, id);
  const body = startBody(await readJson(request.incoming), place.exec.tty);
  const engine = await startAttached(deps, place, { ...body, Detach: false });
  join(request, engine, streamType(request.apiVersion, place.exec.tty));
}

async function execStart(deps: ExecHandlerDeps, request: DockerRequest, id: string): Promise<void> {
  requireJson(request.incoming);
  const place = await execPlace(deps, request.tenant.name, id);
  const { row, exec } = place;
  const body = startBody(await readJson(request.incoming), exec.tty);
  if (!body.Detach) {
    const engine = await startAttached(deps, place, body);
    if (exec.stdin) joinWithoutUpgrade(request, engine);
    else await pump(engine, request);
    return;
  }
  checkExecutable(row, row.id);
  await deps.execs.started(row, exec);
  try {
    await deps.containers.hostOf(row).client.call({ method: 'POST', path: ['exec', exec.engineExecId, 'start'], body });
  } catch (error) {
    deps.execs.failed(row, exec);
    throw withOwnId(error, place);
  }
  sendEmpty(request.response, 200);
}

async function execInspect(deps: ExecHandlerDeps, request: DockerRequest, id: string): Promise<void> {
  const place = await execPlace(deps, request.tenant.name, id);
  const { row, exec: known } = place;
  const path = ['exec', known.engineExecId, 'json'];
  const { json } = await deps.containers
    .hostOf(row)
    .client.call({ method: 'GET', path })
    .catch((error: unknown) => {
      throw withOwnId(error, place);
    });
  const exec = execSchema.parse(json);
  sendJson(request.response, 200, { ...exec, ID: id, ContainerID: row.id, Pid: exec.Running ? 1 : 0 });
}

async function execResize(deps: ExecHandlerDeps, request: DockerRequest, id: string): Promise<void> {
  const place = await execPlace(deps, request.tenant.name, id);
  const query = { h: sizeOf(request.query, 'h'), w: sizeOf(request.query, 'w') };
  const path = ['exec', place.exec.engineExecId, 'resize'];
  await deps.containers
    .hostOf(place.row)
    .client.call({ method: 'POST', path, query })
    .catch((error: unknown) => {
      throw withOwnId(error, place);
    });
  sendEmpty(request.response, 200);
}

/** A terminal's height or width: required, as in moby. */
export function sizeOf(query: URLSearchParams, name: 'h' | 'w'): number {
  const size = integerOfQuery(query, name);
  if (size === undefined) throw dockerError(400, 'strconv.Atoi: parsing "": invalid syntax');
  return Math.min(Math.max(0, size), SIZE_MAX);
}

export function execRoutes(deps: ExecHandlerDeps): readonly DockerRoute[] {
  return [
    { method: 'POST', pattern: '/containers/{}/exec', answer: async (request, id) => await execCreate(deps, request, id) },
    {
      method: 'POST',
      pattern: '/exec/{}/start',
      answer: async (request, id) => await execStart(deps, request, id),
      join: async (request, id) => await execStartHijacked(deps, request, id),
    },
    { method: 'GET', pattern: '/exec/{}/json', answer: async (request, id) => await execInspect(deps, request, id) },
    { method: 'POST', pattern: '/exec/{}/resize', answer: async (request, id) => await execResize(deps, request, id) },
  ];
}
