/** What a container's labels ask for beside itself: how many copies, and how much memory. Pure. */
import { parseSizeBytes } from '#units';

export interface ScaleWish {
  /** Copies, the original counted. */
  readonly min: number;
  readonly max: number;
  /** Requests in flight that one copy should have. */
  readonly requests: number;
}

export interface MemoryWish {
  readonly minBytes: number;
  readonly maxBytes: number;
}

export interface ScaleLabels {
  /** Undefined: the service is one container. */
  readonly copies: ScaleWish | undefined;
  /** Undefined: its limit stays as it is. */
  readonly memory: MemoryWish | undefined;
}

export type ScaleReading =
  | { readonly kind: 'labels'; readonly labels: ScaleLabels }
  | { readonly kind: 'invalid'; readonly why: string };

type Labels = Readonly<Record<string, string>>;

/** On a copy that the scaler made: the id of its original. Nobody else may set it, because what has it may be removed. */
export const SCALE_OF_LABEL = 'ecluse.scale.of';
/** The limit at creation, written down by the node: a raised limit comes back to it. */
export const MEMORY_MIN_LABEL = 'ecluse.scale.memory.min';
const MEMORY_MAX_LABEL = 'ecluse.scale.memory.max';
const KNOWN: ReadonlySet<string> = new Set([
  'ecluse.scale.max',
  'ecluse.scale.min',
  'ecluse.scale.requests',
  MEMORY_MAX_LABEL,
  MEMORY_MIN_LABEL,
  SCALE_OF_LABEL,
]);

/** More copies of one memory are rarely one service; the tenant's quota limits the sum. */
const COPIES_MAX = 20;
/** A program that serves more at a time is asked for more by a larger number of copies, not by one that waits. */
const REQUESTS_MAX = 10_000;
const REQUESTS_DEFAULT = 20;
/** Docker's own least for a container. */
const MEMORY_LEAST_BYTES = 6 * 1024 ** 2;

function invalid(label: string, why: string): ScaleReading {
  return { kind: 'invalid', why: `label ${label}: ${why}` };
}

function wholeOf(text: string, least: number, most: number): number | undefined {
  const value = /^\d{1,6}$/.test(text) ? Number(text) : Number.NaN;
  return value >= least && value <= most ? value : undefined;
}

function bytesOf(text: string): number | undefined {
  try {
    return Math.floor(parseSizeBytes(text));
  } catch {
    return undefined; // Said below, with the label's name.
  }
}

/** Reads the labels of a container with this memory limit. */
export function scaleLabelsOf(labels: Labels, memoryBytes: number): ScaleReading {
  const unknown = Object.keys(labels).find((label) => label.startsWith('ecluse.scale.') && !KNOWN.has(label));
  if (unknown !== undefined)
    return invalid(unknown, `there is no such label; the labels are ${[...KNOWN].slice(0, 4).join(', ')}`);
  const copies = copiesOf(labels);
  if (copies.kind === 'invalid') return copies;
  const memory = memoryOf(labels, memoryBytes);
  if (memory.kind === 'invalid') return memory;
  return { kind: 'labels', labels: { copies: copies.labels.copies, memory: memory.labels.memory } };
}

function copiesOf(labels: Labels): ScaleReading {
  const none: ScaleReading = { kind: 'labels', labels: { copies: undefined, memory: undefined } };
  const maxText = labels['ecluse.scale.max'];
  if (maxText === undefined) {
    const alone = ['ecluse.scale.min', 'ecluse.scale.requests'].find((label) => labels[label] !== undefined);
    return alone === undefined ? none : invalid(alone, 'it needs ecluse.scale.max beside it');
  }
  const max = wholeOf(maxText, 2, COPIES_MAX);
  if (max === undefined)
    return invalid('ecluse.scale.max', `"${maxText.slice(0, 40)}" is no number from 2 to ${String(COPIES_MAX)}`);
  const minText = labels['ecluse.scale.min'] ?? '1';
  const min = wholeOf(minText, 1, max);
  if (min === undefined)
    return invalid(
      'ecluse.scale.min',
      `"${minText.slice(0, 40)}" is no number from 1 to ${String(max)}, which is ecluse.scale.max`,
    );
  const requestsText = labels['ecluse.scale.requests'] ?? String(REQUESTS_DEFAULT);
  const requests = wholeOf(requestsText, 1, REQUESTS_MAX);
  if (requests === undefined)
    return invalid('ecluse.scale.requests', `"${requestsText.slice(0, 40)}" is no number from 1 to ${String(REQUESTS_MAX)}`);
  return { kind: 'labels', labels: { copies: { min, max, requests }, memory: undefined } };
}

function memoryOf(labels: Labels, memoryBytes: number): ScaleReading {
  const maxText = labels[MEMORY_MAX_LABEL];
  if (maxText === undefined) return { kind: 'labels', labels: { copies: undefined, memory: undefined } };
  const maxBytes = bytesOf(maxText);
  if (maxBytes === undefined || maxBytes < MEMORY_LEAST_BYTES)
    return invalid(MEMORY_MAX_LABEL, `"${maxText.slice(0, 40)}" is no size of 6m or more, such as 1g`);
  const minBytes = wholeBytes(labels[MEMORY_MIN_LABEL]) ?? memoryBytes;
  if (maxBytes < minBytes)
    return invalid(MEMORY_MAX_LABEL, `it is below the container's own limit; set a smaller one with --memory`);
  return { kind: 'labels', labels: { copies: undefined, memory: { minBytes, maxBytes } } };
}

function wholeBytes(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}
