/** `/containers/…`: what answers with JSON. Streams are in stream-handlers.ts. */
import type { Clock } from '#clock';
import type { ContainerRow } from '#state/containers.ts';
import { parseStoredSpec } from '../container-spec.ts';
import type { Containers } from '../containers.ts';
import type { EngineInspect } from '../engine-answers.ts';
import type { Execs } from './execs.ts';
import { matchesFilters } from './filters.ts';
import { dockerError } from './docker-error.ts';
import { booleanOf, filtersOf, integerOfQuery, readJson, sendEmpty, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import { inspectView, summaryView } from './views.ts';

export interface ContainerHandlerDeps {
  readonly clock: Clock;
  readonly containers: Containers;
  readonly execs: Execs;
}

type Handler = (request: DockerRequest, reference: string) => Promise<void>;

/** `docker stop -t` beyond this is a client that wants to hold a connection. */
const STOP_SECONDS_MAX = 600;

export function containerHandlers(deps: ContainerHandlerDeps) {
  const { containers, clock, execs } = deps;

  const inspectQuietly = async (row: ContainerRow): Promise<EngineInspect | undefined> =>
    // A host that is away must not take the tenant's whole list along: the row tells the last known state.
    await containers.inspect(row).catch(() => undefined);

  const list = async (request: DockerRequest): Promise<void> => {
    const filters = filtersOf(request.query);
    const limit = integerOfQuery(request.query, 'limit') ?? 0;
    const all = booleanOf(request.query, 'all') || limit > 0 || filters.has('status');
    const rows = await containers.listOf(request.tenant.name);
    const views = [];
    for (const row of rows) {
      if (!all && !['running', 'paused', 'restarting'].includes(row.state)) continue;
      const spec = parseStoredSpec(row.spec);
      if (!matchesFilters(row, spec, filters, rows)) continue;
      views.push(summaryView(row, spec, await inspectQuietly(row), clock.nowMs()));
      if (limit > 0 && views.length >= limit) break;
    }
    sendJson(request.response, 200, views);
  };

  const create = async (request: DockerRequest): Promise<void> => {
    const body = await readJson(request.incoming);
    const { id, warnings } = await containers.create({ tenant: request.tenant, name: request.query.get('name') ?? undefined, body });
    sendJson(request.response, 201, { Id: id, Warnings: warnings });
  };

  const inspect: Handler = async (request, reference) => {
    const row = await containers.resolve(request.tenant.name, reference);
    sendJson(request.response, 200, inspectView(row, parseStoredSpec(row.spec), await inspectQuietly(row), execs.idsOf(row.id)));
  };

  /** A lifecycle call without a body: `start`, `stop`, … Engines answer 304 where the container is in that state already. */
  const lifecycle =
    (verb: string, queryOf: (request: DockerRequest) => Readonly<Record<string, string | number | undefined>> = () => ({})): Handler =>
    async (request, reference) => {
      const row = await containers.resolve(request.tenant.name, reference);
      const body = verb === 'start' ? await readJson(request.incoming) : undefined;
      if (typeof body === 'object' && body !== null && Object.keys(body).length > 0) {
        // Old engines took a HostConfig here, past every check (../shared/docs/DOCKER-API.md, "API downgrade").
        throw dockerError(400, 'starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24');
      }
      const { status } = await containers.operate(row, { method: 'POST', verb: [verb], query: queryOf(request) });
      sendEmpty(request.response, status);
    };

  const stopSeconds = (request: DockerRequest): { readonly t: number | undefined } => {
    const seconds = integerOfQuery(request.query, 't');
    return { t: seconds === undefined ? undefined : Math.min(seconds < 0 ? STOP_SECONDS_MAX : seconds, STOP_SECONDS_MAX) };
  };

  const signalOf = (request: DockerRequest): { readonly signal: string } => {
    const signal = request.query.get('signal') ?? '';
    if (!/^[A-Za-z0-9+-]{0,20}$/.test(signal)) throw dockerError(400, `Invalid signal: ${signal.slice(0, 40)}`);
    return { signal: signal === '' ? 'KILL' : signal };
  };

  const remove: Handler = async (request, reference) => {
    const row = await containers.resolve(request.tenant.name, reference);
    await containers.remove(row, { force: booleanOf(request.query, 'force') });
    sendEmpty(request.response, 204);
  };

  const rename: Handler = async (request, reference) => {
    const row = await containers.resolve(request.tenant.name, reference);
    await containers.rename(row, request.query.get('name') ?? '');
    sendEmpty(request.response, 204);
  };

  const resize: Handler = async (request, reference) => {
    const row = await containers.resolve(request.tenant.name, reference);
    const query = { h: integerOfQuery(request.query, 'h'), w: integerOfQuery(request.query, 'w') };
    await containers.hostOf(row).client.call({ method: 'POST', path: ['containers', row.engineId, 'resize'], query });
    sendEmpty(request.response, 200);
  };

  return {
    list,
    create,
    inspect,
    start: lifecycle('start'),
    stop: lifecycle('stop', stopSeconds),
    restart: lifecycle('restart', stopSeconds),
    kill: lifecycle('kill', signalOf),
    pause: lifecycle('pause'),
    unpause: lifecycle('unpause'),
    remove,
    rename,
    resize,
  };
}
