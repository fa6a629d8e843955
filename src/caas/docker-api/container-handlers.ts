/** `/containers/…`: what answers with JSON. Streams are in stream-handlers.ts. */
import type { Clock } from '#clock';
import type { Log } from '#log';
import type { ContainerRow } from '#state/containers.ts';
import { parseStoredSpec } from '#caas/container-spec.ts';
import type { ContainerCreation } from '#caas/container-creation.ts';
import type { Containers } from '#caas/containers.ts';
import type { EngineInspect } from '#caas/engine-answers.ts';
import type { Host } from '#caas/host.ts';
import type { Networks } from '#caas/networks.ts';
import type { PublishedPorts } from '#caas/published-ports.ts';
import type { Images } from '#caas/images.ts';
import type { Execs } from './execs.ts';
import { dockerError } from './docker-error.ts';
import { containerNetworks } from './network-handlers.ts';
import { booleanOf, integerOfQuery, numberOf, readJson, sendEmpty, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';
import { ContainerList } from './container-list.ts';
import { inspectView } from './container-views.ts';
import { EngineSummaries } from './engine-summaries.ts';

export interface ContainerHandlerDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly containers: Containers;
  readonly images: Images;
  readonly creation: ContainerCreation;
  readonly networks: Networks;
  readonly ports: PublishedPorts;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly execs: Execs;
}

export type ContainerHandler = (request: DockerRequest, reference: string) => Promise<void>;

/** `docker stop -t` beyond this is a client that wants to hold a connection. */
const STOP_SECONDS_MAX = 600;

async function inspectQuietly(deps: ContainerHandlerDeps, row: ContainerRow): Promise<EngineInspect | undefined> {
  // A host that is away must not take the tenant's whole list along: the row tells the last known state.
  return await deps.containers.inspect(row).catch(() => undefined);
}

async function create(deps: ContainerHandlerDeps, request: DockerRequest): Promise<void> {
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
    const status =
      verb === 'start' || verb === 'restart'
        ? await deps.containers.start(request.tenant, row, { verb, query: queryOf(request) })
        : (await deps.containers.operate(row, { method: 'POST', verb: [verb], query: queryOf(request) })).status;
    sendEmpty(request.response, status);
  };
}

async function remove(deps: ContainerHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  await deps.containers.remove(row, { force: booleanOf(request.query, 'force'), volumes: booleanOf(request.query, 'v') });
  sendEmpty(request.response, 204);
}

async function rename(deps: ContainerHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const row = await deps.containers.resolve(request.tenant.name, reference);
  await deps.creation.rename(request.tenant, row, request.query.get('name') ?? '');
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
  const networks = await containerNetworks(deps, request.tenant, await deps.containers.listOf(request.tenant.name));
  const ports = await deps.ports.listOf(row.id);
  const subject = { row, spec: parseStoredSpec(row.spec), networks: networks(row), ports };
  sendJson(request.response, 200, inspectView(subject, engine, execIds));
}

export function containerRoutes(deps: ContainerHandlerDeps): readonly DockerRoute[] {
  const on = (method: DockerRoute['method'], verb: string, handler: ContainerHandler): DockerRoute => ({
    method,
    pattern: `/containers/{}${verb}`,
    answer: async (request, reference = '') => await handler(request, reference),
  });
  const list = new ContainerList({ ...deps, summaries: new EngineSummaries(deps) });
  return [
    {
      method: 'GET',
      pattern: '/containers/json',
      answer: async (request) => {
        await list.answer(request);
      },
    },
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
