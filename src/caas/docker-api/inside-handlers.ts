/** What is in a container: `/top`, `/changes`, `/export`. */
import { pipeline } from 'node:stream/promises';
import * as z from 'zod';
import { sandboxProcesses } from '#isolation/sandbox-processes.ts';
import type { ContainerRow } from '#state/containers.ts';
import { withVirtualNames } from '#caas/container-errors.ts';
import type { Containers } from '#caas/containers.ts';
import { dockerError } from './docker-error.ts';
import { sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';
import { TenantSlots } from './tenant-slots.ts';
import { topView } from './top.ts';

export interface InsideHandlerDeps {
  readonly containers: Containers;
}

const PS_ARGS_CHARS_MAX = 500;
/** Of one tenant at once; more wait. Each is two programs of the machine, or a walk of its engine through the files. */
const LOOKS_PER_TENANT_MAX = 4;

const changesSchema = z.array(z.object({ Path: z.string(), Kind: z.int() })).nullish();

async function virtually<T>(row: ContainerRow, call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    throw withVirtualNames(error, row);
  }
}

async function top(deps: InsideHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const psArgs = request.query.get('ps_args') ?? '';
  if (psArgs.length > PS_ARGS_CHARS_MAX) throw dockerError(400, 'ecluse: ps_args is too long');
  // Arguments are checked before the sandbox is asked: moby's order.
  const check = topView(psArgs, [], { memoryBytes: 0 });
  if (check.kind === 'refused') throw dockerError(500, check.message);
  const row = await deps.containers.resolve(request.tenant.name, reference);
  if (row.state === 'restarting') {
    throw dockerError(409, `Container ${row.id} is restarting, wait until the container is running`);
  }
  if (row.state !== 'running' && row.state !== 'paused') throw dockerError(409, `Container ${row.id} is not running`);
  const { runsc, runscRoot } = deps.containers.hostOf(row);
  const processes = await sandboxProcesses(runsc, { runscRoot, engineId: row.engineId });
  const answer = topView(psArgs, processes, { memoryBytes: row.memoryBytes });
  if (answer.kind === 'refused') throw dockerError(500, answer.message);
  deps.containers.events.publish(row, 'top');
  sendJson(request.response, 200, { Processes: answer.processes, Titles: answer.titles });
}

async function changes(deps: InsideHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  const { client } = deps.containers.hostOf(row);
  const { json } = await virtually(row, client.call({ method: 'GET', path: ['containers', row.engineId, 'changes'] }));
  sendJson(request.response, 200, changesSchema.parse(json) ?? null);
}

async function exportFiles(deps: InsideHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const { response, signal } = request;
  const row = await deps.containers.resolve(request.tenant.name, reference);
  const { client } = deps.containers.hostOf(row);
  const archive = await virtually(row, client.stream({ method: 'GET', path: ['containers', row.engineId, 'export'], signal }));
  deps.containers.events.publish(row, 'export');
  response.writeHead(200, { 'content-type': 'application/octet-stream' });
  await pipeline(archive, response);
}

export function insideRoutes(deps: InsideHandlerDeps): readonly DockerRoute[] {
  const slots = new TenantSlots(LOOKS_PER_TENANT_MAX);
  const on = (verb: string, handler: typeof top): DockerRoute => ({
    method: 'GET',
    pattern: `/containers/{}/${verb}`,
    answer: async (request, reference = '') => {
      await slots.run(request.tenant.name, request.signal, async () => {
        await handler(deps, request, reference);
      });
    },
  });
  return [on('top', top), on('changes', changes), on('export', exportFiles)];
}
