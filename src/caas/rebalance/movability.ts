/** Whether a container may be moved, before anybody asks where to. Pure. */
import { moveCostOf } from './move-cost.ts';
import type { FleetContainer } from './fleet-facts.ts';
import type { Stay, StayRule } from './move-plan.ts';
import type { RebalancePolicy } from './policy.ts';

export function stayOf(container: FleetContainer, rule: StayRule, text: string): Stay {
  return { container: container.id, name: container.name, tenant: container.tenant, host: container.host, rule, text };
}

function minutes(ms: number): string {
  return `${String(Math.max(0, Math.floor(ms / 60_000)))} min`;
}

/** What keeps it also when its host is drained, or undefined. */
export function keptInDrain(container: FleetContainer): Stay | undefined {
  if (container.migratingTo !== undefined)
    return stayOf(container, 'migrating', `it is on its way to host ${container.migratingTo}`);
  if (container.label === 'never') return stayOf(container, 'label', 'it has the label ecluse.migrate=never');
  if (container.stuck !== undefined) return stayOf(container, 'stuck', container.stuck);
  return undefined;
}

/** What keeps it where nobody ordered a move, or undefined. */
export function keptInRebalance(container: FleetContainer, nowMs: number, policy: RebalancePolicy): Stay | undefined {
  const kept = keptInDrain(container);
  if (kept !== undefined) return kept;
  if (container.label === 'drain') return stayOf(container, 'label', 'it has the label ecluse.migrate=drain');
  const coveredMs = container.usage?.coveredMs ?? 0;
  if (coveredMs < policy.measuredLeastMs) {
    return stayOf(
      container,
      'unmeasured',
      `it was measured for ${minutes(coveredMs)} of the ${minutes(policy.measuredLeastMs)} that are needed`,
    );
  }
  const residenceMs = container.movedMs === undefined ? policy.residenceMs : nowMs - container.movedMs;
  if (residenceMs < policy.residenceMs) {
    return stayOf(container, 'residence', `it moved ${minutes(residenceMs)} ago and stays for ${minutes(policy.residenceMs)}`);
  }
  const { blackoutMs } = moveCostOf(container, policy);
  if (blackoutMs > policy.blackoutMaxMs) {
    return stayOf(
      container,
      'blackout',
      `its pause would last ${String(blackoutMs)} ms, more than ${String(policy.blackoutMaxMs)}`,
    );
  }
  return undefined;
}
