/** What the packet rules say as text. What they do is in test/integration/docker/network-policy.test.ts. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { staticAddressOf } from '#isolation/host-addresses.ts';
import type { HostNetwork } from '#isolation/host-addresses.ts';
import { changeRules, hostRules, uplinkRules } from '#isolation/packet-rules.ts';
import type { HostPolicy, NetworkMembers } from '#isolation/packet-rules.ts';

const ROOT: HostNetwork = { scope: 'abcdef', index: 3, octet: 90, namespace: undefined };
const OWN: HostNetwork = { ...ROOT, namespace: 'ecluse-abcdef-3' };
const EMPTY: HostPolicy = { octets: [90, 91], resolverPort: undefined, tenants: [] };

function policyOf(networks: readonly NetworkMembers[]): HostPolicy {
  return { ...EMPTY, resolverPort: 10_053, tenants: [{ tenantNumber: 1, networks }] };
}

/** nft refuses the whole transaction where one command cannot be done. */
function must(isPossible: boolean, command: string): void {
  if (!isPossible) throw new Error(`nft would refuse ${command}`);
}

/** The elements of each set and the rules of each tenant's chain, by family: the state that nft would have. */
class Kernel {
  readonly sets = new Map<string, Set<string>>();
  readonly chains = new Map<string, readonly string[]>();

  constructor(rules: string) {
    for (const [, family = '', body = ''] of rules.matchAll(/table (\w+) \S+ \{\n([^]*?)\n\}/g)) {
      for (const [, name = '', elements = ''] of body.matchAll(
        /set (\w+) \{ type [^;]*; (?:flags interval; )?(?:elements = \{ (.*?) \})? ?\}/g,
      )) {
        this.sets.set(`${family} ${name}`, new Set(elements === '' ? [] : elements.split(', ')));
      }
      for (const [, name = '', chain = ''] of body.matchAll(/chain (t\d+) \{\n([^]*?)\n {2}\}/g)) {
        this.chains.set(
          `${family} ${name}`,
          chain.split('\n').map((rule) => rule.trim()),
        );
      }
    }
  }

  run(commands: string): void {
    for (const command of commands.split('\n')) if (command !== '') this.#runOne(command);
  }

  #runOne(command: string): void {
    const [, verb = '', family = '', name = '', rest = ''] =
      /^((?:add|delete|flush) \w+) (\w+) ecluse_abcdef_3 (\w+) ?(.*)$/.exec(command) ?? [];
    const key = `${family} ${name}`;
    const elements = /\{ ([^{}]*) \}(?: \})?$/.exec(rest)?.[1]?.split(', ') ?? [];
    const set = this.sets.get(key);
    switch (verb) {
      case 'add set':
        must(set === undefined, command);
        this.sets.set(key, new Set(elements));
        return;
      case 'delete set':
        for (const [chain, rules] of this.chains) {
          must(!chain.startsWith(`${family} `) || !rules.join('\n').includes(`@${name} `), command);
        }
        must(this.sets.delete(key), command);
        return;
      case 'add element':
        for (const element of elements) set?.add(element);
        return;
      case 'delete element':
        for (const element of elements) must(set?.delete(element) === true, command);
        return;
      case 'flush chain':
        this.chains.set(key, []);
        return;
      case 'add rule':
        this.chains.set(key, [...(this.chains.get(key) ?? []), rest]);
        return;
      default:
        throw new Error(`the model does not know ${command}`);
    }
  }
}

describe('hostRules()', () => {
  test('replace their own tables and touch no other', () => {
    const rules = hostRules(ROOT, policyOf([]));
    expect(rules.match(/table \S+ \S+/g)).toEqual(
      ['inet', 'inet', 'bridge', 'bridge', 'inet', 'bridge'].map((family) => `table ${family} ecluse_abcdef_3`),
    );
    expect(rules.match(/delete table/g)).toHaveLength(2);
  });

  test('say nothing of tenants where there are none, because nft knows no empty map', () => {
    expect(hostRules(OWN, EMPTY)).not.toMatch(/vmap|elements|dnat/);
  });

  test('in the machine’s namespace judge only frames that have an address of ours; in one of our own all', () => {
    const shared = hostRules(ROOT, EMPTY).slice(hostRules(ROOT, EMPTY).indexOf('table bridge ecluse_abcdef_3 {'));
    for (const rule of shared.split('\n').filter((line) => /jump source|goto peers/.test(line))) {
      expect(rule).toMatch(/10\.90\.0\.0\/16|02:42:0a:5a:00:00/);
    }
    expect(hostRules(OWN, EMPTY)).toMatch(/\n {4}jump source\n/);
    expect(hostRules(OWN, EMPTY)).toMatch(/\n {4}goto peers\n/);
  });

  test('translate addresses only on the way out of the machine', () => {
    expect(hostRules(ROOT, EMPTY)).toContain('ip saddr 10.90.0.0/16 oifname != "eabcdef*" masquerade');
    expect(hostRules(OWN, EMPTY)).not.toContain('masquerade');
    expect(uplinkRules(OWN, EMPTY)).toContain('ip saddr 10.90.0.0/16 oifname != "eabcdef*" masquerade');
  });

  test('lead names to the responder once it has a port', () => {
    expect(hostRules(OWN, policyOf([]))).toContain(
      'ip daddr 192.0.2.53 meta l4proto { tcp, udp } th dport 53 dnat ip to 10.90.0.1:10053',
    );
    expect(uplinkRules(OWN, policyOf([]))).toContain('ip daddr 10.90.0.1 meta l4proto { tcp, udp } th dport 10053 accept');
  });

  test('refuse what would be more than an id or an address in their text', () => {
    const network = { id: 'a1', internal: false, addresses: ['10.90.4.2'] };
    for (const bad of [
      { ...network, id: 'a } drop' },
      { ...network, id: '' },
      { ...network, addresses: ['10.90.4.2 }'] },
      { ...network, addresses: ['::1'] },
    ]) {
      expect(() => hostRules(ROOT, policyOf([bad])), JSON.stringify(bad)).toThrow('cannot be written as a packet rule');
      expect(() => changeRules(ROOT, policyOf([]), policyOf([bad])), JSON.stringify(bad)).toThrow('cannot be written');
    }
  });
});

describe('changeRules()', () => {
  const address = fc.oneof(
    fc.integer({ min: 0, max: 5 }).map((place) => staticAddressOf(ROOT, 1, place)),
    fc.integer({ min: 0, max: 3 }).map((place) => staticAddressOf({ ...ROOT, octet: 91 }, 7, place)),
  );
  const networks = fc
    .uniqueArray(fc.constantFrom('aa', 'bb', 'cc'), { minLength: 0 })
    .chain((ids) =>
      fc.tuple(
        ...ids.map((id) => fc.record({ id: fc.constant(id), internal: fc.boolean(), addresses: fc.uniqueArray(address) })),
      ),
    );

  test('lead from one policy’s rules to the other’s', () => {
    fc.assert(
      fc.property(networks, networks, (before, after) => {
        const change = changeRules(OWN, policyOf(before), policyOf(after));
        const kernel = new Kernel(hostRules(OWN, policyOf(before)));
        kernel.run(change ?? 'nothing');
        const wanted = new Kernel(hostRules(OWN, policyOf(after)));
        expect([...wanted.sets.keys()]).toEqual(expect.arrayContaining(['inet out', 'inet sources', 'bridge stations']));
        expect(kernel.sets).toEqual(wanted.sets);
        const sorted = (chains: ReadonlyMap<string, readonly string[]>): unknown =>
          [...chains].map(([name, rules]) => [name, rules.toSorted(), rules.at(-1)]);
        expect(sorted(kernel.chains)).toEqual(sorted(wanted.chains));
      }),
    );
  });

  test('are one command a set where an address joins a network that is there', () => {
    const before = policyOf([{ id: 'aa', internal: true, addresses: ['10.90.4.2'] }]);
    const after = policyOf([{ id: 'aa', internal: true, addresses: ['10.90.4.2', '10.90.4.3'] }]);
    expect(changeRules(ROOT, before, after)).toBe(
      [
        'add element inet ecluse_abcdef_3 n_aa { 10.90.4.3 }',
        'add element bridge ecluse_abcdef_3 n_aa { 10.90.4.3 }',
        'add element bridge ecluse_abcdef_3 stations { 10.90.4.3 . 02:42:0a:5a:04:03 }',
        '',
      ].join('\n'),
    );
    expect(changeRules(ROOT, after, after)).toBe('');
  });

  test('do not know how to change tenants, hosts or the responder', () => {
    expect(changeRules(ROOT, EMPTY, policyOf([]))).toBeUndefined();
    expect(changeRules(ROOT, policyOf([]), { ...policyOf([]), resolverPort: 1 })).toBeUndefined();
    expect(changeRules(ROOT, policyOf([]), { ...policyOf([]), octets: [90] })).toBeUndefined();
  });
});
