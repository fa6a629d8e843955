/** What holds for every plan, whatever the fleet. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { FleetFacts } from '#caas/rebalance/fleet-facts.ts';
import type { MovePlan } from '#caas/rebalance/move-plan.ts';
import { planDrain } from '#caas/rebalance/plan-drain.ts';
import { planRebalance } from '#caas/rebalance/plan-rebalance.ts';
import { allowedMoves, DEFAULT_POLICY } from '#caas/rebalance/policy.ts';
import type { RebalancePolicy } from '#caas/rebalance/policy.ts';
import { anyFleet, applied, demandOn, MINUTE_MS } from '../../../support/fleet.ts';

const POLICY: RebalancePolicy = { ...DEFAULT_POLICY, movesPerPlan: { milli: 0, leastMoves: 5 } };

function plansOf(
  facts: FleetFacts,
): readonly { readonly plan: MovePlan; readonly fillMilli: number; readonly drained: string | undefined }[] {
  return [
    { plan: planRebalance(facts, POLICY), fillMilli: POLICY.fillMilli, drained: undefined },
    ...facts.hosts
      .slice(0, 2)
      .map(({ name }) => ({ plan: planDrain(name, facts, POLICY), fillMilli: POLICY.drainFillMilli, drained: name })),
  ];
}

/** Every container on every host that it may be on before, during or after the plan. */
function worstCase(facts: FleetFacts, plan: MovePlan): FleetFacts {
  const targets = new Map(plan.moves.map((move) => [move.container, move.to]));
  return {
    ...facts,
    containers: facts.containers.map((container) => ({
      ...container,
      migratingTo: targets.get(container.id) ?? container.migratingTo,
    })),
  };
}

describe('every plan', () => {
  test('leaves each target below its limits, even while all of its moves are under way', () => {
    fc.assert(
      fc.property(anyFleet, (facts) => {
        for (const { plan, fillMilli } of plansOf(facts)) {
          const during = worstCase(facts, plan);
          for (const { to } of plan.moves) {
            const host = facts.hosts.find(({ name }) => name === to);
            expect(host).toMatchObject({ state: 'active', outOfService: undefined });
            const { cpuMilli, memoryBytes, peakBytes, promisedBytes } = demandOn(during, to);
            expect(cpuMilli * 1000).toBeLessThanOrEqual((host?.cpuMilli ?? 0) * fillMilli);
            expect(memoryBytes * 1000).toBeLessThanOrEqual((host?.memoryBytes ?? 0) * fillMilli);
            expect(peakBytes * 1000).toBeLessThanOrEqual((host?.memoryBytes ?? 0) * POLICY.memoryPeakMilli);
            expect(promisedBytes).toBeLessThanOrEqual((host?.memoryBytes ?? 0) * 2);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  test('moves no container twice, none that must stay, and none without a reason', () => {
    fc.assert(
      fc.property(anyFleet, (facts) => {
        for (const { plan, drained } of plansOf(facts)) {
          expect(new Set(plan.moves.map(({ container }) => container)).size).toBe(plan.moves.length);
          for (const move of plan.moves) {
            const container = facts.containers.find(({ id }) => id === move.container);
            expect(container).toMatchObject({ host: move.from, stuck: undefined, migratingTo: undefined });
            expect(move.to).not.toBe(move.from);
            expect(container?.label).not.toBe('never');
            expect(move.why.text).toContain(`host ${move.from} `);
            if (drained !== undefined) continue;
            expect(container?.label).toBe('any');
            expect(facts.nowMs - (container?.movedMs ?? 0)).toBeGreaterThanOrEqual(POLICY.residenceMs);
            expect(move.blackoutMs).toBeLessThanOrEqual(POLICY.blackoutMaxMs);
            expect(move.gainMs).toBeGreaterThan(0);
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  test('keeps to its budgets, and each wave to what hosts can do at once', () => {
    fc.assert(
      fc.property(anyFleet, (facts) => {
        for (const { plan, drained } of plansOf(facts)) {
          for (const { name } of facts.hosts) {
            const busy = facts.containers.filter(
              ({ host, migratingTo }) => migratingTo !== undefined && (host === name || migratingTo === name),
            ).length;
            const touching = plan.moves.filter((move) => move.from === name || move.to === name);
            for (const wave of new Set(touching.map((move) => move.wave))) {
              const count = touching.filter((move) => move.wave === wave).length;
              expect(count + (wave === 0 ? busy : 0)).toBeLessThanOrEqual(POLICY.movesAtOncePerHost);
            }
          }
          if (drained !== undefined) continue;
          const recent = facts.recentMoves.filter(({ atMs }) => facts.nowMs - atMs < 60 * MINUTE_MS);
          expect(plan.moves.length).toBeLessThanOrEqual(5);
          expect(plan.moves.length).toBeLessThanOrEqual(
            Math.max(0, allowedMoves(POLICY.movesPerHour, facts.containers.length) - recent.length),
          );
          for (const tenant of new Set(plan.moves.map((move) => move.tenant))) {
            const containers = facts.containers.filter((container) => container.tenant === tenant).length;
            const moves = [...recent, ...plan.moves].filter((move) => move.tenant === tenant).length;
            expect(moves).toBeLessThanOrEqual(allowedMoves(POLICY.movesPerTenantPerHour, containers));
          }
        }
      }),
      { numRuns: 60 },
    );
  });

  test('does not depend on the order in which facts come', () => {
    fc.assert(
      fc.property(anyFleet, fc.nat(), (facts, turn) => {
        const turned = <T>(list: readonly T[]): readonly T[] => {
          const at = list.length === 0 ? 0 : turn % list.length;
          return [...list.slice(at), ...list.slice(0, at)].toReversed();
        };
        const other = {
          ...facts,
          hosts: turned(facts.hosts),
          containers: turned(facts.containers),
          recentMoves: turned(facts.recentMoves),
        };
        expect(planRebalance(other, POLICY)).toEqual(planRebalance(facts, POLICY));
        for (const { name } of facts.hosts)
          expect(planDrain(name, other, POLICY).moves).toEqual(planDrain(name, facts, POLICY).moves);
      }),
    );
  });
});

describe('planDrain()', () => {
  test('gives every container either a move or a reason, and no room as a reason only where there is none', () => {
    fc.assert(
      fc.property(anyFleet, (facts) => {
        for (const { name } of facts.hosts) {
          const plan = planDrain(name, facts, POLICY);
          const here = facts.containers.filter(({ host }) => host === name).map(({ id }) => id);
          expect([...plan.moves, ...plan.stays].map(({ container }) => container).toSorted()).toEqual(here.toSorted());
          const after = applied(facts, plan, facts.nowMs);
          for (const stay of plan.stays.filter(({ rule }) => rule === 'no-room')) {
            const container = facts.containers.find(({ id }) => id === stay.container);
            for (const host of facts.hosts.filter(
              (one) => one.name !== name && one.state === 'active' && one.outOfService === undefined,
            )) {
              const crowded = {
                ...after,
                containers: after.containers.map((one) => (one.id === container?.id ? { ...one, host: host.name } : one)),
              };
              const { cpuMilli, memoryBytes, peakBytes, promisedBytes } = demandOn(crowded, host.name);
              const fits =
                cpuMilli * 1000 <= host.cpuMilli * POLICY.drainFillMilli &&
                memoryBytes * 1000 <= host.memoryBytes * POLICY.drainFillMilli &&
                peakBytes * 1000 <= host.memoryBytes * POLICY.memoryPeakMilli &&
                promisedBytes <= host.memoryBytes * 2;
              expect(fits).toBe(false);
            }
          }
        }
      }),
      { numRuns: 60 },
    );
  });
});

describe('planRebalance()', () => {
  test('comes to rest while nothing changes, and sends no container back to where it was', () => {
    fc.assert(
      fc.property(anyFleet, (start) => {
        let facts: FleetFacts = {
          ...start,
          containers: start.containers.map((container) => ({ ...container, migratingTo: undefined })),
        };
        const been = new Map(facts.containers.map(({ id, host }) => [id, new Set([host])]));
        let plans = 0;
        for (; plans < 60; plans += 1) {
          const plan = planRebalance(facts, POLICY);
          // A plan without moves may wait for residence or an hour's budget: only one that stays so is rest.
          facts = applied(facts, plan, facts.nowMs + 61 * MINUTE_MS);
          if (plan.moves.length === 0 && plans > 4) break;
          for (const { container, to } of plan.moves) {
            expect(been.get(container)).not.toContain(to);
            been.get(container)?.add(to);
          }
        }
        expect(plans).toBeLessThan(60);
      }),
      { numRuns: 60 },
    );
  });
});
