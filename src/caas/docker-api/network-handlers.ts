/** `/networks/…`. */
import * as z from 'zod';
import { EcluseError } from '#errors';
import type { ContainerRow } from '#state/containers.ts';
import type { MemberRow } from '#state/networks.ts';
import type { Tenant } from '#state/tenants.ts';
import type { Containers } from '#caas/containers.ts';
import type { Events } from '#caas/events.ts';
import type { Host } from '#caas/host.ts';
import { PENDING } from '#caas/networks/networks.ts';
import type { Networks, TenantNetwork } from '#caas/networks/networks.ts';
import { parseEndpoint } from '#caas/spec/spec-networks.ts';
import { dockerError } from './docker-error.ts';
import { foldFields } from './go-json.ts';
import { matchesLabels, untilMsOf } from './label-filters.ts';
import { networkView } from './network-views.ts';
import type { ContainerNetworks, NetworkFacts, Subnet } from './network-views.ts';
import { filtersOf, readJson, sendEmpty, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';

export interface NetworkHandlerDeps {
  readonly containers: Containers;
  readonly networks: Networks;
  readonly events: Events;
  readonly hosts: ReadonlyMap<string, Host>;
}

type Filters = ReadonlyMap<string, readonly string[]>;

const FILTERS = new Set(['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type']);
const PRUNE_FILTERS = new Set(['label', 'label!', 'until']);

/** The tenant's bridges, one a host: what its networks' addresses come from. */
async function subnetsOf(deps: NetworkHandlerDeps, tenant: string): Promise<readonly Subnet[]> {
  return await Promise.all([...deps.hosts.values()].map(async (host) => await host.subnetOf(tenant)));
}

interface TenantView {
  readonly networks: readonly TenantNetwork[];
  readonly members: readonly MemberRow[];
  readonly rows: ReadonlyMap<string, ContainerRow>;
  readonly subnets: readonly Subnet[];
}

async function look(deps: NetworkHandlerDeps, tenant: Tenant): Promise<TenantView> {
  const [networks, members, rows, subnets] = await Promise.all([
    deps.networks.list(tenant),
    deps.networks.members(tenant.name),
    deps.containers.listOf(tenant.name),
    subnetsOf(deps, tenant.name),
  ]);
  return { networks, members, rows: new Map(rows.map((row) => [row.id, row])), subnets };
}

function factsOf(view: TenantView, network: TenantNetwork): NetworkFacts {
  const members = view.members
    .filter((member) => member.network === network.id)
    .flatMap((member) => {
      const row = view.rows.get(member.container);
      return row === undefined ? [] : [{ member, row }];
    });
  return { network, subnets: view.subnets, members };
}

function driverOf(network: TenantNetwork): string {
  if (network.kind === 'none') return 'null';
  return network.kind === 'host' ? 'host' : 'bridge';
}

/** One value of one filter (moby `daemon/network/filter.go`). */
function matchesOne(key: string, wanted: string, { network, members }: NetworkFacts): boolean {
  const isRunning = members.some(({ row }) => ['running', 'paused', 'restarting'].includes(row.state));
  switch (key) {
    case 'driver':
      return driverOf(network) === wanted;
    case 'id':
      return network.id.startsWith(wanted);
    case 'name':
      return network.name.includes(wanted);
    case 'scope':
      return wanted === 'local';
    case 'type':
      if (wanted !== 'custom' && wanted !== 'builtin') throw dockerError(400, `invalid filter: 'type'='${wanted.slice(0, 40)}'`);
      return (wanted === 'custom') === (network.kind === 'own');
    case 'dangling':
      if (!['true', 'false', '1', '0'].includes(wanted))
        throw dockerError(400, `invalid value for filter 'dangling': "${wanted.slice(0, 40)}"`);
      return ['true', '1'].includes(wanted) === (network.kind === 'own' && !isRunning);
    default:
      return false;
  }
}

function matches(facts: NetworkFacts, filters: Filters): boolean {
  for (const [key, wanted] of filters) {
    if (key === 'label' ? !matchesLabels(facts.network.labels, wanted) : !wanted.some((value) => matchesOne(key, value, facts)))
      return false;
  }
  return true;
}

function checkFilters(filters: Filters, known: ReadonlySet<string>): void {
  for (const key of filters.keys()) if (!known.has(key)) throw dockerError(400, `Invalid filter '${key.slice(0, 60)}'`);
}

async function list(deps: NetworkHandlerDeps, request: DockerRequest): Promise<void> {
  const filters = filtersOf(request.query);
  checkFilters(filters, FILTERS);
  const view = await look(deps, request.tenant);
  const facts = view.networks.map((network) => factsOf(view, network)).filter((one) => matches(one, filters));
  sendJson(
    request.response,
    200,
    facts.map((one) => networkView(one, false)),
  );
}

async function inspect(deps: NetworkHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const scope = request.query.get('scope') ?? '';
  const network = await deps.networks.resolve(request.tenant, reference);
  if (scope !== '' && scope !== 'local') throw dockerError(404, `network ${reference} not found`);
  const view = await look(deps, request.tenant);
  sendJson(request.response, 200, networkView(factsOf(view, network), true));
}

async function create(deps: NetworkHandlerDeps, request: DockerRequest): Promise<void> {
  const network = await deps.networks.create(request.tenant, await readJson(request.incoming));
  sendJson(request.response, 201, { Id: network.id, Warning: '' });
}

async function prune(deps: NetworkHandlerDeps, request: DockerRequest): Promise<void> {
  const filters = filtersOf(request.query);
  checkFilters(filters, PRUNE_FILTERS);
  const untilMs = untilMsOf(filters);
  const removed: string[] = [];
  for (const network of await deps.networks.list(request.tenant)) {
    if (network.kind !== 'own' || (untilMs !== undefined && network.createdMs > untilMs)) continue;
    if (!matchesLabels(network.labels, filters.get('label') ?? [])) continue;
    const unwanted = filters.get('label!') ?? [];
    if (unwanted.length > 0 && matchesLabels(network.labels, unwanted)) continue;
    if (await deps.networks.hasMembers(network)) continue;
    await deps.networks.remove(request.tenant, network.id);
    removed.push(network.name);
  }
  deps.events.publish(request.tenant.name, 'network', 'prune', { id: '', attributes: { reclaimed: '0' } });
  sendJson(request.response, 200, { NetworksDeleted: removed.length === 0 ? null : removed });
}

const connectSchema = z.object({ Container: z.string().default(''), Force: z.boolean().default(false) });

/** Docker's words differ where a disconnection is forced: it would also cut off what no container has any more. */
async function memberOf(
  deps: NetworkHandlerDeps,
  request: DockerRequest,
  { Container, Force }: z.infer<typeof connectSchema>,
): Promise<ContainerRow> {
  try {
    return await deps.containers.resolve(request.tenant.name, Container);
  } catch (error) {
    if (Force && error instanceof EcluseError && error.status === 404) throw dockerError(404, `endpoint ${Container} not found`);
    throw error;
  }
}

/** What `connect` and `disconnect` are about. */
async function placeOf(
  deps: NetworkHandlerDeps,
  request: DockerRequest,
  reference: string,
): Promise<{ readonly network: TenantNetwork; readonly row: ContainerRow; readonly force: boolean; readonly endpoint: unknown }> {
  const folded = foldFields(await readJson(request.incoming), '', ['Container', 'Force', 'EndpointConfig']);
  if (folded.kind === 'refused') throw dockerError(400, `ecluse: ${folded.reason}`);
  const { EndpointConfig: endpoint, ...fields } = folded.fields;
  const body = connectSchema.safeParse(fields);
  if (!body.success) throw dockerError(400, 'the body needs Container, the name or id of a container');
  const network = await deps.networks.resolve(request.tenant, reference);
  const row = await memberOf(deps, request, body.data);
  return { network, row, force: body.data.Force, endpoint };
}

async function connect(deps: NetworkHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const { network, row, endpoint } = await placeOf(deps, request, reference);
  const parsed = parseEndpoint(endpoint, 'EndpointConfig');
  if (parsed.kind === 'refused') throw dockerError(403, `ecluse: ${parsed.reason}`);
  await deps.networks.connect(request.tenant, { network, row }, parsed);
  sendEmpty(request.response, 200);
}

async function disconnect(deps: NetworkHandlerDeps, request: DockerRequest, reference: string): Promise<void> {
  const { network, row, force } = await placeOf(deps, request, reference);
  await deps.networks.disconnect(request.tenant, { network, row }, force);
  sendEmpty(request.response, 200);
}

export function networkRoutes(deps: NetworkHandlerDeps): readonly DockerRoute[] {
  return [
    { method: 'GET', pattern: '/networks', answer: async (request) => await list(deps, request) },
    { method: 'POST', pattern: '/networks/create', answer: async (request) => await create(deps, request) },
    { method: 'POST', pattern: '/networks/prune', answer: async (request) => await prune(deps, request) },
    { method: 'GET', pattern: '/networks/{}', answer: async (request, id) => await inspect(deps, request, id) },
    {
      method: 'DELETE',
      pattern: '/networks/{}',
      answer: async (request, id) => {
        await deps.networks.remove(request.tenant, id);
        sendEmpty(request.response, 204);
      },
    },
    { method: 'POST', pattern: '/networks/{}/connect', answer: async (request, id) => await connect(deps, request, id) },
    { method: 'POST', pattern: '/networks/{}/disconnect', answer: async (request, id) => await disconnect(deps, request, id) },
  ];
}

/** The networks of a tenant's containers, read once for a whole list. */
export async function containerNetworks(
  deps: Pick<NetworkHandlerDeps, 'networks' | 'hosts'>,
  tenant: Tenant,
  rows: readonly ContainerRow[],
): Promise<(row: ContainerRow) => ContainerNetworks> {
  const networks = new Map((await deps.networks.list(tenant)).map((network) => [network.id, network]));
  const members = Map.groupBy(await deps.networks.members(tenant.name), ({ container }) => container);
  const gateways = new Map<string, string>();
  for (const host of deps.hosts.values()) gateways.set(host.name, (await host.subnetOf(tenant.name)).gateway);
  const names = new Map(rows.map((row) => [row.id, row.name]));
  return (row) => ({
    memberships: (members.get(row.id) ?? []).map((member) => {
      const network = networks.get(member.network);
      return { name: network?.name ?? member.network.replace(PENDING, ''), isPredefined: network?.kind === 'bridge', member };
    }),
    gateway: gateways.get(row.host),
    nameOf: (container) => names.get(container),
  });
}
