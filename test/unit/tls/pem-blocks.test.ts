import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { readPem } from '#tls/pem-blocks.ts';

const label = fc.constantFrom('CERTIFICATE', 'PRIVATE KEY', 'X');
const body = fc.stringMatching(/^[A-Za-z0-9+/=\n:,-]{0,40}$/).filter((text) => !text.includes('-----'));
const comment = fc.constantFrom('', 'subject=shop\n', '\n', '- -- ---\n');

test('every block of a text is found, with its label and whole, whatever stands between them', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(comment, label, body), { maxLength: 5 }), comment, (parts, tail) => {
      const blocks = parts.map(([, name, text]) => ({
        label: name,
        text: `-----BEGIN ${name}-----\n${text}\n-----END ${name}-----\n`,
      }));
      const whole = `${parts.map(([before], index) => `${before}${blocks[index]?.text ?? ''}`).join('')}${tail}`;
      expect(readPem(whole)).toEqual({ kind: 'blocks', blocks });
    }),
  );
});

test.each([
  '-----BEGIN ',
  '-----BEGIN CERTIFICATE-----\nAAAA\n',
  '-----BEGIN CERTIFICATE-----\nAAAA\n-----END PRIVATE KEY-----\n',
  '-----BEGIN CERTIFICATE-----\nAAAA\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
])('a block without its end is told: %j', (text) => {
  expect(readPem(text)).toEqual({ kind: 'cut', at: 1 });
});
