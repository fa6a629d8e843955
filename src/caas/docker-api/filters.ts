/** `docker ps --filter`, evaluated on what the tenant sees. Pure. */
import type { ContainerRow } from '#state/containers.ts';
import type { ContainerSpec } from '#caas/container-spec.ts';
import { parseReference, wholeReference } from '#caas/image-reference.ts';
import { dockerError } from './docker-error.ts';

type Filters = ReadonlyMap<string, readonly string[]>;
type Matcher = (wanted: string, row: ContainerRow, spec: ContainerSpec, all: readonly ContainerRow[]) => boolean;

const labelMatches: Matcher = (wanted, _row, spec) => {
  const at = wanted.indexOf('=');
  const labels = spec.config.Labels ?? {};
  const key = at === -1 ? wanted : wanted.slice(0, at);
  return Object.hasOwn(labels, key) && (at === -1 || labels[key] === wanted.slice(at + 1));
};

/** Docker takes a regular expression here; a plain substring or an anchored name covers what clients send, and cannot run away. */
const nameMatches: Matcher = (wanted, row) => {
  const bare = wanted.replace(/^\^/, '').replace(/\$$/, '').replace(/^\//, '');
  if (wanted.startsWith('^') && wanted.endsWith('$')) return row.name === bare;
  if (wanted.startsWith('^')) return row.name.startsWith(bare);
  return row.name.includes(bare);
};

const imageMatches: Matcher = (wanted, _row, spec) => {
  const parsed = parseReference(wanted);
  const own = parseReference(spec.config.Image);
  const sameName = parsed !== undefined && own !== undefined && wholeReference(parsed) === wholeReference(own);
  return sameName || spec.imageId === wanted || spec.imageId.startsWith(`sha256:${wanted}`);
};

const position = (reference: string, all: readonly ContainerRow[]): number => {
  const found = all.findIndex((row) => row.id.startsWith(reference) || row.name === reference);
  if (found === -1) throw dockerError(404, `No such container: ${reference}`);
  return found;
};

const MATCHERS: Readonly<Record<string, Matcher>> = {
  id: (wanted, row) => row.id.startsWith(wanted),
  name: nameMatches,
  label: labelMatches,
  status: (wanted, row) => row.state === wanted || (wanted === 'dead' && row.state === 'lost'),
  ancestor: imageMatches,
  // Lists are newest first.
  before: (wanted, row, _spec, all) => all.indexOf(row) > position(wanted, all),
  since: (wanted, row, _spec, all) => all.indexOf(row) < position(wanted, all),
  health: () => false,
  network: (wanted) => wanted === 'bridge',
};

/** Every filter key must match with at least one of its values; labels with all of them. */
export function matchesFilters(row: ContainerRow, spec: ContainerSpec, filters: Filters, all: readonly ContainerRow[]): boolean {
  for (const [key, wanted] of filters) {
    const matcher = Object.hasOwn(MATCHERS, key) ? MATCHERS[key] : undefined;
    if (matcher === undefined) throw dockerError(400, `Invalid filter '${key.slice(0, 60)}'`);
    const matches = (value: string): boolean => matcher(value, row, spec, all);
    if (!(key === 'label' ? wanted.every(matches) : wanted.some(matches))) return false;
  }
  return true;
}
