/** `docker images --filter`, evaluated on what the tenant sees. Pure. */
import type { EngineImage } from '#caas/engine-answers.ts';
import { dockerError } from './docker-error.ts';

type Filters = ReadonlyMap<string, readonly string[]>;

/** Docker has more; what is not evaluated is refused, not ignored. */
const KEYS = new Set(['reference', 'dangling', 'label']);

/** Go's `path.Match` with `*` and `?` within one path segment, without its backtracking over the whole. */
function matchesSegment(pattern: string, text: string): boolean {
  let [at, from, star, retry] = [0, 0, -1, 0];
  while (at < text.length) {
    if (pattern[from] === '*') {
      star = from;
      retry = at;
      from += 1;
    } else if (from < pattern.length && (pattern[from] === '?' || pattern[from] === text[at])) {
      at += 1;
      from += 1;
    } else if (star !== -1) {
      retry += 1;
      at = retry;
      from = star + 1;
    } else return false;
  }
  return /^\**$/.test(pattern.slice(from));
}

function matchesPath(pattern: string, text: string): boolean {
  const [patterns, texts] = [pattern.split('/'), text.split('/')];
  return patterns.length === texts.length && patterns.every((part, index) => matchesSegment(part, texts[index] ?? ''));
}

/** distribution/reference `FamiliarMatch`: against the short name with its tag, and without. */
function matchesReference(pattern: string, familiar: string): boolean {
  return matchesPath(pattern, familiar) || matchesPath(pattern, familiar.slice(0, familiar.lastIndexOf(':')));
}

/** The names of an image to list under the filters; undefined: it is not listed. `names` are short ones with their tags. */
export function namesToList(
  filters: Filters,
  names: readonly string[],
  image: EngineImage | undefined,
): readonly string[] | undefined {
  for (const key of filters.keys()) if (!KEYS.has(key)) throw dockerError(400, `Invalid filter '${key.slice(0, 60)}'`);
  const dangling = filters.get('dangling')?.[0];
  if (dangling !== undefined && /^(?:1|true)$/i.test(dangling) !== (names.length === 0)) return undefined;
  const labels = image?.Config?.Labels ?? {};
  const hasLabel = (wanted: string): boolean => {
    const at = wanted.indexOf('=');
    const key = at === -1 ? wanted : wanted.slice(0, at);
    return Object.hasOwn(labels, key) && (at === -1 || labels[key] === wanted.slice(at + 1));
  };
  if (!(filters.get('label') ?? []).every(hasLabel)) return undefined;
  const references = filters.get('reference');
  if (references === undefined) return names;
  const matching = names.filter((name) => references.some((pattern) => matchesReference(pattern, name)));
  return matching.length === 0 ? undefined : matching;
}
