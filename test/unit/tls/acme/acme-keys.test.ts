import { describe, expect, test } from 'vitest';
import * as z from 'zod';
import { acmeKeys, acmeSettingsOf } from '#tls/acme/acme-keys.ts';

const schema = z.strictObject(acmeKeys);
const DIRECTORY = 'https://acme-v02.api.letsencrypt.org/directory';

function read(acme: object | undefined): ReturnType<typeof acmeSettingsOf> {
  return acmeSettingsOf(schema.parse(acme === undefined ? {} : { acme }).acme, '/etc/ecluse');
}

test('without the key nothing is asked for', () => {
  expect(read(undefined)).toBeUndefined();
});

test('a directory is enough; Let’s Encrypt’s limits are known', () => {
  expect(read({ directory: DIRECTORY })).toEqual({
    cas: [
      {
        directory: DIRECTORY,
        email: undefined,
        eab: undefined,
        profile: undefined,
        limits: 'lets-encrypt',
        trustedRootFile: undefined,
        challenges: ['http-01', 'tls-alpn-01'],
      },
    ],
    auto: 'routes',
    hosts: [],
    onDemand: undefined,
    ordersMax: 8,
    dns: undefined,
  });
});

test('further CAs come after the first, files are named from where the file is, and dns adds its challenge', () => {
  const settings = read({
    directory: DIRECTORY,
    email: 'ops@example.com',
    cas: [{ directory: 'https://ca.corp.example/acme', trustedRoot: 'root.pem', eab: { keyId: 'k', hmacKeyFile: '/run/eab' } }],
    dns: { server: '[2001:db8::1]:5353', keyFile: 'update.key', settleSeconds: 1 },
  });
  expect(settings?.cas.map(({ limits, challenges }) => ({ limits, challenges }))).toEqual([
    { limits: 'lets-encrypt', challenges: ['http-01', 'tls-alpn-01', 'dns-01'] },
    { limits: 'none', challenges: ['http-01', 'tls-alpn-01', 'dns-01'] },
  ]);
  expect(settings?.cas[1]).toMatchObject({
    email: 'ops@example.com',
    trustedRootFile: '/etc/ecluse/root.pem',
    eab: { keyId: 'k', hmacKeyFile: '/run/eab' },
  });
  expect(settings?.dns).toEqual({
    kind: 'update',
    server: { host: '2001:db8::1', port: 5353 },
    keyFile: '/etc/ecluse/update.key',
    timeoutMs: 60_000,
    settleMs: 1000,
  });
});

describe('what is refused', () => {
  test.each([
    [{}, 'directory'],
    [{ directory: 'http://ca.example.com/dir' }, 'no URL of an ACME directory'],
    [{ directory: 'ftp://127.0.0.1/dir' }, 'no URL of an ACME directory'],
    [{ directory: DIRECTORY, dns: {} }, 'either hook, or server and keyFile'],
    [{ directory: DIRECTORY, dns: { hook: 'x', server: '127.0.0.1', keyFile: 'y' } }, 'either hook, or server and keyFile'],
    [{ directory: DIRECTORY, dns: { server: '127.0.0.1' } }, 'either hook, or server and keyFile'],
    [{ directory: DIRECTORY, dns: { server: 'ns.example.com', keyFile: 'y' } }, 'no address of a name server'],
    [{ directory: DIRECTORY, hosts: ['Shop.example.com'] }, 'small letters'],
    [{ directory: DIRECTORY, challenges: [] }, 'challenges'],
    [{ directory: DIRECTORY, onDemand: { ask: 'ftp://x.test/' } }, 'onDemand'],
    [{ directory: DIRECTORY, ordersMax: 0 }, 'ordersMax'],
    [{ directory: DIRECTORY, limit: 'none' }, 'limit'],
  ])('%j', (acme, fault) => {
    const parsed = schema.safeParse({ acme });
    expect(JSON.stringify(parsed.error?.issues)).toContain(fault);
  });
});
