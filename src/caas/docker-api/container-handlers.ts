/** `/containers/…`: what answers with JSON. Streams are in stream-handlers.ts. */
import type { Clock } from '#clock';
import { EcluseError } from '#errors';
import type { Log } from '#log';
import type { Sql } from '#state/sql.ts';
import type { Tenant } from '#state/tenants.ts';
import type { ContainerRow } from '#state/containers.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { ContainerCreation } from '#caas/container-creation.ts';
import { withVirtualNames } from '#caas/container-errors.ts';
import type { Containers } from '#caas/containers.ts';
import type { Events } from '#caas/events.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import type { Host } from '#caas/host.ts';
import type { Networks } from '#caas/networks/networks.ts';
import type { PublishedPorts } from '#caas/ports/published-ports.ts';
import type { Images } from '#caas/images/images.ts';
import type { Execs } from './execs.ts';
import { dockerError } from './docker-error.ts';
import { containerNetworks } from './network-handlers.ts';
import { booleanOf, integerOfQuery, numberOf, readJson, requireJson, sendEmpty, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';
import { ContainerList } from './container-list.ts';
import { inspectView } from './container-views.ts';
import type { EngineSummaries } from './engine-summaries.ts';
import { archiveRoutes } from './archive-handlers.ts';
import { commitRoutes } from './commit-handlers.ts';
import { sizeOf } from './exec-handlers.ts';
import { insideRoutes } from './inside-handlers.ts';
import { ContainerPrune } from './prune-handlers.ts';
import { ContainerUpdate } from './update-handlers.ts';

export interface ContainerHandlerDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly events: Events;
  readonly containers: Containers;
  readonly images: Images;
  readonly creation: ContainerCreation;
  readonly networks: Networks;
  readonly ports: PublishedPorts;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly execs: Execs;
  readonly summaries: EngineSummaries;
}

export type ContainerHandler = (request: DockerRequest, reference: string) => Promise<void>;

/** `docker stop -t` beyond this is a client that wants to hold a connection. */
const STOP_SECONDS_MAX = 600;

async function inspectQuietly(deps: ContainerHandlerDeps, row: ContainerRow): Promise<EngineInspect | undefined> {
  // A host that is away must not take the tenant's whole list along: the row tells the last known state.
  return await deps.containers.inspect(row).catch(() => undefined);
}

async function create(deps: ContainerHandlerDeps, request: DockerRequest): Promise<void> {
  requireJson(request.incoming);
  const body = await readJson(request.incoming);
  const { id, warnings } = await deps.creation.create({
    tenant: request.tenant,
    name: request.query.get('name') ?? undefined,
    body,
    severalNetworks: numberOf(request.apiVersion) >= numberOf('1.44'),
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

interface Operation {
  readonly verb: string;
  readonly query: ReturnType<QueryOf>;
}

async function operate(deps: ContainerHandlerDeps, tenant: Tenant, row: ContainerRow, call: Operation): Promise<number> {
  const { verb, query } = call;
  if (verb === 'start' || verb === 'restart') return await deps.containers.start(tenant, row, { verb, query });
  return (await deps.containers.operate(row, { method: 'POST', verb: [verb], query })).status;
}

/** Moby begins some of these messages with the name that the client gave, and the engine knows only ours. */
function asReferred(error: unknown, row: ContainerRow, reference: string): unknown {
  if (!(error instanceof EcluseError)) return error;
  const found = /^cannot (?:kill|stop|restart) container:? /i.exec(error.message);
  if (found === null || !error.message.startsWith(row.id, found[0].length)) return error;
  return dockerError(error.status, `${found[0]}${reference}${error.message.slice(found[0].length + row.id.length)}`);
}

/** A lifecycle call without a body: `start`, `stop`, … Engines answer 304 where the container is in that state already. */
function lifecycle(deps: ContainerHandlerDeps, verb: string, queryOf: QueryOf): ContainerHandler {
  return async (request, reference) => {
    const row = await deps.containers.resolve(request.tenant.name, reference).catch((error: unknown) => {
      if (verb !== 'kill' || !(error instanceof EcluseError) || error.status !== 404) throw error;
      throw dockerError(404, `Cannot kill container: ${reference}: No such container: ${reference}`);
    });
    if (verb === 'start' && (request.query.get('checkpoint') ?? '') !== '') {
      throw dockerError(400, 'checkpoint is only supported in experimental mode');
    }
    const body = verb === 'start' ? await readJson(request.incoming) : undefined;
    if (typeof body === 'object' && body !== null && Object.keys(body).length > 0) {
      // Old engines took a HostConfig here, past every check (moby, postContainersStart).
      throw dockerError(
        400,
        'starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24',
      );
    }
    const call = { verb, query: queryOf(request) };
    const status = await operate(deps, request.tenant, row, call).catch((error: unknown) => {
      throw asReferred(error, row, reference);
    });
    sendEmpty(request.response, status);
  };
}

/** Virtual ids whose removal is under way. */
type Removals = Set<string>;

async function remove(
  deps: ContainerHandlerDeps & { readonly removals: Removals },
  request: DockerRequest,
  reference: string,
): Promise<void> {
  const { query, tenant } = request;
  const row = await deps.containers.resolve(tenant.name, reference);
  if (deps.removals.has(row.id)) throw dockerError(409, `removal of container ${reference} is already in progress`);
  if (booleanOf(query, 'link')) throw linkRefusal(reference);
  deps.removals.add(row.id);
  try {
    await deps.containers.remove(row, { force: booleanOf(query, 'force'), volumes: booleanOf(query, 'v') });
  } finally {
    deps.removals.delete(row.id);
  }
  sendEmpty(request.response, 204);
}

/** `docker rm --link`: names of links are not names of containers here; moby's words for one that is not known. */
function linkRefusal(reference: string): Error {
  const parts = reference.replace(/^\//, '').split('/');
  if (parts.length < 2) return dockerError(500, 'Conflict, cannot remove the default link name of the container');
  return dockerError(500, `Cannot get parent /${parts.slice(0, -1).join('/')} for link name /${parts.join('/')}`);
}

async function rename(deps: ContainerHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  await deps.creation.rename(request.tenant, row, request.query.get('name') ?? '');
  sendEmpty(request.response, 204);
}

async function resize(deps: ContainerHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  const query = { h: sizeOf(request.query, 'h'), w: sizeOf(request.query, 'w') };
  const path = ['containers', row.engineId, 'resize'];
  await deps.containers
    .hostOf(row)
    .client.call({ method: 'POST', path, query })
    .catch((error: unknown) => {
      throw withVirtualNames(error, row);
    });
  deps.containers.events.publish(row, 'resize', { height: String(query.h), width: String(query.w) });
  sendEmpty(request.response, 200);
}

async function inspect(deps: ContainerHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  const engine = await inspectQuietly(deps, row);
  const execIds = deps.execs.idsOf(row, engine?.ExecIDs ?? []);
  const networks = await containerNetworks(deps, request.tenant, await deps.containers.listOf(request.tenant.name));
  const ports = await deps.ports.listOf(row.id);
  const subject = { row, spec: parseStoredSpec(row.spec), networks: networks(row), ports };
  const view = inspectView(subject, engine, execIds);
  const size = booleanOf(request.query, 'size') ? (await deps.summaries.of([row], { size: true })).get(row.id) : undefined;
  const sizes = size === undefined ? {} : { SizeRw: size.sizeRwBytes ?? 0, SizeRootFs: size.sizeRootFsBytes ?? 0 };
  sendJson(request.response, 200, { ...view, ...sizes });
}

function on(method: DockerRoute['method'], verb: string, handler: ContainerHandler): DockerRoute {
  return {
    method,
    pattern: `/containers/{}${verb}`,
    answer: async (request, reference = '') => {
      await handler(request, reference);
    },
  };
}

export function containerRoutes(parts: ContainerHandlerDeps): readonly DockerRoute[] {
  const deps = { ...parts, removals: new Set<string>() };
  const list = new ContainerList(deps);
  const prune = new ContainerPrune(deps);
  const update = new ContainerUpdate(deps);
  return [
    {
      method: 'GET',
      pattern: '/containers/json',
      answer: async (request) => {
        await list.answer(request);
      },
    },
    {
      method: 'POST',
      pattern: '/containers/prune',
      answer: async (request) => {
        await prune.answer(request);
      },
    },
    on('POST', '/update', async (request, reference) => await update.answer(request, reference)),
    ...insideRoutes(deps),
    ...archiveRoutes(deps),
    ...commitRoutes(deps),
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
