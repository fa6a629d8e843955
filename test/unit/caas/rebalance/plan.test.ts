/** What plans decide, by example: drains, relief, hosts given up, and the words for it. */
import { describe, expect, test } from 'vitest';
import { migrateLabelOf } from '#caas/rebalance/fleet-facts.ts';
import type { FleetContainer } from '#caas/rebalance/fleet-facts.ts';
import type { MovePlan } from '#caas/rebalance/move-plan.ts';
import { planDrain } from '#caas/rebalance/plan-drain.ts';
import { planRebalance } from '#caas/rebalance/plan-rebalance.ts';
import { DEFAULT_POLICY } from '#caas/rebalance/policy.ts';
import { containerOf, factsOf, GIB, hostOf, measured, MIB, NOW_MS, spread } from '../../../support/fleet.ts';

function routes(plan: MovePlan): readonly string[] {
  return plan.moves.map(({ container, from, to }) => `${container}: ${from} to ${to}`);
}

function many(count: number, host: string, change: (index: number) => Partial<FleetContainer> = () => ({})): FleetContainer[] {
  return Array.from({ length: count }, (_, index) => containerOf(`${host}${String(index)}`, host, change(index)));
}

describe('planDrain()', () => {
  test('moves everything, the largest first, to where it fits closest', () => {
    const facts = factsOf(
      [hostOf('a'), hostOf('b'), hostOf('c')],
      [
        containerOf('small', 'a', { usage: measured(100, 256 * MIB) }),
        containerOf('large', 'a', { usage: measured(2000, 256 * MIB) }),
        containerOf('there', 'b', { usage: measured(1000, 256 * MIB) }),
      ],
    );
    const plan = planDrain('a', facts, DEFAULT_POLICY);
    expect(routes(plan)).toEqual(['large: a to c', 'small: a to c']);
    expect(plan.stays).toEqual([]);
    expect(plan.hosts).toEqual([{ host: 'a', verdict: 'emptying', text: 'it will be empty after 2 moves' }]);
    expect(plan.moves[0]?.why).toEqual({
      rule: 'drain',
      text: 'host a is drained; host c fits it closest, from 0 % to 50 %',
      fromBeforeMilli: 525,
      fromAfterMilli: 25,
      toBeforeMilli: 0,
      toAfterMilli: 500,
      replicasOnTarget: 0,
    });
  });

  test('says of each container that stays why', () => {
    const facts = factsOf(
      [
        hostOf('a', { cpuMilli: 64_000 }),
        hostOf('b'),
        hostOf('c', { state: 'drained' }),
        hostOf('d', { outOfService: 'it is away' }),
      ],
      [
        containerOf('never', 'a', { label: 'never' }),
        containerOf('drain', 'a', { label: 'drain', movedMs: NOW_MS }),
        containerOf('stuck', 'a', { stuck: 'container stuck has volumes, which do not move yet' }),
        containerOf('moving', 'a', { migratingTo: 'b' }),
        containerOf('big', 'a', { usage: measured(5000, GIB) }),
      ],
    );
    const plan = planDrain('a', facts, DEFAULT_POLICY);
    expect(routes(plan)).toEqual(['drain: a to b']);
    expect(Object.fromEntries(plan.stays.map(({ container, rule, text }) => [container, `${rule}: ${text}`]))).toEqual({
      never: 'label: it has the label ecluse.migrate=never',
      stuck: 'stuck: container stuck has volumes, which do not move yet',
      moving: 'migrating: it is on its way to host b',
      big: 'no-room: no host has room for it below 95 %: the emptiest, b, is at 3 %, and of that host it takes 125 %',
    });
    expect(plan.hostsWanted).toBe(1);
  });

  test('keeps replicas apart while there is room, and then puts as few together as can be', () => {
    const replica = (id: string, host: string): FleetContainer => containerOf(id, host, { service: 'web' });
    const wide = factsOf([hostOf('a'), hostOf('b'), hostOf('c')], [replica('one', 'a'), replica('two', 'b'), ...many(3, 'b')]);
    expect(routes(planDrain('a', wide, DEFAULT_POLICY))).toEqual(['one: a to c']);
    const narrow = factsOf([hostOf('a'), hostOf('b')], [replica('one', 'a'), replica('two', 'b')]);
    const plan = planDrain('a', narrow, DEFAULT_POLICY);
    expect(routes(plan)).toEqual(['one: a to b']);
    expect(plan.moves[0]?.why.text).toContain('beside 1 replica of its service, the fewest possible');
  });

  test('runs two moves at once from a host, and counts those under way', () => {
    const facts = factsOf([hostOf('a'), hostOf('b')], [...many(3, 'a'), containerOf('moving', 'a', { migratingTo: 'b' })]);
    expect(planDrain('a', facts, DEFAULT_POLICY).moves.map(({ wave }) => wave)).toEqual([0, 1, 1]);
  });

  test('refuses a host that is not there', () => {
    expect(() => planDrain('z', factsOf([hostOf('a')], []), DEFAULT_POLICY)).toThrow('there is no host z');
  });
});

describe('planRebalance() relieves', () => {
  const hot = many(8, 'a', () => ({ usage: measured(425, GIB) }));

  test('a hot host, down to where the next small rise asks for nothing', () => {
    const plan = planRebalance(factsOf([hostOf('a'), hostOf('b')], hot), DEFAULT_POLICY);
    expect(routes(plan)).toEqual(['a0: a to b', 'a1: a to b']);
    expect(plan.hosts).toContainEqual({
      host: 'a',
      verdict: 'relieved',
      text: 'it uses 85 % of its processors, above 80 %; 2 moves end that',
    });
    for (const { gainMs, costMs } of plan.moves) expect(gainMs).toBeGreaterThan(costMs);
  });

  test('not for bursts that rarely meet, though their percentiles add up to more than the host', () => {
    const bursty = many(20, 'a', () => ({ usage: spread(measured(240, 512 * MIB), 3) }));
    const plan = planRebalance(factsOf([hostOf('a'), hostOf('b')], bursty), DEFAULT_POLICY);
    // Means of 60 make 1200; 180 above each of them make 805 together: half of the host, where the percentiles alone make 4800.
    expect(plan.hosts.filter(({ host }) => host === 'a')).toEqual([]);
    expect(planDrain('a', factsOf([hostOf('a'), hostOf('b')], bursty), DEFAULT_POLICY).moves.at(-1)?.why.toAfterMilli).toBe(625);
  });

  test('nothing between the watermarks', () => {
    const warm = many(8, 'a', () => ({ usage: measured(390, GIB) }));
    expect(planRebalance(factsOf([hostOf('a'), hostOf('b')], warm), DEFAULT_POLICY).moves).toEqual([]);
  });

  test('a host that is hot by guesses not at all', () => {
    const young = many(8, 'a', () => ({ usage: undefined }));
    const plan = planRebalance(factsOf([hostOf('a'), hostOf('b')], young), DEFAULT_POLICY);
    expect(plan.hosts.filter(({ host }) => host === 'a')).toEqual([]);
  });

  test('and asks for a host where there is no room', () => {
    const full = factsOf([hostOf('a'), hostOf('b')], [...hot, ...many(4, 'b', () => ({ usage: measured(700, GIB) }))]);
    const plan = planRebalance(full, DEFAULT_POLICY);
    expect(plan.moves).toEqual([]);
    expect(plan.hostsWanted).toBe(1);
    expect(plan.hosts[0]).toMatchObject({ host: 'a', verdict: 'hot' });
    expect(plan.stays[0]).toMatchObject({ host: 'a', rule: 'no-room' });
  });

  test('with the one move that suffices and costs least', () => {
    const facts = factsOf(
      [hostOf('a'), hostOf('b')],
      [
        containerOf('light', 'a', { usage: measured(800, 128 * MIB) }),
        containerOf('heavy', 'a', { usage: measured(800, 2 * GIB) }),
        ...many(4, 'a', () => ({ usage: measured(430, GIB) })),
      ],
    );
    expect(routes(planRebalance(facts, DEFAULT_POLICY))).toEqual(['light: a to b']);
  });
});

describe('planRebalance() gives hosts up', () => {
  const hosts = [hostOf('a'), hostOf('b'), hostOf('c')];
  const fleet = [...many(2, 'a'), ...many(4, 'b'), ...many(6, 'c')].map((one) => ({ ...one, tenant: one.id }));

  test('emptying whole hosts into fuller ones, never into an empty one', () => {
    const plan = planRebalance(factsOf([...hosts, hostOf('d')], fleet), DEFAULT_POLICY);
    expect(routes(plan)).toEqual(['a0: a to c', 'a1: a to c', 'b0: b to c', 'b1: b to c', 'b2: b to c', 'b3: b to c']);
    expect(plan.hosts.map(({ host, verdict }) => `${host} ${verdict}`)).toEqual(['d empty', 'a emptying', 'b emptying']);
  });

  test('not the last one that has containers', () => {
    const plan = planRebalance(factsOf([hostOf('a'), hostOf('b')], many(2, 'a')), DEFAULT_POLICY);
    expect(plan.moves).toEqual([]);
    expect(plan.hosts.find(({ host }) => host === 'a')).toMatchObject({
      verdict: 'kept',
      text: 'it is the last one with containers',
    });
  });

  test('not while a container on it must stay', () => {
    const pinned = [
      ...fleet,
      containerOf('pinned', 'a', { label: 'drain' }),
      containerOf('young', 'b', { movedMs: NOW_MS - 60_000 }),
    ];
    const plan = planRebalance(factsOf(hosts, pinned), DEFAULT_POLICY);
    expect(plan.moves.filter(({ from }) => from === 'a' || from === 'b')).toEqual([]);
    expect(plan.stays.map(({ container, rule }) => `${container} ${rule}`)).toContain('pinned label');
    // Of the two that stay, one may move in a while: its host is closed, so that no others come meanwhile.
    expect(plan.hosts.map(({ host, verdict }) => `${host} ${verdict}`)).toEqual(['a kept', 'b closing', 'c emptying']);
  });

  test('not where two replicas would come together, though two hosts hold everything else', () => {
    const pair = [containerOf('one', 'a', { service: 'web' }), containerOf('two', 'b', { service: 'web' })];
    const plan = planRebalance(factsOf([hostOf('a'), hostOf('b')], pair), DEFAULT_POLICY);
    expect(plan.moves).toEqual([]);
    expect(plan.stays.map(({ rule }) => rule)).toEqual(['replicas', 'replicas']);
  });

  test('not where the moves cost more than the host is worth', () => {
    const heavy = many(10, 'a', () => ({ usage: measured(10, 700 * MIB), limits: { cpuMilli: undefined, memoryBytes: GIB } }));
    const wide = [hostOf('a', { memoryBytes: 64 * GIB }), hostOf('b', { memoryBytes: 64 * GIB })];
    const plan = planRebalance(factsOf(wide, [...heavy, ...many(12, 'b')]), { ...DEFAULT_POLICY, horizonMs: 60_000 });
    expect(plan.moves).toEqual([]);
    expect(plan.hosts[0]?.text).toContain('more than the host is worth');
  });

  test('over several plans where one budget does not suffice, and goes on with the same host', () => {
    const policy = { ...DEFAULT_POLICY, movesPerPlan: { milli: 0, leastMoves: 1 } };
    const facts = factsOf(hosts, fleet);
    const plan = planRebalance(facts, policy);
    expect(routes(plan)).toEqual(['a0: a to c']);
    expect(plan.hosts[0]?.text).toContain('1 move, and 1 more in plans to come');
    const rest = fleet.map((one) => (one.id === 'a0' ? { ...one, host: 'c', movedMs: NOW_MS } : one));
    expect(routes(planRebalance(factsOf(hosts, rest), policy))).toEqual(['a1: a to c']);
  });

  test('not where only relief is asked for', () => {
    expect(planRebalance(factsOf(hosts, fleet), { ...DEFAULT_POLICY, goals: ['relieve'] }).moves).toEqual([]);
  });
});

test('migrateLabelOf() takes what it does not know for any, as migrate does', () => {
  const labels = [undefined, {}, { 'ecluse.migrate': 'never' }, { 'ecluse.migrate': 'drain' }, { 'ecluse.migrate': 'maybe' }];
  expect(labels.map(migrateLabelOf)).toEqual(['any', 'any', 'never', 'drain', 'any']);
});
