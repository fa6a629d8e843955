/** The head of a request, read and judged: what the phases decide by, whatever protocol it came over. */
import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import { normaliseRequestHost } from '#routing/host-name.ts';
import type { ExchangeError } from './error-response.ts';
import { requestFraming } from './framing.ts';
import { headerBytes, valuesOf } from './headers.ts';
import type { BodyFraming } from './headers.ts';
import { HEADER_COUNT_MAX } from './limits.ts';

export interface TlsFacts {
  readonly version: string | undefined;
  readonly sni: string | undefined;
  readonly alpn: string | undefined;
}

export interface RequestHead {
  readonly method: string;
  /** In origin form (or `*`): what goes to the endpoint. */
  readonly target: string;
  /** The Host field as the client sent it. */
  readonly authority: string;
  readonly httpVersion: string;
  readonly rawHeaders: readonly string[];
  readonly framing: BodyFraming;
  /** The protocol that the client wants to change to, where that goes on to the endpoint. */
  readonly upgrade: string | undefined;
  readonly headBytes: number;
  readonly clientAddress: string;
  readonly proto: 'http' | 'https';
  readonly tls: TlsFacts | undefined;
  /** Why the request is not forwarded at all. */
  readonly refusal: ExchangeError | undefined;
}

/** Reads the head of `request`. Never throws: what is wrong with it is its `refusal`. */
export function readHead(request: IncomingMessage): RequestHead {
  const { rawHeaders, httpVersion } = request;
  const method = request.method ?? '';
  const rawTarget = request.url ?? '';
  const hosts = valuesOf(rawHeaders, 'host');
  const authority = hosts[0] ?? '';
  const target = originForm(rawTarget, method, authority);
  const framing = requestFraming(rawHeaders, httpVersion);
  const socket = request.socket;
  const tls = socket instanceof TLSSocket ? tlsFacts(socket) : undefined;
  return {
    method,
    target: target ?? rawTarget,
    authority,
    httpVersion,
    rawHeaders,
    framing: framing.kind === 'refused' ? { kind: 'none' } : framing,
    upgrade: wantedUpgrade(request),
    headBytes: method.length + rawTarget.length + 12 + headerBytes(rawHeaders),
    clientAddress: clientAddress(socket.remoteAddress),
    proto: tls === undefined ? 'http' : 'https',
    tls,
    refusal: refusalOf({
      rawHeaders,
      method,
      malformed: hosts.length !== 1 || target === undefined || framing.kind === 'refused',
    }),
  };
}

/**
 * The protocol of an `Upgrade` that is forwarded: on a GET without a body. `h2c` never is, because HTTP/2 with an endpoint is ours to
 * speak, and tunnelling it would bypass routing (known as h2c smuggling).
 */
export function wantedUpgrade(request: IncomingMessage): string | undefined {
  const [protocol, ...more] = valuesOf(request.rawHeaders, 'upgrade');
  if (protocol === undefined || more.length > 0 || request.method !== 'GET' || request.httpVersion !== '1.1') return undefined;
  if (requestFraming(request.rawHeaders, request.httpVersion).kind !== 'none') return undefined;
  if (!/^[a-z0-9./_-]+$/i.test(protocol) || protocol.toLowerCase().startsWith('h2')) return undefined;
  const nominated = valuesOf(request.rawHeaders, 'connection').some((value) => /(?:^|,)\s*upgrade\s*(?:,|$)/i.test(value));
  return nominated ? protocol : undefined;
}

function refusalOf(judged: {
  readonly rawHeaders: readonly string[];
  readonly method: string;
  readonly malformed: boolean;
}): ExchangeError | undefined {
  if (judged.rawHeaders.length > 2 * HEADER_COUNT_MAX) return 'head-too-large';
  if (judged.method === 'TRACE' || judged.method === 'CONNECT') return 'method-refused';
  return judged.malformed ? 'bad-request' : undefined;
}

/** The target in origin form; undefined where it is none or its authority disagrees with Host (RFC 9112 §3.2.2). */
function originForm(target: string, method: string, authority: string): string | undefined {
  if (target.startsWith('/')) return target.includes('#') ? undefined : target;
  if (target === '*') return method === 'OPTIONS' ? target : undefined;
  const absolute = /^https?:\/\/([^/?#@]+)([/?][^#]*)?$/i.exec(target);
  if (absolute?.[1] === undefined) return undefined;
  const named = normaliseRequestHost(absolute[1]);
  if (named === undefined || named !== normaliseRequestHost(authority)) return undefined;
  const rest = absolute[2] ?? '/';
  return rest.startsWith('/') ? rest : `/${rest}`;
}

function tlsFacts(socket: TLSSocket): TlsFacts {
  return {
    version: socket.getProtocol() ?? undefined,
    sni: typeof socket.servername === 'string' ? socket.servername : undefined,
    alpn: typeof socket.alpnProtocol === 'string' ? socket.alpnProtocol : undefined,
  };
}

/** IPv4 clients of a dual-stack socket show as `::ffff:1.2.3.4`. */
function clientAddress(address: string | undefined): string {
  return address?.startsWith('::ffff:') === true ? address.slice(7) : (address ?? '');
}
