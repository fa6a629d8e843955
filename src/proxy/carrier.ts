/** The seam between phases and bytes: what carries a request to an endpoint and the response back, over whatever protocol. */
import type { Agent } from 'node:http';
import type { Endpoint } from '#routing/route-table.ts';
import type { ExchangeError, LocalAnswer } from './error-response.ts';
import type { ExchangeRecord } from './exchange-record.ts';
import type { RequestHead } from './request-head.ts';

/** What an attempt is made with. */
export interface Attempt {
  readonly endpoint: Endpoint;
  readonly agent: Agent;
  readonly record: ExchangeRecord;
}

export type AttemptOutcome =
  /** The response went to the client to its end, or an upgraded stream ended. */
  | { readonly kind: 'done' }
  /** Nothing of a response reached the client; it can still be answered. */
  | {
      readonly kind: 'failed';
      readonly error: ExchangeError;
      readonly connected: boolean;
      readonly reusedConnection: boolean;
      readonly responseBytes: boolean;
      readonly bodyBytesSent: number;
    }
  /** The client's connection was closed, because it had seen a part of the response or is gone. */
  | { readonly kind: 'broken'; readonly error: ExchangeError };

/** Carries one request of a client over some protocol. */
export interface Carrier {
  readonly head: RequestHead;
  /** Asks to be told, at once or once, that the client went away before it was answered. */
  onGone(listener: () => void): void;
  /** Answers without an endpoint; returns when that is written or the client is gone. */
  answer(answer: LocalAnswer): Promise<void>;
  /** Sends the request to an endpoint and the response to the client. Never rejects. */
  carry(attempt: Attempt): Promise<AttemptOutcome>;
  /** Ends the attempt under way, which then comes out as `failed` or `broken` with `error`. */
  cut(error: ExchangeError): void;
}
