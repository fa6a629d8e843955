/**
 * The known classes of request smuggling, as plain data: CL.TE, TE.CL, TE.TE, CL.0, 0.CL, fields that are nominated away, connection state.
 *
 * What hides is always a request for `/smuggled`. Sources: "HTTP Desync Attacks" and its successors (J. Kettle), RFC 9112 §11.2. A pause between
 * head and body is a variant that every row is sent in as well.
 */
import { mixed, passed, refused } from './hostile-case.ts';
import type { HostileRequest } from './hostile-case.ts';

const H = 'Host: a.test\r\n';
const HIDDEN = `GET /smuggled HTTP/1.1\r\n${H}\r\n`;
const LAST = '0\r\n\r\n';
const post = (fields: string, body: string): string => `POST /p HTTP/1.1\r\n${H}${fields}\r\n${body}`;
const length = (body: string): string => `Content-Length: ${String(body.length)}\r\n`;
const get = (target: string, fields = ''): string => `GET ${target} HTTP/1.1\r\n${H}${fields}\r\n`;

/** Lines that one reader takes for `Transfer-Encoding: chunked` and another does not; the status they are refused with where no length is. */
const ODD_ENCODINGS: readonly (readonly [what: string, lines: string, status: number])[] = [
  ['space before the colon', 'Transfer-Encoding : chunked', 400],
  ['tab before the colon', 'Transfer-Encoding\t: chunked', 400],
  ['vertical tab before the colon', 'Transfer-Encoding\v: chunked', 400],
  ['zero octet before the colon', 'Transfer-Encoding\0: chunked', 400],
  ['space first', ' Transfer-Encoding: chunked', 400],
  ['tab first', '\tTransfer-Encoding: chunked', 400],
  ['zero octet first', '\0Transfer-Encoding: chunked', 400],
  ['folded behind another field', 'X: y\r\n Transfer-Encoding: chunked', 400],
  ['folded value', 'Transfer-Encoding:\r\n chunked', 400],
  ['folded value with tab', 'Transfer-Encoding:\r\n\tchunked', 400],
  ['value folded in the middle', 'Transfer-Encoding: chun\r\n ked', 400],
  ['folded empty line', 'Transfer-Encoding: chunked\r\n ', 400],
  ['bare LF before the value', 'Transfer-Encoding:\nchunked', 400],
  ['bare LF and space before the value', 'Transfer-Encoding:\n chunked', 400],
  ['bare LF before the field', 'X: y\nTransfer-Encoding: chunked', 400],
  ['bare LF after the field', 'Transfer-Encoding: chunked\nX: y', 400],
  ['bare CR before the field', 'X: y\rTransfer-Encoding: chunked', 400],
  ['CRLF and bare CR before the field', 'X: y\r\n\rTransfer-Encoding: chunked', 400],
  ['bare CR after the value', 'Transfer-Encoding: chunked\r', 400],
  ['bare CR before the value', 'Transfer-Encoding: \rchunked', 400],
  ['vertical tab before the value', 'Transfer-Encoding:\vchunked', 400],
  ['form feed before the value', 'Transfer-Encoding:\fchunked', 400],
  ['no-break space before the value', 'Transfer-Encoding:\xa0chunked', 400],
  ['octet ff before the value', 'Transfer-Encoding: \xffchunked', 400],
  ['zero octet in the value', 'Transfer-Encoding: ch\0unked', 400],
  ['tab after the value', 'Transfer-Encoding: chunked\t', 400],
  ['next line after the value', 'Transfer-Encoding: chunked\x85', 400],
  ['Kelvin sign', 'Transfer-Encoding: chun\xe2\x84\xaaed', 400],
  ['accent in the name', 'Transf\xe9r-Encoding: chunked', 400],
  ['space in the name', 'Transfer Encoding: chunked', 400],
  ['double quotes', 'Transfer-Encoding: "chunked"', 400],
  ['single quotes', "Transfer-Encoding: 'chunked'", 501],
  ['semicolon', 'Transfer-Encoding: chunked;', 400],
  ['parameter', 'Transfer-Encoding: chunked;q=1', 400],
  ['comma first', 'Transfer-Encoding: ,chunked', 400],
  ['comma last', 'Transfer-Encoding: chunked,', 400],
  ['chunked twice', 'Transfer-Encoding: chunked, chunked', 400],
  ['chunked in two fields', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked', 400],
  ['chunked, then another', 'Transfer-Encoding: chunked, cow', 400],
  ['chunked, then another in a field of its own', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: cow', 400],
  ['chunked, then identity in other case', 'Transfer-Encoding: chunked\r\ntransfer-encoding: identity', 400],
  ['another, then chunked', 'Transfer-Encoding: cow, chunked', 501],
  ['another, then chunked in a field of its own', 'Transfer-Encoding: cow\r\nTransfer-Encoding: chunked', 501],
  ['identity, then chunked', 'Transfer-Encoding: identity, chunked', 501],
  ['words', 'Transfer-Encoding: chunked cow', 400],
  ['prefix', 'Transfer-Encoding: xchunked', 501],
  ['suffix', 'Transfer-Encoding: chunkedx', 501],
  ['cut', 'Transfer-Encoding: chunke', 501],
  ['gzip', 'Transfer-Encoding: gzip', 501],
  ['gzip, chunked', 'Transfer-Encoding: gzip, chunked', 501],
  ['identity', 'Transfer-Encoding: identity', 501],
  ['identity twice', 'Transfer-Encoding: identity\r\nTransfer-Encoding: identity', 501],
  ['false', 'Transfer-Encoding: false', 501],
  ['empty', 'Transfer-Encoding:', 400],
  ['behind a line without colon', 'X\r\nTransfer-Encoding: chunked', 400],
  ['behind an empty name', ': X\r\nTransfer-Encoding: chunked', 400],
  ['before another Host', `Transfer-Encoding: chunked\r\nHost: b.test`, 400],
];

/** Names that are not `Transfer-Encoding`, though a reader may take them for it: the length counts, or there is no body. */
const OTHER_NAMES = [
  'Transfer_Encoding',
  'Transfer.Encoding',
  'TransferEncoding',
  'Transfer-Encodin',
  'Transfer-Encoding-',
  'Transfer--Encoding',
  'X-Transfer-Encoding',
  'Content-Encoding',
  'Transfer-Coding',
  'TE',
  'HTTP_TRANSFER_ENCODING',
];

/** Valid lines: chunked without a length, refused with one. */
const PLAIN_ENCODINGS = [
  'Transfer-Encoding: chunked',
  'Transfer-Encoding:chunked',
  'TRANSFER-ENCODING: CHUNKED',
  'Transfer-Encoding: chunked ',
  'Transfer-Encoding: \t chunked',
  'Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked',
  'Connection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked',
  'TE: trailers\r\nTransfer-Encoding: chunked',
];

const clTe = (lines: string): string => post(`${length(`${LAST}${HIDDEN}`)}${lines}\r\n`, `${LAST}${HIDDEN}`);
const inChunk = `${HIDDEN.length.toString(16)}\r\n${HIDDEN}\r\n${LAST}`;
const teCl = (lines: string): string => post(`${lines}\r\nContent-Length: 4\r\n`, inChunk);
const alone = (lines: string): string => post(`${lines}\r\n`, inChunk);

const ENCODINGS: readonly HostileRequest[] = [
  ...ODD_ENCODINGS.flatMap(([what, lines, status]) => [
    refused(`TE.TE ${what}`, alone(lines), status),
    refused(`CL.TE ${what}`, clTe(lines), 400),
    refused(`TE.CL ${what}`, teCl(lines), 400),
  ]),
  ...PLAIN_ENCODINGS.flatMap((lines) => [
    passed(`TE ${JSON.stringify(lines)}`, alone(lines), { body: HIDDEN, framing: 'chunked' }),
    refused(`CL.TE ${JSON.stringify(lines)}`, clTe(lines), 400),
    refused(`TE.CL ${JSON.stringify(lines)}`, teCl(lines), 400),
    refused(`CL.TE, length 0, ${JSON.stringify(lines)}`, post(`Content-Length: 0\r\n${lines}\r\n`, inChunk), 400),
  ]),
  ...OTHER_NAMES.flatMap((name) => [
    passed(`CL.TE ${name} is another field`, clTe(`${name}: chunked`), { body: `${LAST}${HIDDEN}` }),
    mixed(`TE.0 ${name} is another field`, [alone(`${name}: chunked`)], [{ framing: 'none' }], 400),
    passed(
      `TE.CL ${name} is another field`,
      post(`${name}: chunked\r\nContent-Length: 4\r\n`, `4a\r\n${HIDDEN}`),
      { body: '4a\r\n' },
      { target: '/smuggled' },
    ),
  ]),
];

/** Readers that think that a request has no body, or that it has one (CL.0, 0.CL, TE.0). */
const BODYLESS: readonly HostileRequest[] = [
  ...['GET', 'HEAD', 'DELETE', 'OPTIONS', 'PUT', 'PATCH', 'PROPFIND', 'LOCK', 'QUERY', 'FOO'].flatMap((method) => [
    passed(`CL.0 ${method}`, `${method} /p HTTP/1.1\r\n${H}${length(HIDDEN)}\r\n${HIDDEN}`, { method, body: HIDDEN }),
    passed(`TE.0 ${method}`, `${method} /p HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n${inChunk}`, {
      method,
      body: HIDDEN,
      framing: 'chunked',
    }),
  ]),
  ...['/robots.txt', '/img/x.png', '/redirect?u=/', '/%2f', '/..%2f', '/con', '//'].map((target) =>
    passed(`CL.0 at ${target}`, `POST ${target} HTTP/1.1\r\n${H}${length(HIDDEN)}\r\n${HIDDEN}`, { target, body: HIDDEN }),
  ),
  ...['Content-Length', 'content-length, close', 'Host', 'X, Content-Length', 'Content-Length, Host, X-Case'].map((nominated) =>
    passed(`CL.0 with a Connection that nominates ${nominated}`, post(`${length(HIDDEN)}Connection: ${nominated}\r\n`, HIDDEN), {
      body: HIDDEN,
      has: ['host', 'content-length'],
    }),
  ),
  passed('CL.0 with an upgrade', post(`${length(HIDDEN)}Connection: Upgrade\r\nUpgrade: websocket\r\n`, HIDDEN), {
    body: HIDDEN,
    lacks: ['upgrade'],
  }),
  passed(
    'CL.0 with an upgrade of a GET',
    `GET /p HTTP/1.1\r\n${H}${length(HIDDEN)}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n${HIDDEN}`,
    { method: 'GET', body: HIDDEN, lacks: ['upgrade'] },
  ),
  passed(
    'CL.0 with an upgrade to h2c',
    post(`${length(HIDDEN)}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n`, HIDDEN),
    { body: HIDDEN, lacks: ['upgrade', 'http2-settings'] },
  ),
  passed(
    'an upgrade to h2c without a body',
    get('/p', 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n'),
    { lacks: ['upgrade', 'http2-settings'] },
  ),
  passed('an upgrade to h2c in other case', get('/p', 'Connection: upgrade\r\nUpgrade: H2C\r\n'), {
    lacks: ['upgrade'],
  }),
  passed('an upgrade to h2c among others', get('/p', 'Connection: upgrade\r\nUpgrade: websocket, h2c\r\n'), {
    lacks: ['upgrade'],
  }),
  passed('an upgrade to h2c in two fields', get('/p', 'Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n'), {
    lacks: ['upgrade'],
  }),
  passed('an upgrade that Connection does not nominate', get('/p', 'Upgrade: websocket\r\n'), {
    lacks: ['upgrade'],
  }),
  passed('an upgrade in HTTP/1.0', `GET /p HTTP/1.0\r\n${H}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n`, {
    lacks: ['upgrade'],
  }),
  passed(
    '0.CL with a length of 0',
    `${post('Content-Length: 0\r\n', '')}${HIDDEN}`,
    { framing: 'fixed' },
    { target: '/smuggled' },
  ),
  passed('0.CL with an expectation', post(`${length(HIDDEN)}Expect: 100-continue\r\n`, HIDDEN), { body: HIDDEN }),
  passed('0.CL with an expectation in other case', post(`${length(HIDDEN)}expect: 100-CONTINUE\r\n`, HIDDEN), { body: HIDDEN }),
  passed('0.CL with an expectation of a GET', `GET /p HTTP/1.1\r\n${H}${length(HIDDEN)}Expect: 100-continue\r\n\r\n${HIDDEN}`, {
    method: 'GET',
    body: HIDDEN,
  }),
  passed(
    '0.CL with an expectation that Connection nominates',
    post(`${length(HIDDEN)}Connection: Expect\r\nExpect: 100-continue\r\n`, HIDDEN),
    { body: HIDDEN },
  ),
  passed(
    '0.CL with an expectation in HTTP/1.0',
    `POST /p HTTP/1.0\r\n${H}${length(HIDDEN)}Expect: 100-continue\r\n\r\n${HIDDEN}`,
    { body: HIDDEN, lacks: ['expect'] },
  ),
  mixed('0.CL Content_Length is another field', [post('Content_Length: 9\r\n', 'smuggled\r\n\r\n')], [{ framing: 'none' }], 400),
  mixed(
    '0.CL X-Content-Length is another field',
    [post('X-Content-Length: 9\r\n', 'smuggled\r\n\r\n')],
    [{ framing: 'none' }],
    400,
  ),
  passed('0.CL Content_Length beside the length', post(`Content_Length: 0\r\n${length(HIDDEN)}`, HIDDEN), { body: HIDDEN }),
  passed('a method in a field', post(`${length(HIDDEN)}X-HTTP-Method-Override: GET\r\n`, HIDDEN), { body: HIDDEN }),
  passed(
    'chunks behind a trailer with the hidden request',
    post('Transfer-Encoding: chunked\r\n', `5\r\nhello\r\n0\r\nX-A: GET /smuggled HTTP/1.1\r\n\r\n`),
    { body: 'hello', framing: 'chunked' },
  ),
  passed(
    'an extension with the hidden request',
    post('Transfer-Encoding: chunked\r\n', `5;a="GET /smuggled HTTP/1.1"\r\nhello\r\n${LAST}`),
    { body: 'hello', framing: 'chunked' },
  ),
  passed(
    'a chunk with the last chunk in it',
    post('Transfer-Encoding: chunked\r\n', `${(HIDDEN.length + 5).toString(16)}\r\n${LAST}${HIDDEN}\r\n${LAST}`),
    { body: `${LAST}${HIDDEN}`, framing: 'chunked' },
  ),
  passed('a response as a body', post(length('HTTP/1.1 200 OK\r\n\r\n'), 'HTTP/1.1 200 OK\r\n\r\n'), {
    body: 'HTTP/1.1 200 OK\r\n\r\n',
  }),
];

const onlyFirst = (name: string, first: string): HostileRequest => passed(name, `${first}${HIDDEN}`, {});

/** What a connection was used for says nothing about what it may be used for next. */
const STATE: readonly HostileRequest[] = [
  passed(
    'state: two requests, two hosts',
    `${get('/1')}GET /2 HTTP/1.1\r\nHost: b.test\r\n\r\n`,
    { target: '/1' },
    { target: '/2', host: 'b' },
  ),
  passed(
    'state: three requests, there and back',
    `${get('/1')}GET /2 HTTP/1.1\r\nHost: b.test\r\n\r\n${get('/3')}`,
    { target: '/1' },
    { target: '/2', host: 'b' },
    { target: '/3' },
  ),
  passed(
    'state: a body, then another host',
    `${post(length('hello'), 'hello')}GET /2 HTTP/1.1\r\nHost: b.test\r\n\r\n`,
    { body: 'hello' },
    { target: '/2', host: 'b' },
  ),
  passed(
    'state: a host hidden in a body',
    post(length('GET /2 HTTP/1.1\r\nHost: b.test\r\n\r\n'), 'GET /2 HTTP/1.1\r\nHost: b.test\r\n\r\n'),
    { body: 'GET /2 HTTP/1.1\r\nHost: b.test\r\n\r\n' },
  ),
  passed(
    'state: absolute form to another host',
    `${get('/1')}GET http://b.test/2 HTTP/1.1\r\nHost: b.test\r\n\r\n`,
    { target: '/1' },
    { target: '/2', host: 'b' },
  ),
  mixed(
    'state: then absolute form that disagrees',
    [get('/1'), `GET http://b.test/2 HTTP/1.1\r\n${H}\r\n`],
    [{ target: '/1' }],
    400,
  ),
  mixed('state: then no route', [get('/1'), 'GET /2 HTTP/1.1\r\nHost: nobody.test\r\n\r\n'], [{ target: '/1' }], 404),
  mixed('state: then no Host', [get('/1'), 'GET /2 HTTP/1.1\r\n\r\n'], [{ target: '/1' }], 400),
  mixed('state: then two hosts', [get('/1'), `GET /2 HTTP/1.1\r\n${H}Host: b.test\r\n\r\n`], [{ target: '/1' }], 400),
  mixed('state: then another version', [get('/1'), `GET /2 HTTP/2.0\r\n${H}\r\n`], [{ target: '/1' }], 505),
  mixed('state: then the preface of HTTP/2', [get('/1'), 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'], [{ target: '/1' }], 505),
  mixed('state: then TLS', [get('/1'), '\x16\x03\x01\x02\x00'], [{ target: '/1' }], 400),
  mixed('state: then TRACE', [get('/1'), `TRACE /2 HTTP/1.1\r\n${H}\r\n`], [{ target: '/1' }], 405),
  mixed('state: then the other scheme', [get('/1'), get('https://a.test/2')], [{ target: '/1' }], 421),
  mixed(
    'state: then a length that is repeated',
    [get('/1'), post('Content-Length: 5\r\nContent-Length: 5\r\n', 'hello')],
    [{ target: '/1' }],
    400,
  ),
  mixed(
    'state: chunked, then a length with chunked',
    [post('Transfer-Encoding: chunked\r\n', LAST), clTe('Transfer-Encoding: chunked')],
    [{ framing: 'chunked' }],
    400,
  ),
  onlyFirst('state: nothing is read after close', get('/p', 'Connection: close\r\n')),
  onlyFirst('state: nothing is read after close among others', get('/p', 'Connection: keep-alive, CLOSE\r\n')),
  onlyFirst('state: nothing is read after close in a second field', get('/p', 'Connection: X\r\nConnection: close\r\n')),
  onlyFirst('state: nothing is read after HTTP/1.0', `GET /p HTTP/1.0\r\n${H}\r\n`),
  onlyFirst('state: nothing is read after HTTP/1.0 with another option', `GET /p HTTP/1.0\r\n${H}Connection: X\r\n\r\n`),
  onlyFirst(
    'state: nothing is read after HTTP/1.0 with keep-alive and close',
    `GET /p HTTP/1.0\r\n${H}Connection: keep-alive, close\r\n\r\n`,
  ),
  passed(
    'state: HTTP/1.0 with keep-alive goes on',
    `GET /p HTTP/1.0\r\n${H}Connection: keep-alive\r\n\r\n${HIDDEN}`,
    {},
    { target: '/smuggled' },
  ),
  passed(
    'state: Keep-Alive and Proxy-Connection mean nothing here',
    get('/p', 'Keep-Alive: timeout=0, max=0\r\nProxy-Connection: close\r\n').concat(HIDDEN),
    { lacks: ['keep-alive', 'proxy-connection'] },
    { target: '/smuggled' },
  ),
];

export const SMUGGLING_REQUESTS: readonly HostileRequest[] = [...ENCODINGS, ...BODYLESS, ...STATE];
