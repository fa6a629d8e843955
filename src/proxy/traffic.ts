/** Accounts of what moved, per tenant and endpoint. Long streams count while they run, not when they end. */
import type { Counters, TenantCounters } from './counters.ts';
import type { TrafficDelta } from './protocol.ts';

/** The counters of one account since the last collection. */
export interface Account {
  readonly tenant: string;
  readonly endpointId: string | undefined;
  /** What metrics count for the tenant. */
  readonly counters: TenantCounters;
  /** Exchanges that still write here. */
  users: number;
  requests: number;
  heldMs: number;
  downstreamInBytes: number;
  downstreamOutBytes: number;
  upstreamInBytes: number;
  upstreamOutBytes: number;
}

export class Traffic {
  readonly #counters: Counters;
  readonly #accounts = new Map<string, Account>();

  constructor(counters: Counters) {
    this.#counters = counters;
  }

  /** The account to write to. To be given back with `close`. */
  open(tenant: string, endpointId: string | undefined): Account {
    const key = `${tenant}\n${endpointId ?? ''}`;
    let account = this.#accounts.get(key);
    if (account === undefined) {
      account = { tenant, endpointId, counters: this.#counters.tenant(tenant), users: 0, ...ZERO };
      this.#accounts.set(key, account);
    }
    account.users += 1;
    return account;
  }

  close(account: Account): void {
    account.users -= 1;
  }

  /** What moved since the last call. */
  collect(): TrafficDelta[] {
    const deltas: TrafficDelta[] = [];
    for (const [key, account] of this.#accounts) {
      const { users, counters: _counters, ...delta } = account;
      if (
        delta.requests +
          delta.heldMs +
          delta.downstreamInBytes +
          delta.downstreamOutBytes +
          delta.upstreamInBytes +
          delta.upstreamOutBytes >
        0
      ) {
        deltas.push(delta);
        Object.assign(account, ZERO);
      } else if (users === 0) {
        this.#accounts.delete(key);
      }
    }
    return deltas;
  }
}

const ZERO = { requests: 0, heldMs: 0, downstreamInBytes: 0, downstreamOutBytes: 0, upstreamInBytes: 0, upstreamOutBytes: 0 };
