/** Who learns which names. */
import { describe, expect, test } from 'vitest';
import { nameTableOf } from '#caas/dns/name-table.ts';
import type { NameMember, NameMembership } from '#caas/dns/name-table.ts';

function membership(networkId: string, more: Partial<NameMembership> = {}): NameMembership {
  return { networkId, networkName: `${networkId}-net`, isPredefined: false, aliases: [], links: [], ...more };
}

function member(name: string, address: string, memberships: readonly NameMembership[], hasWayOut = true): NameMember {
  return { containerId: name.padEnd(64, '0'), name, address, memberships, hasWayOut };
}

const BRIDGE = { isPredefined: true } as const;
const TABLE = nameTableOf(
  [
    member('web', '10.90.4.2', [membership('front', { aliases: ['Shop', 'all'] }), membership('back')]),
    member('db', '10.91.4.2', [membership('back', { aliases: ['all'] })]),
    member('Worker_1', '10.90.4.3', [membership('back', { aliases: ['all'] }), membership('front', { aliases: ['all'] })]),
    member('cellar', '10.90.4.4', [membership('dark')], false),
    member('other', '10.90.8.2', [membership('alien', { aliases: ['web'] })]),
    member('old', '10.90.4.5', [
      membership('bridge', { ...BRIDGE, links: [{ containerId: 'older'.padEnd(64, '0'), alias: 'cache' }] }),
    ]),
    member('older', '10.90.4.6', [membership('bridge', { ...BRIDGE, aliases: ['ignored'] })]),
    member('linker', '10.90.4.7', [
      membership('front', {
        links: [
          { containerId: 'web'.padEnd(64, '0'), alias: 'frontend' },
          { containerId: 'db'.padEnd(64, '0'), alias: 'far' },
        ],
      }),
    ]),
  ],
  [90, 91],
);

const [WEB, DB, WORKER, CELLAR, OTHER, OLD, OLDER, LINKER, BUILD] = [
  '10.90.4.2',
  '10.91.4.2',
  '10.90.4.3',
  '10.90.4.4',
  '10.90.8.2',
  '10.90.4.5',
  '10.90.4.6',
  '10.90.4.7',
  '10.90.7.200',
];

function found(source: string, name: string): unknown {
  const answer = TABLE.lookup(source, name);
  return answer.kind === 'addresses' ? answer.addresses : answer.kind;
}

describe('lookup()', () => {
  test('knows names, aliases and the short id within shared networks, in any case', () => {
    expect(found(WEB, 'db')).toEqual([DB]);
    expect(found(DB, 'web')).toEqual([WEB]);
    expect(found(WORKER, 'SHOP')).toEqual([WEB]);
    expect(found(WEB, 'worker_1')).toEqual([WORKER]);
    expect(found(DB, 'web000000000')).toEqual([WEB]);
    expect(found(WEB, 'web')).toEqual([WEB]);
  });

  test('keeps an alias to the network that it was given in', () => {
    expect(found(DB, 'shop')).toBe('unknown');
  });

  test('gives all that share an alias, from the first of the asker’s networks that has it', () => {
    expect(found(WEB, 'all')).toEqual([WEB, WORKER]);
    expect(found(WORKER, 'all')).toEqual([DB, WORKER]);
  });

  test('finds a name in a network that is named behind it', () => {
    expect(found(WORKER, 'all.front-net')).toEqual([WEB, WORKER]);
    expect(found(DB, 'all.front-net')).toBe('unknown');
    expect(found(WEB, '.front-net')).toBe('unknown');
  });

  test('keeps names from those that share no network, also of another tenant', () => {
    expect(found(LINKER, 'db')).toBe('unknown');
    expect(found(OTHER, 'db')).toBe('unknown');
    expect(found(OTHER, 'web')).toEqual([OTHER]);
    expect(found(OLD, 'web')).toBe('unknown');
  });

  test('knows on a predefined network only links, with all names of their target', () => {
    expect(found(OLDER, 'old')).toBe('unknown');
    expect(found(OLDER, 'older')).toBe('unknown');
    expect(found(OLD, 'ignored')).toBe('unknown');
    for (const name of ['cache', 'older', 'older0000000']) expect(found(OLD, name), name).toEqual([OLDER]);
  });

  test('knows links for who has them, where both share the network', () => {
    expect(found(LINKER, 'frontend')).toEqual([WEB]);
    expect(found(WEB, 'frontend')).toBe('unknown');
    expect(found(LINKER, 'far')).toBe('unknown');
  });

  test('withholds the world’s names from who has no way out, and gives a build those only', () => {
    expect(found(CELLAR, 'cellar')).toEqual([CELLAR]);
    expect(found(CELLAR, 'web')).toBe('withheld');
    expect(found(CELLAR, 'example.com')).toBe('withheld');
    expect(found(BUILD, 'web')).toBe('unknown');
    for (const name of ['constructor', '__proto__', 'toString', '']) expect(found(WEB, name), name).toBe('unknown');
  });
});

describe('reverse()', () => {
  test('names who shares a network, once for each', () => {
    expect(TABLE.reverse(DB, WEB)).toEqual({ kind: 'names', names: ['web.back-net'] });
    expect(TABLE.reverse(WORKER, WEB)).toEqual({ kind: 'names', names: ['web.back-net', 'web.front-net'] });
  });

  test('says of other addresses of ours that there is nothing, whoever has them', () => {
    for (const address of [OTHER, '10.91.77.7', OLDER]) expect(TABLE.reverse(WEB, address)).toEqual({ kind: 'absent' });
    expect(TABLE.reverse(OLD, OLDER)).toEqual({ kind: 'absent' });
    expect(TABLE.reverse(BUILD, WEB)).toEqual({ kind: 'absent' });
  });

  test('leaves the world’s addresses to the world, for who may ask it', () => {
    expect(TABLE.reverse(WEB, '192.0.2.1')).toEqual({ kind: 'unknown' });
    expect(TABLE.reverse(CELLAR, '192.0.2.1')).toEqual({ kind: 'withheld' });
  });
});

test('who is not known to run asks as a member, and is not found', () => {
  const starting = { ...member('early', '10.90.4.8', [membership('dark')], false), isHidden: true };
  const table = nameTableOf([starting, member('cellar', '10.90.4.4', [membership('dark')], false)], [90]);
  expect(table.lookup('10.90.4.8', 'cellar')).toEqual({ kind: 'addresses', addresses: ['10.90.4.4'] });
  expect(table.lookup('10.90.4.8', 'example.org')).toEqual({ kind: 'withheld' });
  expect(table.lookup('10.90.4.4', 'early')).toEqual({ kind: 'withheld' });
  expect(table.reverse('10.90.4.4', '10.90.4.8')).toEqual({ kind: 'absent' });
});
