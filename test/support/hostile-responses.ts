/**
 * Responses as an endpoint should not send them, as plain data: its bytes, what does not belong to them, how it leaves, and what the client may see.
 *
 * Endpoints are tenants' code: whatever one writes, the next request gets its own answer.
 */
import { HOSTILE_CHUNKS } from './hostile-chunks.ts';
import { HOSTILE_RESPONSES as HOSTILE_HEADS } from './http1-cases.ts';

/**
 * - `bad`: the edge answers 502 itself.
 * - `cut`: the same, or the client sees that the response is not whole.
 * - `whole`: the client gets this response.
 * - `either`: `bad` or `whole`.
 */
export type Wanted =
  | { readonly kind: 'bad' }
  | { readonly kind: 'cut' }
  | { readonly kind: 'whole' | 'either'; readonly status: number; readonly body: string };

export interface HostileResponse {
  readonly name: string;
  readonly bytes: string;
  /** What follows and belongs to no response: comes with it, or 20 ms later. */
  readonly surplus: string;
  readonly leaves: 'stay' | 'end' | 'reset';
  /** Of the request. */
  readonly method: string;
  /** Fields of the request, whole lines. */
  readonly fields: string;
  /** The endpoint answers at the head of a request whose body comes later. */
  readonly early: boolean;
  readonly wanted: Wanted;
}

const BAD: Wanted = { kind: 'bad' };
const CUT: Wanted = { kind: 'cut' };
const whole = (body: string, status = 200): Wanted => ({ kind: 'whole', status, body });

function row(name: string, bytes: string, wanted: Wanted, more: Partial<HostileResponse> = {}): HostileResponse {
  return { name, bytes, surplus: '', leaves: 'stay', method: 'GET', fields: '', early: false, wanted, ...more };
}

const ok = (fields: string, body = ''): string => `HTTP/1.1 200 OK\r\n${fields}\r\n${body}`;
const fixed = (body: string): string => ok(`Content-Length: ${String(body.length)}\r\n`, body);
const chunked = (body: string): string => ok('Transfer-Encoding: chunked\r\n', body);
const LAST = '0\r\n\r\n';
const EARLY_HINT = 'HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n';
const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n';

/** Responses that end where their framing says, whatever follows. */
const ENDING: readonly (readonly [what: string, bytes: string, wanted: Wanted, method: string])[] = [
  ['a length', fixed('ok'), whole('ok'), 'GET'],
  ['a length of 0', fixed(''), whole(''), 'GET'],
  ['chunks', chunked(`2\r\nok\r\n${LAST}`), whole('ok'), 'GET'],
  ['chunks with a trailer', chunked('2\r\nok\r\n0\r\nX: 1\r\n\r\n'), whole('ok'), 'GET'],
  ['204', 'HTTP/1.1 204 No Content\r\n\r\n', whole('', 204), 'GET'],
  ['204 with a length of 0', 'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n', whole('', 204), 'GET'],
  ['304 with a length', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n', whole('', 304), 'GET'],
  ['304 with chunked', 'HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n', whole('', 304), 'GET'],
  ['HEAD with a length', ok('Content-Length: 5\r\n'), whole(''), 'HEAD'],
  ['HEAD with chunked', ok('Transfer-Encoding: chunked\r\n'), whole(''), 'HEAD'],
  ['HEAD without framing', ok(''), whole(''), 'HEAD'],
  ['an early hint and a length', `${EARLY_HINT}${fixed('ok')}`, whole('ok'), 'GET'],
  ['404 to POST', 'HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno', whole('no', 404), 'POST'],
  ['close', ok('Content-Length: 2\r\nConnection: close\r\n', 'ok'), whole('ok'), 'GET'],
  ['HTTP/1.0 with a length', 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok', whole('ok'), 'GET'],
];

const SURPLUS: readonly (readonly [what: string, bytes: string])[] = [
  ['another response', fixed('evil!')],
  ['two other responses', `${fixed('evil!')}${fixed('evil!')}`],
  ['a response without end', ok('', 'evil')],
  ['a head without end', 'HTTP/1.1 200 OK\r\nX-Evil: '],
  ['an interim response', CONTINUE],
  ['a switch of protocols', 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n'],
  ['an empty line', '\r\n'],
  ['a zero octet', '\0'],
  ['a body where none is', 'hello'],
  ['a chunk', `5\r\nhello\r\n${LAST}`],
  ['a request', 'GET /evil HTTP/1.1\r\nHost: a.test\r\n\r\n'],
  ['64 KiB', 'A'.repeat(64 * 1024)],
];

/** Queue poisoning: octets that wait for the next request. */
const SURPLUS_ROWS = ENDING.flatMap(([what, bytes, wanted, method]) =>
  SURPLUS.map(([surplus, octets]) => row(`§6.3 ${surplus} behind ${what}`, bytes, wanted, { surplus: octets, method })),
);

const SHORT: readonly (readonly [what: string, bytes: string, wanted: Wanted])[] = [
  ['before the first octet', '', BAD],
  ['within the version', 'HTT', BAD],
  ['within the status line', 'HTTP/1.1 200', BAD],
  ['after the status line', 'HTTP/1.1 200 OK\r\n', BAD],
  ['within a field', 'HTTP/1.1 200 OK\r\nContent-Le', BAD],
  ['within the last CRLF of the head', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r', BAD],
  ['after 100', CONTINUE, BAD],
  ['after 103', EARLY_HINT, BAD],
  ['within the head after 103', `${EARLY_HINT}HTTP/1.1 2`, BAD],
  ['before the body', ok('Content-Length: 5\r\n'), CUT],
  ['within the body', ok('Content-Length: 5\r\n', 'hell'), CUT],
  ['within a body of 2^53 - 1', ok('Content-Length: 9007199254740991\r\n', 'hello'), CUT],
  ['before the first chunk', chunked(''), CUT],
  ['within a size', chunked('5'), CUT],
  ['after a size', chunked('5\r\n'), CUT],
  ['within a chunk', chunked('5\r\nhel'), CUT],
  ['within the CRLF after the payload', chunked('5\r\nhello\r'), CUT],
  ['after a chunk', chunked('5\r\nhello\r\n'), CUT],
  ['within the last chunk', chunked('5\r\nhello\r\n0\r\n'), CUT],
  ['within the last CRLF', chunked('5\r\nhello\r\n0\r\n\r'), CUT],
  ['within the trailers', chunked('5\r\nhello\r\n0\r\nX: 1\r\n'), CUT],
  ['with an extension that is not over', chunked('5;a="'), CUT],
];

const SHORT_ROWS = (['end', 'reset'] as const).flatMap((leaves) =>
  SHORT.flatMap(([what, bytes, wanted]) => [
    row(`§8 ${leaves} ${what}`, bytes, wanted, { leaves }),
    row(`§8 ${leaves} ${what}, to POST`, bytes, wanted, { leaves, method: 'POST' }),
  ]),
);

const UNTIL_CLOSE: readonly HostileResponse[] = [
  row('§6.3 until close, end', ok('', 'hello'), whole('hello'), { leaves: 'end' }),
  row('§6.3 until close, empty', ok(''), whole(''), { leaves: 'end' }),
  row('§6.3 until close, reset', ok('', 'hello'), CUT, { leaves: 'reset' }),
  row('§6.3 until close, reset after the head', ok(''), CUT, { leaves: 'reset' }),
  row('§6.3 until close, what looks like chunks', ok('', `5\r\nhello\r\n${LAST}`), whole(`5\r\nhello\r\n${LAST}`), {
    leaves: 'end',
  }),
  row('§6.3 until close, what looks like a response', ok('', fixed('evil')), whole(fixed('evil')), { leaves: 'end' }),
  row('§6.3 until close, HTTP/1.0', 'HTTP/1.0 200 OK\r\n\r\nhello', whole('hello'), { leaves: 'end' }),
  row(
    '§6.3 until close, HTTP/1.0 that promises to stay',
    'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nhello',
    whole('hello'),
    { leaves: 'end' },
  ),
  row('§6.3 until close, HTTP/1.0, reset', 'HTTP/1.0 200 OK\r\n\r\nhello', CUT, { leaves: 'reset' }),
  row('§6.3 until close, 404', 'HTTP/1.1 404 Not Found\r\n\r\nno', whole('no', 404), { leaves: 'end' }),
  row(
    '§6.3 a Transfer_Encoding is another field',
    ok('Transfer_Encoding: chunked\r\nContent-Length: 3\r\n', '0\r\n'),
    whole('0\r\n'),
  ),
];

const INTERIM: readonly HostileResponse[] = [
  row('RFC 9110 §15.2 100 that nobody asked for', `${CONTINUE}${fixed('ok')}`, whole('ok')),
  row('RFC 9110 §15.2 102, 103 and 199', `HTTP/1.1 102 P\r\n\r\n${EARLY_HINT}HTTP/1.1 199 X\r\n\r\n${fixed('ok')}`, whole('ok')),
  row('RFC 9110 §15.2 ten of them', `${EARLY_HINT.repeat(10)}${fixed('ok')}`, whole('ok')),
  row('RFC 9110 §15.2 a flood', `${EARLY_HINT.repeat(2000)}${fixed('ok')}`, { kind: 'either', status: 200, body: 'ok' }),
  row('RFC 9110 §15.2 a flood of 100', `${CONTINUE.repeat(5000)}${fixed('ok')}`, { kind: 'either', status: 200, body: 'ok' }),
  row('RFC 9110 §15.2 a flood, then nothing', CONTINUE.repeat(5000), BAD, { leaves: 'end' }),
  row('RFC 9110 §15.2 103 with a length', `HTTP/1.1 103 E\r\nContent-Length: 2\r\n\r\nok${fixed('ok')}`, BAD),
  row('RFC 9110 §15.2 103 with a body', `${EARLY_HINT}hello${fixed('ok')}`, BAD),
  row('RFC 9110 §15.2 103, then a malformed head', `${EARLY_HINT}HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n`, BAD),
  row(
    'RFC 9110 §15.2 103, then both framings',
    `${EARLY_HINT}${ok('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', LAST)}`,
    BAD,
  ),
  row('RFC 9110 §15.2.2 101 to POST', 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n', BAD, {
    method: 'POST',
  }),
  row('RFC 9110 §15.2.2 101 without Upgrade', 'HTTP/1.1 101 Switching Protocols\r\n\r\n', BAD, {
    fields: 'Connection: Upgrade\r\nUpgrade: websocket\r\n',
  }),
  row(
    'RFC 9110 §15.2.2 101 with a length',
    'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello',
    BAD,
    { fields: 'Connection: Upgrade\r\nUpgrade: websocket\r\n' },
  ),
  row(
    'RFC 9110 §15.2.2 101 to an upgrade to h2c',
    'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n',
    BAD,
    { fields: 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n' },
  ),
];

/** Odd, with one reading. */
const ODD: readonly HostileResponse[] = [
  row('§4 empty reason', 'HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok', whole('ok')),
  row('§4 no reason', 'HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok', whole('ok')),
  row('§4 obs-text in the reason', 'HTTP/1.1 200 \xe9\r\nContent-Length: 2\r\n\r\nok', whole('ok')),
  row('§4 a status that nobody knows', 'HTTP/1.1 299 X\r\nContent-Length: 2\r\n\r\nok', whole('ok', 299)),
  row('§4 status 599', 'HTTP/1.1 599 X\r\nContent-Length: 2\r\n\r\nok', whole('ok', 599)),
  row('§5 names in lower case', 'HTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nok', whole('ok')),
  row('§5 obs-text in a value', ok('X: \xe9\r\nContent-Length: 2\r\n', 'ok'), whole('ok')),
  row('§5 a field without value', ok('X:\r\nContent-Length: 2\r\n', 'ok'), whole('ok')),
  row('§6.2 length with zeros in front', ok('Content-Length: 0002\r\n', 'ok'), whole('ok')),
  row('§6.3 a length that Connection nominates', ok('Connection: Content-Length\r\nContent-Length: 2\r\n', 'ok'), whole('ok')),
  row(
    '§6.3 chunked that Connection nominates',
    ok('Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n', `2\r\nok\r\n${LAST}`),
    whole('ok'),
  ),
  row('§7.1 chunked in other case', ok('transfer-encoding: CHUNKED\r\n', `2\r\nok\r\n${LAST}`), whole('ok')),
  row('§7.1.1 extensions', chunked(`2;a;b=c;d="e"\r\nok\r\n${LAST}`), whole('ok')),
  row('§7.1 line ends as payload', chunked(`7\r\n\r\n0\r\n\r\n\r\n${LAST}`), whole('\r\n0\r\n\r\n')),
  row(
    'RFC 9209 the word of an endpoint on our behalf',
    ok('Proxy-Status: ecluse; error=http_protocol_error\r\nContent-Length: 2\r\n', 'ok'),
    whole('ok'),
  ),
  row('RFC 9110 §5.4 128 fields', ok(`${'X: 1\r\n'.repeat(127)}Content-Length: 2\r\n`, 'ok'), whole('ok')),
];

/** The endpoint answers before it has the request. */
const EARLY: readonly HostileResponse[] = [
  row('§9.3 an answer before the body', fixed('ok'), whole('ok')),
  row('§9.3 an answer before the body, chunked', chunked(`2\r\nok\r\n${LAST}`), whole('ok')),
  row('§9.3 an answer before the body, then close', ok('Connection: close\r\nContent-Length: 2\r\n', 'ok'), whole('ok'), {
    leaves: 'end',
  }),
  row(
    '§9.3 an answer before the body, then reset',
    fixed('ok'),
    { kind: 'either', status: 200, body: 'ok' },
    { leaves: 'reset' },
  ),
  row('§9.3 an answer before the body and another response', fixed('ok'), whole('ok'), { surplus: fixed('evil') }),
  row('§9.3 a malformed answer before the body', ok('Content-Length: x\r\n'), BAD),
  row('§9.3 half an answer before the body, then end', ok('Content-Length: 5\r\n', 'hel'), CUT, { leaves: 'end' }),
  row('§9.3 nothing before the body, then end', '', BAD, { leaves: 'end' }),
].map((early): HostileResponse => ({ ...early, early: true, method: 'POST' }));

export const HOSTILE_RESPONSES: readonly HostileResponse[] = [
  ...HOSTILE_HEADS.map(([clause, bytes]) => row(clause, bytes, BAD)),
  ...HOSTILE_CHUNKS.map(([clause, bytes]) => row(clause, chunked(bytes), CUT)),
  ...SURPLUS_ROWS,
  ...SHORT_ROWS,
  ...UNTIL_CLOSE,
  ...INTERIM,
  ...ODD,
  ...EARLY,
];
