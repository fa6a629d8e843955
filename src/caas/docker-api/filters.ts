/** `docker ps --filter`, evaluated on what the tenant sees, in moby's order and words (`daemon/list.go`). Pure. */
import type { ContainerRow } from '#state/containers.ts';
import { dockerError } from './docker-error.ts';
import { matchesLabels } from './label-filters.ts';
import { compileNamePatterns } from './name-pattern.ts';

export type Filters = ReadonlyMap<string, readonly string[]>;

/** One container of the list, as filters look at it. */
export interface ListCandidate {
  readonly row: ContainerRow;
  readonly imageId: string;
  /** Docker's word for its state. */
  readonly state: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly exitCode: number;
  readonly health: string;
  /** Its row of the list: ports, networks and mounts are matched as they are shown. */
  readonly view: Readonly<Record<string, unknown>>;
}

/** What the filters need that is not in the list itself. */
export interface FilterFacts {
  /** All containers of the tenant, newest first. */
  readonly rows: readonly ContainerRow[];
  /** The ids of an image and of those that were made from it; empty for one that does not exist. */
  readonly ancestry: (reference: string) => ReadonlySet<string>;
}

type Test = (candidate: ListCandidate) => boolean;

const KEYS = new Set([
  'ancestor',
  'before',
  'exited',
  'expose',
  'health',
  'id',
  'is-task',
  'isolation',
  'label',
  'name',
  'network',
  'publish',
  'since',
  'status',
  'volume',
]);
const STATES = new Set(['paused', 'restarting', 'removing', 'running', 'dead', 'created', 'exited']);
const HEALTHS = new Set(['starting', 'healthy', 'unhealthy', 'none']);
const PORT_MAX = 65_535;

function anyOf(tests: readonly Test[]): Test {
  return (candidate) => tests.some((test) => test(candidate));
}

function nameTests(values: readonly string[]): readonly Test[] {
  const patterns = compileNamePatterns(values);
  return values.map((wanted, index) => {
    const pattern = patterns[index];
    if (pattern?.kind !== 'pattern')
      throw dockerError(400, `ecluse: the filter name=${wanted.slice(0, 60)}: ${pattern?.reason ?? ''}`);
    return ({ row }) => row.name === wanted || pattern.matches(row.name) || pattern.matches(`/${row.name}`);
  });
}

/** A prefix that only one container has: moby asks its index of ids. */
function idTest(wanted: string, rows: readonly ContainerRow[]): Test {
  const found = rows.filter((row) => row.id.startsWith(wanted));
  return ({ row }) => wanted !== '' && found.length === 1 && found[0]?.id === row.id;
}

function exitedTest(wanted: string): Test {
  if (!/^[+-]?\d{1,10}$/.test(wanted)) throw dockerError(400, `strconv.Atoi: parsing "${wanted.slice(0, 40)}": invalid syntax`);
  const code = Number(wanted);
  return ({ row, state, exitCode }) =>
    exitCode === code && !['running', 'paused', 'restarting'].includes(state) && row.startedMs !== undefined;
}

/** `80`, `80/udp`, `8000-8010/tcp`. */
function portsOf(key: string, wanted: string): { readonly type: string; readonly from: number; readonly to: number } {
  if (wanted.includes(':')) throw dockerError(400, `filter for '${key}' should not contain ':': ${wanted.slice(0, 60)}`);
  const found = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/i.exec(wanted);
  const from = Number(found?.[1]);
  const to = Number(found?.[2] ?? found?.[1]);
  if (found === null || to < from || to > PORT_MAX) {
    throw dockerError(400, `error while looking up for ${key} ${wanted.slice(0, 60)}: Invalid port`);
  }
  return { type: (found[3] ?? 'tcp').toLowerCase(), from, to };
}

function objectsIn(value: unknown): readonly Readonly<Record<string, unknown>>[] {
  if (typeof value !== 'object' || value === null) return [];
  const entries: readonly unknown[] = Object.values(value);
  return entries.filter((entry): entry is Record<string, unknown> => typeof entry === 'object' && entry !== null);
}

function portTest(key: 'publish' | 'expose', wanted: string): Test {
  const { type, from, to } = portsOf(key, wanted);
  const field = key === 'publish' ? 'PublicPort' : 'PrivatePort';
  return ({ view }) =>
    objectsIn(view['Ports']).some((port) => port['Type'] === type && Number(port[field]) >= from && Number(port[field]) <= to);
}

function networkTest(wanted: string): Test {
  return ({ view }) => {
    const settings = view['NetworkSettings'];
    const networks = typeof settings === 'object' && settings !== null && 'Networks' in settings ? settings.Networks : {};
    if (typeof networks !== 'object' || networks === null) return false;
    if (Object.hasOwn(networks, wanted)) return true;
    return objectsIn(networks).some((network) => {
      const id = network['NetworkID'];
      return typeof id === 'string' && id !== '' && id.startsWith(wanted);
    });
  };
}

function volumeTest(wanted: string): Test {
  return ({ view }) =>
    objectsIn(view['Mounts']).some((mount) => {
      const name = mount['Name'];
      return mount['Destination'] === wanted || (name === undefined || name === '' ? mount['Source'] : name) === wanted;
    });
}

function statusTest(wanted: string): Test {
  if (!STATES.has(wanted)) throw dockerError(400, `Invalid filter 'status=${wanted.slice(0, 60)}'`);
  return ({ state }) => state === wanted;
}

function healthTest(wanted: string): Test {
  if (!HEALTHS.has(wanted)) throw dockerError(400, `Unrecognised filter value for health: ${wanted.slice(0, 60)}`);
  return ({ health }) => health === wanted;
}

function taskTest(values: readonly string[]): Test {
  const [value] = values;
  if (values.length !== 1 || (value !== 'true' && value !== 'false')) {
    throw dockerError(400, `Invalid filter 'is-task=[${values.join(' ').slice(0, 60)}]'`);
  }
  return () => value === 'false'; // No container here belongs to a swarm.
}

function placeOf(reference: string, rows: readonly ContainerRow[]): number {
  const bare = reference.replace(/^\//, '');
  const at = rows.findIndex((row) => row.id === reference || row.name === bare);
  const found = at === -1 ? rows.filter((row) => reference !== '' && row.id.startsWith(reference)) : [];
  const [only] = found;
  if (at !== -1) return at;
  // As moby says it here: an error without a status of its own.
  if (only === undefined || found.length > 1) throw dockerError(500, `no such container ${reference}`);
  return rows.indexOf(only);
}

/** Lists are newest first: what was made before stands behind. */
function orderTest(key: 'before' | 'since', wanted: readonly string[], rows: readonly ContainerRow[]): Test {
  const places = wanted.map((reference) => placeOf(reference, rows));
  const at = places.at(-1) ?? 0;
  const kept = new Set((key === 'before' ? rows.slice(at + 1) : rows.slice(0, at)).map((row) => row.id));
  return ({ row }) => kept.has(row.id);
}

function ancestorTest(wanted: readonly string[], ancestry: FilterFacts['ancestry']): Test {
  const ids = new Set(wanted.flatMap((reference) => [...ancestry(reference)]));
  return ({ imageId }) => ids.has(imageId);
}

function testOf(key: string, values: readonly string[], facts: FilterFacts): Test {
  switch (key) {
    case 'name':
      return anyOf(nameTests(values));
    case 'id':
      return anyOf(values.map((value) => idTest(value, facts.rows)));
    case 'label':
      return ({ labels }) => matchesLabels(labels, values);
    case 'status':
      return anyOf(values.map(statusTest));
    case 'health':
      return anyOf(values.map(healthTest));
    case 'exited':
      return anyOf(values.map(exitedTest));
    case 'ancestor':
      return ancestorTest(values, facts.ancestry);
    case 'before':
    case 'since':
      return orderTest(key, values, facts.rows);
    case 'network':
      return anyOf(values.map(networkTest));
    case 'volume':
      return anyOf(values.map(volumeTest));
    case 'is-task':
      return taskTest(values);
    default:
      return () => true; // `isolation` is for Windows; ports are taken together.
  }
}

/** Refuses keys that `docker ps` does not have. */
export function checkFilterKeys(filters: Filters, keys: ReadonlySet<string> = KEYS): void {
  for (const key of filters.keys()) if (!keys.has(key)) throw dockerError(400, `Invalid filter '${key.slice(0, 60)}'`);
}

/** Compiles the filters of a list; refusals are thrown in Docker's words. Every key must match with at least one of its values, labels with all. */
export function compileFilters(filters: Filters, facts: FilterFacts): Test {
  checkFilterKeys(filters);
  const tests: Test[] = [];
  for (const [key, values] of filters) if (values.length > 0) tests.push(testOf(key, values, facts));
  // Moby takes a container that matches either of the two.
  const ports = (['publish', 'expose'] as const).flatMap((key) => (filters.get(key) ?? []).map((value) => portTest(key, value)));
  if (ports.length > 0) tests.push(anyOf(ports));
  return (candidate) => tests.every((test) => test(candidate));
}
