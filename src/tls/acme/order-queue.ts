/**
 * Which names are ordered next: those that a handshake waits for, those in danger, those without a certificate, then those whose renewal is due; within
 * these the one that ends or was wanted first. What may not be asked for now is passed over, and the plan says when to look again.
 */
import { chooseCas } from './back-off.ts';
import type { Failures } from './back-off.ts';
import type { LimitName, Renewal, Verdict } from './rate-ledger.ts';

export interface CurrentCertificate {
  readonly notAfterMs: number;
  /** As `planRenewal` says. */
  readonly renewAtMs: number;
  /** As `safetyPointMs` says. */
  readonly safetyMs: number;
  /** The CA that made it, by its directory's URL. */
  readonly ca: string;
  /** Whether that CA can be told that the new one replaces it (RFC 9773), which makes the order exempt from its limits. */
  readonly isReplaceable: boolean;
}

export interface Candidate {
  readonly host: string;
  /** Since when it is to have one. */
  readonly wantedMs: number;
  /** Undefined: it has none. */
  readonly current: CurrentCertificate | undefined;
  /** A handshake waits for it, or an operator said so. */
  readonly isAskedFor: boolean;
  /** By CA. */
  readonly failures: ReadonlyMap<string, Failures>;
}

export interface PlannedOrder {
  readonly host: string;
  readonly ca: string;
  readonly renewal: Renewal;
}

export interface QueueCa {
  /** The directory's URL. */
  readonly id: string;
  readonly failures: Failures | undefined;
  /** Orders that are under way there. A CA that has just failed is tried with one, and the others wait for what comes of it. */
  readonly underWay: number;
}

export interface QueueState {
  readonly nowMs: number;
  /** The CAs in the operator's order. */
  readonly cas: readonly QueueCa[];
  /** How many may be begun now. */
  readonly room: number;
  /** What the ledger says. It is asked in order, and who plans to carry the orders out writes each one down that goes. */
  readonly admit: (order: PlannedOrder) => Verdict;
}

export interface OrderPlan {
  readonly orders: readonly PlannedOrder[];
  /** When something that is not ordered now may be, as far as is known; undefined: nothing waits for a moment. */
  readonly againMs: number | undefined;
  /** How many are due, and wait for a limit of a CA. */
  readonly waiting: ReadonlyMap<LimitName, number>;
}

type Rank = 0 | 1 | 2 | 3;

interface Due {
  readonly candidate: Candidate;
  readonly rank: Rank;
  readonly byMs: number;
}

export function planOrders(candidates: Iterable<Candidate>, state: QueueState): OrderPlan {
  const { nowMs, room } = state;
  const due: Due[] = [];
  let againMs = Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const one = dueOf(candidate, nowMs);
    if (one === undefined) againMs = Math.min(againMs, candidate.current?.renewAtMs ?? againMs);
    else due.push(one);
  }
  due.sort(
    (one, other) => one.rank - other.rank || one.byMs - other.byMs || (one.candidate.host < other.candidate.host ? -1 : 1),
  );
  const cas = new Cas(state);
  const orders: PlannedOrder[] = [];
  const waiting = new Map<LimitName, number>();
  for (const one of due) {
    if (orders.length >= room) return { orders, againMs: finite(againMs), waiting };
    const choice = cas.choiceFor(one);
    if (choice.kind === 'order') {
      orders.push(choice.order);
      continue;
    }
    againMs = Math.min(againMs, choice.untilMs);
    if (choice.limit !== undefined) waiting.set(choice.limit, (waiting.get(choice.limit) ?? 0) + 1);
  }
  return { orders, againMs: finite(againMs), waiting };
}

function dueOf(candidate: Candidate, nowMs: number): Due | undefined {
  const { current, isAskedFor, wantedMs } = candidate;
  if (isAskedFor) return { candidate, rank: 0, byMs: wantedMs };
  if (current === undefined) return { candidate, rank: 2, byMs: wantedMs };
  if (nowMs >= current.safetyMs) return { candidate, rank: 1, byMs: current.notAfterMs };
  return nowMs >= current.renewAtMs ? { candidate, rank: 3, byMs: current.notAfterMs } : undefined;
}

type Choice =
  | { readonly kind: 'order'; readonly order: PlannedOrder }
  | { readonly kind: 'wait'; readonly untilMs: number; readonly limit: LimitName | undefined };

/** What was found of the CAs while a plan is made. */
class Cas {
  readonly #state: QueueState;
  readonly #begun = new Map<string, number>();
  /** By CA and what is renewed: an account that may order nothing more may not for any name, and the ledger is not asked a hundred thousand times. */
  readonly #closed = new Map<string, Verdict>();

  constructor(state: QueueState) {
    this.#state = state;
    for (const { id, underWay } of state.cas) this.#begun.set(id, underWay);
  }

  choiceFor({ candidate, rank }: Due): Choice {
    const { cas, nowMs } = this.#state;
    const { host, current, failures } = candidate;
    const standings = cas.map(({ id, failures: ofCa }) => ({ id, ofCa, ofName: failures.get(id) }));
    const { open, untilMs } = chooseCas(standings, nowMs, rank === 1);
    let wait: Choice & { readonly kind: 'wait' } = { kind: 'wait', untilMs, limit: undefined };
    for (const ca of open) {
      if (this.#isBeingTried(ca)) continue; // What comes of it begins a new plan.
      const order = { host, ca, renewal: renewalOf(current, ca) };
      const verdict = this.#verdict(order);
      if (verdict.kind === 'go') {
        this.#begun.set(ca, (this.#begun.get(ca) ?? 0) + 1);
        return { kind: 'order', order };
      }
      if (verdict.untilMs < wait.untilMs) wait = verdict;
      // A renewal that has time waits for its own CA; the others take what they get.
      if (rank === 3 && current !== undefined && verdict.untilMs < current.safetyMs) break;
    }
    // In danger it may go elsewhere.
    const dangerMs = rank === 3 ? (current?.safetyMs ?? wait.untilMs) : wait.untilMs;
    return { ...wait, untilMs: Math.min(wait.untilMs, dangerMs) };
  }

  #isBeingTried(ca: string): boolean {
    const failures = this.#state.cas.find(({ id }) => id === ca)?.failures;
    return failures !== undefined && (this.#begun.get(ca) ?? 0) > 0;
  }

  #verdict(order: PlannedOrder): Verdict {
    const key = `${order.ca} ${order.renewal}`;
    const closed = this.#closed.get(key);
    if (closed !== undefined) return closed;
    const verdict = this.#state.admit(order);
    if (verdict.kind === 'wait' && verdict.limit === 'orders-per-account') this.#closed.set(key, verdict);
    return verdict;
  }
}

/** Another CA knows nothing of what this one has made. */
function renewalOf(current: CurrentCertificate | undefined, ca: string): Renewal {
  if (current?.ca !== ca) return 'none';
  return current.isReplaceable ? 'replaces' : 'same-names';
}

function finite(ms: number): number | undefined {
  return Number.isFinite(ms) ? ms : undefined;
}
