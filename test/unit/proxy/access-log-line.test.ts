import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { LINE_BYTES_MAX, writeLine } from '#proxy/access-log-line.ts';
import { createRecord } from '#proxy/record.ts';
import type { ExchangeRecord } from '#proxy/record.ts';

/** What stands before and after a line: neither may matter. */
const AT = 5;

function line(record: ExchangeRecord, totalMs: number): string {
  const out = Buffer.alloc(AT + LINE_BYTES_MAX, 0xff);
  const end = writeLine(out, AT, record, totalMs);
  expect(out.subarray(0, AT)).toEqual(Buffer.alloc(AT, 0xff));
  expect(end - AT).toBeLessThan(LINE_BYTES_MAX);
  return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(out.subarray(AT, end));
}

function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

/** The line by the ordinary way. Limits are written out: they are the schema's. */
function reference(record: ExchangeRecord, totalMs: number): object {
  const { head, route, tls, traceIdStart } = record;
  const latin1 = (start: number, end: number): string => Buffer.from(head.subarray(start, end)).toString('latin1');
  const cut = (text: string | undefined): string | null => text?.slice(0, 255) ?? null;
  return {
    time: new Date(record.startWallMs).toISOString(),
    requestId: record.requestId.toString('latin1').slice(0, 128),
    traceId: traceIdStart < 0 ? null : latin1(traceIdStart, traceIdStart + 32),
    configVersion: record.configVersion,
    route: route === undefined ? null : `${route.route.host}${route.route.path}`.slice(0, 2048),
    service: cut(route?.route.serviceId),
    endpoint: cut(record.endpoint?.id),
    tenant: cut(route?.tenant),
    client: cut(record.client),
    method: latin1(0, record.methodEnd).slice(0, 64),
    host: record.host === '' ? null : cut(record.host),
    path: latin1(record.pathStart, record.pathEnd).slice(0, 1024),
    status: record.status,
    downstreamInBytes: record.downstreamInBytes,
    downstreamOutBytes: record.downstreamOutBytes,
    upstreamInBytes: record.upstreamInBytes,
    upstreamOutBytes: record.upstreamOutBytes,
    totalMs: rounded(totalMs),
    holdMs: rounded(record.holdMs),
    connectMs: record.connectMs < 0 ? null : rounded(record.connectMs),
    firstByteMs: record.firstByteMs < 0 ? null : rounded(record.firstByteMs),
    tlsVersion: cut(tls?.version),
    sni: cut(tls?.sni),
    alpn: cut(tls?.alpn),
    errorCode: record.error ?? null,
  };
}

function ordinary(fields: Partial<ExchangeRecord> = {}): ExchangeRecord {
  const head = Buffer.from(
    'GET /cart?user=secret HTTP/1.1\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n',
  );
  const endpoint = { id: 'c0ffee', address: '10.0.0.2', port: 80, hostName: 'h', generation: 1 };
  const service = { id: 'shop', tenant: 'acme', endpoints: [endpoint] };
  return {
    ...createRecord('192.0.2.7', { version: 'TLSv1.3', sni: 'shop.test', alpn: undefined }),
    head,
    headBytes: head.length,
    methodEnd: 3,
    pathStart: 4,
    pathEnd: 9,
    traceIdStart: head.indexOf('0af76'),
    host: 'shop.test',
    requestId: Buffer.from('r-1'),
    configVersion: 7,
    route: {
      pattern: { kind: 'prefix' as const, prefix: '' },
      conditions: undefined,
      arms: undefined,
      whole: undefined,
      route: { host: 'shop.test', path: '/', serviceId: 'shop' },
      tenant: service.tenant,
    },
    endpoint,
    status: 200,
    downstreamInBytes: 98,
    downstreamOutBytes: 12_345,
    upstreamInBytes: 12_300,
    upstreamOutBytes: 1234,
    startWallMs: Date.UTC(2026, 10, 20, 9, 8, 7, 65),
    connectMs: 0.25,
    firstByteMs: 3.0405,
    ...fields,
  };
}

const bytes = fc.oneof(
  fc.uint8Array({ maxLength: 1500 }),
  fc.string({ unit: 'binary-ascii', maxLength: 40 }).map((text) => Buffer.from(text, 'latin1')),
);
/** Any UTF-16 units, unpaired surrogates too. */
const text = fc.oneof(
  fc.string({ maxLength: 20 }),
  fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 300 }).map((units) => String.fromCharCode(...units)),
);
const optionalText = fc.option(text, { nil: undefined });
const count = fc.oneof(fc.maxSafeNat(), fc.nat({ max: 100_000 }), fc.integer({ min: 2 ** 31 - 2, max: 2 ** 31 + 2 }));
const ms = fc.oneof(
  fc.double({ min: 0, max: 100_000, noNaN: true }),
  fc.double({ min: 0, max: 1e12, noNaN: true }),
  fc.nat({ max: 5_000_000 }).map((micros) => micros / 1000),
  fc.constantFrom(0, 0.0004, 0.0005, 0.001, 0.01, 0.1, 0.101, 9.9995, 99.9999, 2_147_483.647, 2_147_483.648),
);
const timeOrNot = fc.oneof(fc.constant(-1), ms);
const wallMs = fc.oneof(
  fc.integer({ min: 0, max: 253_402_300_799_999 }),
  fc.integer({ min: 1_800_000_000_000, max: 1_800_000_100_000 }),
);

const endpoints = fc.record({
  id: text,
  address: fc.constant('::1'),
  port: fc.constant(1),
  hostName: fc.constant('h'),
  generation: fc.constant(1),
});
const routes = fc.record({ host: text, path: text, id: text, tenant: text }).map(({ host, path, id, tenant }) => ({
  pattern: { kind: 'prefix' as const, prefix: '' },
  conditions: undefined,
  arms: undefined,
  whole: undefined,
  route: { host, path, serviceId: id },
  tenant,
}));
const heads = fc
  .record({ head: bytes, cuts: fc.tuple(fc.nat(), fc.nat(), fc.nat()), trace: fc.option(fc.nat(), { nil: undefined }) })
  .map(({ head, cuts, trace }) => {
    const [methodEnd = 0, pathStart = 0, pathEnd = 0] = cuts
      .map((cut) => cut % (head.length + 1))
      .toSorted((one, other) => one - other);
    const traceIdStart = trace === undefined || head.length < 32 ? -1 : trace % (head.length - 31);
    return { head: Buffer.from(head), headBytes: head.length, methodEnd, pathStart, pathEnd, traceIdStart };
  });
const records: fc.Arbitrary<ExchangeRecord> = fc
  .tuple(
    heads,
    fc.record({
      client: text,
      tls: fc.option(fc.record({ version: optionalText, sni: optionalText, alpn: optionalText }), { nil: undefined }),
      host: text,
      requestId: fc
        .string({ unit: fc.constantFrom('a', 'Z', '0', '-', '_', '.', '!', '~'), maxLength: 200 })
        .map((id) => Buffer.from(id)),
      configVersion: fc.nat({ max: 3 }),
      route: fc.option(routes, { nil: undefined }),
      endpoint: fc.option(endpoints, { nil: undefined }),
      status: fc.oneof(fc.constantFrom(0, 101, 200, 404, 499, 502), count),
      downstreamInBytes: count,
      downstreamOutBytes: count,
      upstreamInBytes: count,
      upstreamOutBytes: count,
      startWallMs: wallMs,
      holdMs: ms,
      connectMs: timeOrNot,
      firstByteMs: timeOrNot,
      error: fc.option(fc.constantFrom('client-aborted' as const, 'internal' as const), { nil: undefined }),
    }),
  )
  .map(([head, fields]) => ({ ...createRecord('', undefined), ...head, ...fields }));

describe('a line', () => {
  test('has every key in the order of the schema', () => {
    expect(line(ordinary(), 4.5)).toBe(
      '{"time":"2026-11-20T09:08:07.065Z","requestId":"r-1","traceId":"0af7651916cd43dd8448eb211c80319c","configVersion":7,' +
        '"route":"shop.test/","service":"shop","endpoint":"c0ffee","tenant":"acme","client":"192.0.2.7","method":"GET","host":"shop.test",' +
        '"path":"/cart","status":200,"downstreamInBytes":98,"downstreamOutBytes":12345,"upstreamInBytes":12300,"upstreamOutBytes":1234,' +
        '"totalMs":4.5,"holdMs":0,"connectMs":0.25,"firstByteMs":3.041,"tlsVersion":"TLSv1.3","sni":"shop.test","alpn":null,"errorCode":null}\n',
    );
  });

  test('is what JSON.stringify gives, for any record', () => {
    fc.assert(
      fc.property(records, ms, (record, totalMs) => {
        const written = line(record, totalMs);
        const expected = reference(record, totalMs);
        expect(written).toBe(`${JSON.stringify(expected)}\n`);
        expect(JSON.parse(written)).toEqual(JSON.parse(JSON.stringify(expected)));
      }),
      { numRuns: 300 },
    );
  });

  test('has the text of its own route, endpoint, version and connection, whatever came before', () => {
    const facts = fc.record({
      route: fc.constantFrom(0, 1, 2),
      endpoint: fc.constantFrom(0, 1, 2),
      version: fc.constantFrom(6, 7, 8),
      method: fc.constantFrom('GET', 'POST', 'PUT', 'GEX', 'POSX', ''),
      host: fc.constantFrom('0.test', '1.test', ''),
      wallMs: fc.constantFrom(0, 999, 86_399_999, 86_400_000, 1_800_000_000_000),
      tls: fc.constantFrom(0, 1),
    });
    const tls = [undefined, { version: 'TLSv1.2', sni: undefined, alpn: 'http/1.1' }];
    const allRoutes = [0, 1].map((index) => ({
      pattern: { kind: 'prefix' as const, prefix: '' },
      conditions: undefined,
      arms: undefined,
      whole: undefined,
      route: { host: `${String(index)}.test`, path: '/', serviceId: 's' },
      tenant: 't',
    }));
    const allEndpoints = [0, 1].map((index) => ({
      id: `e${String(index)}`,
      address: '::1',
      port: 1,
      hostName: 'h',
      generation: 1,
    }));
    fc.assert(
      fc.property(fc.array(facts, { minLength: 1, maxLength: 20 }), (sequence) => {
        for (const { route, endpoint, version, method, host, wallMs: startWallMs, tls: which } of sequence) {
          const record = ordinary({
            head: Buffer.from(`${method} /x `),
            methodEnd: method.length,
            pathStart: method.length + 1,
            pathEnd: method.length + 3,
            traceIdStart: -1,
            configVersion: version,
            route: allRoutes[route],
            endpoint: allEndpoints[endpoint],
            host,
            startWallMs,
            tls: tls[which],
          });
          expect(line(record, 1)).toBe(`${JSON.stringify(reference(record, 1))}\n`);
        }
      }),
    );
  });

  test('goes on when there are more routes than texts are kept', () => {
    const out = Buffer.alloc(LINE_BYTES_MAX);
    for (let index = 0; index < 9000; index += 1) {
      const record = ordinary({
        configVersion: 100,
        endpoint: { id: String(index), address: '::1', port: 1, hostName: 'h', generation: 1 },
      });
      const end = writeLine(out, 0, record, 1);
      expect(out.toString('latin1', 0, end).includes(`"endpoint":"${String(index)}"`)).toBe(true);
    }
  });

  test('of a head that was refused has no path, host, route and answer', () => {
    const record = createRecord('192.0.2.7', undefined);
    expect(JSON.parse(line(record, 0))).toMatchObject({
      time: '1970-01-01T00:00:00.000Z',
      requestId: '',
      route: null,
      service: null,
      endpoint: null,
      tenant: null,
      method: '',
      host: null,
      path: '',
      status: 0,
      connectMs: null,
      errorCode: null,
    });
  });

  test('is bounded, whatever its texts are', () => {
    const worst = '\u0001'.repeat(5000);
    const record = ordinary({
      head: Buffer.alloc(20_000, 1),
      methodEnd: 5000,
      pathStart: 5001,
      pathEnd: 20_000,
      traceIdStart: 7,
      client: worst,
      host: worst,
      tls: { version: worst, sni: worst, alpn: worst },
      requestId: Buffer.alloc(5000, 'a'),
      route: {
        pattern: { kind: 'prefix' as const, prefix: '' },
        conditions: undefined,
        arms: undefined,
        whole: undefined,
        route: { host: worst, path: worst, serviceId: worst },
        tenant: worst,
      },
      endpoint: { id: worst, address: '::1', port: 1, hostName: 'h', generation: 1 },
      startWallMs: Number.NaN,
      downstreamInBytes: -1.234_567_890_123_456e-300,
      holdMs: -1e21,
      firstByteMs: Number.NaN,
      error: 'upstream-truncated',
    });
    const written = line(record, Number.POSITIVE_INFINITY);
    expect(JSON.parse(written)).toMatchObject({ time: '1970-01-01T00:00:00.000Z', totalMs: null, firstByteMs: null });
    expect(written.length).toBeGreaterThan(LINE_BYTES_MAX / 2);
  });
});
