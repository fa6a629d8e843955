import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FRAMING, requestFraming, responseFraming } from '#proxy/http1/body-framing.ts';
import { expectationOf, isPersistent, takesTrailers, wantsUpgrade } from '#proxy/http1/connection.ts';
import { parseHead } from '#proxy/http1/head.ts';
import { FIELD_STRIDE, METHOD, createHeadView } from '#proxy/http1/head-view.ts';
import type { HeadView } from '#proxy/http1/head-view.ts';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import { REFUSED } from '#proxy/http1/refusal.ts';
import {
  NO_FIT,
  PERSISTENCE,
  createHeadWriter,
  createRequestEdits,
  createResponseEdits,
  writeRequestHead,
  writeResponseHead,
} from '#proxy/http1/rewrite.ts';
import type { RequestEdits, ResponseEdits } from '#proxy/http1/rewrite.ts';

const FACTS = { clientAddress: '203.0.113.7', proto: 'https', hostName: 'node-a', trusted: false } as const;
const OWN = 'X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nX-Ecluse-Host: node-a\r\n';
const ours = (host: string): string =>
  `${OWN}X-Forwarded-Host: ${host}\r\nForwarded: for=203.0.113.7;proto=https;host="${host}"\r\nX-Request-Id: id-1\r\n`;
const view = createHeadView('request', EDGE_LIMITS);
const responseView = createHeadView('response', EDGE_LIMITS);

function readRequest(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  expect(parseHead(bytes, 0, bytes.length, view)).toBe(bytes.length);
  expect(requestFraming(bytes, view)).toBeGreaterThan(0);
  return bytes;
}

function request(
  text: string,
  change: Partial<RequestEdits> = {},
  facts: Parameters<typeof createRequestEdits>[0] = FACTS,
): string {
  const bytes = readRequest(text);
  const writer = createHeadWriter(Buffer.alloc(40_000, 'x'));
  const length = writeRequestHead(
    bytes,
    view,
    { ...createRequestEdits(facts), requestId: Buffer.from('id-1'), ...change },
    writer,
  );
  expect(writer.at).toBe(length);
  return writer.out.toString('latin1', 0, length);
}

function response(text: string, change: Partial<ResponseEdits> = {}, method: number = METHOD.get): string {
  const bytes = Buffer.from(text, 'latin1');
  expect(parseHead(bytes, 0, bytes.length, responseView)).toBe(bytes.length);
  const framing = responseFraming(bytes, responseView, { method, upgrade: true });
  expect(framing).toBeGreaterThan(0);
  const writer = createHeadWriter(Buffer.alloc(40_000, 'x'));
  const length = writeResponseHead(bytes, responseView, { ...createResponseEdits(), framing, ...change }, writer);
  return writer.out.toString('latin1', 0, length);
}

describe('writeRequestHead()', () => {
  test('keeps order and case of what stays, and says where it comes from', () => {
    expect(request('GET /a?b HTTP/1.1\r\nhOsT: a.test:81\r\nX-B:  1 \r\nconnection: keep-alive\r\nX-a: 2\r\n\r\n')).toBe(
      `GET /a?b HTTP/1.1\r\nhOsT: a.test:81\r\nX-B:  1 \r\nX-a: 2\r\n${ours('a.test:81')}\r\n`,
    );
  });

  test('who a client is by its certificate is ours to say, from anybody, and only from us', () => {
    const names = ['Client-Cert', 'client_cert', 'CLIENT-CERT-CHAIN', 'Client_Cert-Chain', 'X-Ecluse-Client-Cert-Subject'];
    const text = `GET / HTTP/1.1\r\nHost: a.test\r\n${names.map((name) => `${name}: :YQ==:\r\n`).join('')}Client-Certificate: stays\r\n\r\n`;
    for (const trusted of [false, true]) {
      const identity = Buffer.from('Client-Cert: :Yg==:\r\n');
      const written = request(text, { identity }, { ...FACTS, trusted });
      expect(written).not.toContain('YQ==');
      expect(written.match(/client.cert/gi)).toEqual(['Client-Cert', 'Client-Cert']);
      expect(written).toContain('\r\nClient-Certificate: stays\r\nClient-Cert: :Yg==:\r\n');
    }
  });

  test('drops what is for one connection, what Connection nominates, and what nobody may say but us', () => {
    const dropped = [
      'Connection: close, X-Private, X-Other',
      'Keep-Alive: timeout=5',
      'Proxy-Connection: keep-alive',
      'Proxy-Authorization: x',
      'TE: gzip',
      'Upgrade: h2c',
      'HTTP2-Settings: x',
      'Trailer: X',
      'x-PRIVATE: 1',
      'X-Private: 2',
      'X-Other: 3',
      'X-Forwarded-For: 192.0.2.1',
      'X_Forwarded_For: 192.0.2.1',
      'X-Forwarded-Proto: http',
      'X-Forwarded-Port: 80',
      'Forwarded: for=192.0.2.1',
      'X-Real-IP: 192.0.2.1',
      'X-Request-Id: other',
      'X-Ecluse-Host: other',
      'X-Ecluse-Anything: other',
    ].join('\r\n');
    expect(request(`GET / HTTP/1.1\r\nHost: a.test\r\n${dropped}\r\nVia: 1.1 x\r\n\r\n`)).toBe(
      `GET / HTTP/1.1\r\nHost: a.test\r\nVia: 1.1 x\r\n${ours('a.test')}\r\n`,
    );
  });

  test('keeps what a client may not nominate away', () => {
    const fields = 'Host: a.test\r\nContent-Length: 3\r\nCookie: a=b\r\nAuthorization: x\r\n';
    const text = `POST / HTTP/1.1\r\n${fields}Connection: Host, Content-Length, Cookie, Authorization\r\n\r\n`;
    expect(request(text)).toBe(`POST / HTTP/1.1\r\n${fields}${ours('a.test')}\r\n`);
  });

  test.each(['Content_Length', 'content_length', 'Content-Length', 'Transfer_Encoding'])(
    'an underscore nominates no hyphen: %s',
    (option) => {
      const text = `POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nConnection: ${option}\r\n\r\n`;
      expect(request(text)).toContain('\r\nContent-Length: 5\r\n');
      const chunked = `POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: ${option}\r\n\r\n`;
      expect(request(chunked)).toContain('\r\nTransfer-Encoding: chunked\r\n');
    },
  );

  test('drops a field named Close where Connection says close', () => {
    expect(request('GET / HTTP/1.1\r\nHost: a.test\r\nClose: 1\r\nConnection: close\r\n\r\n')).not.toContain('Close');
  });

  test('believes a trusted proxy, and adds it', () => {
    const text =
      'GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nForwarded: for=192.0.2.1\r\n' +
      'X-Forwarded-For: 192.0.2.2\r\nX-Forwarded-Host: b.test\r\nX-Ecluse-Host: other\r\n\r\n';
    expect(request(text, {}, { ...FACTS, trusted: true })).toBe(
      'GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: b.test\r\n' +
        'X-Forwarded-For: 192.0.2.1, 192.0.2.2, 203.0.113.7\r\nX-Ecluse-Host: node-a\r\n' +
        'Forwarded: for=192.0.2.1, for=203.0.113.7;proto=https;host="a.test"\r\nX-Request-Id: id-1\r\n\r\n',
    );
  });

  test('quotes IPv6 in Forwarded', () => {
    expect(request('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n', {}, { ...FACTS, clientAddress: '2001:db8::1' })).toContain(
      'X-Forwarded-For: 2001:db8::1\r\n',
    );
    expect(request('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n', {}, { ...FACTS, clientAddress: '2001:db8::1' })).toContain(
      'Forwarded: for="[2001:db8::1]";proto=https',
    );
  });

  test.each([
    ['GET http://a.test/p?q HTTP/1.1', 'GET /p?q HTTP/1.1'],
    ['GET http://a.test HTTP/1.1', 'GET / HTTP/1.1'],
    ['GET http://a.test?q HTTP/1.1', 'GET /?q HTTP/1.1'],
    ['OPTIONS http://a.test HTTP/1.1', 'OPTIONS * HTTP/1.1'],
    ['OPTIONS http://a.test/ HTTP/1.1', 'OPTIONS / HTTP/1.1'],
  ])('writes %j as %j', (line, written) => {
    expect(request(`${line}\r\nX: 1\r\nHost: A.test\r\n\r\n`)).toBe(
      `${written}\r\nX: 1\r\nHost: a.test\r\n${ours('a.test')}\r\n`,
    );
  });

  test('speaks HTTP/1.1 for HTTP/1.0 clients, with a Host, without Expect', () => {
    const written = request('GET /a HTTP/1.0\r\nExpect: 100-continue\r\n\r\n', { host: Buffer.from('b.test') });
    expect(written).toContain('GET /a HTTP/1.1\r\nHost: b.test\r\nX-Forwarded-For');
    expect(written).not.toContain('Expect');
    expect(request('GET /a HTTP/1.0\r\n\r\n')).toContain('Host: \r\n');
  });

  test('replaces Host where told', () => {
    expect(request('GET / HTTP/1.1\r\nHost: a.test\r\nX: 1\r\n\r\n', { host: Buffer.from('b.test:1') })).toBe(
      `GET / HTTP/1.1\r\nX: 1\r\nHost: b.test:1\r\n${ours('a.test')}\r\n`,
    );
  });

  test('writes one framing, and Trailer only with chunks', () => {
    const text = 'POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: cHUNKED\r\nTrailer: X\r\n\r\n';
    expect(request(text)).toBe(
      `POST / HTTP/1.1\r\nHost: a.test\r\nTrailer: X\r\n${ours('a.test')}Transfer-Encoding: chunked\r\n\r\n`,
    );
  });

  test('passes on an upgrade or TE where told', () => {
    const text = 'GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, TE\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n';
    expect(request(text, { upgrade: true })).toContain('Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    expect(request(text, { trailers: true })).toContain('Connection: TE\r\nTE: trailers\r\n\r\n');
  });

  test('writes nothing where it may not fit', () => {
    const bytes = readRequest('GET / HTTP/1.1\r\nHost: a.test\r\n\r\n');
    const writer = createHeadWriter(Buffer.alloc(300));
    expect(writeRequestHead(bytes, view, createRequestEdits(FACTS), writer)).toBe(NO_FIT);
    expect(writer.at).toBe(0);
  });
});

describe('writeResponseHead()', () => {
  test('drops what is for one connection; adds Date, Connection and lines', () => {
    const text =
      'HTTP/1.1 200 Fine\r\nX-a: 1\r\nConnection: X-Private\r\nX-Private: 1\r\nKeep-Alive: 1\r\nContent-Length: 3\r\nX-A: 2\r\n\r\n';
    const written = response(text, {
      persistence: PERSISTENCE.close,
      dateLine: Buffer.from('Date: now\r\n'),
      fields: { drops: [], lines: Buffer.from('X: 1\r\n') },
    });
    expect(written).toBe(
      'HTTP/1.1 200 Fine\r\nX-a: 1\r\nContent-Length: 3\r\nX-A: 2\r\nConnection: close\r\nDate: now\r\nX: 1\r\n\r\n',
    );
  });

  test.each([
    ['HTTP/1.0 200\r\nDate: x\r\n\r\n', 'HTTP/1.1 200 \r\nDate: x\r\n\r\n'],
    ['HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n', 'HTTP/1.1 204 \r\n\r\n'],
    ['HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n', 'HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n'],
    ['HTTP/1.1 304 N\r\nTransfer-Encoding: chunked\r\n\r\n', 'HTTP/1.1 304 N\r\n\r\n'],
    [
      'HTTP/1.1 200 O\r\nTransfer-Encoding: Chunked\r\nTrailer: X\r\n\r\n',
      'HTTP/1.1 200 O\r\nTransfer-Encoding: chunked\r\n\r\n',
    ],
    ['HTTP/1.1 103 E\r\nLink: </a>\r\n\r\n', 'HTTP/1.1 103 E\r\nLink: </a>\r\n\r\n'],
    [
      'HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
      'HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
    ],
  ])('writes %j as %j', (text, written) => {
    expect(response(text)).toBe(written);
  });

  test('keeps the length that answers HEAD', () => {
    const text = 'HTTP/1.1 200 O\r\nContent-Length: 9\r\n\r\n';
    expect(response(text, {}, METHOD.head)).toBe(text);
  });
});

describe('what a head says about its connection', () => {
  test.each([
    ['GET / HTTP/1.1\r\nHost: a\r\n\r\n', true],
    ['GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n', false],
    ['GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n', false],
    ['GET / HTTP/1.0\r\nHost: a\r\n\r\n', false],
    ['GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n', true],
    ['GET / HTTP/1.0\r\nHost: a\r\nConnection: keep_alive\r\n\r\n', false],
  ])('isPersistent(%j) is %j', (text, persistent) => {
    readRequest(text);
    expect(isPersistent(view)).toBe(persistent);
  });

  test.each([
    ['Connection: upgrade\r\nUpgrade: websocket\r\n', true],
    ['Upgrade: websocket\r\n', false],
    ['Connection: upgrade\r\nUpgrade: h2c\r\n', false],
    ['Connection: upgrade\r\nUpgrade: H2C\r\n', false],
    ['Connection: upgrade\r\nUpgrade: websocket, x\r\n', false],
    ['Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: x\r\n', false],
    ['Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n', false],
  ])('wantsUpgrade() of %j is %j', (fields, wanted) => {
    expect(wantsUpgrade(readRequest(`GET / HTTP/1.1\r\nHost: a\r\n${fields}\r\n`), view)).toBe(wanted);
  });

  test.each([
    ['', 0],
    ['Expect: 100-Continue\r\n', 1],
    ['Expect: 100_continue\r\n', REFUSED.expectation],
    ['Expect: x\r\n', REFUSED.expectation],
    ['Expect: 100-continue\r\nExpect: 100-continue\r\n', REFUSED.expectation],
  ])('expectationOf() of %j is %j', (fields, expected) => {
    expect(expectationOf(readRequest(`GET / HTTP/1.1\r\nHost: a\r\n${fields}\r\n`), view)).toBe(expected);
  });

  test.each([
    ['TE: trailers\r\n', true],
    ['TE: gzip , Trailers\r\n', true],
    ['TE: gzip\r\n', false],
    ['TE: trailersx\r\n', false],
  ])('takesTrailers() of %j is %j', (fields, expected) => {
    expect(takesTrailers(readRequest(`GET / HTTP/1.1\r\nHost: a\r\n${fields}\r\n`), view)).toBe(expected);
  });
});

const token = fc.string({ unit: fc.constantFrom(...'abcXYZ019-_!~.'.split('')), minLength: 1, maxLength: 12 });
const word = fc.string({ unit: fc.constantFrom(...'abc=;,"{}/ \t\xe9'.split('')), maxLength: 30 }).map((text) => text.trim());
const field = fc.tuple(token, word);

function pairs(bytes: Buffer, seen: HeadView): string[][] {
  return Array.from({ length: seen.fieldCount }, (_, index) => {
    const [a = 0, b = 0, c = 0, d = 0] = seen.fields.subarray(index * FIELD_STRIDE, index * FIELD_STRIDE + 4);
    return [bytes.toString('latin1', a, b), bytes.toString('latin1', c, d)];
  });
}

describe('generated heads', () => {
  test('parse ∘ serialise is the identity', () => {
    const path = fc.string({ unit: fc.constantFrom(...'ab/%2?&=|'.split('')), maxLength: 20 });
    fc.assert(
      fc.property(
        fc.constantFrom('GET', 'POST', 'M-SEARCH'),
        path,
        fc.array(field, { maxLength: 20 }),
        (method, rest, fields) => {
          const all = [['Host', 'a.test'], ...fields.map(([name, value]) => [`x${name}`, value])];
          const bytes = Buffer.from(
            `${method} /${rest} HTTP/1.1\r\n${all.map(([name, value]) => `${String(name)}: ${String(value)}\r\n`).join('')}\r\n`,
            'latin1',
          );
          expect(parseHead(bytes, 0, bytes.length, view)).toBe(bytes.length);
          expect(bytes.toString('latin1', view.start, view.methodEnd)).toBe(method);
          expect(bytes.toString('latin1', view.targetStart, view.targetEnd)).toBe(`/${rest}`);
          expect(pairs(bytes, view)).toEqual(all);
        },
      ),
      { numRuns: 300 },
    );
  });

  test('what is written parses again, to the same framing, and stays as it is when it is written once more by a trusted peer', () => {
    const framings = fc.constantFrom('', 'Content-Length: 5\r\n', 'Transfer-Encoding: chunked\r\n');
    fc.assert(
      fc.property(fc.array(field, { maxLength: 12 }), framings, token, (fields, framingField, nominated) => {
        const kept = fields.map(([name, value]) => `y${name}: ${value}\r\n`).join('');
        const text = `POST /a HTTP/1.1\r\nHost: a.test\r\nConnection: y${nominated}\r\n${kept}${framingField}\r\n`;
        const framing = requestFraming(readRequest(text), view);
        const once = request(text);
        expect(requestFraming(readRequest(once), view)).toBe(framing);
        expect(request(once)).toBe(once);
      }),
      { numRuns: 300 },
    );
  });

  test('every framing has a name of its own', () => {
    expect(new Set(Object.values(FRAMING)).size).toBe(Object.keys(FRAMING).length);
  });
});
