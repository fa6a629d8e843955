/** One request at the tenant's Docker endpoint: parsed parts in, Docker-shaped answers out. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Tenant } from '#state/tenants.ts';
import { readWhole } from '#caas/byte-stream.ts';
import { dockerError } from './docker-error.ts';

/** What is implemented; older clients negotiate down to their own, newer ones to this. */
export const API_VERSION_MAX = '1.44';
export const API_VERSION_MIN = '1.24';
/** The largest JSON body: a create request with 500 environment entries is far below. */
const BODY_BYTES_MAX = 4 * 1024 * 1024;
/** Clients build a JSON body before they send it; one that trickles holds a connection. */
const BODY_LIMIT_MS = 10_000;

/** Ids are 64 characters, references 512; the rest is encoding. */
const PATH_CHARS_MAX = 4096;

export interface DockerRequest {
  readonly tenant: Tenant;
  readonly method: string;
  /** Decoded path parts after the version. */
  readonly parts: readonly string[];
  readonly query: URLSearchParams;
  readonly apiVersion: string;
  readonly incoming: IncomingMessage;
  readonly response: ServerResponse;
  /** Aborts when the client goes away. */
  readonly signal: AbortSignal;
}

/** A request that asked for the raw connection (`Upgrade: tcp`). */
export interface HijackRequest extends Omit<DockerRequest, 'response'> {
  readonly socket: Duplex;
  /** Bytes that arrived behind the request, its body not included: Node 26 gives that as `incoming`. */
  readonly head: Buffer;
}

export type ParsedPath =
  | { readonly kind: 'path'; readonly apiVersion: string; readonly parts: readonly string[]; readonly query: URLSearchParams }
  | { readonly kind: 'refused'; readonly status: 400 | 404; readonly message: string };

/** `1.41` as a number that orders: 1041. */
export function numberOf(version: string): number {
  const [major = '0', minor = '0'] = version.split('.');
  return Number(major) * 1000 + Number(minor);
}

/** Decodes the parts of a path; undefined for one that another parser could read differently, an error text for broken encoding. */
function decodeParts(path: string): readonly string[] | 'malformed' | undefined {
  if (!path.startsWith('/') || path.includes('//') || path.length > PATH_CHARS_MAX) return undefined;
  const parts: string[] = [];
  for (const raw of path.slice(1).split('/')) {
    try {
      parts.push(decodeURIComponent(raw));
    } catch {
      return 'malformed';
    }
  }
  return parts.some((part) => part === '.' || part === '..' || part.includes('\0')) ? undefined : parts;
}

/** Docker's words for a version that is not served, or undefined. */
function versionRefusal(version: string): string | undefined {
  if (numberOf(version) > numberOf(API_VERSION_MAX)) {
    return `client version ${version} is too new. Maximum supported API version is ${API_VERSION_MAX}`;
  }
  return numberOf(version) < numberOf(API_VERSION_MIN)
    ? `client version ${version} is too old. Minimum supported API version is ${API_VERSION_MIN}, please upgrade your client to a newer version`
    : undefined;
}

/** Splits and decodes a request target. Pure. */
export function parsePath(target: string): ParsedPath {
  const [path, search] = splitOnce(target, '?');
  const decoded = decodeParts(path);
  if (decoded === undefined) return { kind: 'refused', status: 404, message: 'page not found' };
  if (decoded === 'malformed') return { kind: 'refused', status: 400, message: 'malformed percent-encoding in the path' };
  const version = /^v(\d+\.\d+)$/.exec(decoded[0] ?? '')?.[1];
  const refusal = version === undefined ? undefined : versionRefusal(version);
  if (refusal !== undefined) return { kind: 'refused', status: 400, message: refusal };
  const parts = version === undefined ? decoded : decoded.slice(1);
  return { kind: 'path', apiVersion: version ?? API_VERSION_MAX, parts, query: new URLSearchParams(search) };
}

function splitOnce(text: string, separator: string): readonly [string, string] {
  const at = text.indexOf(separator);
  return at === -1 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

/** Docker's reading of a boolean in a query (moby `httputils.BoolValue`). */
export function booleanOf(query: URLSearchParams, name: string, absent = false): boolean {
  const value = query.get(name);
  if (value === null) return absent;
  return !['', '0', 'no', 'false', 'none'].includes(value.trim().toLowerCase());
}

/** An integer of a query, or undefined where it is absent. */
export function integerOfQuery(query: URLSearchParams, name: string): number | undefined {
  const value = query.get(name);
  if (value === null || value === '') return undefined;
  const number = Number(value);
  if (!/^-?\d{1,15}$/.test(value)) throw dockerError(400, `strconv.Atoi: parsing "${value.slice(0, 40)}": invalid syntax`);
  return number;
}

/** `filters={"name":["x"]}` or the older map form `{"name":{"x":true}}`. */
export function filtersOf(query: URLSearchParams): ReadonlyMap<string, readonly string[]> {
  const text = query.get('filters');
  if (text === null || text === '') return new Map();
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw dockerError(400, 'invalid filter');
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) throw dockerError(400, 'invalid filter');
  return new Map(
    Object.entries(parsed).map(([key, value]: readonly [string, unknown]) => {
      if (Array.isArray(value)) return [key, value.map(String)];
      return [key, typeof value === 'object' && value !== null ? Object.keys(value) : [String(value)]];
    }),
  );
}

/** Refuses a body of another type, as moby does where it decodes JSON (`httputils.CheckForJSON`). */
export function requireJson(incoming: IncomingMessage): void {
  const type = incoming.headers['content-type'] ?? '';
  if (type === '' && (incoming.headers['content-length'] ?? '0') === '0') return;
  if (/^\s*application\/json\s*(?:;.*)?$/i.test(type)) return;
  throw dockerError(400, `Content-Type specified (${type.slice(0, 100)}) must be 'application/json'`);
}

/** Reads a JSON body, bounded in size and time. An empty one is undefined. */
export async function readJson(incoming: IncomingMessage): Promise<unknown> {
  if (Number(incoming.headers['content-length'] ?? 0) > BODY_BYTES_MAX) throw bodyTooLarge();
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(dockerError(408, `the request body did not arrive within ${String(BODY_LIMIT_MS / 1000)} s`));
  }, BODY_LIMIT_MS);
  const body = await Promise.race([readWhole(incoming, BODY_BYTES_MAX), late]).finally(() => {
    clearTimeout(timer);
  });
  if (body === undefined) throw bodyTooLarge();
  return parseBody(body.toString('utf8'));
}

function bodyTooLarge(): Error {
  return dockerError(413, `the request body is larger than ${String(BODY_BYTES_MAX)} bytes`);
}

function parseBody(text: string): unknown {
  if (text.trim() === '') return undefined;
  try {
    const parsed: unknown = JSON.parse(text);
    return parsed;
  } catch (error) {
    throw dockerError(400, `invalid JSON: ${error instanceof Error ? error.message.slice(0, 200) : 'unreadable'}`);
  }
}

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const text = `${JSON.stringify(value)}\n`;
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(text)) });
  response.end(text);
}

export function sendEmpty(response: ServerResponse, status: number): void {
  response.writeHead(status);
  response.end();
}
