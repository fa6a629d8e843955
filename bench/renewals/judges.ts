/** Limiters that look on, each reading Let's Encrypt's limits another way. None of them knows what the ledger counted. */
import { LETS_ENCRYPT_RULES, RateLimiter } from '../../test/support/acme-ca/limits.ts';
import type { LimitName, LimitRules, OrderFacts } from '../../test/support/acme-ca/limits.ts';

const READINGS: Readonly<Record<string, LimitRules>> = {
  /** As it counts: buckets, and renewals of the same names are free of two limits. */
  published: LETS_ENCRYPT_RULES,
  /** No three hours and no seven days, wherever they begin, hold more. */
  slidingWindows: { ...LETS_ENCRYPT_RULES, kept: 'window' },
  /** Besides, only renewals by ARI are free of anything. */
  everyOrderButAri: { ...LETS_ENCRYPT_RULES, kept: 'window', exempt: 'ari' },
};

interface Judge {
  readonly limiter: RateLimiter;
  readonly breaches: Partial<Record<LimitName, number>>;
}

export class Judges {
  readonly #judges = Object.entries(READINGS).map(([name, rules]): readonly [string, Judge] => [
    name,
    { limiter: new RateLimiter(rules), breaches: {} },
  ]);
  readonly #orderTimes: number[] = [];
  #oldest = 0;
  #most = 0;

  ordered(facts: OrderFacts, nowMs: number): void {
    for (const [, judge] of this.#judges) count(judge, judge.limiter.newOrder(facts, nowMs)?.limit);
    this.#orderTimes.push(nowMs);
    while ((this.#orderTimes[this.#oldest] ?? nowMs) <= nowMs - LETS_ENCRYPT_RULES.limits.newOrders.periodMs) this.#oldest += 1;
    this.#most = Math.max(this.#most, this.#orderTimes.length - this.#oldest);
  }

  issued(facts: OrderFacts, nowMs: number): void {
    for (const [, judge] of this.#judges) count(judge, judge.limiter.issue(facts, nowMs)?.limit);
  }

  failedValidation(account: string, name: string, nowMs: number): void {
    for (const [, { limiter }] of this.#judges) limiter.failedValidation(account, name, nowMs);
  }

  /** The most orders in any three hours, free of limits or not; what each reading counted at most, and how often that was too much. */
  verdicts(): Readonly<Record<string, unknown>> {
    const readings = this.#judges.map(([name, { limiter, breaches }]) => {
      const most = {
        ordersIn3Hours: limiter.mostOf('newOrders'),
        certificatesOfDomainIn7Days: limiter.mostOf('domainCertificates'),
        certificatesOfNamesIn7Days: limiter.mostOf('sameNames'),
        failuresIn1Hour: limiter.mostOf('failedValidations'),
      };
      return [name, { breaches, most }];
    });
    return { ordersIn3HoursMost: this.#most, judged: Object.fromEntries(readings) };
  }
}

function count({ breaches }: Judge, limit: LimitName | undefined): void {
  if (limit !== undefined) breaches[limit] = (breaches[limit] ?? 0) + 1;
}
