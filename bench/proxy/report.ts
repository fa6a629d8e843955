/** Rows of results: medians over rounds, ratios to the better of nginx and HAProxy, and a table. Pure. */
import type { Case, Target } from './cases.ts';
import type { Sample } from './measure.ts';
import type { PeerName } from './peers.ts';

export interface SceneSize {
  readonly hosts: number;
  readonly workers: number;
  readonly connections: number;
}

export interface Row extends SceneSize {
  readonly case: string;
  readonly peer: PeerName;
  readonly unit: string;
  readonly valid: boolean;
  readonly median: Omit<Sample, 'errors'>;
  readonly errors: readonly string[];
  /** To the better of nginx and HAProxy; undefined without them. */
  readonly ratio: number | undefined;
  readonly target: Target | undefined;
  readonly verdict: string;
  readonly samples: readonly Sample[];
}

const CLOCKS_DIFFER = 0.05;
const COUNTS_DIFFER = 0.1;
const OTHERS_CORES = 0.1;

export function rowsOf(what: Case, size: SceneSize, samples: ReadonlyMap<PeerName, readonly Sample[]>): Row[] {
  const medians = new Map([...samples].map(([peer, list]) => [peer, medianOf(list)]));
  const isValid = (peer: PeerName): boolean => (samples.get(peer) ?? []).every(({ errors }) => errors.length === 0);
  const references = (['nginx', 'haproxy'] as const).filter((peer) => isValid(peer));
  const values = references.map((peer) => medians.get(peer)?.value).filter((value) => value !== undefined);
  const reference = values.length === 0 ? undefined : Math.min(...values);
  return [...samples].map(([peer, list]) => {
    const median = medians.get(peer) ?? medianOf(list);
    const ratio = reference === undefined ? undefined : median.value / reference;
    const valid = isValid(peer);
    const target = peer === 'ecluse' ? what.target : undefined;
    return {
      case: what.name,
      peer,
      ...size,
      unit: what.unit,
      valid,
      median,
      errors: list.flatMap(({ errors }) => errors),
      ratio,
      target,
      verdict: valid ? verdictOf(target, ratio, median.value) : 'INVALID',
      samples: list,
    };
  });
}

function verdictOf(target: Target | undefined, ratio: number | undefined, value: number): string {
  if (target === undefined) return '';
  const got = target.of === 'ratio' ? ratio : value;
  if (got === undefined || Number.isNaN(got)) return 'unknown';
  const asked = `≤ ${String(target.reach)}${target.later === undefined ? '' : `, then ${String(target.later)}`}`;
  if (target.later !== undefined && got <= target.later) return `${asked}: both reached`;
  return `${asked}: ${got <= target.reach ? 'reached' : 'missed'}`;
}

function medianOf(samples: readonly Sample[]): Omit<Sample, 'errors'> {
  const median = (field: (sample: Sample) => number): number => {
    const values = samples.map(field).filter((value) => !Number.isNaN(value));
    return middleOf(values);
  };
  return {
    value: median((sample) => sample.value),
    operations: median((sample) => sample.operations),
    perSecond: median((sample) => sample.perSecond),
    cpuUs: median((sample) => sample.cpuUs),
    statUs: median((sample) => sample.statUs),
    userUs: median((sample) => sample.userUs),
    systemUs: median((sample) => sample.systemUs),
    helperUs: median((sample) => sample.helperUs),
    utilisation: median((sample) => sample.utilisation),
    p50Us: median((sample) => sample.p50Us),
    p99Us: median((sample) => sample.p99Us),
    rawP99Us: median((sample) => sample.rawP99Us),
    rssMb: median((sample) => sample.rssMb),
    logShare: median((sample) => sample.logShare),
    loadPerSecond: median((sample) => sample.loadPerSecond),
    othersCores: median((sample) => sample.othersCores),
  };
}

function middleOf(values: readonly number[]): number {
  const sorted = values.toSorted((one, other) => one - other);
  const [low = Number.NaN, high = Number.NaN] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return low === high ? low : (low + high) / 2;
}

/** What makes one wonder about a sample that is valid. */
export function doubtsOf({ cpuUs, statUs, perSecond, loadPerSecond, logShare, othersCores }: Sample): string[] {
  const doubts: string[] = [];
  if (Math.abs(statUs - cpuUs) > CLOCKS_DIFFER * cpuUs)
    doubts.push(`stat says ${statUs.toFixed(1)} µs, schedstat ${cpuUs.toFixed(1)}`);
  if (Math.abs(perSecond - loadPerSecond) > COUNTS_DIFFER * loadPerSecond) {
    doubts.push(`${perSecond.toFixed(0)}/s in the window, ${loadPerSecond.toFixed(0)}/s by the generator`);
  }
  if (logShare < 1 - COUNTS_DIFFER) doubts.push(`${(100 * logShare).toFixed(0)} % of the access log arrived`);
  if (othersCores > OTHERS_CORES) doubts.push(`other work used ${othersCores.toFixed(2)} of the machine's cores`);
  return doubts;
}

const COLUMNS: readonly (readonly [string, (row: Row) => string])[] = [
  ['case', (row) => row.case],
  ['peer', (row) => row.peer],
  ['hosts', (row) => String(row.hosts)],
  ['conns', (row) => String(row.connections)],
  ['workers', (row) => String(row.workers)],
  ['value', (row) => `${digits(row.median.value)} ${row.unit}`],
  ['ratio', (row) => (row.ratio === undefined || !Number.isFinite(row.ratio) ? '–' : row.ratio.toFixed(2))],
  ['target', (row) => row.verdict],
  ['per s', (row) => digits(row.median.perSecond)],
  ['user µs', (row) => digits(row.median.userUs)],
  ['sys µs', (row) => digits(row.median.systemUs)],
  ['helper µs', (row) => digits(row.median.helperUs)],
  ['core', (row) => (Number.isNaN(row.median.utilisation) ? '–' : `${(100 * row.median.utilisation).toFixed(0)} %`)],
  ['p50 µs', (row) => digits(row.median.p50Us)],
  ['p99 µs', (row) => digits(row.median.p99Us)],
  ['RSS MB', (row) => digits(row.median.rssMb)],
  ['others', (row) => (Number.isNaN(row.median.othersCores) ? '–' : row.median.othersCores.toFixed(2))],
  ['log', (row) => (Number.isNaN(row.median.logShare) ? '–' : `${(100 * row.median.logShare).toFixed(0)} %`)],
];

export function tableOf(rows: readonly Row[]): string {
  const head = [COLUMNS.map(([name]) => name), COLUMNS.map(() => '---')];
  const body = rows.map((row) => COLUMNS.map(([, cell]) => cell(row)));
  return [...head, ...body].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function digits(value: number): string {
  if (Number.isNaN(value)) return '–';
  if (value === Number.POSITIVE_INFINITY) return 'rate not held:';
  return value >= 1000 ? String(Math.round(value)) : value.toPrecision(3);
}
