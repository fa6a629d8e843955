/** Which bucket a request is counted in. */
import { createHash } from 'node:crypto';
import type { RequestKey } from '#routing/actions.ts';
import { cookieValue, fieldValue } from '#proxy/head-values.ts';
import type { HeadOctets } from '#proxy/head-values.ts';
import { ADDRESS_BYTES, isMapped, readAddress } from '#proxy/ip-address.ts';

/** Longer values are counted by what they hash to: clients choose them. */
const PLAIN_LENGTH_MAX = 48;
/** Who has one address of IPv6 has as many as there are below its first 64 bits (RFC 6177 §2). */
const IPV6_PREFIX_BYTES = 8;

/** A short text, the same for requests that are counted together. Those without the field or cookie are counted by address. */
export function keyOf(by: RequestKey, record: HeadOctets & { readonly client: string }): string {
  switch (by.kind) {
    case 'all':
      return '';
    case 'ip':
      return ofAddress(record.client);
    case 'header':
      return fieldValue(record, by.name, ofOctets) ?? ofAddress(record.client);
    case 'cookie':
      return cookieValue(record, by.name, ofOctets) ?? ofAddress(record.client);
  }
}

function ofOctets(head: Buffer, start: number, end: number): string {
  if (end - start <= PLAIN_LENGTH_MAX) return `=${head.toString('latin1', start, end)}`;
  return `#${createHash('sha256').update(head.subarray(start, end)).digest('base64url')}`;
}

const ADDRESS = Buffer.alloc(ADDRESS_BYTES);

function ofAddress(client: string): string {
  if (client.includes('.') || !readAddress(client, ADDRESS) || isMapped(ADDRESS)) return client;
  return ADDRESS.toString('hex', 0, IPV6_PREFIX_BYTES);
}
