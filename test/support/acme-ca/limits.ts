/**
 * The limits that Let's Encrypt publishes, kept by buckets of tokens as it keeps them, or by windows that slide, which is the stricter reading. Knows nothing
 * of the code that it judges.
 *
 * Source: https://letsencrypt.org/docs/rate-limits/ (2026): 300 new orders an account in 3 h, 50 certificates a registered domain in 7 d, 5 certificates of
 * exactly the same names in 7 d, 5 failed validations a name and account in 1 h, 10 accounts an address in 3 h. A renewal that says what it replaces, within
 * the window that the CA suggests, is free of all of them; one of exactly the names of an earlier certificate is free of the first two.
 */

export type LimitName = 'newOrders' | 'domainCertificates' | 'sameNames' | 'failedValidations' | 'newAccounts';

export interface Limit {
  readonly count: number;
  readonly periodMs: number;
}

export type Limits = Readonly<Record<LimitName, Limit>>;

const HOUR_MS = 3_600_000;
const WEEK_MS = 7 * 24 * HOUR_MS;

export const LETS_ENCRYPT_LIMITS: Limits = {
  newOrders: { count: 300, periodMs: 3 * HOUR_MS },
  domainCertificates: { count: 50, periodMs: WEEK_MS },
  sameNames: { count: 5, periodMs: WEEK_MS },
  failedValidations: { count: 5, periodMs: HOUR_MS },
  newAccounts: { count: 10, periodMs: 3 * HOUR_MS },
};

export interface LimitRules {
  readonly limits: Limits;
  /** `window`: no period, wherever it begins, holds more than the count. A bucket lets twice as many through where it was full. */
  readonly kept: 'bucket' | 'window';
  /** What is free of limits: renewals by ARI alone, or those of exactly the same names too, as with Let's Encrypt. */
  readonly exempt: 'ari' | 'ari-and-same-names';
}

export const LETS_ENCRYPT_RULES: LimitRules = { limits: LETS_ENCRYPT_LIMITS, kept: 'bucket', exempt: 'ari-and-same-names' };

export interface Refusal {
  readonly limit: LimitName;
  /** The account, address, domain or names that it is about. */
  readonly key: string;
  readonly waitMs: number;
}

/** What an order is to the limits. */
export type Renewal = 'none' | 'same-names' | 'ari';

export interface OrderFacts {
  readonly account: string;
  readonly names: readonly string[];
  readonly renewal: Renewal;
}

/** The last two labels: enough for the domains that tests make up. */
export function registeredDomainOf(name: string): string {
  return name.split('.').slice(-2).join('.');
}

export function namesKey(names: readonly string[]): string {
  return names.toSorted().join(',');
}

export class RateLimiter {
  readonly #rules: LimitRules;
  readonly #counters: Readonly<Record<LimitName, Counter>>;

  constructor(rules: LimitRules) {
    this.#rules = rules;
    const counter = (name: LimitName): Counter => new Counter(rules.limits[name], rules.kept);
    this.#counters = {
      newOrders: counter('newOrders'),
      domainCertificates: counter('domainCertificates'),
      sameNames: counter('sameNames'),
      failedValidations: counter('failedValidations'),
      newAccounts: counter('newAccounts'),
    };
  }

  /** The most that one key had within any period. */
  mostOf(limit: LimitName): number {
    return this.#counters[limit].most;
  }

  newAccount(address: string, nowMs: number): Refusal | undefined {
    return this.#spend([['newAccounts', address]], nowMs);
  }

  /** An order is counted where it is taken; what its certificate will count for is looked at, and counted when that is issued. */
  newOrder(order: OrderFacts, nowMs: number): Refusal | undefined {
    if (order.renewal === 'ari') return undefined;
    const failures = order.names.map((name) => ['failedValidations', failureKey(order.account, name)] as const);
    const refusal = this.#look([...failures, ...this.#certificateKeys(order)], nowMs);
    if (refusal !== undefined) return refusal;
    return this.#isExempt(order) ? undefined : this.#spend([['newOrders', order.account]], nowMs);
  }

  issue(order: OrderFacts, nowMs: number): Refusal | undefined {
    return order.renewal === 'ari' ? undefined : this.#spend(this.#certificateKeys(order), nowMs);
  }

  /** The failure has happened: it is counted even where there were too many. */
  failedValidation(account: string, name: string, nowMs: number): void {
    this.#counters.failedValidations.spend(failureKey(account, name), nowMs);
  }

  #isExempt({ renewal }: OrderFacts): boolean {
    return renewal === 'same-names' && this.#rules.exempt === 'ari-and-same-names';
  }

  #certificateKeys(order: OrderFacts): readonly (readonly [LimitName, string])[] {
    const same = ['sameNames', namesKey(order.names)] as const;
    if (this.#isExempt(order)) return [same];
    const domains = [...new Set(order.names.map(registeredDomainOf))];
    return [same, ...domains.map((domain) => ['domainCertificates', domain] as const)];
  }

  #look(keys: readonly (readonly [LimitName, string])[], nowMs: number): Refusal | undefined {
    for (const [limit, key] of keys) {
      const waitMs = this.#counters[limit].waitMs(key, nowMs);
      if (waitMs > 0) return { limit, key, waitMs };
    }
    return undefined;
  }

  #spend(keys: readonly (readonly [LimitName, string])[], nowMs: number): Refusal | undefined {
    const refusal = this.#look(keys, nowMs);
    if (refusal === undefined) for (const [limit, key] of keys) this.#counters[limit].spend(key, nowMs);
    return refusal;
  }
}

function failureKey(account: string, name: string): string {
  return `${account} ${name}`;
}

/** The times of what counts for one key, oldest first; `from`: those before it are out of the window. */
interface Spent {
  readonly atMs: number[];
  from: number;
  /** When its bucket is full again. */
  fullAtMs: number;
}

class Counter {
  readonly #limit: Limit;
  readonly #kept: LimitRules['kept'];
  readonly #spent = new Map<string, Spent>();
  most = 0;

  constructor(limit: Limit, kept: LimitRules['kept']) {
    this.#limit = limit;
    this.#kept = kept;
  }

  /** 0: one more is allowed now. */
  waitMs(key: string, nowMs: number): number {
    const spent = this.#spent.get(key);
    if (spent === undefined) return 0;
    const { count, periodMs } = this.#limit;
    if (this.#kept === 'bucket') return Math.max(0, spent.fullAtMs - ((count - 1) * periodMs) / count - nowMs);
    forget(spent, nowMs - periodMs);
    const oldestMs = spent.atMs[spent.atMs.length - count];
    return oldestMs === undefined || spent.atMs.length - spent.from < count ? 0 : oldestMs + periodMs - nowMs;
  }

  spend(key: string, nowMs: number): void {
    const spent = this.#spent.get(key) ?? { atMs: [], from: 0, fullAtMs: nowMs };
    this.#spent.set(key, spent);
    spent.fullAtMs = Math.max(spent.fullAtMs, nowMs) + this.#limit.periodMs / this.#limit.count;
    spent.atMs.push(nowMs);
    forget(spent, nowMs - this.#limit.periodMs);
    this.most = Math.max(this.most, spent.atMs.length - spent.from);
  }
}

function forget(spent: Spent, untilMs: number): void {
  while (spent.from < spent.atMs.length && (spent.atMs[spent.from] ?? 0) <= untilMs) spent.from += 1;
  // Not at each step: to shift an array moves all of it.
  if (spent.from < 1_000) return;
  spent.atMs.splice(0, spent.from);
  spent.from = 0;
}
