/**
 * What a proxy changes in heads: hop-by-hop fields go, forwarding fields are ours, everything else keeps its order and case.
 *
 * Source: RFC 9110 §7.6.1. In and out: raw header pairs in wire order, as Node gives and takes them. Pure.
 */
import { REQUEST_ID_LENGTH_MAX } from './limits.ts';

export interface ForwardingFacts {
  readonly clientAddress: string;
  readonly proto: 'http' | 'https';
  readonly host: string;
  readonly requestId: string;
  /** Name of the Écluse host that the endpoint runs on. */
  readonly hostName: string;
}

export type BodyFraming =
  | { readonly kind: 'none' }
  | { readonly kind: 'fixed'; readonly bytes: number }
  | { readonly kind: 'chunked' };

export interface RequestRewrite {
  readonly method: string;
  readonly framing: BodyFraming;
  readonly facts: ForwardingFacts;
  /** The protocol of an `Upgrade` that goes on to the endpoint. */
  readonly upgrade: string | undefined;
}

const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'transfer-encoding',
  'upgrade',
]);
/** SECURITY: a client may not nominate away what routing, framing or the endpoint's trust rest on. */
const NEVER_NOMINATED: ReadonlySet<string> = new Set(['host', 'content-length', 'authorization', 'cookie', 'expect', 'trailer']);
/** Trailers may not change how the message was framed, routed or authenticated (RFC 9110 §6.5.1). */
const NEVER_TRAILING: ReadonlySet<string> = new Set([
  'host',
  'content-length',
  'authorization',
  'cookie',
  'set-cookie',
  'trailer',
  'expect',
]);
/** Methods for which Node frames an absent body by itself: not at all. */
const BODYLESS_BY_DEFAULT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'DELETE', 'OPTIONS', 'TRACE', 'CONNECT']);
const REQUEST_ID = /^[A-Za-z0-9._~+/=-]+$/;

/** The head that goes to the endpoint. */
export function upstreamRequestHeaders(raw: readonly string[], rewrite: RequestRewrite): string[] {
  const nominated = nominatedBy(raw);
  const out: string[] = [];
  let trailersWelcome = false;
  for (const [name, value] of pairsOf(raw)) {
    const key = name.toLowerCase();
    if (key === 'te' && /(?:^|,)\s*trailers\s*(?:,|;|$)/i.test(value)) trailersWelcome = true;
    if (HOP_BY_HOP.has(key) || nominated.has(key) || isForwarding(key)) continue;
    if (key === 'trailer' && rewrite.framing.kind !== 'chunked') continue;
    out.push(name, value);
  }
  const { facts } = rewrite;
  out.push('X-Forwarded-For', facts.clientAddress, 'X-Forwarded-Proto', facts.proto, 'X-Forwarded-Host', facts.host);
  out.push('X-Request-Id', facts.requestId, 'X-Ecluse-Host', facts.hostName);
  if (rewrite.framing.kind === 'chunked') out.push('Transfer-Encoding', 'chunked');
  else if (rewrite.framing.kind === 'none' && !BODYLESS_BY_DEFAULT.has(rewrite.method)) out.push('Content-Length', '0');
  if (rewrite.upgrade !== undefined) out.push('Connection', 'Upgrade', 'Upgrade', rewrite.upgrade);
  else if (trailersWelcome) out.push('TE', 'trailers');
  return out;
}

/** The head that goes to the client, without any framing but Content-Length: the server side adds its own. */
export function downstreamResponseHeaders(
  raw: readonly string[],
  response: { readonly status: number; readonly trailers: boolean },
): string[] {
  const nominated = nominatedBy(raw);
  const out: string[] = [];
  for (const [name, value] of pairsOf(raw)) {
    const key = name.toLowerCase();
    if (HOP_BY_HOP.has(key) || nominated.has(key)) continue;
    if (key === 'trailer' && !response.trailers) continue;
    if (key === 'content-length' && (response.status === 204 || response.status < 200)) continue;
    out.push(name, value);
  }
  return out;
}

/** The trailers that may be passed on, in pairs. */
export function passedTrailers(raw: readonly string[]): [string, string][] {
  return [...pairsOf(raw)].filter(([name]) => {
    const key = name.toLowerCase();
    return !HOP_BY_HOP.has(key) && !NEVER_TRAILING.has(key) && !isForwarding(key);
  });
}

/** All values of a field. `name` is in lower case. */
export function valuesOf(raw: readonly string[], name: string): string[] {
  return [...pairsOf(raw)].filter(([key]) => key.toLowerCase() === name).map(([, value]) => value);
}

/** The client's request id where it is a harmless token, so that it can go into logs and heads. */
export function acceptedRequestId(raw: readonly string[]): string | undefined {
  const [id, ...more] = valuesOf(raw, 'x-request-id');
  if (id === undefined || more.length > 0 || id.length > REQUEST_ID_LENGTH_MAX) return undefined;
  return REQUEST_ID.test(id) ? id : undefined;
}

/** The trace id of a W3C `traceparent`. */
export function traceIdOf(raw: readonly string[]): string | undefined {
  const [header] = valuesOf(raw, 'traceparent');
  return header === undefined ? undefined : /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/.exec(header)?.[1];
}

/** Bytes that the fields of a head take on the wire in HTTP/1.1. */
export function headerBytes(raw: readonly string[]): number {
  let bytes = 2;
  for (const text of raw) bytes += text.length + 2;
  return bytes;
}

function* pairsOf(raw: readonly string[]): Generator<[string, string]> {
  for (let index = 0; index + 1 < raw.length; index += 2) yield [raw[index] ?? '', raw[index + 1] ?? ''];
}

function nominatedBy(raw: readonly string[]): ReadonlySet<string> {
  const names = new Set<string>();
  for (const value of valuesOf(raw, 'connection')) {
    for (const token of value.split(',')) {
      const name = token.trim().toLowerCase();
      if (name !== '' && !NEVER_NOMINATED.has(name)) names.add(name);
    }
  }
  return names;
}

/**
 * Fields that tell the endpoint where a request comes from. SECURITY: nobody is a trusted proxy, so the client's own are dropped;
 * an underscore counts as a hyphen, because CGI-like servers cannot tell them apart.
 */
function isForwarding(key: string): boolean {
  const name = key.replaceAll('_', '-');
  return (
    name === 'forwarded' ||
    name === 'x-real-ip' ||
    name === 'x-request-id' ||
    name.startsWith('x-forwarded-') ||
    name.startsWith('x-ecluse-')
  );
}
