/** The index of certificates, compared with a reference that looks at every certificate for every name. */
import { generateKeyPairSync } from 'node:crypto';
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { hashOf } from '#sharded-map';
import type { Coverage, EdgeCertificate } from '#tls/certificate.ts';
import { CertificatePack } from '#tls/certificate-pack.ts';
import { CertificateIndex, ToldPacks } from '#tls/certificate-index.ts';
import { pemBlockOf } from '#tls/pem-blocks.ts';

const label = fc.constantFrom('a', 'b', 'c');
const host = fc.tuple(fc.boolean(), fc.array(label, { minLength: 1, maxLength: 2 })).map(([isWildcard, labels]) => {
  const name = `${labels.join('.')}.test`;
  return isWildcard ? `*.${name}` : name;
});
/** Two names with one hash, found by trying: they must not be taken for each other. */
const TWINS = ['n-1412694', 'eyk3v'] as const;
const name = fc.constantFrom(...TWINS, 'one', 'a.test', 'größe');
const der = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes));
const certificate = fc.record({
  name,
  hosts: fc.array(host, { maxLength: 3 }),
  notAfterMs: fc.nat(3),
  leafPem: der.map((bytes) => pemBlockOf('CERTIFICATE', bytes)),
  chain: fc.constantFrom('', 'one\n', 'two\n').map((pem) => ({ pem })),
  keyPem: fc.tuple(fc.constantFrom('PRIVATE KEY', 'EC PRIVATE KEY'), der).map(([kind, bytes]) => pemBlockOf(kind, bytes)),
});
const change = fc.record({
  changed: fc.uniqueArray(certificate, { selector: (one) => one.name, maxLength: 3 }),
  removed: fc.uniqueArray(fc.oneof(name, fc.constant('none')), { maxLength: 2 }),
});

function certificateOf(over: Partial<EdgeCertificate>): EdgeCertificate {
  const [leafPem, keyPem] = [pemBlockOf('CERTIFICATE', Buffer.from('leaf')), pemBlockOf('PRIVATE KEY', Buffer.from('key'))];
  return { name: 'shop', hosts: ['shop.test'], notAfterMs: 1, leafPem, chain: { pem: 'chain\n' }, keyPem, ...over };
}

/** What covers a name: exact names before wildcards, then what is valid longest, then the name. */
function reference(certificates: readonly EdgeCertificate[], serverName: string): EdgeCertificate | undefined {
  const [, ...rest] = serverName.split('.');
  for (const wanted of [serverName, `*.${rest.join('.')}`]) {
    const [best] = certificates
      .filter(({ hosts }) => hosts.includes(wanted))
      .toSorted((one, other) => other.notAfterMs - one.notAfterMs || (one.name < other.name ? -1 : 1));
    if (best !== undefined) return best;
  }
  return undefined;
}

function plainOf(one: EdgeCertificate | undefined): EdgeCertificate | undefined {
  if (one === undefined) return undefined;
  const { hosts, notAfterMs, leafPem, chain, keyPem } = one;
  return { name: one.name, hosts: [...new Set(hosts)], notAfterMs, leafPem, chain, keyPem };
}

test('keys of P-256 are as they were, with their certificate or with another', () => {
  for (const namedCurve of ['P-256', 'P-384']) {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve });
    const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' });
    const spki = publicKey.export({ type: 'spki', format: 'der' });
    for (const leaf of [spki, Buffer.concat([Buffer.alloc(70_000), spki]), Buffer.from('another')]) {
      const made = certificateOf({ keyPem, leafPem: pemBlockOf('CERTIFICATE', leaf) });
      const index = CertificateIndex.of([made]).with([certificateOf({ name: 'blog' })]);
      expect(plainOf(index.get('shop'))).toEqual(made);
    }
  }
});

test('the twins have one hash', () => {
  expect(hashOf(TWINS[0])).toBe(hashOf(TWINS[1]));
});

test('an index after any changes answers as if every certificate were looked at, and so does one that was told it', () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 6 }), fc.array(label, { minLength: 1, maxLength: 3 }), (changes, labels) => {
      const all = new Map<string, EdgeCertificate>();
      let index = CertificateIndex.of([]);
      let bare = CertificateIndex.bare();
      const known = new Map<number, CertificatePack>();
      const told = new ToldPacks();
      for (const { changed, removed } of changes) {
        for (const one of removed) all.delete(one);
        for (const one of changed) all.set(one.name, one);
        index = index.with(changed, removed);
        bare = bare.with(changed, removed);
        const packs = index.packsBeside(known);
        for (const { number, pack } of packs) told.tell(number, new CertificatePack(Buffer.from(pack.bytes)));
        for (const { number, pack } of packs) known.set(number, pack);
      }
      const serverName = `${labels.join('.')}.test`;
      const wanted = plainOf(reference([...all.values()], serverName));
      for (const one of [index, told.index()]) {
        expect(plainOf(one.find(serverName))).toEqual(wanted);
        expect(one.size).toBe(all.size);
        for (const [key, kept] of all) expect(plainOf(one.get(key))).toEqual(plainOf(kept));
      }
      expect(index.packsBeside(known)).toEqual([]);
      expect(bare.find(serverName)?.name).toBe(wanted?.name);
      expect([...bare.values()].map((one) => one.name).toSorted()).toEqual([...all.keys()].toSorted());
      const names = (one: CertificateIndex<Coverage>): readonly string[] =>
        one.holdersOf(serverName).map((holder) => holder.name);
      expect(names(bare)).toEqual(names(index));
      const holders = [...all.values()].filter(({ hosts }) => hosts.includes(serverName));
      expect(
        index
          .holdersOf(serverName)
          .map((one) => one.name)
          .toSorted(),
      ).toEqual(holders.map((one) => one.name).toSorted());
    }),
  );
});

test('an older index stays as it was, and no two certificates have one id', () => {
  const before = CertificateIndex.of([certificateOf({})]);
  const after = before.with([certificateOf({ hosts: ['other.test'] })]);
  expect(before.find('shop.test')?.name).toBe('shop');
  expect(after.find('shop.test')).toBeUndefined();
  expect(after.with([], ['shop']).find('other.test')).toBeUndefined();
  expect(before.find('shop.test')?.id).toBe(before.get('shop')?.id);
  const twins = CertificateIndex.of(TWINS.map((one) => certificateOf({ name: one })));
  const ids = [before, after, twins].flatMap((index) => [...index.values()].map(({ id }) => id));
  expect(new Set(ids).size).toBe(4);
});

test('a chain is in a pack once, and a certificate costs little more than its bytes', { timeout: 10_000 }, () => {
  const chain = { pem: 'c'.repeat(5000) };
  const certificates = Array.from({ length: 10 }, (_, number) => certificateOf({ name: `n-${String(number)}`, chain }));
  const pack = CertificatePack.of(certificates, (_name, reason) => {
    throw new Error(reason);
  });
  expect([...pack.values()].map((one) => one.chain)).toEqual(certificates.map(() => chain));
  expect(pack.bytes.length).toBeLessThan(5000 + 10 * 80);
});

test.each(['leafPem', 'keyPem'])('%s must be one PEM block', (field) => {
  for (const text of ['', 'leaf', `${certificateOf({}).leafPem}${certificateOf({}).leafPem}`]) {
    expect(() => CertificateIndex.of([certificateOf({ [field]: text })])).toThrow('certificate "shop" is not one PEM block');
  }
});

test.each(['', '.', '.shop.test', '*.shop.test', 'a.b.shop.test', 'shop.test', 'test'])(
  'a wildcard covers one label, and not %j',
  (serverName) => {
    const index = CertificateIndex.of([certificateOf({ name: 'w', hosts: ['*.shop.test'] })]);
    expect(index.find('a.shop.test')?.name).toBe('w');
    expect(index.find(serverName)).toBeUndefined();
  },
);
