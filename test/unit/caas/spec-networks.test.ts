/** Networks of a create request: what is asked for, and what is refused. And what follows from members for rules and names. */
import { describe, expect, test } from 'vitest';
import { nameMembersOf, networksOf } from '#caas/networks/network-fabric.ts';
import { parseNetworkCreate, predefinedId } from '#caas/networks/networks.ts';
import { parseEndpoint, parseNetworking } from '#caas/spec/spec-networks.ts';
import type { LanContainer, MemberRow } from '#state/networks.ts';

function wishes(
  host: Readonly<Record<string, unknown>>,
  endpoints?: Readonly<Record<string, unknown>>,
  several = false,
): unknown {
  const parsed = parseNetworking(host, endpoints === undefined ? undefined : { EndpointsConfig: endpoints }, several);
  return parsed.kind === 'refused'
    ? `${String(parsed.status)} ${parsed.reason}`
    : [
        parsed.networking.mode,
        ...parsed.networking.wishes.map(({ network, aliases, links }) => [network, ...aliases, ...links].join('+')),
      ];
}

describe('parseNetworking()', () => {
  test.each<readonly [unknown, Parameters<typeof wishes>]>([
    [['default', 'bridge'], [{}]],
    [['default', 'bridge'], [{ NetworkMode: 'bridge' }]],
    [
      ['default', 'bridge'],
      [{ NetworkMode: 'default' }, { default: null }],
    ],
    [['default', 'bridge+db:x'], [{ Links: ['db:x'] }]],
    [['none'], [{ NetworkMode: 'none' }]],
    [['shop', 'shop'], [{ NetworkMode: 'shop' }]],
    [
      ['shop', 'shop+www'],
      [{ NetworkMode: 'shop' }, { shop: { Aliases: ['www'], IPAMConfig: {}, NetworkID: 'x', MacAddress: '' } }],
    ],
    [
      ['default', 'shop'],
      [{}, { shop: {} }],
    ],
    [
      ['shop', 'shop', 'other'],
      [{ NetworkMode: 'shop' }, { other: {}, shop: {} }, true],
    ],
    ['400 Container cannot be connected to network endpoints: shop, other', [{ NetworkMode: 'shop' }, { shop: {}, other: {} }]],
    ['400 HostConfig.NetworkMode: host is not possible: it would reach outside of the sandbox', [{ NetworkMode: 'host' }]],
    ['400 NetworkingConfig.EndpointsConfig: host is not possible: it would reach outside of the sandbox', [{}, { host: {} }]],
    ['400 HostConfig.NetworkMode: "a b" is no network', [{ NetworkMode: 'a b' }]],
    ['400 HostConfig.NetworkMode must be a text', [{ NetworkMode: 7 }]],
    ['400 HostConfig.Links: bad format for links', [{ Links: ['a:b:c:d'] }]],
  ])('%j', (expected, args) => {
    expect(wishes(...args)).toEqual(expected);
  });

  test.each([
    [{ IPAMConfig: { IPv4Address: '10.0.0.2' } }, 'addresses are assigned'],
    [{ ipamconfig: { ipv4address: '10.0.0.2' } }, 'addresses are assigned'],
    [{ MacAddress: '02:42:00:00:00:01' }, 'addresses are assigned'],
    [{ DriverOpts: { a: 'b' } }, 'no driver with options'],
    [{ Aliases: ['a', 'b/c'] }, 'must be a name'],
    [{ aliases: ['a'], Aliases: ['b'] }, 'given twice'],
    [{ Surprise: 1 }, 'Surprise'],
  ])('an endpoint with %j is refused', (raw, reason) => {
    const parsed = parseEndpoint(raw, 'E');
    expect(parsed.kind === 'refused' ? parsed.reason : 'passed').toContain(reason);
  });
});

describe('parseNetworkCreate()', () => {
  test('takes what clients send, and nothing that would choose wires', () => {
    const cli = {
      Name: 'n',
      CheckDuplicate: true,
      Driver: 'bridge',
      Scope: '',
      EnableIPv6: false,
      IPAM: { Driver: 'default', Options: {}, Config: [] },
    };
    const rest = {
      Internal: false,
      Attachable: false,
      Ingress: false,
      ConfigOnly: false,
      ConfigFrom: null,
      Options: {},
      Labels: { a: 'b' },
    };
    expect(parseNetworkCreate({ ...cli, ...rest })).toMatchObject({ Name: 'n', Labels: { a: 'b' } });
    for (const bad of [
      { driver: 'macvlan' },
      { IPAM: { Config: [{ Subnet: '10.0.0.0/8' }] } },
      { ipam: { driver: 'dhcp' } },
      { options: { 'com.docker.network.bridge.name': 'docker0' } },
      { ENABLEIPV6: true },
      { Ingress: true },
      { ConfigFrom: { Network: 'x' } },
      { Name: 7 },
    ]) {
      expect(() => parseNetworkCreate({ Name: 'n', ...bad }), JSON.stringify(bad)).toThrow(/ecluse|Name/);
    }
  });
});

describe('what follows from members', () => {
  const lan = (id: string, address: string, change: Partial<LanContainer> = {}): LanContainer => ({
    id,
    tenant: 'acme',
    name: `name-${id}`,
    address,
    isRunning: true,
    isTarget: false,
    ...change,
  });
  const member = (network: string, container: string, change: Partial<MemberRow> = {}): MemberRow => ({
    network,
    container,
    tenant: 'acme',
    endpoint: 'e',
    aliases: [],
    links: [],
    ...change,
  });
  const network = (id: string, internal = false) => ({
    id,
    tenant: 'acme',
    name: `net-${id}`,
    createdMs: 0,
    internal,
    attachable: false,
    labels: {},
  });

  test('rules: both addresses of a container that moves, none of one that is in no network or waits for one', () => {
    const containers = [
      lan('a', '10.1.4.2'),
      lan('a', '10.2.4.2', { isTarget: true }),
      lan('b', '10.1.4.3'),
      lan('c', '10.1.4.4'),
    ];
    const members = [member('n', 'a'), member('n', 'b'), member('pending:later', 'c')];
    const addresses = ['10.1.4.2', '10.2.4.2', '10.1.4.3'];
    expect(networksOf(containers, members, new Set(['n']))).toEqual([{ id: 'n', internal: false, addresses }]);
    // An internal network, or one that is not there any more.
    expect(networksOf(containers, members, new Set())).toEqual([{ id: 'n', internal: true, addresses }]);
  });

  test('names: who does not run is hidden; at the address that serves; without a way out where all networks are internal', () => {
    const containers = [
      lan('a', '10.1.4.2'),
      lan('a', '10.2.4.2', { isTarget: true }),
      lan('b', '10.1.4.3', { isRunning: false }),
      lan('c', '10.1.4.4'),
    ];
    const members = [
      member('i', 'a', { aliases: ['www'], links: ['c:db'] }),
      member('i', 'c'),
      member(predefinedId('acme', 'bridge'), 'c'),
    ];
    const names = nameMembersOf(containers, members, [network('i', true)]);
    expect(names.map(({ containerId, address, hasWayOut, isHidden }) => [containerId, address, hasWayOut, isHidden])).toEqual([
      ['a', '10.1.4.2', false, false],
      ['b', '10.1.4.3', false, true],
      ['c', '10.1.4.4', true, false],
    ]);
    expect(names[0]?.memberships).toEqual([
      { networkId: 'i', networkName: 'net-i', isPredefined: false, aliases: ['www'], links: [{ containerId: 'c', alias: 'db' }] },
    ]);
    expect(names[2]?.memberships.map(({ networkName, isPredefined }) => [networkName, isPredefined])).toEqual([
      ['net-i', false],
      ['bridge', true],
    ]);
  });
});
