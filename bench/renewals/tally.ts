/** What is to be known of a run when it is over. */
import { quantile } from '../machine.ts';
import { DAY_MS } from './population.ts';
import type { SimulatedHost } from './population.ts';

const HOUR_MS = 3_600_000;

export class Tally {
  readonly #ordersByDay = new Map<number, number>();
  readonly #firstWaitsHours: { readonly isTenant: boolean; readonly hours: number }[] = [];
  readonly #renewalsLateHours: number[] = [];
  readonly planMs: number[] = [];
  #leastLeftDays = Infinity;
  #expired = 0;
  #failedByCa = 0;
  #failedValidations = 0;
  #byAri = 0;
  #lateForAri = 0;

  ordered(nowMs: number): void {
    const day = Math.floor(nowMs / DAY_MS);
    this.#ordersByDay.set(day, (this.#ordersByDay.get(day) ?? 0) + 1);
  }

  failed(kind: 'ca' | 'validation'): void {
    if (kind === 'ca') this.#failedByCa += 1;
    else this.#failedValidations += 1;
  }

  /** Before its new certificate takes the place of the old one. `renewal`: how the order counted. */
  issued(host: SimulatedHost, nowMs: number, renewal: string): void {
    const { current, isTenant, wantedMs } = host;
    if (current === undefined) {
      this.#firstWaitsHours.push({ isTenant, hours: (nowMs - wantedMs) / HOUR_MS });
      return;
    }
    if (renewal === 'ari') this.#byAri += 1;
    else if (current.window !== undefined) this.#lateForAri += 1;
    this.#renewalsLateHours.push((nowMs - current.renewAtMs) / HOUR_MS);
    this.#leastLeftDays = Math.min(this.#leastLeftDays, (current.notAfterMs - nowMs) / DAY_MS);
    if (current.notAfterMs <= nowMs) this.#expired += 1;
  }

  summary(hosts: readonly SimulatedHost[], endMs: number, days: number): Readonly<Record<string, unknown>> {
    const orders = [...this.#ordersByDay.values()];
    const due = hosts.filter(({ wantedMs }) => wantedMs <= endMs);
    const stillExpired = due.filter(({ current }) => current !== undefined && current.notAfterMs <= endMs).length;
    const first = this.#firstWaitsHours;
    return {
      expired: this.#expired + stillExpired,
      leastLeftAtRenewalDays: rounded(this.#leastLeftDays),
      ordersADay: { mean: Math.round(orders.reduce((sum, one) => sum + one, 0) / days), most: Math.max(0, ...orders) },
      renewals: this.#renewalsLateHours.length,
      renewalsByAri: this.#byAri,
      renewalsAfterTheirWindow: this.#lateForAri,
      renewalsLateHours: spread(this.#renewalsLateHours),
      firstCertificates: first.length,
      waitedHours: spread(first.filter(({ isTenant }) => !isTenant).map(({ hours }) => hours)),
      tenantWaitedHours: spread(first.filter(({ isTenant }) => isTenant).map(({ hours }) => hours)),
      withoutAtTheEnd: due.filter(({ current }) => current === undefined).length,
      failedByCa: this.#failedByCa,
      failedValidations: this.#failedValidations,
      planMs: spread(this.planMs),
    };
  }
}

function spread(values: readonly number[]): Readonly<Record<string, number>> {
  if (values.length === 0) return {};
  const most = values.reduce((one, other) => Math.max(one, other), 0);
  return { median: rounded(quantile(values, 0.5)), p99: rounded(quantile(values, 0.99)), most: rounded(most) };
}

function rounded(value: number): number {
  return Number(value.toPrecision(3));
}
