/** The world around the planner: a CA that answers, is down, or does not reach a host; and the clock. */
import { caFailed, nameFailed } from '#tls/acme/back-off.ts';
import type { Failures } from '#tls/acme/back-off.ts';
import { planOrders } from '#tls/acme/order-queue.ts';
import type { Candidate, PlannedOrder } from '#tls/acme/order-queue.ts';
import { CERTIFICATE_LIMITS, LIMIT_PRESETS, RateLedger, failureRowOf, rowsOf } from '#tls/acme/rate-ledger.ts';
import type { CaLimits, Intent, LedgerRow, Verdict } from '#tls/acme/rate-ledger.ts';
import { registeredDomainOf } from '#tls/acme/registered-domain.ts';
import { safetyPointMs } from '#tls/acme/renewal-plan.ts';
import type { OrderFacts } from '../../test/support/acme-ca/limits.ts';
import { openRandom } from '../rebalance/random.ts';
import { Judges } from './judges.ts';
import { DAY_MS, currentFrom, populate } from './population.ts';
import type { PopulationOptions, SimulatedHost } from './population.ts';
import { Tally } from './tally.ts';
import { Timeline } from './timeline.ts';

export interface Scenario {
  /** The CA suggests windows, and orders say what they replace. */
  readonly hasAri: boolean;
  readonly limits: CaLimits;
}

const LIMITS: CaLimits = LIMIT_PRESETS['lets-encrypt'];
/** Of a CA that counts renewals of the same names as well. */
const WITHOUT_EXEMPTION: CaLimits = Object.fromEntries(
  Object.entries(LIMITS).map(([name, { max, spanMs }]) => [name, { max, spanMs }]),
);

export const SCENARIOS: Readonly<Record<string, Scenario>> = {
  ari: { hasAri: true, limits: LIMITS },
  'no-ari': { hasAri: false, limits: LIMITS },
  'no-ari-all-counted': { hasAri: false, limits: WITHOUT_EXEMPTION },
};

export interface RenewalsOptions extends PopulationOptions {
  readonly days: number;
  readonly outageHours: number;
  readonly ordersAtATime: number;
  readonly stepMs: number;
  readonly seed: number;
}

const CA = 'https://ca.example/directory';
const ACCOUNT = 'account-1';
const OUTAGE_DAY = 30;
/** From the order to its certificate, and until it is clear that the CA is down or that it did not reach a host. */
const ORDER_MS = 20_000;
const FAILURE_MS = 10_000;

interface Begun {
  readonly host: SimulatedHost;
  readonly planned: PlannedOrder;
  readonly rows: readonly LedgerRow[];
}

type Happening =
  | { readonly kind: 'due'; readonly host: SimulatedHost }
  | { readonly kind: 'begin'; readonly begun: Begun }
  | {
      readonly kind: 'end';
      readonly begun: Begun;
      readonly facts: OrderFacts;
      readonly beganMs: number;
      readonly how: 'issued' | 'ca' | 'validation';
    };

export function simulateRenewals(scenario: Scenario, options: RenewalsOptions): Readonly<Record<string, unknown>> {
  const world = new World(scenario, options);
  const endMs = options.days * DAY_MS;
  for (let nowMs = 0; nowMs < endMs; nowMs += options.stepMs) world.step(nowMs);
  return world.summary(endMs);
}

class World {
  readonly #scenario: Scenario;
  readonly #options: RenewalsOptions;
  readonly #hosts: readonly SimulatedHost[];
  readonly #byName: ReadonlyMap<string, SimulatedHost>;
  readonly #domains = new Map<string, string>();
  readonly #ledger = new RateLedger();
  readonly #judges = new Judges();
  readonly #tally = new Tally();
  readonly #timeline = new Timeline<Happening>();
  readonly #due = new Set<SimulatedHost>();
  #underWay = 0;
  #ofCa: Failures | undefined;
  #againMs = 0;
  #orders = 0;

  constructor(scenario: Scenario, options: RenewalsOptions) {
    this.#scenario = scenario;
    this.#options = options;
    this.#hosts = populate(options, openRandom(options.seed), scenario.hasAri);
    this.#byName = new Map(this.#hosts.map((host) => [host.name, host]));
    for (const host of this.#hosts) this.#timeline.add(host.current?.renewAtMs ?? host.wantedMs, { kind: 'due', host });
  }

  step(nowMs: number): void {
    for (let next = this.#timeline.takeUntil(nowMs); next !== undefined; next = this.#timeline.takeUntil(nowMs))
      this.#happen(next.what, next.atMs);
    if (this.#due.size > 0 && nowMs >= this.#againMs) this.#plan(nowMs);
  }

  summary(endMs: number): Readonly<Record<string, unknown>> {
    return { ...this.#tally.summary(this.#hosts, endMs, this.#options.days), ...this.#judges.verdicts() };
  }

  #happen(what: Happening, atMs: number): void {
    if (what.kind === 'due') {
      this.#due.add(what.host);
      this.#againMs = 0;
    }
    if (what.kind === 'begin') this.#begin(what.begun, atMs);
    if (what.kind === 'end') this.#end(what, atMs);
  }

  #plan(nowMs: number): void {
    const { ordersAtATime, stepMs } = this.#options;
    const startMs = performance.now();
    let begun = 0;
    const plan = planOrders(candidates(this.#due), {
      nowMs,
      cas: [{ id: CA, failures: this.#ofCa, underWay: this.#underWay }],
      room: Math.max(1, Math.floor(stepMs / ORDER_MS)) * ordersAtATime,
      admit: (planned) => {
        const beginMs = nowMs + Math.floor(begun / ordersAtATime) * ORDER_MS;
        const verdict = this.#admit(planned, { nowMs, beginMs });
        if (verdict.kind === 'go') begun += 1;
        return verdict;
      },
    });
    this.#tally.planMs.push(performance.now() - startMs);
    this.#againMs = plan.againMs ?? Infinity;
    this.#ledger.forget(new Map([[CA, LIMITS]]), nowMs);
  }

  /** As the engine does: what goes is written down before it is asked. */
  #admit(planned: PlannedOrder, { nowMs, beginMs }: { readonly nowMs: number; readonly beginMs: number }): Verdict {
    const host = this.#byName.get(planned.host);
    if (host === undefined) throw new Error(`no host ${planned.host}`);
    const intent: Intent = {
      kind: 'order',
      ca: CA,
      account: ACCOUNT,
      names: [host.name],
      domains: [this.#domainOf(host)],
      renewal: planned.renewal,
    };
    const { limits } = this.#scenario;
    const verdict = this.#ledger.verdict(intent, limits, nowMs);
    if (verdict.kind === 'wait') return verdict;
    this.#orders += 1;
    const rows = rowsOf(intent, limits, { id: String(this.#orders), nowMs: beginMs });
    this.#ledger.add(rows);
    this.#due.delete(host);
    this.#underWay += 1;
    this.#timeline.add(beginMs, { kind: 'begin', begun: { host, planned, rows } });
    return verdict;
  }

  #domainOf({ name, domain }: SimulatedHost): string {
    const known = this.#domains.get(domain) ?? registeredDomainOf(name);
    this.#domains.set(domain, known);
    return known;
  }

  #begin(begun: Begun, atMs: number): void {
    const { host, planned } = begun;
    const { current } = host;
    const outageMs = OUTAGE_DAY * DAY_MS;
    const isDown = atMs >= outageMs && atMs < outageMs + this.#options.outageHours * 3_600_000;
    const facts: OrderFacts = { account: ACCOUNT, names: [host.name], renewal: renewalOf(current, planned, atMs) };
    this.#tally.ordered(atMs);
    if (!isDown) this.#judges.ordered(facts, atMs);
    if (!isDown && host.brokenForMs > 0) host.brokenUntilMs ??= atMs + host.brokenForMs;
    const isBroken = host.brokenUntilMs !== undefined && atMs < host.brokenUntilMs;
    const how = isDown ? 'ca' : isBroken ? 'validation' : 'issued';
    this.#timeline.add(atMs + (how === 'issued' ? ORDER_MS : FAILURE_MS), { kind: 'end', begun, facts, beganMs: atMs, how });
  }

  #end({ begun, facts, beganMs, how }: Happening & { readonly kind: 'end' }, nowMs: number): void {
    const { host, rows } = begun;
    this.#underWay -= 1;
    if (how === 'issued') {
      this.#judges.issued(facts, nowMs);
      this.#tally.issued(host, nowMs, facts.renewal);
      host.current = currentFrom(host.name, nowMs, this.#scenario.hasAri);
      host.failures = new Map();
      this.#ofCa = undefined;
      this.#timeline.add(host.current.renewAtMs, { kind: 'due', host });
      return;
    }
    this.#tally.failed(how);
    const failed = { kind: how, nowMs, retryAfterMs: undefined };
    if (how === 'ca') this.#ofCa = caFailed(this.#ofCa, { ...failed, seed: CA, beganMs });
    if (how === 'validation') {
      this.#judges.failedValidation(ACCOUNT, host.name, nowMs);
      this.#ledger.remove(rows.filter(({ limit }) => CERTIFICATE_LIMITS.includes(limit)));
      this.#ledger.add(failureRowOf({ ca: CA, account: ACCOUNT, host: host.name }, LIMITS, { id: host.name, nowMs }));
    }
    host.failures = new Map([[CA, nameFailed(host.failures.get(CA), { ...failed, seed: `${host.name} ${CA}` })]]);
    this.#timeline.add(nowMs, { kind: 'due', host });
  }
}

/** What an order is to the CA: within the window it is free of all limits, else as one of the same names. */
function renewalOf(current: SimulatedHost['current'], { renewal }: PlannedOrder, atMs: number): OrderFacts['renewal'] {
  if (current === undefined) return 'none';
  const { window } = current;
  return renewal === 'replaces' && window !== undefined && atMs >= window.startMs && atMs <= window.endMs ? 'ari' : 'same-names';
}

function* candidates(due: ReadonlySet<SimulatedHost>): Generator<Candidate> {
  for (const { name, wantedMs, current, failures } of due) {
    yield {
      host: name,
      wantedMs,
      isAskedFor: false,
      failures,
      current:
        current === undefined
          ? undefined
          : {
              notAfterMs: current.notAfterMs,
              renewAtMs: current.renewAtMs,
              safetyMs: safetyPointMs(current),
              ca: CA,
              isReplaceable: current.window !== undefined,
            },
    };
  }
}
