/** `docker images --filter` and that of its prune, evaluated on what the tenant sees, in moby's words (`daemon/images/images.go`). Pure. */
import { dockerError } from './docker-error.ts';
import { matchesLabels, untilMsOf } from './label-filters.ts';

type Filters = ReadonlyMap<string, readonly string[]>;

const LIST_KEYS = new Set(['dangling', 'label', 'before', 'since', 'reference', 'until']);
const PRUNE_KEYS = new Set(['dangling', 'label', 'label!', 'until']);
/** Each is tried on every name, which takes the square of the name's length at most. */
const PATTERNS_MAX = 50;
const PATTERN_CHARS_MAX = 8192;

/** One image as filters look at it. Names are short. */
export interface ImageCandidate {
  readonly tags: readonly string[];
  readonly digests: readonly string[];
  readonly createdMs: number;
  readonly labels: Readonly<Record<string, string>>;
}

export interface ImageNames {
  readonly tags: readonly string[];
  readonly digests: readonly string[];
}

type Matcher = (char: string) => boolean;
/** One step of a pattern; `star`: any number of characters. */
type Step = Matcher | 'star';

/** Go's `path.ErrBadPattern`. */
function badPattern(): Error {
  return dockerError(400, 'syntax error in pattern');
}

/** The class of characters that begins at `at` (behind the bracket), and where it ends. */
function classAt(pattern: string, at: number): readonly [Matcher, number] {
  const isNegated = pattern[at] === '^';
  const ranges: (readonly [string, string])[] = [];
  let next = isNegated ? at + 1 : at;
  const take = (): string => {
    if (pattern[next] === '\\') next += 1;
    const char = pattern[next];
    if (char === undefined || char === '-' || char === ']') throw badPattern();
    next += 1;
    return char;
  };
  while (pattern[next] !== ']' || ranges.length === 0) {
    const low = take();
    let high = low;
    if (pattern[next] === '-') {
      next += 1;
      high = take();
    }
    ranges.push([low, high]);
  }
  return [(char) => ranges.some(([low, high]) => low <= char && char <= high) !== isNegated, next + 1];
}

/** Go's `path.Match`: `*` and `?` stop at slashes. */
function compilePath(pattern: string): readonly Step[] {
  const steps: Step[] = [];
  for (let at = 0; at < pattern.length;) {
    const char = pattern[at] ?? '';
    at += 1;
    if (char === '*') steps.push('star');
    else if (char === '?') steps.push((given) => given !== '/');
    else if (char === '[') {
      const [matcher, end] = classAt(pattern, at);
      steps.push(matcher);
      at = end;
    } else {
      const literal = char === '\\' ? pattern[at] : char;
      if (literal === undefined) throw badPattern();
      if (char === '\\') at += 1;
      steps.push((given) => given === literal);
    }
  }
  return steps;
}

/** As Go does it: a star takes as little as it can, and only the last one is tried with more. So no pattern takes longer than its length times the text's. */
function matchesSteps(steps: readonly Step[], text: string): boolean {
  let at = 0;
  let place = 0;
  let star: { readonly next: number; taken: number } | undefined;
  for (;;) {
    const step = steps[place];
    if (step === 'star') {
      place += 1;
      star = { next: place, taken: at };
    } else if (step === undefined ? at === text.length : at < text.length && step(text.charAt(at))) {
      if (step === undefined) return true;
      at += 1;
      place += 1;
    } else {
      if (star === undefined || star.taken >= text.length || text[star.taken] === '/') return false;
      star.taken += 1;
      at = star.taken;
      place = star.next;
    }
  }
}

/** The name without its tag or digest. */
function nameOnly(familiar: string): string {
  const at = familiar.indexOf('@');
  if (at !== -1) return familiar.slice(0, at);
  const colon = familiar.lastIndexOf(':');
  return colon > familiar.lastIndexOf('/') ? familiar.slice(0, colon) : familiar;
}

/** distribution/reference `FamiliarMatch`: against the short name with its tag or digest, and without. */
function referenceTest(patterns: readonly string[]): (familiar: string) => boolean {
  if (patterns.length > PATTERNS_MAX || patterns.some((pattern) => pattern.length > PATTERN_CHARS_MAX)) {
    throw dockerError(
      400,
      `ecluse: more than ${String(PATTERNS_MAX)} patterns of references, or one of more than ${String(PATTERN_CHARS_MAX)} characters`,
    );
  }
  const compiled = patterns.map(compilePath);
  return (familiar) => compiled.some((steps) => matchesSteps(steps, familiar) || matchesSteps(steps, nameOnly(familiar)));
}

function checkKeys(filters: Filters, known: ReadonlySet<string>): void {
  for (const key of filters.keys()) if (!known.has(key)) throw dockerError(400, `Invalid filter '${key.slice(0, 60)}'`);
}

/** What `dangling` says; undefined where it says nothing. */
function danglingOf(filters: Filters): boolean | undefined {
  const given = filters.get('dangling');
  if (given === undefined || given.length === 0) return undefined;
  if (given.length === 1 && /^(?:1|true)$/i.test(given[0] ?? '')) return true;
  if (given.length === 1 && /^(?:0|false)$/i.test(given[0] ?? '')) return false;
  throw dockerError(400, `Invalid filter 'dangling=[${given.join(' ').slice(0, 60)}]'`);
}

export interface ListFilter {
  /** The names of an image to list; undefined: it is not listed. */
  readonly namesOf: (candidate: ImageCandidate) => ImageNames | undefined;
}

/** `createdOf`: when the image that a reference means was made; throws Docker's error for one that does not exist. */
export async function listFilter(
  filters: Filters,
  nowMs: number,
  createdOf: (reference: string) => Promise<number>,
): Promise<ListFilter> {
  checkKeys(filters, LIST_KEYS);
  const dangling = danglingOf(filters);
  const labels = filters.get('label') ?? [];
  const patterns = filters.get('reference');
  const isWanted = patterns === undefined ? undefined : referenceTest(patterns);
  const until = untilMsOf(filters, nowMs) ?? Number.POSITIVE_INFINITY;
  const before = await Promise.all((filters.get('before') ?? []).map(createdOf));
  const since = await Promise.all((filters.get('since') ?? []).map(createdOf));
  const namesOf = (candidate: ImageCandidate): ImageNames | undefined => {
    const { tags, digests, createdMs } = candidate;
    if (createdMs >= Math.min(until, ...before) || createdMs <= Math.max(Number.NEGATIVE_INFINITY, ...since)) return undefined;
    if (!matchesLabels(candidate.labels, labels)) return undefined;
    const isBare = tags.length === 0 && digests.length === 0;
    if (dangling === true && tags.length > 0) return undefined;
    if (dangling === false && isBare) return undefined;
    if (isWanted === undefined) return { tags, digests };
    const names = { tags: tags.filter(isWanted), digests: digests.filter(isWanted) };
    return names.tags.length === 0 && names.digests.length === 0 ? undefined : names;
  };
  return { namesOf };
}

export interface PruneFilter {
  readonly danglingOnly: boolean;
  readonly isWanted: (candidate: Pick<ImageCandidate, 'createdMs' | 'labels'>) => boolean;
}

export function pruneFilter(filters: Filters, nowMs: number): PruneFilter {
  checkKeys(filters, PRUNE_KEYS);
  const until = untilMsOf(filters, nowMs) ?? Number.POSITIVE_INFINITY;
  const wanted = filters.get('label') ?? [];
  const unwanted = filters.get('label!') ?? [];
  return {
    danglingOnly: danglingOf(filters) ?? true,
    isWanted: ({ createdMs, labels }) =>
      createdMs <= until && matchesLabels(labels, wanted) && (unwanted.length === 0 || !matchesLabels(labels, unwanted)),
  };
}
