/** Handshakes that wait for the internal CA, on a clock that the test moves. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { systemClock } from '#clock';
import { IssuedCertificates } from '#tls/issued-certificates.ts';
import type { IssuedCertificate } from '#tls/issued-certificates.ts';

const asked: string[] = [];
const got: (string | undefined)[] = [];
let issued: IssuedCertificates;

function certificate(host: string, renewFromMs: number, notAfterMs: number): IssuedCertificate {
  return { name: host, hosts: [host], notAfterMs, renewFromMs, leafPem: String(renewFromMs), chain: { pem: '' }, keyPem: '' };
}

function want(host: string): void {
  issued.certificateFor(host, (answer) => {
    got.push(answer?.leafPem);
  });
}

beforeEach(() => {
  vi.useFakeTimers({ now: 0, toFake: ['setInterval', 'clearInterval', 'Date', 'performance'] });
  asked.length = 0;
  got.length = 0;
  issued = new IssuedCertificates({
    clock: { ...systemClock, nowMs: () => Date.now(), monotonicMs: () => Date.now() },
    ask: (hosts) => {
      asked.push(...hosts);
    },
  });
});

afterEach(() => {
  issued[Symbol.dispose]();
  vi.useRealTimers();
});

test('a host is asked for once, whoever waits, and never again while its certificate is young', () => {
  want('a.test');
  want('a.test');
  expect([asked, got]).toEqual([['a.test'], []]);
  issued.answered({ host: 'a.test', certificate: certificate('a.test', 1000, 2000) });
  want('a.test');
  expect([asked, got]).toEqual([['a.test'], ['1000', '1000', '1000']]);
  issued.answered({ host: 'a.test', certificate: certificate('a.test', 1000, 2000) });
  expect(got).toHaveLength(3);
});

test('one that is due serves on while the next is asked for; one that has ended is waited for', () => {
  want('a.test');
  issued.answered({ host: 'a.test', certificate: certificate('a.test', 1000, 2000) });
  vi.setSystemTime(1500);
  want('a.test');
  want('a.test');
  expect([asked, got]).toEqual([
    ['a.test', 'a.test'],
    ['1000', '1000', '1000'],
  ]);
  vi.setSystemTime(2500);
  want('a.test');
  expect(got).toHaveLength(3);
  issued.answered({ host: 'a.test', certificate: certificate('a.test', 3000, 4000) });
  expect(got.at(-1)).toBe('3000');
});

test('it asks again while nobody answers, and gives up after ten seconds', () => {
  want('a.test');
  vi.advanceTimersByTime(1600);
  expect(asked).toEqual(['a.test', 'a.test', 'a.test', 'a.test']);
  vi.advanceTimersByTime(10_000);
  expect(got).toEqual([undefined]);
  const before = asked.length;
  vi.advanceTimersByTime(10_000);
  expect(asked).toHaveLength(before);
});

test('hosts that are asked for at a time, and handshakes that wait, are bounded', () => {
  for (let index = 0; index < 257; index += 1) want(`h${String(index)}.test`);
  expect([asked.length, got]).toEqual([256, [undefined]]);
  for (let index = 0; index < 2048; index += 1) want('h0.test');
  expect(got).toHaveLength(257);
  issued[Symbol.dispose]();
  expect(got).toHaveLength(257 + 2048);
});
