/** Names and addresses of a host’s network. */
import * as fc from 'fast-check';
import { BlockList } from 'node:net';
import { describe, expect, test } from 'vitest';
import { macAddressOf, STATIC_ADDRESSES, staticAddressOf, tenantNetworkOf } from '#isolation/host-addresses.ts';
import type { HostNetwork } from '#isolation/host-addresses.ts';

const HOST: HostNetwork = { scope: 'abcdef', index: 9, octet: 90, namespace: undefined };
const numbers = fc.integer({ min: 1, max: 63 });

function within(subnet: string, address: string): boolean {
  const [net = '', bits = ''] = subnet.split('/');
  const list = new BlockList();
  list.addSubnet(net, Number(bits));
  return list.check(address);
}

describe('tenantNetworkOf()', () => {
  test('has names that fit an interface, and the host’s own addresses up to the last', () => {
    expect(tenantNetworkOf(HOST, 63)).toEqual({
      bridge: 'eabcdefh9t63',
      subnet: '10.90.252.0/22',
      gateway: '10.90.252.1',
      dynamicRange: '10.90.255.192/26',
    });
    expect(tenantNetworkOf(HOST, 63).bridge.length).toBeLessThanOrEqual(15);
  });
});

describe('staticAddressOf()', () => {
  test('goes from behind the gateway to before the engine’s own range', () => {
    expect(staticAddressOf(HOST, 1, 0)).toBe('10.90.4.2');
    expect(staticAddressOf(HOST, 1, 254)).toBe('10.90.5.0');
    expect(staticAddressOf(HOST, 1, STATIC_ADDRESSES - 1)).toBe('10.90.7.191');
    expect(() => staticAddressOf(HOST, 1, STATIC_ADDRESSES)).toThrow('no static address 958');
    expect(() => staticAddressOf(HOST, 1, -1)).toThrow('no static address -1');
  });

  test('gives each place of each network an address of its own, outside of the engine’s range', () => {
    fc.assert(
      fc.property(numbers, fc.integer({ min: 0, max: STATIC_ADDRESSES - 1 }), (number, place) => {
        const address = staticAddressOf(HOST, number, place);
        const { subnet, gateway, dynamicRange } = tenantNetworkOf(HOST, number);
        expect(within(subnet, address)).toBe(true);
        expect(within(dynamicRange, address)).toBe(false);
        expect(address).not.toBe(gateway);
      }),
    );
  });
});

test('macAddressOf() is the address behind Docker’s prefix', () => {
  expect(macAddressOf('10.90.4.255')).toBe('02:42:0a:5a:04:ff');
});
