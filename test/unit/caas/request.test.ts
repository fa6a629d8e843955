/** Requests at the Docker endpoint, taken apart. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { booleanOf, filtersOf, integerOfQuery, parsePath } from '#caas/docker-api/request.ts';

function partsOf(target: string): readonly string[] | string {
  const parsed = parsePath(target);
  return parsed.kind === 'path' ? parsed.parts : `${String(parsed.status)} ${parsed.message}`;
}

describe('parsePath()', () => {
  test('takes version, parts and query', () => {
    expect(parsePath('/v1.30/containers/a%2Fb/json?x=1&y=%20')).toMatchObject({
      kind: 'path',
      apiVersion: '1.30',
      parts: ['containers', 'a/b', 'json'],
    });
    expect(parsePath('/containers/json')).toMatchObject({ apiVersion: '1.44', parts: ['containers', 'json'] });
    expect(partsOf('/v1/containers')).toEqual(['v1', 'containers']);
  });

  test('refuses versions outside of its range in Docker’s words', () => {
    expect(partsOf('/v1.24/x')).toEqual(['x']);
    expect(partsOf('/v1.41/x')).toEqual(['x']);
    expect(partsOf('/v1.23/x')).toMatch(
      /^400 client version 1\.23 is too old\. Minimum supported API version is 1\.24, please upgrade/,
    );
    expect(partsOf('/v1.45/x')).toBe('400 client version 1.45 is too new. Maximum supported API version is 1.44');
    expect(partsOf('/v2.0/x')).toContain('too new');
    expect(partsOf('/v0.99/x')).toContain('too old');
  });

  test('refuses what another parser could read differently', () => {
    for (const path of [
      '//x',
      '/a//b',
      '/a/../b',
      '/a/%2e%2e/b',
      '/./a',
      '/a%00',
      'http://x/containers',
      '*',
      '',
      `/${'a'.repeat(5000)}`,
    ]) {
      expect(partsOf(path), path.slice(0, 30)).toBe('404 page not found');
    }
    expect(partsOf('/%')).toBe('400 malformed percent-encoding in the path');
    expect(partsOf('/%ff')).toBe('400 malformed percent-encoding in the path');
  });

  test('gives back what was encoded, and never a climbing part', () => {
    const part = fc
      .array(fc.integer({ min: 1, max: 0xd7ff }), { minLength: 1, maxLength: 12 })
      .map((codes) => String.fromCodePoint(...codes))
      .filter((text) => text !== '.' && text !== '..' && !/^v\d+\.\d+$/.test(text));
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), (parts) => {
        expect(partsOf(`/${parts.map((text) => encodeURIComponent(text)).join('/')}`)).toEqual(parts);
      }),
    );
    fc.assert(
      fc.property(fc.string(), (text) => {
        const parsed = parsePath(text);
        const parts = parsed.kind === 'path' ? parsed.parts : [];
        expect(parts.filter((each) => each === '.' || each === '..')).toEqual([]);
      }),
    );
  });
});

describe('query values', () => {
  const query = (text: string): URLSearchParams => new URLSearchParams(text);

  test('are booleans as moby reads them', () => {
    for (const value of ['', '0', 'no', 'False', ' none ']) expect(booleanOf(query(`x=${value}`), 'x'), value).toBe(false);
    for (const value of ['1', 'true', 'yes', 'x']) expect(booleanOf(query(`x=${value}`), 'x'), value).toBe(true);
    expect([booleanOf(query(''), 'x'), booleanOf(query(''), 'x', true)]).toEqual([false, true]);
  });

  test('are integers or refused', () => {
    expect([integerOfQuery(query('x=-5'), 'x'), integerOfQuery(query('x='), 'x'), integerOfQuery(query(''), 'x')]).toEqual([
      -5,
      undefined,
      undefined,
    ]);
    for (const value of ['x', '1.5', '1e3', '0x1', '9'.repeat(20)])
      expect(() => integerOfQuery(query(`x=${value}`), 'x')).toThrow('invalid syntax');
  });

  test('are filters in both of Docker’s forms or refused', () => {
    const filters = (value: unknown): unknown =>
      Object.fromEntries(filtersOf(query(`filters=${encodeURIComponent(JSON.stringify(value))}`)));
    expect(filters({ name: ['a', 'b'], label: { 'x=y': true } })).toEqual({ name: ['a', 'b'], label: ['x=y'] });
    expect(filtersOf(query('filters='))).toEqual(new Map());
    for (const text of ['[]', '7', 'null', '{', '"x"'])
      expect(() => filtersOf(query(`filters=${encodeURIComponent(text)}`))).toThrow('invalid filter');
  });
});
