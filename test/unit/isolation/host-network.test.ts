/** Names, addresses and packet rules of a host's network. */
import { describe, expect, test } from 'vitest';
import { hostRules, inNamespace, tenantNetworkOf, uplinkRules } from '#isolation/host-network.ts';
import type { HostNetwork } from '#isolation/host-network.ts';

const ROOT: HostNetwork = { scope: 'abcdef', index: 3, octet: 90, namespace: undefined };
const OWN: HostNetwork = { ...ROOT, namespace: 'ecluse-abcdef-3' };

describe('tenantNetworkOf()', () => {
  test('has names that fit an interface, and addresses of the host’s own range', () => {
    expect(tenantNetworkOf(ROOT, 254)).toEqual({ bridge: 'eabcdefh3t254', subnet: '10.90.254.0/24', gateway: '10.90.254.1' });
    expect(tenantNetworkOf({ ...ROOT, index: 9 }, 254).bridge.length).toBeLessThanOrEqual(15);
  });
});

test('inNamespace() enters a host’s namespace where it has one', () => {
  expect(inNamespace(ROOT, 'nft', ['-f', '-'])).toEqual(['nft', ['-f', '-']]);
  expect(inNamespace(OWN, 'nft', ['-f', '-'])).toEqual(['nsenter', ['--net=/run/netns/ecluse-abcdef-3', 'nft', '-f', '-']]);
});

describe('hostRules()', () => {
  const rules = hostRules(ROOT, ['eabcdefh3t1', 'eabcdefh3t2']);
  const at = (text: string): number => {
    const place = rules.indexOf(text);
    expect(place, text).toBeGreaterThan(-1);
    return place;
  };

  test('replace their own table and touch no other', () => {
    expect(rules.match(/table \S+ \S+/g)).toEqual(Array.from({ length: 3 }, () => 'table inet ecluse_abcdef_3'));
    expect(rules.startsWith('table inet ecluse_abcdef_3\ndelete table inet ecluse_abcdef_3\n')).toBe(true);
  });

  test('let a bridge talk to itself before they drop what goes to any bridge', () => {
    expect(rules).toContain('elements = { "eabcdefh3t1" . "eabcdefh3t1", "eabcdefh3t2" . "eabcdefh3t2" }');
    expect(at('@same_bridge accept')).toBeLessThan(at('oifname "eabcdefh3t*" drop'));
  });

  test('drop what goes to link-local, loopback, multicast, the host’s own range, IPv6 and the host itself', () => {
    at('iifname "eabcdefh3t*" ip daddr { 169.254.0.0/16, 127.0.0.0/8, 224.0.0.0/4, 10.90.0.0/16 } drop');
    at('iifname "eabcdefh3t*" meta nfproto ipv6 drop');
    expect(rules).toMatch(/hook input[^}]*iifname "eabcdefh3t\*" drop/);
  });

  test('know no bridge before there is a tenant', () => {
    expect(hostRules(ROOT, [])).not.toContain('elements');
  });

  test('in a namespace let the edge in by its link, and leave masquerading to the root', () => {
    expect(hostRules(OWN, [])).toContain('iifname "uplink" ip saddr 10.90.0.1 accept');
    expect(hostRules(OWN, [])).not.toContain('masquerade');
    expect(rules).not.toContain('uplink');
    expect(rules).toContain('masquerade');
  });
});

test('uplinkRules() let out what comes from a namespace, never to another host’s containers or to the machine', () => {
  const rules = uplinkRules(OWN);
  expect(rules).toContain('iifname "eabcdefv3" oifname "eabcdef*" drop');
  expect(rules).toMatch(/hook input[^}]*iifname "eabcdefv3" drop/);
  expect(rules).toContain('ip saddr 10.90.0.0/16 oifname != "eabcdefv3" masquerade');
});
