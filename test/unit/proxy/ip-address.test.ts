import { SocketAddress } from 'node:net';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ADDRESS_BYTES, addressText, canonicalAddress, isMapped, readAddress } from '#proxy/ip-address.ts';

describe('canonicalAddress()', () => {
  test.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:c000:0201', '192.0.2.1'],
    ['0:0:0:0:0:ffff:192.0.2.1', '192.0.2.1'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['fe80::1%eth0', 'fe80::1'],
    ['64:ff9b::192.0.2.1', '64:ff9b::c000:201'],
    // IPv4-compatible (RFC 4291 §2.5.5.1), no IPv4 address.
    ['::192.0.2.1', '::c000:201'],
    ['::fffe:192.0.2.1', '::fffe:c000:201'],
  ])('of %s is %s', (text, canonical) => {
    expect(canonicalAddress(text)).toBe(canonical);
  });

  test.each([
    '',
    ' ',
    '1.2.3',
    '1.2.3.04',
    '1.2.3.256',
    '0x1.2.3.4',
    '1.2.3.4 ',
    '1.2.3.4:80',
    '[::1]',
    ':::',
    '1::2::3',
    '12345::',
    'unknown',
    '::ffff:1.2.3',
    '%eth0',
  ])('of %j is none', (text) => {
    expect(canonicalAddress(text)).toBeUndefined();
  });
});

test('canonicalAddress() spells as the system does, but for IPv4 in IPv6', () => {
  fc.assert(
    fc.property(fc.ipV6(), (text) => {
      const system = new SocketAddress({ address: text, family: 'ipv6' }).address;
      fc.pre(!system.includes('.'));
      expect(canonicalAddress(text)).toBe(system);
    }),
    { numRuns: 300 },
  );
});

test('readAddress() reads what addressText() wrote, and leaves the bytes around alone', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.boolean(), (bytes, isFour) => {
      if (isFour) bytes.fill(0, 0, 10).fill(0xff, 10, 12);
      const out = new Uint8Array(ADDRESS_BYTES + 2).fill(7);
      expect(readAddress(addressText(bytes), out, 1)).toBe(true);
      expect(out.subarray(1, 17)).toEqual(bytes);
      expect([out[0], out[17]]).toEqual([7, 7]);
      expect(isMapped(out, 1)).toBe(addressText(bytes).includes('.'));
    }),
  );
});

test('readAddress() writes nothing where there is no address', () => {
  const out = new Uint8Array(ADDRESS_BYTES).fill(7);
  expect(readAddress('300.1.2.3', out)).toBe(false);
  expect(out).toEqual(new Uint8Array(ADDRESS_BYTES).fill(7));
});
