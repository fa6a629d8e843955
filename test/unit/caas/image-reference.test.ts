/** Image names, short and whole. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { engineReference, familiarReference, parseReference, wholeReference } from '#caas/image-reference.ts';

function whole(text: string): string | undefined {
  const parsed = parseReference(text);
  return parsed === undefined ? undefined : wholeReference(parsed);
}

const label = fc.stringMatching(/^[a-z0-9]{1,8}$/);
const domain = fc.constantFrom('', 'a.test/', 'localhost/', 'x:5000/', 'docker.io/');
const reference = fc
  .tuple(domain, fc.array(label, { minLength: 1, maxLength: 3 }), fc.constantFrom('', ':1', ':v1.2-x_3'))
  .map(([host, parts, tag]) => `${host}${parts.join('/')}${tag}`);

describe('parseReference()', () => {
  test('makes short names whole, as Docker does', () => {
    const cases: Readonly<Record<string, string>> = {
      busybox: 'docker.io/library/busybox:latest',
      'busybox:1': 'docker.io/library/busybox:1',
      'a/b': 'docker.io/a/b:latest',
      'docker.io/b': 'docker.io/library/b:latest',
      'localhost/b': 'localhost/b:latest',
      'localhost:5000/x/y:2': 'localhost:5000/x/y:2',
      'ghcr.io/a/b': 'ghcr.io/a/b:latest',
    };
    for (const [short, long] of Object.entries(cases)) expect(whole(short)).toBe(long);
  });

  test('refuses what is none', () => {
    for (const text of [
      '',
      'UPPER',
      'a b',
      'a//b',
      '/a',
      'a/',
      'a:',
      'a:b:c',
      '-a',
      'a..b',
      `x@sha256:${'0'.repeat(64)}`,
      'a/../b',
      'x'.repeat(600),
      'a:/b',
      '\u0430',
    ]) {
      expect(whole(text), text).toBeUndefined();
    }
  });

  test('the familiar form means the same', () => {
    fc.assert(
      fc.property(reference, (text) => {
        const long = whole(text);
        fc.pre(long !== undefined);
        expect(whole(familiarReference(long))).toBe(long);
      }),
    );
  });
});

describe('engineReference()', () => {
  test('differs by tenant and by reference, and says nothing of either', () => {
    const names = ['acme', 'globex', 'ac', 'a'].flatMap((tenant) =>
      ['x:1', 'x:2', 'me\0x:1'].map((name) => engineReference(tenant, name).repository),
    );
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^ecluse\/[0-9a-f]{40}$/);
  });
});
