/** Paths: the prefixes that routes are written for, and the paths that requests carry. */

export type PathPrefix =
  | { readonly kind: 'prefix'; readonly prefix: string }
  | { readonly kind: 'invalid'; readonly reason: string };

const PATH_LENGTH_MAX = 1024;
/** The characters of RFC 3986 `pchar` and `/`. */
const PATH_CHARACTERS = /^[a-zA-Z0-9\-._~!$&'()*+,;=:@%/]*$/;
const DOT_SEGMENT = /\/(?:\.|%2e){1,2}(?:\/|$)/i;

/** Reads a route's prefix. `/x` and `/x/` both give `/x`, the root gives the empty string. */
export function parsePathPrefix(text: string): PathPrefix {
  if (!text.startsWith('/')) return { kind: 'invalid', reason: `path "${text}" does not start with /` };
  if (text.length > PATH_LENGTH_MAX)
    return { kind: 'invalid', reason: `path is longer than ${String(PATH_LENGTH_MAX)} characters` };
  if (!PATH_CHARACTERS.test(text)) return { kind: 'invalid', reason: `path "${text}" holds characters that a path cannot have` };
  const prefix = text.endsWith('/') ? text.slice(0, -1) : text;
  if (prefix.includes('//') || prefix.endsWith('/')) return { kind: 'invalid', reason: `path "${text}" has an empty segment` };
  if (DOT_SEGMENT.test(prefix)) return { kind: 'invalid', reason: `path "${text}" has a dot segment` };
  return { kind: 'prefix', prefix };
}

/** True where `path` is below `prefix` by whole segments. `prefix` comes from `parsePathPrefix`. */
export function hasPrefix(path: string, prefix: string): boolean {
  if (!path.startsWith(prefix)) return false;
  return path.length === prefix.length || path[prefix.length] === '/';
}

/**
 * The path to match a request target by: without query, dot segments resolved (RFC 3986 §5.2.4, also where dots are
 * percent-encoded). SECURITY: an endpoint resolves them too, so matching the raw path would let `/public/../admin` reach what a
 * longer prefix leads elsewhere.
 */
export function pathOf(target: string): string {
  const end = target.search(/[?#]/);
  return normalPath(end === -1 ? target : target.slice(0, end));
}

/** The same for a path that has no query. */
export function normalPath(path: string): string {
  // PERF: two searches for what a dot segment must have, which are a tenth of the regex.
  if (!path.includes('/.') && !path.includes('%')) return path;
  if (!DOT_SEGMENT.test(path)) return path;
  const kept: string[] = [];
  const segments = path.split('/').slice(1);
  for (const [index, segment] of segments.entries()) {
    const plain = segment.replaceAll(/%2e/gi, '.');
    const last = index === segments.length - 1;
    if (plain === '..') kept.pop();
    if (plain !== '.' && plain !== '..') kept.push(segment);
    else if (last) kept.push('');
  }
  return `/${kept.join('/')}`;
}
