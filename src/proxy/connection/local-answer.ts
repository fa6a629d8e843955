/** Writes an answer of our own to a client of HTTP/1.x. */
import { errorText } from '#proxy/error-response.ts';
import type { ExchangeError } from '#proxy/error-response.ts';
import { METHOD } from '#proxy/http1/head-view.ts';
import type { ExchangeRecord } from '#proxy/record.ts';
import type { Wire } from '#proxy/wire/wire.ts';
import type { RequestFacts } from './request-facts.ts';

export interface LocalAnswer {
  readonly error: ExchangeError;
  /** What is wrong, more exactly than the error says. */
  readonly detail: string | undefined;
  /** Whether the connection ends with it. */
  readonly closes: boolean;
  readonly facts: RequestFacts;
  readonly retryAfterSeconds: number;
}

/** Writes it whole, and counts it. */
export function writeLocalAnswer(wire: Wire, record: ExchangeRecord, answer: LocalAnswer): void {
  const { error, detail, closes, facts, retryAfterSeconds } = answer;
  const kept = facts.minor === 0 ? 'keep-alive' : '';
  const { head, body } = errorText(error, {
    requestId: record.requestId.toString('latin1'),
    detail,
    connection: closes ? 'close' : kept,
    bodyless: facts.method === METHOD.head,
    retryAfterSeconds,
  });
  record.downstreamOutBytes += head.length + body.length;
  wire.writeText(head + body);
}
