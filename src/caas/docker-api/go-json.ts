/**
 * Reading JSON the way Go's decoder does, without its traps.
 *
 * Go matches keys case-insensitively, Unicode folding included (`ſ` = s, `K` = k), and the last duplicate wins. A filter that reads keys
 * literally can be walked around with `hostconfig`. Here every key is folded to its canonical spelling first; two keys that fold to
 * the same one are refused, because only an attacker writes that; unknown keys are refused unless their value says "nothing".
 */

export type Fields = Readonly<Record<string, unknown>>;

export type FoldResult =
  | { readonly kind: 'folded'; readonly fields: Fields }
  | { readonly kind: 'refused'; readonly reason: string };

/** Go's `foldName`: simple case folding, as far as it can meet an ASCII letter. */
export function foldKey(key: string): string {
  return key.toLowerCase().replaceAll('\u017F', 's').replaceAll('\u212A', 'k');
}

/**
 * True for values that mean "not set": what clients send for every field they do not use. A list or a map with anything in it is set:
 * `Volumes: {"/data": {}}` and `PortBindings: {"80/tcp": [{"HostPort": ""}]}` are requests.
 */
export function isZero(value: unknown): boolean {
  if (value === null || value === undefined || value === '' || value === 0 || value === false) return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}

function pathOf(place: string, key: string): string {
  return (place === '' ? key : `${place}.${key}`).slice(0, 120);
}

/**
 * Folds the keys of one object to the spelling of `known`. Keys that are not known are dropped when zero, else refused with the reason that
 * `reasons` has for them.
 */
export function foldFields(
  raw: unknown,
  place: string,
  known: readonly string[],
  reasons: Readonly<Record<string, string>> = {},
): FoldResult {
  if (raw === null || raw === undefined) return { kind: 'folded', fields: {} };
  if (typeof raw !== 'object' || Array.isArray(raw))
    return { kind: 'refused', reason: `${place || 'the body'} must be an object` };
  const canonical = new Map(known.map((key) => [foldKey(key), key]));
  const refusals = new Map(Object.entries(reasons).map(([key, reason]) => [foldKey(key), { key, reason }]));
  const seen = new Set<string>();
  const fields = new Map<string, unknown>();
  for (const [key, value] of Object.entries(raw)) {
    const folded = foldKey(key);
    if (seen.has(folded)) return { kind: 'refused', reason: `${pathOf(place, key)} is given twice in different spellings` };
    seen.add(folded);
    const name = canonical.get(folded);
    // Go leaves a field as it is where it reads null.
    if (name !== undefined) {
      if (value !== null) fields.set(name, value);
    } else if (!isZero(value)) {
      const refusal = refusals.get(folded);
      const why = refusal === undefined ? '' : `: ${refusal.reason}`;
      return { kind: 'refused', reason: `${pathOf(place, refusal?.key ?? key)} is not supported${why}` };
    }
  }
  return { kind: 'folded', fields: Object.fromEntries(fields) };
}
