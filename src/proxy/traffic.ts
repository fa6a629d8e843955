/** Accounts of what moved, per tenant and endpoint. Long streams count while they run, not when they end: their bytes, and how long they are open. */
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
  /** Streams that are open: connections that changed their protocol, streams of events, connections of published ports. */
  streams: number;
  /** Up to when their time is in `streamMs`, and when that was collected last; whole milliseconds of the monotonic clock. */
  streamsToMs: number;
  streamsToldMs: number;
  streamMs: number;
  requests: number;
  heldMs: number;
  downstreamInBytes: number;
  downstreamOutBytes: number;
  upstreamInBytes: number;
  upstreamOutBytes: number;
}

/** A stream in which nothing moves is told of that often: a report each second would be written down for each. A worker that is killed takes so much with it. */
const STREAM_PERIOD_MS = 5_000;

export class Traffic {
  readonly #counters: Counters;
  readonly #monotonicMs: () => number;
  readonly #accounts = new Map<string, Account>();

  constructor(counters: Counters, monotonicMs: () => number) {
    this.#counters = counters;
    this.#monotonicMs = monotonicMs;
  }

  /** The account to write to. To be given back with `close`. */
  open(tenant: string, endpointId: string | undefined): Account {
    const key = `${tenant}\n${endpointId ?? ''}`;
    let account = this.#accounts.get(key);
    if (account === undefined) {
      account = { tenant, endpointId, counters: this.#counters.tenant(tenant), users: 0, ...NO_STREAMS, ...ZERO };
      this.#accounts.set(key, account);
    }
    account.users += 1;
    return account;
  }

  close(account: Account): void {
    account.users -= 1;
  }

  /** A stream begins at an endpoint. Its time counts until `streamEnds`. */
  streamBegins(account: Account): void {
    const nowMs = this.#nowMs();
    if (account.streams === 0) account.streamsToldMs = nowMs;
    countStreams(account, nowMs);
    account.streams += 1;
  }

  /** Once for each that began. */
  streamEnds(account: Account): void {
    countStreams(account, this.#nowMs());
    account.streams -= 1;
  }

  #nowMs(): number {
    return Math.floor(this.#monotonicMs());
  }

  /** What moved since the last call. */
  collect(): TrafficDelta[] {
    const deltas: TrafficDelta[] = [];
    const nowMs = this.#nowMs();
    for (const [key, account] of this.#accounts) {
      if (account.streams > 0 && nowMs - account.streamsToldMs >= STREAM_PERIOD_MS) {
        countStreams(account, nowMs);
        account.streamsToldMs = nowMs;
      }
      const { users, streams, counters: _counters, streamsToMs: _toMs, streamsToldMs: _toldMs, ...delta } = account;
      if (
        delta.requests +
          delta.heldMs +
          delta.streamMs +
          delta.downstreamInBytes +
          delta.downstreamOutBytes +
          delta.upstreamInBytes +
          delta.upstreamOutBytes >
        0
      ) {
        deltas.push(delta);
        Object.assign(account, ZERO);
      } else if (users === 0 && streams === 0) {
        this.#accounts.delete(key);
      }
    }
    return deltas;
  }
}

function countStreams(account: Account, nowMs: number): void {
  account.streamMs += account.streams * (nowMs - account.streamsToMs);
  account.streamsToMs = nowMs;
}

const NO_STREAMS = { streams: 0, streamsToMs: 0, streamsToldMs: 0 };
const ZERO = {
  requests: 0,
  heldMs: 0,
  streamMs: 0,
  downstreamInBytes: 0,
  downstreamOutBytes: 0,
  upstreamInBytes: 0,
  upstreamOutBytes: 0,
};
