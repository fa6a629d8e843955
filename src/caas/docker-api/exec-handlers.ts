/** `docker exec`: `/containers/{id}/exec` and `/exec/…`. */
import * as z from 'zod';
import type { ContainerRow } from '#state/containers.ts';
import type { Containers } from '#caas/containers.ts';
import { dockerError } from './docker-error.ts';
import type { Execs } from './execs.ts';
import { foldFields } from './go-json.ts';
import { hijackOn, join, pump } from './raw-stream.ts';
import { readJson, sendEmpty, sendJson } from './request.ts';
import type { DockerRequest, HijackRequest } from './request.ts';
import type { DockerRoute } from './router.ts';

export interface ExecHandlerDeps {
  readonly containers: Containers;
  readonly execs: Execs;
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

async function execCreate(deps: ExecHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  sendJson(request.response, 201, { Id: await deps.execs.create(row, await readJson(request.incoming)) });
}

async function execPlace(
  deps: ExecHandlerDeps,
  tenant: string,
  id: string,
): Promise<{ readonly row: ContainerRow; readonly engineExecId: string; readonly tty: boolean }> {
  const exec = deps.execs.find(tenant, id);
  const row = await deps.containers.find(exec.container);
  if (row === undefined || row.host !== exec.host) throw dockerError(409, `Container ${exec.container} is not running`);
  return { row, engineExecId: exec.engineExecId, tty: exec.tty };
}

function startBody(body: unknown, tty: boolean): { readonly Detach: boolean; readonly Tty: boolean } {
  // The last ones are dockerode's own options, which it leaves in the body.
  const folded = foldFields(body, '', ['Detach', 'Tty', 'ConsoleSize', 'hijack', 'stdin', 'abortSignal']);
  if (folded.kind === 'refused') throw dockerError(400, `ecluse: ${folded.reason}`);
  return { Detach: folded.fields['Detach'] === true, Tty: tty };
}

async function execStartHijacked(deps: ExecHandlerDeps, request: HijackRequest, id: string): Promise<void> {
  const { row, engineExecId, tty } = await execPlace(deps, request.tenant.name, id);
  const body = await readJson(request.incoming);
  const engine = await hijackOn(deps, row, {
    path: ['exec', engineExecId, 'start'],
    body: { ...startBody(body, tty), Detach: false },
  });
  join(request, engine);
}

async function execStart(deps: ExecHandlerDeps, request: DockerRequest, id: string): Promise<void> {
  const { row, engineExecId, tty } = await execPlace(deps, request.tenant.name, id);
  const body = startBody(await readJson(request.incoming), tty);
  if (body.Detach) {
    await deps.containers.hostOf(row).client.call({ method: 'POST', path: ['exec', engineExecId, 'start'], body });
    sendEmpty(request.response, 200);
    return;
  }
  await pump(await hijackOn(deps, row, { path: ['exec', engineExecId, 'start'], body }), request);
}

async function execInspect(deps: ExecHandlerDeps, request: DockerRequest, id: string): Promise<void> {
  const { row, engineExecId } = await execPlace(deps, request.tenant.name, id);
  const { json } = await deps.containers.hostOf(row).client.call({ method: 'GET', path: ['exec', engineExecId, 'json'] });
  const exec = execSchema.parse(json);
  sendJson(request.response, 200, { ...exec, ID: id, ContainerID: row.id, Pid: exec.Running ? 1 : 0 });
}

async function execResize(deps: ExecHandlerDeps, request: DockerRequest, id: string): Promise<void> {
  const { row, engineExecId } = await execPlace(deps, request.tenant.name, id);
  const query = { h: Number(request.query.get('h')) || 0, w: Number(request.query.get('w')) || 0 };
  await deps.containers.hostOf(row).client.call({ method: 'POST', path: ['exec', engineExecId, 'resize'], query });
  sendEmpty(request.response, 201);
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
