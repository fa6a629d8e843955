/**
 * What one tenant may hold of one worker at once, so that nobody can take a worker from the others.
 *
 * A tenant has an entry while it holds something; how often it was refused is kept beside, for the metrics, of a bounded number of tenants.
 * Limits are told for the node and shared out to its workers (`shareOf`). They protect, they do not bill: connections are not spread evenly, so one
 * worker can refuse a tenant a little before the node's limit is reached.
 */

/** Connections and exchanges of clients, exchanges that wait for an endpoint and what of them is kept, bytes read and not written yet, joined streams. */
export type BudgetKind = 'connections' | 'exchanges' | 'heldRequests' | 'heldBytes' | 'bufferedBytes' | 'upgradedStreams';

/** The most that one tenant may hold at once. */
export type BudgetLimits = Readonly<Record<BudgetKind, number>>;

export interface Refusals {
  readonly tenant: string;
  readonly kind: BudgetKind;
  /** Since the worker began. */
  readonly count: number;
}

export const BUDGET_KINDS: readonly BudgetKind[] = [
  'connections',
  'exchanges',
  'heldRequests',
  'heldBytes',
  'bufferedBytes',
  'upgradedStreams',
];

/** Tenants whose refusals are told apart: each is a line of a metric for each kind. */
const REFUSED_TENANTS_MAX = 256;
/** All other tenants, where refusals are told. No name of a tenant is this one. */
export const OTHER_TENANTS = '*';

type Counts = Record<BudgetKind, number>;

/** A worker's share of a limit of the node. Rounded up: a limit that is less than the workers still lets each have one. */
export function shareOf(limit: number, workers: number): number {
  return Math.ceil(limit / workers);
}

/** The shares of one worker. */
export function shareLimits(limits: BudgetLimits, workers: number): BudgetLimits {
  return {
    connections: shareOf(limits.connections, workers),
    exchanges: shareOf(limits.exchanges, workers),
    heldRequests: shareOf(limits.heldRequests, workers),
    heldBytes: shareOf(limits.heldBytes, workers),
    bufferedBytes: shareOf(limits.bufferedBytes, workers),
    upgradedStreams: shareOf(limits.upgradedStreams, workers),
  };
}

/** What the budgets of a worker have in common. */
interface Ledger {
  limits: BudgetLimits;
  /** INVARIANT: a tenant is here while it holds something, and all its budgets that hold something share the counts of this one. */
  readonly entries: Map<string, TenantBudget>;
  readonly refused: Map<string, Counts>;
  faults: number;
}

/** The budgets of one worker. */
export class Budgets {
  readonly #ledger: Ledger;

  /** `limits`: this worker's shares. */
  constructor(limits: BudgetLimits) {
    this.#ledger = { limits, entries: new Map(), refused: new Map(), faults: 0 };
  }

  /** Other limits from now on. Who holds more keeps it, and gets nothing until it is less. */
  limitTo(limits: BudgetLimits): void {
    this.#ledger.limits = limits;
  }

  /** Tenants that hold something. */
  get size(): number {
    return this.#ledger.entries.size;
  }

  /** How often something was given back that nobody had taken: a fault of ours, which does no harm. */
  get faults(): number {
    return this.#ledger.faults;
  }

  /** The budget of a tenant, to be kept or asked for again as one likes: all that are given out for a tenant count as one. */
  of(tenant: string): TenantBudget {
    return this.#ledger.entries.get(tenant) ?? new TenantBudget(this.#ledger, tenant);
  }

  /** How often tenants were refused, by kind. Bounded: tenants beyond the first 256 are summed as `OTHER_TENANTS`. */
  *refusals(): Generator<Refusals> {
    for (const [tenant, counts] of this.#ledger.refused)
      for (const kind of BUDGET_KINDS) if (counts[kind] > 0) yield { tenant, kind, count: counts[kind] };
  }
}

/** What one tenant holds of one worker. `Budgets.of` makes it. */
export class TenantBudget {
  readonly tenant: string;
  readonly #ledger: Ledger;
  #counts: Counts = noCounts();

  constructor(ledger: Ledger, tenant: string) {
    this.#ledger = ledger;
    this.tenant = tenant;
  }

  /** How much of a kind the tenant holds. */
  held(kind: BudgetKind): number {
    return (this.#ledger.entries.get(this.tenant) ?? this).#counts[kind];
  }

  /**
   * Takes `amount` (bytes, for `heldBytes` and `bufferedBytes`) if all of it is within the limit: true, and `leave` gives it back. Otherwise takes nothing and
   * counts a refusal. Allocates nothing but the entry of a tenant that held nothing.
   */
  tryEnter(kind: BudgetKind, amount = 1): boolean {
    const { entries, limits } = this.#ledger;
    const isIdle = isEmpty(this.#counts);
    const entry = isIdle ? entries.get(this.tenant) : this;
    if (entry !== undefined) this.#counts = entry.#counts;
    const taken = this.#counts[kind] + amount;
    if (taken > limits[kind]) {
      countRefusal(this.#ledger.refused, this.tenant, kind);
      return false;
    }
    this.#counts[kind] = taken;
    if (entry === undefined && amount > 0) entries.set(this.tenant, this);
    return true;
  }

  /** Gives back what `tryEnter` took. */
  leave(kind: BudgetKind, amount = 1): void {
    const counts = this.#counts;
    if (amount > counts[kind]) this.#ledger.faults += 1;
    if (isEmpty(counts)) return;
    counts[kind] = Math.max(0, counts[kind] - amount);
    if (isEmpty(counts)) this.#ledger.entries.delete(this.tenant);
  }
}

function noCounts(): Counts {
  return { connections: 0, exchanges: 0, heldRequests: 0, heldBytes: 0, bufferedBytes: 0, upgradedStreams: 0 };
}

function isEmpty(counts: Counts): boolean {
  const { connections, exchanges, heldRequests, heldBytes, bufferedBytes, upgradedStreams } = counts;
  return connections + exchanges + heldRequests + heldBytes + bufferedBytes + upgradedStreams === 0;
}

function countRefusal(refused: Map<string, Counts>, tenant: string, kind: BudgetKind): void {
  const name = refused.has(tenant) || refused.size < REFUSED_TENANTS_MAX ? tenant : OTHER_TENANTS;
  let counts = refused.get(name);
  if (counts === undefined) {
    counts = noCounts();
    refused.set(name, counts);
  }
  counts[kind] += 1;
}
