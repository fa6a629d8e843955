/** Which registries may be reached, by any spelling of a name; and what clients and registries say in headers. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { hopTo, isPublicAddress, parseRegistries, registryAt } from '#caas/registry/registry-access.ts';
import { parseRegistryAuth, registryAuthOf } from '#caas/registry/registry-auth.ts';
import { parseChallenge } from '#caas/registry/registry-client.ts';

const any = parseRegistries(['*']);

describe('registryAt()', () => {
  test('any public one, and the hub by its own name', () => {
    expect(registryAt(any, 'docker.io')).toEqual({ host: 'registry-1.docker.io', port: 443, isNamed: false, isInsecure: false });
    expect(registryAt(any, 'Registry.Example.com:8443')).toMatchObject({
      host: 'registry.example.com',
      port: 8443,
      isInsecure: false,
    });
    expect(registryAt(any, '8.8.8.8')).toMatchObject({ host: '8.8.8.8' });
  });

  test('no private address in any spelling', () => {
    const spellings = [
      '10.0.0.1',
      '10.1',
      '0xa.1',
      '012.0.0.1',
      '167772161',
      '0x0a000001',
      '127.0.0.1',
      '127.1',
      '0',
      '0.0.0.0',
      '2130706433',
      '0x7f000001',
      '0177.1',
    ];
    const names = [
      ...spellings,
      'localhost',
      'LOCALHOST',
      'a.localhost',
      '169.254.169.254',
      '[::1]',
      '[::ffff:10.0.0.1]',
      '[fd00::1]',
      '[64:ff9b::a00:1]',
      '[2002:a00:1::]',
    ];
    for (const name of names) {
      for (const port of ['', ':80', ':5000'])
        expect(() => registryAt(any, `${name}${port}`), name).toThrow('is not reached from this node');
    }
    for (const name of ['', 'a b', 'a/b', 'x@10.0.0.1', '1.2.3.4.5', '256.1.1.1', 'a:99999', '%31%30.0.0.1']) {
      expect(() => hopOf(name), name).toThrow('is not reached from this node');
    }
  });

  /** As a registry of a name, or not at all. */
  const hopOf = (name: string) =>
    /[\s/@%]/.test(name) || name === '' ? hopTo(any, new URL('https://user@10.0.0.1/')) : registryAt(any, name);

  test('what is named, wherever it is; and nothing else where the star is missing', () => {
    const policy = parseRegistries(['10.0.0.5:5000', 'http://10.0.0.6:5000', 'registry.corp', '127.0.0.1:5000']);
    expect(registryAt(policy, '10.0.0.5:5000')).toMatchObject({ isNamed: true, isInsecure: false });
    expect(registryAt(policy, '0xa.0.0.5:5000')).toMatchObject({ isNamed: true, host: '10.0.0.5' });
    expect(registryAt(policy, '10.0.0.6:5000')).toMatchObject({ isNamed: true, isInsecure: true });
    expect(registryAt(policy, 'registry.corp')).toMatchObject({ isNamed: true });
    expect(registryAt(policy, '127.0.0.1:5000')).toMatchObject({ isNamed: true, isInsecure: true });
    for (const name of ['10.0.0.5', '10.0.0.5:5001', 'registry.corp:80', 'docker.io', 'example.com', '127.0.0.1']) {
      expect(() => registryAt(policy, name), name).toThrow('is not reached');
    }
  });
});

test('hopTo() lets registries send clients to public places by TLS only', () => {
  expect(hopTo(any, new URL('https://cdn.example.com/x'))).toMatchObject({ host: 'cdn.example.com', port: 443 });
  const policy = parseRegistries(['*', '127.0.0.1:5000']);
  expect(hopTo(policy, new URL('http://127.0.0.1:5000/v2/'))).toMatchObject({ isNamed: true });
  for (const url of [
    'http://cdn.example.com/',
    'https://10.0.0.1/',
    'http://127.0.0.1:5001/',
    'ftp://a.example/',
    'file:///etc/passwd',
    'https://u:p@a.example/',
    'https://[::1]/',
  ]) {
    expect(() => hopTo(policy, new URL(url)), url).toThrow('is not reached');
  }
});

describe('isPublicAddress()', () => {
  test('refuses special ranges to their edges', () => {
    const refused = [
      '0.1.2.3',
      '10.255.255.255',
      '100.64.0.0',
      '100.127.255.255',
      '127.9.9.9',
      '169.254.1.1',
      '172.16.0.0',
      '172.31.255.255',
      '192.168.255.255',
      '198.19.0.1',
      '224.0.0.1',
      '255.255.255.255',
      '::',
      '::1',
      '::ffff:8.8.8.8',
      '64:ff9b::808:808',
      '100::1',
      'fc00::1',
      'fe80::1',
      'ff02::1',
      '2001:db8::1',
      '2002::1',
      '2001::1',
      'x',
      '',
    ];
    for (const address of refused) expect(isPublicAddress(address), address).toBe(false);
    for (const address of [
      '1.1.1.1',
      '9.255.255.255',
      '11.0.0.0',
      '100.63.255.255',
      '100.128.0.0',
      '172.15.0.1',
      '172.32.0.1',
      '192.167.0.1',
      '223.255.255.255',
      '2606:4700::1',
      '2a00::1',
    ])
      expect(isPublicAddress(address), address).toBe(true);
  });
});

describe('credentials', () => {
  const auth = { username: 'u', password: 'p', identityToken: '', registryToken: '', serverAddress: '' };

  test('come in either alphabet of base64, with keys in any case', () => {
    const value = JSON.stringify({ Username: 'u', password: 'p', email: 'x', other: 1 });
    for (const encoding of ['base64', 'base64url'] as const)
      expect(parseRegistryAuth(Buffer.from(value).toString(encoding))).toEqual(auth);
    expect(registryAuthOf({ auth: Buffer.from('u:p:q').toString('base64') })).toEqual({ ...auth, password: 'p:q' });
  });

  test('that cannot be read are none', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect([undefined, 'object']).toContain(parseRegistryAuth(text) === undefined ? undefined : 'object');
      }),
    );
    for (const text of ['', 'e', 'bnVsbA==', 'W10=', Buffer.from('{"username":5}').toString('base64'), 'A'.repeat(20_000)]) {
      expect(parseRegistryAuth(text), text.slice(0, 20)).toBeUndefined();
    }
    expect(parseRegistryAuth(undefined)).toBeUndefined();
  });

  test('are asked for as the registry says', () => {
    expect(parseChallenge('Basic realm="x"')).toEqual({ scheme: 'basic', params: new Map([['realm', 'x']]) });
    expect(parseChallenge('Bearer realm="https://a/t",service="s",scope="repository:a:pull,push"')?.params.get('scope')).toBe(
      'repository:a:pull,push',
    );
    expect(parseChallenge('Negotiate, Bearer realm="https://a/t"')?.scheme).toBe('bearer');
    for (const header of [undefined, '', 'Digest realm="x"']) expect(parseChallenge(header)).toBeUndefined();
  });
});
