/**
 * Which endpoints could not be connected to, and why, for whoever looks for the reason of a 502: the access log names the endpoint, not what the system
 * said. Endpoints are tenants' code and may refuse thousands of times a second, so a worker says one in a while, and how many it left out.
 */
import type { Clock } from '#clock';
import type { Log } from '#log';
import type { Endpoint } from '#routing/route-table.ts';

/** A worker's lines, whatever happens: a day of nothing else is 17 280 of them. */
const EACH_MS = 5_000;

export class UnreachableLog {
  readonly #log: Log;
  readonly #clock: Clock;
  #saidMs = Number.NEGATIVE_INFINITY;
  #leftOut = 0;

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
  }

  failed({ id, address, port }: Endpoint, reason: string): void {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#saidMs < EACH_MS) {
      this.#leftOut += 1;
      return;
    }
    this.#log.info({ endpoint: id, address, port, reason, leftOut: this.#leftOut }, 'an endpoint could not be connected to');
    this.#saidMs = nowMs;
    this.#leftOut = 0;
  }
}
