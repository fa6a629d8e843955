/** Writes an answer of our own to a client of HTTP/1.x. */
import { responseText } from '#proxy/error-response.ts';
import type { OwnResponse } from '#proxy/error-response.ts';
import { METHOD } from '#proxy/http1/head-view.ts';
import type { ExchangeRecord } from '#proxy/record.ts';
import type { Wire } from '#proxy/wire/wire.ts';
import type { RequestFacts } from './request-facts.ts';

export interface LocalAnswer {
  readonly response: OwnResponse;
  /** Whether the connection ends with it. */
  readonly closes: boolean;
  readonly facts: RequestFacts;
}

/** Writes it whole, and counts it. */
export function writeLocalAnswer(wire: Wire, record: ExchangeRecord, answer: LocalAnswer): void {
  const { response, closes, facts } = answer;
  const { actions, tls } = record;
  const kept = facts.minor === 0 ? 'keep-alive' : '';
  const { head, body } = responseText(response, {
    requestId: record.requestId.toString('latin1'),
    connection: closes ? 'close' : kept,
    bodyless: facts.method === METHOD.head,
    ownFields: actions === undefined ? [] : (tls === undefined ? actions.plain : actions.secure).own,
  });
  record.downstreamOutBytes += head.length + body.length;
  wire.writeText(head + body);
}
