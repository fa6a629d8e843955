import { BlockList } from 'node:net';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { clientOf, isTrusted, parseTrustedProxies } from '#proxy/trusted-proxies.ts';
import type { TrustedProxies } from '#proxy/trusted-proxies.ts';

function trusting(...list: readonly string[]): TrustedProxies {
  const parsed = parseTrustedProxies(list);
  if (parsed.kind === 'invalid') throw new Error(parsed.why);
  return parsed.trusted;
}

const NONE = trusting();
const MIXED = trusting(
  '10.0.0.0/8',
  '192.0.2.7',
  '172.16.0.0/12',
  '2001:db8::/33',
  'fd00::1',
  '198.51.100.128/25',
  '203.0.113.4/31',
);

describe('isTrusted()', () => {
  test.each([
    [MIXED, '10.0.0.0', true],
    [MIXED, '10.255.255.255', true],
    [MIXED, '9.255.255.255', false],
    [MIXED, '11.0.0.0', false],
    [MIXED, '192.0.2.7', true],
    [MIXED, '192.0.2.6', false],
    [MIXED, '192.0.2.8', false],
    [MIXED, '172.16.0.0', true],
    [MIXED, '172.31.255.255', true],
    [MIXED, '172.15.255.255', false],
    [MIXED, '172.32.0.0', false],
    [MIXED, '198.51.100.127', false],
    [MIXED, '198.51.100.128', true],
    [MIXED, '203.0.113.3', false],
    [MIXED, '203.0.113.4', true],
    [MIXED, '203.0.113.5', true],
    [MIXED, '203.0.113.6', false],
    [MIXED, '2001:db8::', true],
    [MIXED, '2001:db8:7fff:ffff:ffff:ffff:ffff:ffff', true],
    [MIXED, '2001:db8:8000::', false],
    [MIXED, '2001:DB8:0:0::1', true],
    [MIXED, 'fd00::1', true],
    [MIXED, 'fd00::1%eth0', true],
    [MIXED, 'fd00::2', false],
    [MIXED, '::ffff:10.1.2.3', true],
    [MIXED, '::FFFF:0a01:0203', true],
    [MIXED, '::ffff:11.1.2.3', false],
    [MIXED, '::10.1.2.3', false],
    [MIXED, '', false],
    [MIXED, 'unknown', false],
    [MIXED, '10.0.0.1:80', false],
    [MIXED, '10.0.0', false],
    [NONE, '10.0.0.1', false],
    [trusting('0.0.0.0/0'), '255.255.255.255', true],
    [trusting('0.0.0.0/0'), '::1', false],
    [trusting('::/0'), '::1', true],
    [trusting('::/0'), '10.0.0.1', false],
    [trusting('::/0'), '::ffff:10.0.0.1', false],
    [trusting('::ffff:10.0.0.0/104'), '10.9.9.9', true],
    [trusting('::ffff:10.0.0.1'), '10.0.0.1', true],
    [trusting('::ffff:0:0/96'), '192.0.2.1', true],
    [trusting('::ffff:0:0/96'), '::fffe:192.0.2.1', false],
  ])('%# %j: %s is %s', (trusted, address, is) => {
    expect(isTrusted(trusted, address)).toBe(is);
  });
});

describe('parseTrustedProxies()', () => {
  test.each([
    [
      '10.0.0.1/8',
      '"10.0.0.1/8" is an address inside of a network; write "10.0.0.0/8" for the network, or "10.0.0.1" for the address alone',
    ],
    [
      '2001:db8::1/32',
      '"2001:db8::1/32" is an address inside of a network; write "2001:db8::/32" for the network, or "2001:db8::1" for the address alone',
    ],
    ['255.255.255.255/31', 'write "255.255.255.254/31"'],
    ['192.0.2.1/0', 'write "0.0.0.0/0"'],
    ['10.0.0.0/33', 'the prefix of "10.0.0.0/33" is not a number from 0 to 32'],
    ['2001:db8::/129', 'the prefix of "2001:db8::/129" is not a number from 0 to 128'],
    ['10.0.0.0/', 'is not a number from 0 to 32'],
    ['10.0.0.0/08', 'is not a number from 0 to 32'],
    ['10.0.0.0/-1', 'is not a number from 0 to 32'],
    ['10.0.0.0/8/8', 'is not a number from 0 to 32'],
    ['10.0.0.0/ 8', 'is not a number from 0 to 32'],
    ['10.0.0.0/255.0.0.0', 'is not a number from 0 to 32'],
    ['', '"" is neither an address nor a network; write it like'],
    ['10.0.0', 'is neither an address nor a network'],
    ['10/8', 'is neither an address nor a network'],
    ['010.0.0.0/8', 'is neither an address nor a network'],
    [' 10.0.0.0/8', 'is neither an address nor a network'],
    ['[::1]', 'is neither an address nor a network'],
    ['fe80::1%eth0', 'is neither an address nor a network'],
    ['proxy.example.com', 'is neither an address nor a network'],
    ['*', 'is neither an address nor a network'],
  ])('refuses %j', (entry, why) => {
    expect(parseTrustedProxies(['192.0.2.1', entry, '10.0.0.0/8'])).toEqual({
      kind: 'invalid',
      index: 1,
      why: expect.stringContaining(why) as unknown,
    });
  });
});

describe('clientOf()', () => {
  test.each([
    ['nobody is trusted', NONE, '10.0.0.1', '192.0.2.9', '10.0.0.1'],
    ['the peer is not trusted', MIXED, '192.0.2.9', '10.0.0.1', '192.0.2.9'],
    ['no header', MIXED, '10.0.0.1', undefined, '10.0.0.1'],
    ['an empty header', MIXED, '10.0.0.1', '', '10.0.0.1'],
    ['one hop', MIXED, '10.0.0.1', '203.0.113.9', '203.0.113.9'],
    ['a client that lies', MIXED, '10.0.0.1', '192.0.2.99, 203.0.113.9', '203.0.113.9'],
    ['a client that claims to be trusted', MIXED, '10.0.0.1', '10.0.0.7, 203.0.113.9', '203.0.113.9'],
    ['two proxies', MIXED, '10.0.0.1', '192.0.2.99, 203.0.113.9, 10.0.0.2', '203.0.113.9'],
    ['all are trusted', MIXED, '10.0.0.1', '10.0.0.3, 10.0.0.2', '10.0.0.3'],
    ['no spaces', MIXED, '10.0.0.1', '192.0.2.99,203.0.113.9,10.0.0.2', '203.0.113.9'],
    ['spaces and tabs', MIXED, '10.0.0.1', '192.0.2.99 ,\t203.0.113.9 \t,   10.0.0.2  ', '203.0.113.9'],
    ['garbage at the right', MIXED, '10.0.0.1', '203.0.113.9, unknown', '10.0.0.1'],
    ['garbage further left', MIXED, '10.0.0.1', '203.0.113.9, ???, 10.0.0.2', '10.0.0.2'],
    ['garbage beyond the client', MIXED, '10.0.0.1', '???, 203.0.113.9, 10.0.0.2', '203.0.113.9'],
    ['an empty entry', MIXED, '10.0.0.1', '203.0.113.9,, 10.0.0.2', '10.0.0.2'],
    ['a comma at the end', MIXED, '10.0.0.1', '203.0.113.9,', '10.0.0.1'],
    ['a comma at the start', MIXED, '10.0.0.1', ', 10.0.0.2', '10.0.0.2'],
    ['only commas', MIXED, '10.0.0.1', ',,,', '10.0.0.1'],
    ['a port', MIXED, '10.0.0.1', '203.0.113.9:5000, 10.0.0.2:80', '203.0.113.9'],
    ['brackets', MIXED, '10.0.0.1', '[2001:db8:ffff::9]', '2001:db8:ffff::9'],
    ['brackets and a port', MIXED, '10.0.0.1', '[2001:db8:ffff::9]:443, [2001:db8::1]:80', '2001:db8:ffff::9'],
    ['IPv6', MIXED, 'fd00::1', '2001:DB8:FFFF:0::9', '2001:db8:ffff::9'],
    ['a mapped peer', MIXED, '::ffff:10.0.0.1', '::ffff:203.0.113.9', '203.0.113.9'],
    ['a mapped peer that is not trusted', MIXED, '::ffff:203.0.113.9', '1.2.3.4', '203.0.113.9'],
    ['a port that is none', MIXED, '10.0.0.1', '203.0.113.9:', '10.0.0.1'],
    ['a port too long', MIXED, '10.0.0.1', '203.0.113.9:123456', '10.0.0.1'],
    ['two ports', MIXED, '10.0.0.1', '203.0.113.9:1:2', '10.0.0.1'],
    ['an open bracket', MIXED, '10.0.0.1', '[2001:db8::9', '10.0.0.1'],
    ['quotes', MIXED, '10.0.0.1', '"203.0.113.9"', '10.0.0.1'],
    ['a name', MIXED, '10.0.0.1', 'client.example.com', '10.0.0.1'],
    ['control characters', MIXED, '10.0.0.1', '203.0.113.9\0', '10.0.0.1'],
    ['zeros in front', MIXED, '10.0.0.1', '203.0.113.009', '10.0.0.1'],
    ['a peer that is no address', MIXED, '', '203.0.113.9', ''],
    ['more hops than there are proxies', MIXED, '10.0.0.1', `203.0.113.9${', 10.0.0.2'.repeat(40)}`, '10.0.0.2'],
  ])('%s', (...[, trusted, peer, forwardedFor, client]) => {
    expect(clientOf(trusted, peer, forwardedFor)).toBe(client);
  });
});

const networks = fc.record({ address: fc.ipV4(), bits: fc.integer({ min: 0, max: 32 }) }).map(({ address, bits }) => {
  const value = address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
  const first = bits === 0 ? 0 : (value & (-1 << (32 - bits))) >>> 0;
  return { first: [24, 16, 8, 0].map((shift) => (first >>> shift) & 255).join('.'), bits };
});

test('isTrusted() says what a BlockList of Node does', () => {
  fc.assert(
    fc.property(
      fc.array(networks, { maxLength: 4 }),
      fc.array(fc.ipV4(), { maxLength: 4 }),
      fc.ipV4(),
      (nets, singles, address) => {
        const list = new BlockList();
        for (const { first, bits } of nets) list.addSubnet(first, bits, 'ipv4');
        for (const single of singles) list.addAddress(single, 'ipv4');
        const trusted = trusting(...nets.map(({ first, bits }) => `${first}/${String(bits)}`), ...singles);
        for (const one of [address, ...singles, ...nets.map(({ first }) => first)])
          expect(isTrusted(trusted, one)).toBe(list.check(one, 'ipv4'));
      },
    ),
  );
});

test('clientOf() never takes an address from the left of one that is not trusted', () => {
  const token = fc.constantFrom(
    '10.0.0.2',
    '10.0.0.3:80',
    '203.0.113.9',
    'unknown',
    '',
    '[2001:db8::1]',
    '2001:db8:ffff::1',
    ' ',
    '"',
  );
  fc.assert(
    fc.property(fc.array(token, { maxLength: 8 }), fc.array(token, { maxLength: 8 }), (left, right) => {
      const told = [...right].join(',');
      const client = clientOf(MIXED, '10.0.0.1', `203.0.113.1,${told}`);
      expect(clientOf(MIXED, '10.0.0.1', [...left, '203.0.113.1', told].join(','))).toBe(client);
    }),
  );
});
