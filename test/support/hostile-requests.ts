/**
 * Requests that are to make two readers disagree, as plain data: what the client writes, what of it the endpoint may get, and how it is refused.
 *
 * Hosts: `a.test` and `b.test` lead to two endpoints, `nobody.test` to none. The harness renames the first two for each lane, in names of the same length.
 */
import { HOSTILE_CHUNKS } from './hostile-chunks.ts';
import { HOSTILE_REQUESTS as HOSTILE_HEADS } from './http1-cases.ts';
import { SMUGGLING_REQUESTS } from './hostile-smuggling.ts';
import { late, mixed, passed, refused, unfinished } from './hostile-case.ts';
import type { HostileRequest } from './hostile-case.ts';

const H = 'Host: a.test\r\n';
const get = (target: string, fields = ''): string => `GET ${target} HTTP/1.1\r\n${H}${fields}\r\n`;
const post = (fields: string, body: string): string => `POST /p HTTP/1.1\r\n${H}${fields}\r\n${body}`;
const chunked = (body: string): string => post('Transfer-Encoding: chunked\r\n', body);
const LAST = '0\r\n\r\n';

/** Nothing of them may reach an endpoint. */
const REFUSED: readonly HostileRequest[] = [
  ...HOSTILE_HEADS.map(([clause, bytes, status]) => refused(clause, bytes, status)),
  // Whole requests behind a refused one are not looked at.
  refused('§9.3 a good request behind a malformed one', `GET  / HTTP/1.1\r\n${H}\r\n${get('/smuggled')}`, 400),
  refused('§9.3 a good request behind one without Host', `GET / HTTP/1.1\r\n\r\n${get('/smuggled')}`, 400),
  refused('§9.3 a good request behind an unknown coding', post('Transfer-Encoding: gzip\r\n', get('/smuggled')), 501),
  refused('§9.3 a good request behind a length that is none', post('Content-Length: 0x10\r\n', get('/smuggled')), 400),
  // RFC 9110 §7.4: a target for the other scheme.
  refused('RFC 9110 §7.4 https target on a plain connection', get('https://a.test/'), 421),
  refused('RFC 9110 §7.4 https target in capitals', get('HTTPS://A.TEST/'), 421),
  refused('RFC 9110 §7.4 https target with its port', get('https://a.test:443/'), 421),
  refused('RFC 9110 §7.4 https target without path', get('https://a.test'), 421),
  refused('RFC 9110 §7.4 https target with a body', `POST https://a.test/ HTTP/1.1\r\n${H}Content-Length: 5\r\n\r\nhello`, 421),
  refused('RFC 9110 §7.4 https target in HTTP/1.0', `GET https://a.test/ HTTP/1.0\r\n${H}\r\n`, 421),
  { ...refused('RFC 9110 §7.4 http target on a TLS connection', get('http://a.test/s'), 421), secure: true },
  { ...refused('RFC 9110 §7.4 http target with its port on TLS', get('http://a.test:80/s'), 421), secure: true },
  { ...refused('RFC 9110 §7.4 http target in capitals on TLS', get('HTTP://A.TEST/s'), 421), secure: true },
  // RFC 9110 §9.3.6, §9.3.8: methods that are not served.
  refused('RFC 9110 §9.3.8 TRACE', `TRACE / HTTP/1.1\r\n${H}\r\n`, 405),
  refused('RFC 9110 §9.3.8 TRACE with Max-Forwards', `TRACE /t HTTP/1.1\r\n${H}Max-Forwards: 0\r\n\r\n`, 405),
  refused('RFC 9110 §9.3.8 TRACE with a body', `TRACE /t HTTP/1.1\r\n${H}Content-Length: 5\r\n\r\nhello`, 405),
  refused('RFC 9110 §9.3.8 TRACE in HTTP/1.0', `TRACE / HTTP/1.0\r\n${H}\r\n`, 405),
  refused('RFC 9110 §9.3.8 TRACE with cookies', `TRACE / HTTP/1.1\r\n${H}Cookie: secret\r\n\r\n`, 405),
  refused('RFC 9110 §9.3.6 CONNECT', `CONNECT a.test:80 HTTP/1.1\r\n${H}\r\n`, 405),
  refused('RFC 9110 §9.3.6 CONNECT with the port in Host', 'CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n', 405),
  refused('RFC 9110 §9.3.6 CONNECT with tunnel bytes at once', `CONNECT a.test:80 HTTP/1.1\r\n${H}\r\n${get('/smuggled')}`, 405),
  refused('RFC 9110 §9.3.6 CONNECT to an address', 'CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n', 405),
  // RFC 9110 §10.1.1: expectations.
  ...[
    ['another', '200-ok'],
    ['words before', 'y 100-continue'],
    ['words after', '100-continue y'],
    ['a list', '100-continue, 100-continue'],
    ['a parameter', '100-continue; x'],
    ['empty', ''],
    ['longer', '100-continued'],
    ['repeated', '100-continue\r\nExpect: 100-continue'],
  ].map(([what = '', value = '']) =>
    refused(`RFC 9110 §10.1.1 expectation ${what}`, post(`Content-Length: 5\r\nExpect: ${value}\r\n`, 'hello'), 417),
  ),
  // Hosts that lead nowhere.
  refused('RFC 9110 §7.2 no route for the host', 'GET /n HTTP/1.1\r\nHost: nobody.test\r\n\r\n', 404),
  refused(
    'RFC 9110 §7.2 no route, chunked',
    'POST /n HTTP/1.1\r\nHost: nobody.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    404,
  ),
  refused('RFC 9110 §7.2 no host in HTTP/1.0', 'GET / HTTP/1.0\r\n\r\n', 400, 404),
  refused('RFC 9110 §7.2 no route for a longer name', 'GET / HTTP/1.1\r\nHost: xa.test\r\n\r\n', 404),
  refused('RFC 9110 §7.2 no route for a name below', 'GET / HTTP/1.1\r\nHost: x.a.test\r\n\r\n', 404),
];

/** The fault is in the body: the endpoint may see the beginning of a request, and never its end. */
const LATE: readonly HostileRequest[] = [
  ...HOSTILE_CHUNKS.map(([clause, bytes, status]) => late(clause, chunked(bytes), status)),
  late('§7.1 a good request in place of chunks', chunked(get('/smuggled')), 400),
  late('§7.1 a body without chunks', chunked('hello\r\n'), 400),
];

/** The client ends in the middle. */
const UNFINISHED: readonly HostileRequest[] = [
  unfinished('§8 ends before the body', post('Content-Length: 5\r\n', '')),
  unfinished('§8 ends within the body', post('Content-Length: 5\r\n', 'hell')),
  unfinished('§8 ends within a body of 2^53 - 1', post('Content-Length: 9007199254740991\r\n', 'hello')),
  unfinished('§8 a request where a body is due', post('Content-Length: 1000\r\n', get('/smuggled'))),
  unfinished('§8 ends before the first chunk', chunked('')),
  unfinished('§8 ends within a size', chunked('5')),
  unfinished('§8 ends after a size', chunked('5\r\n')),
  unfinished('§8 ends within a chunk', chunked('5\r\nhel')),
  unfinished('§8 ends after the payload', chunked('5\r\nhello')),
  unfinished('§8 ends after a chunk', chunked('5\r\nhello\r\n')),
  unfinished('§8 ends after the last size', chunked('5\r\nhello\r\n0\r\n')),
  unfinished('§8 ends within the last CRLF', chunked('5\r\nhello\r\n0\r\n\r')),
  unfinished('§8 ends within a trailer', chunked('5\r\nhello\r\n0\r\nX: 1\r\n')),
  unfinished('§8 ends within a chunk of 2^52', chunked('10000000000000\r\nhello')),
  ...['G', 'GET / HTTP/1.1', `GET / HTTP/1.1\r\n${H}`, `GET / HTTP/1.1\r\n${H}\r`, '\r\n'].map((bytes): HostileRequest => ({
    ...unfinished(`§8 ends within the head, ${JSON.stringify(bytes)}`, bytes),
    late: false,
  })),
];

/** Odd, with one reading: it goes on as it is. */
const PASSED: readonly HostileRequest[] = [
  ...[
    '/a|b',
    '/%00',
    '/%0d%0aX:%201',
    '//',
    '//b.test/',
    '/..',
    '/../..',
    '/%2e%2e/',
    '/.',
    '/a?b?c',
    '/\\',
    '/"',
    '/<x>',
    '/{}',
    '/^`',
  ].map((target) => passed(`§3.2.1 target ${target}`, get(target), { target })),
  ...[
    '/a;b=c',
    '/?',
    '/?#'.slice(0, 2).concat('x=//y'),
    '/:80',
    '/@a',
    '/http://b.test/',
    '/*',
    `/${'a'.repeat(8000)}`,
    `/?${'b'.repeat(8000)}`,
  ].map((target) => passed(`§3.2.1 target ${target.slice(0, 20)}`, get(target), { target })),
  passed('§2.2 one empty line first', `\r\n${get('/e')}`, { target: '/e' }),
  passed('§3.2.2 absolute form', get('http://a.test/p?q=http://b.test/'), { target: '/p?q=http://b.test/' }),
  passed('§3.2.2 absolute form in capitals', get('HTTP://A.TEST/p'), { target: '/p' }),
  passed('§3.2.2 absolute form with its port', get('http://a.test:80/p'), { target: '/p' }),
  passed('§3.2.2 absolute form without path', get('http://a.test'), { target: '/' }),
  passed('§3.2.2 absolute form with a query only', get('http://a.test?q'), { target: '/?q' }),
  passed('§3.2.2 absolute form with an empty port', get('http://a.test:/p'), { target: '/p' }),
  passed('§3.2.2 absolute form with two slashes', get('http://a.test//b.test/'), { target: '//b.test/' }),
  passed('§3.2.2 absolute form, asterisk of OPTIONS', `OPTIONS http://a.test HTTP/1.1\r\n${H}\r\n`, {
    method: 'OPTIONS',
    target: '*',
  }),
  { ...passed('§3.2.2 absolute form on TLS', get('https://a.test/p'), { target: '/p' }), secure: true },
  { ...passed('§3.2.2 absolute form with its port on TLS', get('https://a.test:443/p'), { target: '/p' }), secure: true },
  passed('§3.2.4 asterisk', `OPTIONS * HTTP/1.1\r\n${H}\r\n`, { method: 'OPTIONS', target: '*' }),
  passed('§3.2 Host in capitals', 'GET /h HTTP/1.1\r\nHOST: A.TEST\r\n\r\n', { target: '/h' }),
  passed('§3.2 Host with trailing dot', 'GET /h HTTP/1.1\r\nHost: a.test.\r\n\r\n', { target: '/h' }),
  passed('§3.2 Host with a port', 'GET /h HTTP/1.1\r\nHost: a.test:8080\r\n\r\n', { target: '/h' }),
  passed('§3.2 Host within spaces and tabs', 'GET /h HTTP/1.1\r\nHost: \t a.test \t \r\n\r\n', { target: '/h' }),
  passed('§3.1 unknown method', `FROBNICATE /m HTTP/1.1\r\n${H}\r\n`, { method: 'FROBNICATE', target: '/m' }),
  passed('§3.1 method of odd tokens', `M-SEARCH /m HTTP/1.1\r\n${H}\r\n`, { method: 'M-SEARCH', target: '/m' }),
  passed('§5.5 obs-text', get('/f', 'X: \xe9\r\n'), { target: '/f' }),
  passed('§5.5 tab in a value', get('/f', 'X: a\tb\r\n'), { target: '/f' }),
  passed('§5.5 what looks like a field in a value', get('/f', 'X: Transfer-Encoding: chunked\r\n'), { target: '/f' }),
  passed('RFC 9110 §5.4 128 fields', get('/f', 'X: 1\r\n'.repeat(127)), { target: '/f' }),
  passed('§6.3 length with zeros in front', post('Content-Length: 0005\r\n', 'hello'), { body: 'hello' }),
  passed('§6.3 length within spaces and tabs', post('Content-Length: \t 5 \t\r\n', 'hello'), { body: 'hello' }),
  passed('§6.3 length without space', post('Content-Length:5\r\n', 'hello'), { body: 'hello' }),
  passed('§7.1 other case', post('transfer-ENCODING: Chunked \r\n', `5\r\nhello\r\n${LAST}`), {
    body: 'hello',
    framing: 'chunked',
  }),
  passed('§7.1 coding without space', post('Transfer-Encoding:chunked\r\n', `5\r\nhello\r\n${LAST}`), {
    body: 'hello',
    framing: 'chunked',
  }),
  passed('§7.1 sizes with zeros in front', chunked(`0005\r\nhello\r\n000\r\n\r\n`), { body: 'hello', framing: 'chunked' }),
  passed('§7.1 hexadecimal in both cases', chunked(`A\r\n0123456789\r\na\r\n0123456789\r\n${LAST}`), {
    body: '01234567890123456789',
    framing: 'chunked',
  }),
  passed('§7.1 line ends as payload', chunked(`7\r\n\r\n0\r\n\r\n\r\n${LAST}`), { body: '\r\n0\r\n\r\n', framing: 'chunked' }),
  passed('§7.1 empty', chunked(LAST), { body: '', framing: 'chunked' }),
  passed('§7.1.1 extensions', chunked(`5;a;b=c;d="e\\"; f"\r\nhello\r\n0;x=y\r\n\r\n`), { body: 'hello', framing: 'chunked' }),
  passed('§7.1.2 trailers', chunked(`5\r\nhello\r\n0\r\nX-Sum: 7\r\nX-Empty:\r\n\r\n`), { body: 'hello', framing: 'chunked' }),
  mixed('§9.3 garbage behind a good request', [get('/g'), 'garbage\r\n\r\n'], [{ target: '/g' }], 400),
  mixed('§9.3 two empty lines behind a good request', [get('/g'), '\r\n\r\n\r\n'], [{ target: '/g' }], 400),
  mixed('§9.3 a body without framing', [post('', ''), 'hello\r\n\r\n'], [{ framing: 'none' }], 400),
  mixed('§9.3 a zero octet behind a body', [post('Content-Length: 5\r\n', 'hello'), '\0'], [{ body: 'hello' }], 400),
  mixed('§9.3 more than the length', [post('Content-Length: 5\r\n', 'hello'), '!\r\n\r\n'], [{ body: 'hello' }], 400),
];

export const HOSTILE_REQUESTS: readonly HostileRequest[] = [...REFUSED, ...LATE, ...UNFINISHED, ...PASSED, ...SMUGGLING_REQUESTS];
