/** What a request is told apart by where its service hashes: the value of a field or of a cookie, or its client's address. */
import { hashOctets, hashText } from '#routing/balance.ts';
import type { Balance } from '#routing/route-table.ts';
import { cookieValue, fieldValue } from './head-values.ts';
import type { HeadOctets } from './head-values.ts';

/** The hash of it; undefined: the request has none, or the service does not hash. Of several fields or cookies of that name the first counts. */
export function hashKeyOf(balance: Balance, record: HeadOctets & { readonly client: string }): number | undefined {
  switch (balance.kind) {
    case 'hash-ip':
      return hashText(record.client);
    case 'hash-header':
      return fieldValue(record, balance.name, hashOctets);
    case 'hash-cookie':
      return cookieValue(record, balance.name, hashOctets);
    case 'least-request':
    case 'round-robin':
    case 'random-two':
      return undefined;
  }
}
