/** The index of certificates, compared with a reference that looks at every certificate for every name. */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { CertificateIndex } from '#tls/certificate-index.ts';
import type { Coverage } from '#tls/certificate-index.ts';

const label = fc.constantFrom('a', 'b', 'c');
const host = fc.tuple(fc.boolean(), fc.array(label, { minLength: 1, maxLength: 2 })).map(([isWildcard, labels]) => {
  const name = `${labels.join('.')}.test`;
  return isWildcard ? `*.${name}` : name;
});
const coverage = fc.record({
  name: fc.constantFrom('one', 'two', 'three', 'four'),
  hosts: fc.array(host, { maxLength: 3 }),
  notAfterMs: fc.nat(3),
});
const change = fc.record({
  changed: fc.uniqueArray(coverage, { selector: ({ name }) => name, maxLength: 3 }),
  removed: fc.uniqueArray(fc.constantFrom('one', 'two', 'none'), { maxLength: 2 }),
});

/** What covers a name: exact names before wildcards, then what is valid longest, then the name. */
function reference(certificates: readonly Coverage[], serverName: string): string | undefined {
  const [, ...rest] = serverName.split('.');
  for (const wanted of [serverName, `*.${rest.join('.')}`]) {
    const [best] = certificates
      .filter(({ hosts }) => hosts.includes(wanted))
      .toSorted((one, other) => other.notAfterMs - one.notAfterMs || one.name.localeCompare(other.name));
    if (best !== undefined) return best.name;
  }
  return undefined;
}

test('an index after any changes answers as if every certificate were looked at', () => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 6 }), fc.array(label, { minLength: 1, maxLength: 3 }), (changes, labels) => {
      const all = new Map<string, Coverage>();
      let index = CertificateIndex.empty<Coverage>();
      for (const { changed, removed } of changes) {
        for (const name of removed) all.delete(name);
        for (const one of changed) all.set(one.name, one);
        index = index.with(changed, removed);
      }
      const serverName = `${labels.join('.')}.test`;
      expect(index.find(serverName)?.name).toBe(reference([...all.values()], serverName));
      expect(index.size).toBe(all.size);
    }),
  );
});

test('an older index stays as it was', () => {
  const shop = { name: 'shop', hosts: ['shop.test'], notAfterMs: 1 };
  const before = CertificateIndex.empty<Coverage>().with([shop]);
  const after = before.with([{ ...shop, hosts: ['other.test'] }]);
  expect(before.find('shop.test')).toBe(shop);
  expect(after.find('shop.test')).toBeUndefined();
  expect(after.with([], ['shop']).find('other.test')).toBeUndefined();
  expect(before.get('shop')).toBe(shop);
});

test.each(['', '.', '.shop.test', '*.shop.test', 'a.b.shop.test', 'shop.test', 'test'])(
  'a wildcard covers one label, and not %j',
  (serverName) => {
    const index = CertificateIndex.empty<Coverage>().with([{ name: 'w', hosts: ['*.shop.test'], notAfterMs: 1 }]);
    expect(index.find('a.shop.test')?.name).toBe('w');
    expect(index.find(serverName)).toBeUndefined();
  },
);
