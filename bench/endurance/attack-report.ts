/** The results of `slow-clients` as tables. Pure. */
import type { AttackResult } from './attack.ts';
import type { CutResult } from './cut.ts';
import type { MemoryResult } from './memory.ts';

/** p99 of the canary beside an attack, to its own alone. */
const P99_RATIO_MAX = 1.5;

type Columns<T> = readonly (readonly [string, (row: T) => string])[];

const ATTACK_COLUMNS: Columns<AttackResult> = [
  ['proxy', (row) => row.target],
  ['attack', (row) => row.attack],
  ['p50 alone µs', (row) => whole(row.alone.p50Us)],
  ['p50 beside', (row) => whole(row.beside.p50Us)],
  ['p99 alone µs', (row) => whole(row.alone.p99Us)],
  ['p99 beside', (row) => whole(row.beside.p99Us)],
  ['p99 arriving', (row) => whole(row.arriving.p99Us)],
  ['p99 ratio', (row) => row.p99Ratio.toFixed(2)],
  [`≤ ${String(P99_RATIO_MAX)}`, (row) => (row.p99Ratio <= P99_RATIO_MAX ? 'yes' : 'NO')],
  ['canary late p99', (row) => whole(Math.max(row.alone.lateP99Us, row.beside.lateP99Us))],
  ['core alone/beside', (row) => `${percent(row.aloneCores)} / ${percent(row.besideCores)}`],
  ['RSS MB', (row) => `${whole(row.rssMb.before)} / ${whole(row.rssMb.during)} / ${whole(row.rssMb.after)}`],
  ['files', (row) => `${String(row.files.before)} / ${String(row.files.during)} / ${String(row.files.after)}`],
  ['open at end', (row) => `${String(row.crowd.open)} of ${String(row.crowd.opened)}`],
  ['origin MB', (row) => whole(row.originMb)],
  ['TCP MB', (row) => whole(row.tcpMb)],
  ['failures', (row) => String(row.canaryFailures)],
  ['others', (row) => row.othersCores.toFixed(2)],
];

const CUT_COLUMNS: Columns<CutResult> = [
  ['attack', (row) => row.attack],
  ['left', (row) => String(row.left)],
  ['all gone after ms', (row) => whole(row.allGoneMs)],
  ['statuses', (row) => counts(row.crowd.statuses)],
  ['noticed by client', (row) => String(row.crowd.cut)],
  ['lived p50/max ms', (row) => `${whole(row.crowd.livedP50Ms)} / ${whole(row.crowd.livedMaxMs)}`],
  ['timeouts', (row) => counts(row.timeouts)],
  ['canary p99 µs', (row) => whole(row.beside.p99Us)],
  ['failures', (row) => String(row.canaryFailures)],
  ['orphans', (row) => String(row.orphans)],
  ['TCP MB peak/after', (row) => `${whole(row.tcpMbPeak)} / ${whole(row.tcpMbAfter)}`],
];

const MEMORY_COLUMNS: Columns<MemoryResult> = [
  ['who', (row) => row.name],
  ['clients', (row) => String(row.connections)],
  ['open at end', (row) => String(row.openAtEnd)],
  ['refused by budget', (row) => String(row.refusedByBudget)],
  [
    'RSS MB before/peak/after',
    (row) => `${megabytes(row.before.rss)} / ${megabytes(row.peak.rss)} / ${megabytes(row.after.rss)}`,
  ],
  ['external', (row) => `${megabytes(row.before.external)} / ${megabytes(row.peak.external)} / ${megabytes(row.after.external)}`],
  [
    'arrayBuffers',
    (row) => `${megabytes(row.before.arrayBuffers)} / ${megabytes(row.peak.arrayBuffers)} / ${megabytes(row.after.arrayBuffers)}`,
  ],
  ['peak RSS KB/conn', (row) => row.peakRssKbPerConnection.toFixed(1)],
  ['peak external KB/conn', (row) => row.peakBuffersKbPerConnection.toFixed(1)],
  ['returned', (row) => (row.returned ? 'yes' : `NO: ${row.keptMb.toFixed(1)} MB kept`)],
  ['origin MB/conn', (row) => row.originMbPerConnection.toFixed(2)],
  ['origin waits', (row) => (row.paused ? 'yes' : `NO: ${whole(row.originMbAtEnd)} MB more`)],
  ['TCP MB', (row) => whole(row.tcpMb)],
];

export function attackTable(rows: readonly AttackResult[]): string {
  return table(ATTACK_COLUMNS, rows);
}

/** Medians over the rounds, and the verdict. */
export function verdictTable(rows: readonly AttackResult[]): string {
  const groups = Map.groupBy(rows, ({ target, attack }) => `${attack} on ${target}`);
  return table<readonly [string, readonly AttackResult[]]>(
    [
      ['medians', ([name]) => name],
      ['p50 alone µs', ([, all]) => whole(median(all, (row) => row.alone.p50Us))],
      ['p50 beside', ([, all]) => whole(median(all, (row) => row.beside.p50Us))],
      ['p99 alone µs', ([, all]) => whole(median(all, (row) => row.alone.p99Us))],
      ['p99 beside', ([, all]) => whole(median(all, (row) => row.beside.p99Us))],
      ['p99 ratio', ([, all]) => median(all, (row) => row.p99Ratio).toFixed(2)],
      [`≤ ${String(P99_RATIO_MAX)}`, ([, all]) => (median(all, (row) => row.p99Ratio) <= P99_RATIO_MAX ? 'yes' : 'NO')],
    ],
    [...groups],
  );
}

function median(rows: readonly AttackResult[], read: (row: AttackResult) => number): number {
  const sorted = rows.map(read).toSorted((one, other) => one - other);
  const [low = Number.NaN, high = Number.NaN] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return (low + high) / 2;
}

export function cutTable(rows: readonly CutResult[]): string {
  return table(CUT_COLUMNS, rows);
}

export function memoryTable(rows: readonly MemoryResult[]): string {
  return table(MEMORY_COLUMNS, rows);
}

function table<T>(columns: Columns<T>, rows: readonly T[]): string {
  const head = [columns.map(([name]) => name), columns.map(() => '---')];
  const lines = [...head, ...rows.map((row) => columns.map(([, cell]) => cell(row)))];
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function whole(value: number): string {
  return Number.isNaN(value) ? '–' : value.toFixed(0);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}

function megabytes(bytes: number): string {
  return (bytes / 1024 ** 2).toFixed(0);
}

function counts(of: Readonly<Record<string, number>>): string {
  const text = Object.entries(of)
    .map(([what, count]) => `${String(count)} × ${what}`)
    .join(', ');
  return text === '' ? '–' : text;
}
