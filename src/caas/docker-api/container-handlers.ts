/** `/containers/…`: what answers with JSON. Streams are in stream-handlers.ts. */
import type { Clock } from '#clock';
import type { ContainerRow } from '#state/containers.ts';
import { parseStoredSpec } from '#caas/container-spec.ts';
import type { Containers } from '#caas/containers.ts';
import type { EngineInspect } from '#caas/engine-answers.ts';
import type { Execs } from './execs.ts';
import { matchesFilters } from './filters.ts';
import { dockerError } from './docker-error.ts';
import { booleanOf, filtersOf, integerOfQuery, readJson, sendEmpty, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';
import { inspectView, summaryView } from './container-views.ts';

export interface ContainerHandlerDeps {
  readonly clock: Clock;
  readonly containers: Containers;
  readonly execs: Execs;
}

export type ContainerHandler = (request: DockerRequest, reference: string) => Promise<void>;

/** `docker stop -t` beyond this is a client that wants to hold a connection. */
const STOP_SECONDS_MAX = 600;

async function inspectQuietly(deps: ContainerHandlerDeps, row: ContainerRow): Promise<EngineInspect | undefined> {
  // A host that is away must not take the tenant's whole list along: the row tells the last known state.
  return await deps.containers.inspect(row).catch(() => undefined);
}

async function list(deps: ContainerHandlerDeps, request: DockerRequest): Promise<void> {
  const filters = filtersOf(request.query);
  const limit = integerOfQuery(request.query, 'limit') ?? 0;
  const all = booleanOf(request.query, 'all') || limit > 0 || filters.has('status');
  const rows = await deps.containers.listOf(request.tenant.name);
  const views = [];
  for (const row of rows) {
    if (!all && !['running', 'paused', 'restarting'].includes(row.state)) continue;
    const spec = parseStoredSpec(row.spec);
    if (!matchesFilters(row, spec, filters, rows)) continue;
    views.push(summaryView(row, spec, await inspectQuietly(deps, row), deps.clock.nowMs()));
    if (limit > 0 && views.length >= limit) break;
  }
  sendJson(request.response, 200, views);
}

async function create(deps: ContainerHandlerDeps, request: DockerRequest): Promise<void> {
  const body = await readJson(request.incoming);
  const { id, warnings } = await deps.containers.create({
    tenant: request.tenant,
    name: request.query.get('name') ?? undefined,
    body,
  });
  sendJson(request.response, 201, { Id: id, Warnings: warnings });
}

type QueryOf = (request: DockerRequest) => Readonly<Record<string, string | number | undefined>>;

const noQuery: QueryOf = () => ({});

const stopSeconds: QueryOf = (request) => {
  const seconds = integerOfQuery(request.query, 't');
  return { t: seconds === undefined ? undefined : Math.min(seconds < 0 ? STOP_SECONDS_MAX : seconds, STOP_SECONDS_MAX) };
};

const signalOf: QueryOf = (request) => {
  const signal = request.query.get('signal') ?? '';
  if (!/^[A-Za-z0-9+-]{0,20}$/.test(signal)) throw dockerError(400, `Invalid signal: ${signal.slice(0, 40)}`);
  return { signal: signal === '' ? 'KILL' : signal };
};

/** A lifecycle call without a body: `start`, `stop`, … Engines answer 304 where the container is in that state already. */
function lifecycle(deps: ContainerHandlerDeps, verb: string, queryOf: QueryOf): ContainerHandler {
  return async (request, reference) => {
    const row = await deps.containers.resolve(request.tenant.name, reference);
    const body = verb === 'start' ? await readJson(request.incoming) : undefined;
    if (typeof body === 'object' && body !== null && Object.keys(body).length > 0) {
      // Old engines took a HostConfig here, past every check (moby, postContainersStart).
      throw dockerError(
        400,
        'starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24',
      );
    }
    const { status } = await deps.containers.operate(row, { method: 'POST', verb: [verb], query: queryOf(request) });
    sendEmpty(request.response, status);
  };
}

async function remove(deps: ContainerHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  await deps.containers.remove(row, { force: booleanOf(request.query, 'force') });
  sendEmpty(request.response, 204);
}

async function rename(deps: ContainerHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  await deps.containers.rename(request.tenant, row, request.query.get('name') ?? '');
  sendEmpty(request.response, 204);
}

async function resize(deps: ContainerHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  const query = { h: integerOfQuery(request.query, 'h'), w: integerOfQuery(request.query, 'w') };
  await deps.containers.hostOf(row).client.call({ method: 'POST', path: ['containers', row.engineId, 'resize'], query });
  sendEmpty(request.response, 200);
}

async function inspect(deps: ContainerHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  const engine = await inspectQuietly(deps, row);
  const execIds = deps.execs.idsOf(row, engine?.ExecIDs ?? []);
  sendJson(request.response, 200, inspectView(row, parseStoredSpec(row.spec), engine, execIds));
}

export function containerRoutes(deps: ContainerHandlerDeps): readonly DockerRoute[] {
  const on = (method: DockerRoute['method'], verb: string, handler: ContainerHandler): DockerRoute => ({
    method,
    pattern: `/containers/{}${verb}`,
    answer: async (request, reference = '') => await handler(request, reference),
  });
  return [
    { method: 'GET', pattern: '/containers/json', answer: async (request) => await list(deps, request) },
    { method: 'POST', pattern: '/containers/create', answer: async (request) => await create(deps, request) },
    on('GET', '/json', async (request, reference) => await inspect(deps, request, reference)),
    on('POST', '/start', lifecycle(deps, 'start', noQuery)),
    on('POST', '/stop', lifecycle(deps, 'stop', stopSeconds)),
    on('POST', '/restart', lifecycle(deps, 'restart', stopSeconds)),
    on('POST', '/kill', lifecycle(deps, 'kill', signalOf)),
    on('POST', '/pause', lifecycle(deps, 'pause', noQuery)),
    on('POST', '/unpause', lifecycle(deps, 'unpause', noQuery)),
    on('POST', '/rename', async (request, reference) => await rename(deps, request, reference)),
    on('POST', '/resize', async (request, reference) => await resize(deps, request, reference)),
    on('DELETE', '', async (request, reference) => await remove(deps, request, reference)),
  ];
}
