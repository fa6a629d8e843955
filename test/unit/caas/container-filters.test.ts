/** `docker ps --filter`. */
import { describe, expect, test } from 'vitest';
import { readStatus } from '#caas/docker-api/engine-summaries.ts';
import { compileFilters } from '#caas/docker-api/filters.ts';
import type { ListCandidate } from '#caas/docker-api/filters.ts';
import { rowOf } from '../../support/caas-data.ts';

const WEB_PORT = { PrivatePort: 80, PublicPort: 8080, Type: 'tcp' };
const rows = [
  rowOf({ id: 'c'.repeat(64), name: 'newest' }),
  rowOf({ id: 'b'.repeat(64), name: 'web', state: 'exited' }),
  rowOf({ id: `a1${'a'.repeat(62)}`, name: 'web-2', state: 'lost' }),
  rowOf({ id: `a2${'a'.repeat(62)}`, name: 'oldest', state: 'created', startedMs: undefined }),
];
const IMAGES = new Map([
  ['shop:1', new Set(['sha256:1', 'sha256:2'])],
  ['shop:2', new Set(['sha256:2'])],
]);

function candidateOf(row: (typeof rows)[number]): ListCandidate {
  const isWeb = row.name === 'web';
  return {
    row,
    imageId: isWeb ? 'sha256:2' : 'sha256:1',
    state: row.state === 'lost' ? 'dead' : row.state,
    labels: { tier: 'web', empty: '' },
    exitCode: isWeb ? 3 : 0,
    health: isWeb ? 'none' : 'healthy',
    view: {
      Ports: isWeb ? [WEB_PORT] : [],
      NetworkSettings: { Networks: isWeb ? { front: { NetworkID: 'f00d' } } : { bridge: { NetworkID: '' } } },
      Mounts: isWeb ? [{ Type: 'volume', Name: 'data', Source: '/x', Destination: '/srv' }] : [],
    },
  };
}

function names(filters: Readonly<Record<string, readonly string[]>>): readonly string[] {
  const facts = { rows, ancestry: (reference: string) => IMAGES.get(reference) ?? new Set<string>() };
  const isWanted = compileFilters(new Map(Object.entries(filters)), facts);
  return rows.filter((row) => isWanted(candidateOf(row))).map(({ name }) => name);
}

const ALL = ['newest', 'web', 'web-2', 'oldest'];

describe('compileFilters()', () => {
  test('takes names as expressions, with a slash and without', () => {
    expect(names({ name: ['web'] })).toEqual(['web', 'web-2']);
    expect(names({ name: ['^web$'] })).toEqual(['web']);
    expect(names({ name: ['^/web$'] })).toEqual(['web']);
    expect(names({ name: ['^(web|new).*[st]$'] })).toEqual(['newest']);
    expect(names({ name: ['newest', 'web-2'] })).toEqual(['newest', 'web-2']);
    expect(() => names({ name: ['(?i)web'] })).toThrow('ecluse: the filter name=(?i)web: flags');
  });

  test('takes an id by a prefix that is one container’s only', () => {
    expect(names({ id: ['bbb'] })).toEqual(['web']);
    expect(names({ id: ['a2'] })).toEqual(['oldest']);
    expect(names({ id: ['a'] })).toEqual([]);
    expect(names({ id: ['.*'] })).toEqual([]);
  });

  test('takes states, health and exit codes', () => {
    expect(names({ status: ['running', 'dead'] })).toEqual(['newest', 'web-2']);
    expect(names({ health: ['none'] })).toEqual(['web']);
    expect(names({ exited: ['3'] })).toEqual(['web']);
    expect(names({ exited: ['0'] })).toEqual(['web-2']);
    expect(() => names({ status: ['foo'] })).toThrow("Invalid filter 'status=foo'");
    expect(() => names({ health: ['ill'] })).toThrow('Unrecognised filter value for health: ill');
    expect(() => names({ exited: ['x'] })).toThrow('strconv.Atoi: parsing "x": invalid syntax');
  });

  test('takes images with those that were made from them, and labels', () => {
    expect(names({ ancestor: ['shop:1'] })).toEqual(ALL);
    expect(names({ ancestor: ['shop:2'] })).toEqual(['web']);
    expect(names({ ancestor: ['shop:3'] })).toEqual([]);
    expect(names({ label: ['tier'] })).toEqual(ALL);
    expect(names({ label: ['tier=web', 'empty='] })).toEqual(ALL);
    expect(names({ label: ['tier=web', 'other'] })).toEqual([]);
    expect(names({ label: ['toString'] })).toEqual([]);
  });

  test('takes ports, networks and volumes as they are shown', () => {
    expect(names({ publish: ['8080'] })).toEqual(['web']);
    expect(names({ publish: ['8080/udp'] })).toEqual([]);
    expect(names({ expose: ['1-100/tcp'] })).toEqual(['web']);
    expect(names({ expose: ['81'], publish: ['8080'] })).toEqual(['web']);
    expect(names({ network: ['front'] })).toEqual(['web']);
    expect(names({ network: ['f00'] })).toEqual(['web']);
    expect(names({ network: ['toString'] })).toEqual([]);
    expect(names({ volume: ['data'] })).toEqual(['web']);
    expect(names({ volume: ['/srv'] })).toEqual(['web']);
    expect(names({ volume: ['/x'] })).toEqual([]);
    expect(() => names({ publish: ['1:2'] })).toThrow("filter for 'publish' should not contain ':': 1:2");
    expect(() => names({ expose: ['x'] })).toThrow('error while looking up for expose x');
  });

  test('takes the order of creation', () => {
    expect(names({ before: ['web'] })).toEqual(['web-2', 'oldest']);
    expect(names({ since: ['/web'] })).toEqual(['newest']);
    expect(names({ since: ['a1'] })).toEqual(['newest', 'web']);
    expect(() => names({ since: ['nothing'] })).toThrow(/^no such container nothing$/);
    expect(() => names({ before: ['a'] })).toThrow(/^no such container a$/);
  });

  test('knows no tasks of a swarm, and takes `isolation` for nothing', () => {
    expect(names({ 'is-task': ['true'] })).toEqual([]);
    expect(names({ 'is-task': ['false'], isolation: ['hyperv'] })).toEqual(ALL);
    expect(() => names({ 'is-task': ['x'] })).toThrow("Invalid filter 'is-task=[x]'");
  });

  test('refuses what it does not know, names of objects’ own methods too', () => {
    for (const key of ['nonsense', 'constructor', '__proto__', 'toString', 'label!'])
      expect(() => names({ [key]: ['x'], name: ['web'] })).toThrow('Invalid filter');
  });
});

describe('readStatus()', () => {
  test('reads exit codes and health out of moby’s status', () => {
    expect(readStatus('Exited (137) 2 hours ago')).toEqual({ exitCode: 137, health: 'none' });
    expect(readStatus('Restarting (1) 2 seconds ago')).toEqual({ exitCode: 1, health: 'none' });
    expect(readStatus('Up 3 minutes (health: starting)')).toEqual({ exitCode: 0, health: 'starting' });
    expect(readStatus('Up 3 minutes (unhealthy)')).toEqual({ exitCode: 0, health: 'unhealthy' });
    expect(readStatus('Up 3 minutes (Paused)')).toEqual({ exitCode: 0, health: 'none' });
    expect(readStatus('Created')).toEqual({ exitCode: 0, health: 'none' });
  });
});
