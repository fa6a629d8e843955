import { describe, expect, test } from 'vitest';
import {
  acceptedRequestId,
  downstreamResponseHeaders,
  passedTrailers,
  traceIdOf,
  upstreamRequestHeaders,
} from '#proxy/headers.ts';
import type { RequestRewrite } from '#proxy/headers.ts';

const FACTS = { clientAddress: '1.2.3.4', proto: 'https', host: 'a.test', requestId: 'id', hostName: 'alpha' } as const;
const OWN = [
  'X-Forwarded-For',
  '1.2.3.4',
  'X-Forwarded-Proto',
  'https',
  'X-Forwarded-Host',
  'a.test',
  'X-Request-Id',
  'id',
  'X-Ecluse-Host',
  'alpha',
];

function rewritten(raw: readonly string[], overrides: Partial<RequestRewrite> = {}): string[] {
  return upstreamRequestHeaders(raw, {
    method: 'GET',
    framing: { kind: 'none' },
    facts: FACTS,
    upgrade: undefined,
    ...overrides,
  });
}

describe('upstreamRequestHeaders()', () => {
  test('keeps order, case and repeats of what goes on', () => {
    const raw = ['HOST', 'a.test', 'x-B', '1', 'Cookie', 'a=1', 'x-B', '2'];
    expect(rewritten(raw)).toEqual([...raw, ...OWN]);
  });

  test('drops hop-by-hop fields and those that Connection nominates', () => {
    const raw = [
      'Connection',
      'close, X-Mine , keep-alive',
      'X-Mine',
      '1',
      'Keep-Alive',
      '5',
      'TE',
      'gzip',
      'Upgrade',
      'x',
      'Proxy-Authorization',
      'p',
      'Proxy-Connection',
      'q',
    ];
    expect(rewritten(raw)).toEqual(OWN);
  });

  test('does not let a client nominate away what others rest on', () => {
    const raw = [
      'Host',
      'a.test',
      'Connection',
      'host, content-length, authorization, cookie',
      'Authorization',
      'b',
      'Content-Length',
      '3',
    ];
    expect(rewritten(raw, { method: 'POST', framing: { kind: 'fixed', bytes: 3 } })).toEqual([
      'Host',
      'a.test',
      'Authorization',
      'b',
      'Content-Length',
      '3',
      ...OWN,
    ]);
  });

  test('drops forwarding fields of the client, with hyphens or underscores', () => {
    const raw = [
      'X-Forwarded-For',
      '6',
      'x_forwarded_for',
      '6',
      'Forwarded',
      'for=6',
      'X-Real-IP',
      '6',
      'X-ECLUSE-Host',
      'evil',
      'X-Ecluse_Any',
      'x',
      'X-Request-ID',
      '\u00ff',
    ];
    expect(rewritten(raw)).toEqual(OWN);
  });

  test('frames the body as the client did', () => {
    expect(rewritten(['Transfer-Encoding', 'chunked'], { method: 'DELETE', framing: { kind: 'chunked' } })).toEqual([
      ...OWN,
      'Transfer-Encoding',
      'chunked',
    ]);
    expect(rewritten([], { method: 'POST' })).toEqual([...OWN, 'Content-Length', '0']);
    expect(rewritten(['Trailer', 'x'])).toEqual(OWN);
  });

  test('asks for trailers where the client does, and for the upgrade that was agreed on', () => {
    expect(rewritten(['TE', 'gzip, trailers'])).toEqual([...OWN, 'TE', 'trailers']);
    expect(rewritten(['Connection', 'upgrade', 'Upgrade', 'websocket'], { upgrade: 'websocket' })).toEqual([
      ...OWN,
      'Connection',
      'Upgrade',
      'Upgrade',
      'websocket',
    ]);
  });
});

describe('downstreamResponseHeaders()', () => {
  test('drops hop-by-hop fields, keeps the rest as it is', () => {
    const raw = [
      'X-a',
      '1',
      'Connection',
      'x-gone',
      'X-Gone',
      '1',
      'Transfer-Encoding',
      'chunked',
      'Set-Cookie',
      'a',
      'Set-Cookie',
      'b',
      'Trailer',
      'X-T',
    ];
    expect(downstreamResponseHeaders(raw, { status: 200, trailers: true })).toEqual([
      'X-a',
      '1',
      'Set-Cookie',
      'a',
      'Set-Cookie',
      'b',
      'Trailer',
      'X-T',
    ]);
    expect(downstreamResponseHeaders(raw, { status: 200, trailers: false })).not.toContain('Trailer');
  });

  test('gives 204 no length, 304 its own', () => {
    expect(downstreamResponseHeaders(['Content-Length', '5'], { status: 204, trailers: false })).toEqual([]);
    expect(downstreamResponseHeaders(['Content-Length', '5'], { status: 304, trailers: false })).toEqual(['Content-Length', '5']);
  });
});

describe('fields of a head', () => {
  test('passedTrailers() drops what would change the message', () => {
    expect(passedTrailers(['X-Sum', '1', 'Content-Length', '5', 'Host', 'x', 'X-Forwarded-For', 'y', 'Set-Cookie', 'z'])).toEqual(
      [['X-Sum', '1']],
    );
  });

  test('acceptedRequestId() takes harmless tokens only', () => {
    expect(acceptedRequestId(['X-Request-Id', 'abc-1'])).toBe('abc-1');
    for (const bad of ['', 'a b', 'a"', 'x'.repeat(129)]) expect(acceptedRequestId(['X-Request-Id', bad])).toBeUndefined();
    expect(acceptedRequestId(['X-Request-Id', 'a', 'X-Request-Id', 'b'])).toBeUndefined();
  });

  test('traceIdOf() reads a W3C traceparent', () => {
    expect(traceIdOf(['TraceParent', `00-${'a'.repeat(32)}-${'b'.repeat(16)}-00`])).toBe('a'.repeat(32));
    expect(traceIdOf(['traceparent', '00-x'])).toBeUndefined();
  });
});
