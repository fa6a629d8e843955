/** What a question gets without asking anybody: our own names, and refusals. Pure. */
import { OWN_TTL_SECONDS } from './limits.ts';
import { addressRecord, nameRecord, RCODE, replyTo, TYPE } from './message.ts';
import type { DnsQuery } from './message.ts';
import type { NameTable } from './name-table.ts';

export type LocalAnswer = { readonly kind: 'reply'; readonly reply: Buffer } | { readonly kind: 'forward' };

export interface AnswerContext {
  readonly names: NameTable;
  /** The address that the question came from. */
  readonly source: string;
  /** What fits over the connection that it came by. */
  readonly bytesMax: number;
  /** Grows with each question, so that those who take the first of several addresses share them out. */
  readonly turn: number;
}

const REVERSE_ZONE = '.in-addr.arpa';

export function answerLocally(query: DnsQuery, context: AnswerContext): LocalAnswer {
  const reply = (rcode: number, records: readonly Buffer[] = []): LocalAnswer => ({
    kind: 'reply',
    reply: replyTo(query, rcode, records, context.bytesMax),
  });
  // Whole zones are for servers that copy each other, other classes for asking a server about itself.
  if (!query.isInternet || query.type === TYPE.axfr || query.type === TYPE.ixfr) return reply(RCODE.refused);
  const found = query.name === undefined ? { kind: 'unknown' as const } : findRecords(query.name, query.type, context);
  switch (found.kind) {
    case 'records':
      return reply(RCODE.ok, found.records);
    case 'absent':
      return reply(RCODE.noSuchName);
    case 'withheld':
      return reply(RCODE.failed); // As Docker does for a container that has internal networks only.
    case 'unknown':
      return { kind: 'forward' };
  }
}

type Found =
  | { readonly kind: 'records'; readonly records: readonly Buffer[] }
  | { readonly kind: 'absent' | 'withheld' | 'unknown' };

function findRecords(name: string, type: number, { names, source, turn }: AnswerContext): Found {
  const reversed = addressOfReverse(name);
  if (reversed !== undefined) {
    const answer = names.reverse(source, reversed);
    if (answer.kind !== 'names') return answer;
    const records = type === TYPE.ptr || type === TYPE.any ? answer.names.map((own) => nameRecord(own, OWN_TTL_SECONDS)) : [];
    return { kind: 'records', records: records.filter((record) => record !== undefined) };
  }
  const answer = names.lookup(source, name);
  if (answer.kind !== 'addresses') return answer;
  if (type !== TYPE.a && type !== TYPE.any) return { kind: 'records', records: [] };
  return { kind: 'records', records: rotated(answer.addresses, turn).map((address) => addressRecord(address, OWN_TTL_SECONDS)) };
}

function rotated(addresses: readonly string[], turn: number): readonly string[] {
  const first = turn % addresses.length;
  return [...addresses.slice(first), ...addresses.slice(0, first)];
}

/** The address that `4.3.2.1.in-addr.arpa` asks about. */
function addressOfReverse(name: string): string | undefined {
  if (!name.endsWith(REVERSE_ZONE)) return undefined;
  const parts = name.slice(0, -REVERSE_ZONE.length).split('.');
  const isAddress = parts.length === 4 && parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256);
  return isAddress ? parts.toReversed().join('.') : undefined;
}
