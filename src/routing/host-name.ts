/** Host names: those that routes are written for, and those that requests carry. */

export type RouteHost =
  | { readonly kind: 'exact'; readonly name: string }
  | { readonly kind: 'wildcard'; readonly suffix: string }
  | { readonly kind: 'any' }
  | { readonly kind: 'invalid'; readonly reason: string };

/** RFC 1035 §2.3.4. */
const HOST_LENGTH_MAX = 253;
/** RFC 1123 §2.1: letters, digits, hyphens; no hyphen at either end. */
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
/** The port of an authority may be empty (RFC 3986 §3.2.3). */
const AUTHORITY = /^([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?$/i;
const PORT_MAX = 65_535;

/** Reads the host of a route: lower-case letter-digit-hyphen labels, at most one `*` and that as the whole first label. */
export function parseRouteHost(text: string): RouteHost {
  if (text === '*') return { kind: 'any' };
  const wildcard = text.startsWith('*.');
  const name = wildcard ? text.slice(2) : text;
  if (text.length > HOST_LENGTH_MAX)
    return { kind: 'invalid', reason: `host is longer than ${String(HOST_LENGTH_MAX)} characters` };
  for (const label of name.split('.')) {
    if (!LABEL.test(label)) {
      return {
        kind: 'invalid',
        reason: `host "${text}": "${label}" is not a label of lower-case letters, digits and inner hyphens`,
      };
    }
  }
  return wildcard ? { kind: 'wildcard', suffix: name } : { kind: 'exact', name };
}

/**
 * The host that a request's Host header (or SNI) names: lower case, without port and without the trailing dot of a fully
 * qualified name. Undefined where it is not a host at all; IPv6 literals keep their brackets.
 */
export function normaliseRequestHost(header: string): string | undefined {
  const found = AUTHORITY.exec(header);
  const host = found?.[1];
  if (host === undefined || Number(found?.[2] ?? '0') > PORT_MAX) return undefined;
  const name = (host.endsWith('.') ? host.slice(0, -1) : host).toLowerCase();
  if (name === '' || name.length > HOST_LENGTH_MAX || name.startsWith('.') || name.includes('..')) return undefined;
  return name.endsWith('.') ? undefined : name;
}
