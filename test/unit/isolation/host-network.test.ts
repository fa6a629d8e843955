/** Where a program runs that belongs to a host’s network. */
import { expect, test } from 'vitest';
import type { HostNetwork } from '#isolation/host-addresses.ts';
import { inNamespace } from '#isolation/host-network.ts';

const ROOT: HostNetwork = { scope: 'abcdef', index: 3, octet: 90, namespace: undefined };

test('inNamespace() enters a host’s namespace where it has one', () => {
  expect(inNamespace(ROOT, 'nft', ['-f', '-'])).toEqual(['nft', ['-f', '-']]);
  const own = { ...ROOT, namespace: 'ecluse-abcdef-3' };
  expect(inNamespace(own, 'nft', ['-f', '-'])).toEqual(['nsenter', ['--net=/run/netns/ecluse-abcdef-3', 'nft', '-f', '-']]);
});
