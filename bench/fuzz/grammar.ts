/**
 * Messages by the grammar of RFC 9112 and RFC 9110: valid, or nearly so, because what is valid in its parts need not be as a whole.
 *
 * Values are chosen where readers are known to differ: lists with empty elements, white space around values, names in other case, both framings.
 */
import type { HeadKind } from '#proxy/http1/head-view.ts';
import { PLAIN } from './input.ts';
import type { Context, Input } from './input.ts';
import type { Random } from './random.ts';

const METHODS = [
  'GET',
  'GET',
  'GET',
  'POST',
  'POST',
  'PUT',
  'HEAD',
  'OPTIONS',
  'DELETE',
  'PATCH',
  'PROPFIND',
  'M-SEARCH',
  'QUERY',
  'X-OWN',
  'TRACE',
] as const;
const HOSTS = [
  'a.test',
  'a.test',
  'a.test',
  'A.Test',
  'a.test.',
  'a.test:80',
  'a.test:',
  '127.0.0.1:8080',
  '[2001:db8::1]',
  '[::1]:81',
  'a_b.test',
  'a-b',
] as const;
const PATHS = [
  '/',
  '/',
  '/p?q=1',
  '/a/b/../c',
  '//x',
  '/%00%zz',
  '/a|b{c}',
  '/?',
  '/a;b=c',
  '/"<>\\^`',
  '/*',
  "/:@!$&'()+,=~",
  '/http://b.test/',
] as const;
const SPACES = [' ', ' ', ' ', '', '  ', '\t', ' \t '] as const;
const NAMES = [
  'X-A',
  'x-b',
  'Accept',
  'Cookie',
  'Set-Cookie',
  'User-Agent',
  'Via',
  'Trailer',
  'TE',
  'Keep-Alive',
  'Proxy-Connection',
  'Proxy-Authorization',
  'Upgrade',
  'HTTP2-Settings',
  'Close',
  'X-Forwarded-For',
  'X-Forwarded-Proto',
  'X-Forwarded-Host',
  'X-Forwarded-Port',
  'x_forwarded_for',
  'Forwarded',
  'X-Real-IP',
  'X-Request-Id',
  'X-Ecluse-Host',
  'Client-Cert',
  'client_cert_chain',
  'Content_Length',
  'Transfer_Encoding',
  'Authorization',
  'Date',
  'Content-Type',
  'traceparent',
  "!#$%&'*+-.^_`|~09aZ",
  'X',
] as const;
const VALUES = [
  '',
  '1',
  'a',
  'a, b',
  'trailers',
  'trailers, gzip;q=0.5',
  'timeout=5',
  'keep-alive',
  'close',
  'websocket',
  'h2c',
  'chunked',
  'a\tb',
  '"q\\" q"',
  'caf\xe9 \xff',
  'x;y=z',
  ':',
  ', ,',
  'Content-Length',
  '203.0.113.9',
  'for=192.0.2.1;proto=http',
  '  inner  spaces  ',
] as const;
const OPTIONS = [
  'close',
  'keep-alive',
  'Keep-Alive',
  'CLOSE',
  'Upgrade',
  'TE',
  'X-A',
  'x-b',
  'Accept',
  'Host',
  'Content-Length',
  'Content_Length',
  'Transfer-Encoding',
  'transfer_encoding',
  'Cookie',
  'Date',
  'Via',
  'X-Forwarded-For',
  'Trailer',
  '',
  ' ',
  'closed',
  'x',
] as const;
const REASONS = ['OK', 'OK', '', ' two  spaces ', 'caf\xe9', '\t', 'Not Found', '200'] as const;
const STATUSES = [200, 200, 200, 201, 204, 206, 205, 301, 304, 404, 426, 500, 599, 100, 103, 102, 101, 199] as const;
const CODINGS = ['chunked', 'chunked', 'chunked', 'Chunked', 'CHUNKED', 'gzip, chunked', 'chunked, chunked', 'identity'] as const;
const EXTENSIONS = ['', '', '', '', ';a', ';a=b', ';a="b c"', ';a="\\"";b', ';a=b;c="\t\xe9"', ";!#$%&'*+-.^_`|~=1"] as const;
const BODY = 'GET /smuggled HTTP/1.1\r\nHost: b.test\r\n\r\n0\r\n\r\n\x00\x01\xfe\xff{"a":1}';

export function generate(random: Random): Input {
  const kind = random.once(3) ? 'response' : 'request';
  const context = kind === 'request' ? requestContext(random) : responseContext(random);
  const make = kind === 'request' ? (): string => request(random, context) : (): string => response(random);
  return { kind, context, text: random.many([1, 4], make).join('') };
}

export function requestContext(random: Random): Context {
  return { ...PLAIN, secure: random.once(8), trusted: random.once(4) };
}

export function responseContext(random: Random): Context {
  return {
    ...PLAIN,
    method: random.pick(['GET', 'GET', 'GET', 'GET', 'HEAD', 'POST', 'CONNECT']),
    upgrade: random.once(4),
    clientMinor: random.once(4) ? 0 : 1,
    clientPersistent: !random.once(4),
  };
}

function request(random: Random, context: Context): string {
  const method = random.once(40) ? 'CONNECT' : random.pick(METHODS);
  const host = random.pick(HOSTS);
  const version = random.once(8) ? 'HTTP/1.0' : 'HTTP/1.1';
  const framed = framing(random, method === 'GET' || method === 'HEAD' ? 4 : 1);
  const lines = random.many([0, 4], () => anyField(random));
  if (!random.once(30)) lines.push(field(random, 'Host', host));
  if (random.once(16)) lines.push(field(random, 'Expect', random.pick(['100-continue', '100-Continue', 'x'])));
  if (random.once(20)) lines.push('Connection: Upgrade\r\n', `Upgrade: ${random.pick(['websocket', 'h2c', 'a/1', 'b, c'])}\r\n`);
  const empty = random.once(20) ? '\r\n' : '';
  const line = `${method} ${target(random, { method, host, secure: context.secure })} ${version}\r\n`;
  return `${empty}${line}${shuffled(random, [...lines, ...framed.lines]).join('')}\r\n${framed.body}`;
}

function target(random: Random, known: { method: string; host: string; secure: boolean }): string {
  const { method, host } = known;
  if (method === 'CONNECT') return host.includes(':') && !host.endsWith(':') ? host : `${host.replace(/:$/, '')}:443`;
  if (method === 'OPTIONS' && random.once(2)) return '*';
  if (!random.once(6)) return random.pick(PATHS);
  const scheme = known.secure ? random.pick(['https', 'https', 'HTTPS']) : random.pick(['http', 'http', 'HTTP', 'https']);
  return `${scheme}://${host}${random.pick(['', '?q', '/', '/p?q', '//', '/a:b@c'])}`;
}

function response(random: Random): string {
  const status = random.pick(STATUSES);
  const bodiless = status < 200 || status === 204 || status === 304;
  const framed = framing(random, bodiless ? 8 : 1);
  const lines = random.many([0, 4], () => anyField(random));
  if (status === 101 || status === 426 || random.once(20))
    lines.push(field(random, 'Upgrade', random.pick(['websocket', 'h2c'])));
  if (status === 101 && !random.once(8)) lines.push('Connection: Upgrade\r\n');
  const version = random.once(10) ? 'HTTP/1.0' : 'HTTP/1.1';
  const reason = random.once(20) ? '' : ` ${random.pick(REASONS)}`;
  const body = status === 304 && random.once(2) ? '' : framed.body;
  return `${version} ${status}${reason}\r\n${shuffled(random, [...lines, ...framed.lines]).join('')}\r\n${body}`;
}

/** Lines that say how long the body is, and a body of that length. None in all but one of `rarely` cases. */
function framing(random: Random, rarely: number): { readonly lines: readonly string[]; readonly body: string } {
  if (!random.once(rarely) || random.once(4)) return { lines: [], body: '' };
  const body = octets(random);
  const length = field(random, 'Content-Length', `${random.once(10) ? '00' : ''}${body.length}`);
  if (random.once(2)) return { lines: random.once(40) ? [length, length] : [length], body };
  const coding = field(random, 'Transfer-Encoding', random.pick(CODINGS));
  return { lines: random.once(40) ? [coding, length] : [coding], body: chunks(random) };
}

function octets(random: Random): string {
  const start = random.below(BODY.length);
  const text = BODY.slice(start, start + random.below(BODY.length - start + 1));
  return random.once(100) ? text + 'x'.repeat(random.below(20_000)) : text;
}

function chunks(random: Random): string {
  const parts = random.many([0, 3], () => {
    const payload = octets(random) || 'x';
    const size = payload.length.toString(16);
    return `${random.once(8) ? '0' : ''}${random.once(2) ? size.toUpperCase() : size}${random.pick(EXTENSIONS)}\r\n${payload}\r\n`;
  });
  const trailers = random.once(3) ? random.many([1, 3], () => field(random, random.pick(NAMES), random.pick(VALUES))) : [];
  return `${parts.join('')}${random.once(8) ? '00' : '0'}${random.pick(EXTENSIONS)}\r\n${trailers.join('')}\r\n`;
}

function anyField(random: Random): string {
  if (random.once(400)) return field(random, 'X-Long', 'v'.repeat(random.below(17 * 1024)));
  if (random.once(400)) return 'X: 1\r\n'.repeat(random.below(130));
  if (random.once(5))
    return field(random, 'Connection', random.many([0, 3], () => random.pick(OPTIONS)).join(random.pick([',', ', ', ' ,\t'])));
  return field(random, random.pick(NAMES), random.pick(VALUES));
}

function field(random: Random, name: string, value: string): string {
  const spelled = random.once(8) ? name.toLowerCase() : name;
  return `${random.once(16) ? spelled.toUpperCase() : spelled}:${random.pick(SPACES)}${value}${random.once(6) ? random.pick(SPACES) : ''}\r\n`;
}

function shuffled(random: Random, lines: readonly string[]): string[] {
  const rest = [...lines];
  const out: string[] = [];
  while (rest.length > 0) out.push(...rest.splice(random.below(rest.length), 1));
  return out;
}

/** What can come of a mutation, for `mutate`. */
export function fields(random: Random, kind: HeadKind): string {
  return random.once(4)
    ? framing(random, 1).lines.join('')
    : kind === 'request' || random.once(2)
      ? anyField(random)
      : 'Connection: close\r\n';
}
