import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseConfig } from '#admin/config-requests.ts';
import { reasonOf } from '#errors';
import { serviceOf } from '#routing/operator/compile-settings.ts';
import { documentSchema } from '#routing/operator/schema.ts';
import { serviceSchema } from '#routing/operator/service-schema.ts';
import type { ServiceSettings } from '#routing/operator/service-schema.ts';
import { compileRoutes } from '#routing/compile.ts';

const URL_1 = 'http://127.0.0.1:9001';
const URL_2 = 'http://127.0.0.1:9002';

/** What is said of a document with this service, a line each. */
function faultsOf(service: object): readonly string[] {
  try {
    parseConfig(documentSchema, { services: { shop: service } });
    return [];
  } catch (error) {
    return reasonOf(error).split('\n');
  }
}

describe('serviceSchema', () => {
  test.each([
    [{ endpoints: [{ url: URL_1, weight: -1 }] }, /^services\.shop\.endpoints\[0\]\.weight: /],
    [{ endpoints: [{ url: URL_1, weight: 1001 }] }, /^services\.shop\.endpoints\[0\]\.weight: /],
    [{ endpoints: [{ url: URL_1, weight: 1.5 }] }, /^services\.shop\.endpoints\[0\]\.weight: /],
    [{ endpoints: [{ url: URL_1, wait: 1 }] }, /^services\.shop\.endpoints\[0\]\.wait: unknown key/],
    [{ endpoints: [{ url: 'http://shop:80' }] }, /^services\.shop\.endpoints\[0\]\.url: write http:\/\/ADDRESS:PORT/],
    [{ endpoints: ['http://shop:80'] }, /^services\.shop\.endpoints\[0\]: write http:\/\/ADDRESS:PORT/],
    [{ endpoints: [URL_1, { url: URL_1, weight: 2 }] }, /^services\.shop\.endpoints: an endpoint is there twice/],
    [
      {
        endpoints: [
          { url: URL_1, weight: 0 },
          { url: URL_2, weight: 0 },
        ],
      },
      /^services\.shop\.endpoints: all weights are 0/,
    ],
    [{ endpoints: [URL_1], balance: 'fair' }, /^services\.shop\.balance: "fair" is no way to balance; write least-request/],
    [{ endpoints: [URL_1], timeouts: { connect: 5 } }, /^services\.shop\.timeouts\.connect: /],
    [
      { endpoints: [URL_1], timeouts: { connect: '5' } },
      /^services\.shop\.timeouts\.connect: "5" is not a duration; write it like/,
    ],
    [{ endpoints: [URL_1], timeouts: { connect: '2m' } }, /^services\.shop\.timeouts\.connect: "2m" is not from 100ms to 1m/],
    [
      { endpoints: [URL_1], timeouts: { firstByte: '1ms' } },
      /^services\.shop\.timeouts\.firstByte: "1ms" is not from 100ms to 1d/,
    ],
    [{ endpoints: [URL_1], timeouts: { idel: '1s' } }, /^services\.shop\.timeouts\.idel: unknown key; did you mean idle\?/],
    [{ endpoints: [URL_1], limits: { connections: 0 } }, /^services\.shop\.limits\.connections: /],
    [{ endpoints: [URL_1], limits: { pending: -1 } }, /^services\.shop\.limits\.pending: /],
    [{ endpoints: [URL_1], limits: { hold: '1h' } }, /^services\.shop\.limits\.hold: "1h" is not from 100ms to 10m/],
    [{ endpoints: [URL_1], health: {} }, /^services\.shop\.health\.path: /],
    [{ endpoints: [URL_1], health: { path: 'healthz' } }, /^services\.shop\.health\.path: write a path, like \/healthz/],
    [{ endpoints: [URL_1], health: { path: '/x HTTP/1.1\r\nX: y' } }, /^services\.shop\.health\.path: write a path/],
    [
      { endpoints: [URL_1], health: { path: '/', interval: '10ms' } },
      /^services\.shop\.health\.interval: "10ms" is not from 1s to 10m/,
    ],
    [{ endpoints: [URL_1], health: { path: '/', healthyAfter: 0 } }, /^services\.shop\.health\.healthyAfter: /],
    [
      { endpoints: [URL_1], health: { path: '/', timeot: '1s' } },
      /^services\.shop\.health\.timeot: unknown key; did you mean timeout\?/,
    ],
    [{ endpoints: [URL_1], balence: 'random-two' }, /^services\.shop\.balence: unknown key; did you mean balance\?/],
  ])('refuses %j, saying where', (service, message) => {
    const [fault = '', ...more] = faultsOf(service);
    expect([fault, more]).toEqual([expect.stringMatching(message), []]);
  });

  test('takes what DESIGN writes', () => {
    expect(faultsOf({ endpoints: [URL_1, { url: URL_2, weight: 3 }], balance: 'least-request' })).toEqual([]);
    expect(faultsOf({ endpoints: [URL_1], timeouts: { connect: '1s', firstByte: '30s', idle: '60s' } })).toEqual([]);
    expect(faultsOf({ endpoints: [URL_1], limits: { connections: 1024, pending: 256, hold: '30s' } })).toEqual([]);
    expect(faultsOf({ endpoints: [] })).toEqual([]);
  });
});

describe('serviceOf()', () => {
  const of = (settings: object): ReturnType<typeof serviceOf> => serviceOf('shop', serviceSchema.parse(settings));

  test('says nothing of a service that wants nothing', () => {
    const plain = of({ endpoints: [URL_1, { url: URL_2, weight: 1 }], balance: 'least-request' });
    expect([plain.policy, plain.endpoints.map(({ weight }) => weight)]).toEqual([undefined, [undefined, undefined]]);
  });

  test('keeps the name of an endpoint whatever its weight', () => {
    const [light, heavy] = [of({ endpoints: [URL_1] }), of({ endpoints: [{ url: URL_1, weight: 7 }] })];
    expect(heavy.endpoints[0]?.id).toBe(light.endpoints[0]?.id);
    expect(heavy.policy).toEqual({ balance: { kind: 'least-request' } });
  });

  test('says all of a health check, with defaults for what was not said', () => {
    expect(of({ endpoints: [URL_1], health: { path: '/healthz', interval: '2s' } }).policy?.health).toEqual({
      path: '/healthz',
      intervalMs: 2000,
      timeoutMs: 1000,
      unhealthyAfter: 3,
      healthyAfter: 2,
    });
  });

  test('keeps limits as numbers', () => {
    expect(of({ endpoints: [URL_1], limits: { pending: 3, hold: '30s' } }).policy?.limits).toEqual({
      pending: 3,
      holdMs: 30_000,
    });
  });

  test('keeps only the time-outs that are there', () => {
    expect(of({ endpoints: [URL_1], timeouts: { firstByte: '1.5s' } }).policy?.timeouts).toEqual({ firstByteMs: 1500 });
    expect(of({ endpoints: [URL_1], timeouts: {} }).policy).toBeUndefined();
  });

  test('makes of whatever the schema takes what routing takes', () => {
    const endpoint = fc.tuple(fc.integer({ min: 1, max: 65_535 }), fc.integer({ min: 0, max: 1000 }), fc.boolean());
    const balance = fc.constantFrom(undefined, 'round-robin', 'random-two', 'hash(ip)', 'hash(header:a)', 'hash(cookie:a)');
    fc.assert(
      fc.property(fc.uniqueArray(endpoint, { selector: ([port]) => port }), balance, (list, how) => {
        const settings: ServiceSettings = {
          endpoints: list.map(([port, weight, isPlain]) => {
            const url = `http://10.0.0.1:${String(port)}`;
            return isPlain ? url : { url, weight };
          }),
          ...(how === undefined ? {} : { balance: how }),
        };
        const read = serviceSchema.safeParse(settings);
        fc.pre(read.success);
        const service = serviceOf('shop', settings);
        expect(compileRoutes({ version: 1, services: [service], routes: [] }).kind).toBe('compiled');
        expect(service.policy === undefined).toBe(
          how === undefined && service.endpoints.every(({ weight }) => weight === undefined),
        );
      }),
    );
  });
});
