/** Image names, short and whole. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  familiarReference,
  parseNamed,
  parseReference,
  splitWhole,
  wholeReference,
  withTag,
} from '#caas/images/image-reference.ts';

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

describe('parseNamed()', () => {
  const digest = `sha256:${'0'.repeat(64)}`;

  test('keeps what was written apart', () => {
    expect(parseNamed(`x:1@${digest}`)).toEqual({
      kind: 'named',
      name: { repository: 'docker.io/library/x', tag: '1', digest },
    });
    expect(parseNamed('index.docker.io/x')).toMatchObject({ name: { repository: 'docker.io/library/x', tag: '', digest: '' } });
    expect(splitWhole('a.test:5000/b:1')).toEqual({ repository: 'a.test:5000/b', tag: '1' });
  });

  test('says what is wrong as Docker does', () => {
    const cases: Readonly<Record<string, string>> = {
      'a/UPPER:1': 'invalid reference format: repository name must be lowercase',
      'x@sha256:0': 'invalid reference format',
      'x@': 'invalid reference format',
      'x:': 'invalid reference format',
      '[::1]/x': 'invalid reference format',
      ['0'.repeat(64)]: `invalid repository name (${'0'.repeat(64)}), cannot specify 64-byte hexadecimal strings`,
      [`a/${'x'.repeat(300)}`]: 'repository name must not be more than 255 characters',
    };
    for (const [text, why] of Object.entries(cases)) expect(parseNamed(text), text).toEqual({ kind: 'invalid', why });
  });

  test('a tag from beside it takes the place of its own', () => {
    expect(withTag('x:1', '2')).toEqual({ kind: 'reference', text: 'docker.io/library/x:2' });
    expect(withTag('x:1', digest)).toEqual({ kind: 'reference', text: `docker.io/library/x@${digest}` });
    expect(withTag('x:1', '')).toEqual({ kind: 'reference', text: 'x:1' });
    expect(withTag('x', '!')).toEqual({ kind: 'invalid', why: 'invalid tag format' });
    expect(withTag('X', '1')).toMatchObject({ kind: 'invalid' });
  });
});
