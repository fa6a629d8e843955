/** Paths as actions of routes change them. Pure. */
import { hasPrefix, normalPath } from './path-prefix.ts';

/**
 * The path (without its query) that goes on where a prefix of whole segments is stripped; the path itself where it is not below it. Dot segments are
 * resolved where the prefix shows only then, as it was matched (`normalPath`).
 */
export function sentPath(path: string, prefix: string | undefined): string {
  if (prefix === undefined) return path;
  if (hasPrefix(path, prefix)) return path.slice(prefix.length) || '/';
  const normal = normalPath(path);
  return normal !== path && hasPrefix(normal, prefix) ? normal.slice(prefix.length) || '/' : path;
}

/** What a redirect can say of the request that it answers. */
export interface RedirectFacts {
  /** Without its port, as routes know it. */
  readonly host: string;
  /** Without its query, a prefix stripped. */
  readonly path: string;
  /** With its question mark; empty: none. */
  readonly query: string;
}

const PLACEHOLDER = /\{([a-z]*)\}/g;
const NAMES: ReadonlySet<string> = new Set(['host', 'path', 'query', 'uri']);
/** RFC 3986 §2: what a URL can hold, with the braces of placeholders. */
const URL_CHARACTERS = /^[\w\-.~:/?#[\]@!$&'()*+,;=%{}]+$/;
/** SECURITY: what a client writes must not become a part of the name of the server, but for `{host}`, which is one. */
const ABSOLUTE =
  /^https?:\/\/(?:(?:[\w.-]*\.)?\{host\}|[\w.-]+|\[[\dA-Fa-f:.]+\])(?::\d{1,5})?(?:[/?#]|\{(?:path|uri|query)\}|$)/;
const LENGTH_MAX = 2048;

/** What is wrong with the target of a redirect. */
export function redirectFault(to: string): string | undefined {
  if (to.length > LENGTH_MAX) return `it is longer than ${String(LENGTH_MAX)} characters`;
  if (!URL_CHARACTERS.test(to)) return 'it holds characters that a URL cannot have';
  for (const [whole, name = ''] of to.matchAll(PLACEHOLDER))
    if (!NAMES.has(name)) return `${whole} is not known; use {host}, {path}, {query} or {uri}`;
  const sample = to.replaceAll(PLACEHOLDER, (_whole, name: string) => SAMPLE[name] ?? '');
  if (/[{}]/.test(sample)) return 'a brace is open';
  if (/^https?:/.test(to)) return ABSOLUTE.test(to) && URL.canParse(sample) ? undefined : 'it is no URL with a host';
  if (!to.startsWith('/')) return 'write https://HOST/PATH or /PATH';
  // SECURITY: a path that begins with two slashes is a host to a browser.
  return /^\/(?:\/|\{path\}|\{uri\})/.test(to) ? 'two slashes at the beginning would name another host' : undefined;
}

const SAMPLE: Readonly<Record<string, string>> = { host: 'a.test', path: '/p', query: '?q', uri: '/p?q' };

/** Where a redirect sends a request. `to` is one that `redirectFault` let through. */
export function locationOf(to: string, { host, path, query }: RedirectFacts): string {
  return to.replaceAll(PLACEHOLDER, (_whole, name: string) => {
    switch (name) {
      case 'host':
        return host;
      case 'path':
        return path;
      case 'query':
        return query;
      default:
        return path + query;
    }
  });
}
