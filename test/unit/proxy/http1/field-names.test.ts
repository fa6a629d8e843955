import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { FIELD, fieldCode } from '#proxy/http1/field-names.ts';

const code = (name: string): number => fieldCode(Buffer.from(name), 0, name.length);
const spelled = (key: string): string => key.replaceAll(/(?=[A-Z])/g, '-').toLowerCase();
const NOT_NAMES = new Set(['other', 'nominated', 'xForwardedOther', 'xEcluse', 'te']);

test('fieldCode() finds every name in any case, each in a slot of its own', () => {
  for (const [key, expected] of Object.entries(FIELD)) {
    if (NOT_NAMES.has(key)) continue;
    expect(code(spelled(key)), key).toBe(expected);
    expect(code(spelled(key).toUpperCase()), key).toBe(expected);
  }
  expect(code('Te')).toBe(FIELD.te);
});

test('fieldCode() takes an underscore for a hyphen only in fields that say where a request comes from', () => {
  expect(code('X_Forwarded-For')).toBe(FIELD.xForwardedFor);
  expect(code('x_forwarded_port')).toBe(FIELD.xForwardedOther);
  expect(code('X_Ecluse_Host')).toBe(FIELD.xEcluse);
  expect(code('x_real_ip')).toBe(FIELD.xRealIp);
  expect(code('Content_Length')).toBe(FIELD.other);
  expect(code('transfer_encoding')).toBe(FIELD.other);
});

test('fieldCode() finds nothing else', () => {
  const names = new Set(Object.keys(FIELD).map((key) => spelled(key)));
  const token = fc.string({ unit: fc.constantFrom(...'abcdehnorstx-019!'.split('')), minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(token, (name) => {
      fc.pre(!names.has(name) && !name.startsWith('x-'));
      expect(code(name)).toBe(FIELD.other);
    }),
  );
  expect(code('content-lengtj')).toBe(FIELD.other);
  expect(code('x-forwarded-')).toBe(FIELD.other);
  expect(code('x')).toBe(FIELD.other);
});
