/** `/volumes/…`. */
import * as z from 'zod';
import type { Volumes, VolumeUse, VolumeWish } from '#caas/volumes/volumes.ts';
import { checkDriver, checkVolumeName, driverOptionsOf, labelsOf } from '#caas/spec/volume-options.ts';
import { dockerError } from './docker-error.ts';
import { foldFields } from './go-json.ts';
import { matchesLabels } from './label-filters.ts';
import { compileNamePatterns } from './name-pattern.ts';
import { booleanOf, filtersOf, numberOf, readJson, sendEmpty, sendJson } from './request.ts';
import type { DockerRequest } from './request.ts';
import type { DockerRoute } from './router.ts';
import { ANONYMOUS_SINCE, volumeLabels, volumeView } from './volume-views.ts';

export interface VolumeHandlerDeps {
  readonly volumes: Volumes;
}

type Filters = ReadonlyMap<string, readonly string[]>;

function checkKeys(filters: Filters, known: readonly string[]): void {
  for (const key of filters.keys()) if (!known.includes(key)) throw dockerError(400, `Invalid filter '${key.slice(0, 60)}'`);
}

/** A boolean filter, as Docker reads it; undefined where it is not given. */
function booleanFilter(filters: Filters, key: string): boolean | undefined {
  const values = filters.get(key);
  if (values === undefined) return undefined;
  if (values.some((value) => value === '1' || value === 'true')) return true;
  if (values.some((value) => value === '0' || value === 'false')) return false;
  throw dockerError(400, `Invalid filter '${key}=[${values.join(' ').slice(0, 60)}]'`);
}

function nameMatcher(patterns: readonly string[]): (name: string) => boolean {
  const compiled = compileNamePatterns(patterns);
  // What is no expression matches only itself.
  return (name) => patterns.includes(name) || compiled.some((one) => one.kind === 'pattern' && one.matches(name));
}

function isListed(
  { row, users }: VolumeUse,
  {
    filters,
    isNamed,
    apiVersion,
  }: { readonly filters: Filters; readonly isNamed: (name: string) => boolean; readonly apiVersion: string },
): boolean {
  const dangling = booleanFilter(filters, 'dangling');
  if (dangling !== undefined && dangling !== (users.length === 0)) return false;
  if (filters.get('driver')?.includes('local') === false) return false;
  const labels = volumeLabels(row, apiVersion);
  if (!matchesLabels(labels, filters.get('label') ?? [])) return false;
  return isNamed(row.name);
}

async function list({ volumes }: VolumeHandlerDeps, request: DockerRequest): Promise<void> {
  const { tenant, query, apiVersion, response } = request;
  const filters = filtersOf(query);
  checkKeys(filters, ['dangling', 'name', 'driver', 'label']);
  booleanFilter(filters, 'dangling');
  const names = filters.get('name');
  const isNamed = names === undefined ? (): boolean => true : nameMatcher(names);
  const listed = (await volumes.list(tenant.name)).filter((use) => isListed(use, { filters, isNamed, apiVersion }));
  sendJson(response, 200, { Volumes: listed.map(({ row }) => volumeView(row, apiVersion)), Warnings: null });
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/** The body of `POST /volumes/create`, checked and rebuilt. */
export function parseVolumeCreate(body: unknown): VolumeWish {
  if (body === undefined) throw dockerError(400, 'got EOF while reading request body');
  // dockerd decides where a volume is and ignores what a client says; dockerode's users say it.
  const folded = foldFields(body, '', ['Name', 'Driver', 'DriverOpts', 'Labels', 'Mountpoint'], {
    ClusterVolumeSpec: 'there is no swarm to have cluster volumes',
  });
  if (folded.kind === 'refused') throw dockerError(400, `ecluse: ${folded.reason}`);
  const { Name, Driver, DriverOpts, Labels } = folded.fields;
  const name = z.string().nullish().safeParse(Name);
  if (!name.success) throw dockerError(400, 'the name of a volume must be a text');
  const wanted = name.data ?? '';
  if (wanted !== '') checkVolumeName(wanted);
  checkDriver(Driver, wanted, 404);
  const labels = labelsOf(Labels, 'Labels');
  const options = driverOptionsOf(DriverOpts, wanted);
  return { name: wanted, labels: isGiven(Labels) ? labels : null, options: isGiven(DriverOpts) ? options : null };
}

async function create({ volumes }: VolumeHandlerDeps, request: DockerRequest): Promise<void> {
  const row = await volumes.create(request.tenant, parseVolumeCreate(await readJson(request.incoming)));
  sendJson(request.response, 201, volumeView(row, request.apiVersion));
}

async function inspect({ volumes }: VolumeHandlerDeps, request: DockerRequest, name: string): Promise<void> {
  sendJson(request.response, 200, volumeView(await volumes.find(request.tenant.name, name), request.apiVersion));
}

async function remove({ volumes }: VolumeHandlerDeps, request: DockerRequest, name: string): Promise<void> {
  await volumes.remove(request.tenant.name, name, { force: booleanOf(request.query, 'force') });
  sendEmpty(request.response, 204);
}

/** From API 1.42 on named volumes go only where the client says so: they are what people mean to keep. */
async function prune({ volumes }: VolumeHandlerDeps, request: DockerRequest): Promise<void> {
  const { tenant, query, apiVersion, response } = request;
  const filters = filtersOf(query);
  const sparesNamed = numberOf(apiVersion) >= ANONYMOUS_SINCE;
  checkKeys(filters, ['label', 'label!', ...(sparesNamed ? ['all'] : [])]);
  const all = !sparesNamed || booleanFilter(filters, 'all') === true;
  const { deleted, bytes } = await volumes.prune(tenant.name, (row) => {
    const labels = volumeLabels(row, apiVersion);
    const isWanted = matchesLabels(labels, filters.get('label') ?? []);
    const isSpared = (filters.get('label!') ?? []).some((spared) => matchesLabels(labels, [spared]));
    return (all || row.anonymous) && isWanted && !isSpared;
  });
  sendJson(response, 200, { VolumesDeleted: deleted, SpaceReclaimed: bytes });
}

export function volumeRoutes(deps: VolumeHandlerDeps): readonly DockerRoute[] {
  return [
    { method: 'GET', pattern: '/volumes', answer: async (request) => await list(deps, request) },
    { method: 'POST', pattern: '/volumes/create', answer: async (request) => await create(deps, request) },
    { method: 'POST', pattern: '/volumes/prune', answer: async (request) => await prune(deps, request) },
    { method: 'GET', pattern: '/volumes/{}', answer: async (request, name = '') => await inspect(deps, request, name) },
    { method: 'DELETE', pattern: '/volumes/{}', answer: async (request, name = '') => await remove(deps, request, name) },
  ];
}
