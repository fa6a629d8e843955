import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { requestFraming } from '#proxy/framing.ts';

describe('requestFraming()', () => {
  test.each([
    [[], 'none'],
    [['Content-Length', '5'], 'fixed'],
    [['content-length', '0'], 'fixed'],
    [['Transfer-Encoding', 'Chunked'], 'chunked'],
    [['Content-Length', '5', 'Transfer-Encoding', 'chunked'], 'refused'],
    [['Content-Length', '5', 'Content-Length', '5'], 'refused'],
    [['Content-Length', '5, 5'], 'refused'],
    [['Content-Length', '+5'], 'refused'],
    [['Content-Length', '0x5'], 'refused'],
    [['Content-Length', ''], 'refused'],
    [['Content-Length', '9999999999999999'], 'refused'],
    [['Transfer-Encoding', 'gzip, chunked'], 'refused'],
    [['Transfer-Encoding', 'identity'], 'refused'],
    [['Transfer-Encoding', 'chunked', 'Transfer-Encoding', 'chunked'], 'refused'],
    [['Transfer-Encoding', '\u000bchunked'], 'refused'],
  ])('judges %j as %s', (raw, kind) => {
    expect(requestFraming(raw, '1.1').kind).toBe(kind);
  });

  test('refuses Transfer-Encoding in HTTP/1.0', () => {
    expect(requestFraming(['Transfer-Encoding', 'chunked'], '1.0').kind).toBe('refused');
  });

  test('never forwards two framings', () => {
    const field = fc.tuple(
      fc.constantFrom('Content-Length', 'content-LENGTH', 'Transfer-Encoding', 'X'),
      fc.constantFrom('5', 'chunked', '0', 'x'),
    );
    fc.assert(
      fc.property(fc.array(field, { maxLength: 5 }), (fields) => {
        const framings = fields.filter(([name]) => name !== 'X').length;
        expect(framings <= 1 || requestFraming(fields.flat(), '1.1').kind === 'refused').toBe(true);
      }),
    );
  });
});
