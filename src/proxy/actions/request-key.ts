/** Which bucket a request is counted in. */
import { createHash } from 'node:crypto';
import type { RequestKey } from '#routing/actions.ts';
import { ADDRESS_BYTES, isMapped, readAddress } from '#proxy/ip-address.ts';

/** What is asked of a request. */
export interface KeyFacts {
  readonly client: string;
  readonly requestField: (name: string) => string | undefined;
}

/** Longer values are counted by what they hash to: clients choose them. */
const PLAIN_LENGTH_MAX = 48;
/** Who has one address of IPv6 has as many as there are below its first 64 bits (RFC 6177 §2). */
const IPV6_PREFIX_BYTES = 8;

/** A short text, the same for requests that are counted together. Those without the field or cookie are counted by address. */
export function keyOf(by: RequestKey, facts: KeyFacts): string {
  if (by.kind === 'all') return '';
  if (by.kind === 'ip') return ofAddress(facts.client);
  const value = by.kind === 'header' ? facts.requestField(by.name) : cookieOf(facts.requestField('cookie'), by.name);
  if (value === undefined) return ofAddress(facts.client);
  return value.length <= PLAIN_LENGTH_MAX ? `=${value}` : `#${createHash('sha256').update(value, 'latin1').digest('base64url')}`;
}

/** The value of a cookie (RFC 6265 §4.2.1), the first of its name. */
export function cookieOf(field: string | undefined, name: string): string | undefined {
  for (const pair of field?.split(';') ?? []) {
    const equals = pair.indexOf('=');
    if (equals !== -1 && pair.slice(0, equals).trim() === name) return pair.slice(equals + 1).trim();
  }
  return undefined;
}

const ADDRESS = Buffer.alloc(ADDRESS_BYTES);

function ofAddress(client: string): string {
  if (client.includes('.') || !readAddress(client, ADDRESS) || isMapped(ADDRESS)) return client;
  return ADDRESS.toString('hex', 0, IPV6_PREFIX_BYTES);
}
