/**
 * Which endpoint of a service takes the next request. Pure: what is under way, turns, chance and hashes are told.
 *
 * All of these take candidates: endpoints that may have the request now. One of weight 0 is never taken. Undefined where there is none.
 */
import type { Balance, Endpoint } from './route-table.ts';

export type BalanceReading =
  | { readonly kind: 'balance'; readonly balance: Balance }
  | { readonly kind: 'invalid'; readonly reason: string };

/** RFC 9110 §5.6.2. Names of fields and of cookies (RFC 6265 §4.1.1) are tokens. */
const KEYED = /^hash\((header|cookie):([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64})\)$/;

/** `least-request`, `hash(header:x-user)` and their kin. */
export function parseBalance(text: string): BalanceReading {
  if (text === 'least-request' || text === 'round-robin' || text === 'random-two')
    return { kind: 'balance', balance: { kind: text } };
  if (text === 'hash(ip)') return { kind: 'balance', balance: { kind: 'hash-ip' } };
  const [, kind, name = ''] = KEYED.exec(text) ?? [];
  if (kind === 'header') return { kind: 'balance', balance: { kind: 'hash-header', name: name.toLowerCase() } };
  if (kind === 'cookie') return { kind: 'balance', balance: { kind: 'hash-cookie', name } };
  return {
    kind: 'invalid',
    reason: `"${text.slice(0, 80)}" is no way to balance; write least-request, round-robin, random-two, hash(header:NAME), hash(cookie:NAME) or hash(ip)`,
  };
}

/** Absent: 1. */
export function weightOf({ weight = 1 }: Pick<Endpoint, 'weight'>): number {
  return weight;
}

/**
 * The endpoint with the least requests in flight for its weight; where several have that, they take turns by `turn`, a number that the caller raises by
 * one each time, each as often as its weight says.
 */
export function leastRequest(
  endpoints: readonly Endpoint[],
  inFlightOf: (endpointId: string) => number,
  turn: number,
): Endpoint | undefined {
  let least = Number.POSITIVE_INFINITY;
  let ties: Endpoint[] = [];
  let weights = 0;
  for (const endpoint of endpoints) {
    const weight = weightOf(endpoint);
    if (weight === 0) continue;
    const load = inFlightOf(endpoint.id) / weight;
    if (load < least) {
      least = load;
      ties = [endpoint];
      weights = weight;
    } else if (load === least) {
      ties.push(endpoint);
      weights += weight;
    }
  }
  return ties.length <= 1 ? ties[0] : drawn(ties, turn % weights);
}

/**
 * Smooth weighted round-robin, as nginx has it: each turn an endpoint gains its weight, and the richest pays the sum of all and takes the request. Of
 * weights 5, 1 and 1 that makes a a b a c a a rather than five of one in a row. `credits` is the caller's memory by endpoint id.
 */
export function roundRobin(endpoints: readonly Endpoint[], credits: Map<string, number>): Endpoint | undefined {
  let richest: Endpoint | undefined;
  let most = 0;
  let sum = 0;
  for (const endpoint of endpoints) {
    const weight = weightOf(endpoint);
    if (weight === 0) continue;
    const credit = (credits.get(endpoint.id) ?? 0) + weight;
    credits.set(endpoint.id, credit);
    sum += weight;
    if (richest !== undefined && credit <= most) continue;
    richest = endpoint;
    most = credit;
  }
  if (richest !== undefined) credits.set(richest.id, most - sum);
  return richest;
}

/**
 * Two by chance, each as likely as its weight says, and of them the one with less in flight for its weight. Many workers that do not know of each
 * other do not all go for the same one, as they would for the least of all. `random`: from 0, below 1.
 */
export function randomTwo(
  endpoints: readonly Endpoint[],
  inFlightOf: (endpointId: string) => number,
  random: () => number,
): Endpoint | undefined {
  const sum = endpoints.reduce((weights, endpoint) => weights + weightOf(endpoint), 0);
  if (sum === 0) return undefined;
  const one = drawn(endpoints, random() * sum);
  if (one === undefined || sum === weightOf(one)) return one;
  const others = endpoints.filter((endpoint) => endpoint !== one);
  const other = drawn(others, random() * (sum - weightOf(one)));
  if (other === undefined) return one;
  return inFlightOf(other.id) / weightOf(other) < inFlightOf(one.id) / weightOf(one) ? other : one;
}

/**
 * Weighted rendezvous: every endpoint draws a number from the key and its own id, and the best one has the key. So a key moves only where its endpoint
 * goes, or to one that comes: of n endpoints one n-th of the keys. `hashOf`: `hashText` of an endpoint's id, which callers may remember.
 */
export function rendezvous(
  endpoints: readonly Endpoint[],
  keyHash: number,
  hashOf: (endpoint: Endpoint) => number,
): Endpoint | undefined {
  let best: Endpoint | undefined;
  let highest = Number.NEGATIVE_INFINITY;
  for (const endpoint of endpoints) {
    const weight = weightOf(endpoint);
    if (weight === 0) continue;
    // The first of a Poisson process of rate `weight`: the chance to be it is the share of the weights.
    const score = Math.log((mixed(keyHash ^ hashOf(endpoint)) + 0.5) / 2 ** 32) / weight;
    if (best !== undefined && score <= highest) continue;
    best = endpoint;
    highest = score;
  }
  return best;
}

const FNV_OFFSET = 0x811c9dc5;
const FNV_PRIME = 0x01000193;

/** 32 bits, the same in every process and release: clients stay where they were. FNV-1a over UTF-16 units, mixed. */
export function hashText(text: string): number {
  let hash = FNV_OFFSET;
  for (let index = 0; index < text.length; index += 1) hash = Math.imul(hash ^ text.charCodeAt(index), FNV_PRIME);
  return mixed(hash);
}

/** The same of octets: that of a text of Latin-1. */
export function hashOctets(octets: Uint8Array, start: number, end: number): number {
  let hash = FNV_OFFSET;
  for (let index = start; index < end; index += 1) hash = Math.imul(hash ^ (octets[index] ?? 0), FNV_PRIME);
  return mixed(hash);
}

/** MurmurHash3's finaliser: every bit of what goes in changes about half of what comes out. Gives 0 to 2³² - 1. */
function mixed(hash: number): number {
  let mix = hash ^ (hash >>> 16);
  mix = Math.imul(mix, 0x85ebca6b);
  mix ^= mix >>> 13;
  mix = Math.imul(mix, 0xc2b2ae35);
  return (mix ^ (mix >>> 16)) >>> 0;
}

/** The endpoint at `at` of the sum of the weights, laid out one after the other. */
function drawn(endpoints: readonly Endpoint[], at: number): Endpoint | undefined {
  let last: Endpoint | undefined;
  let left = at;
  for (const endpoint of endpoints) {
    const weight = weightOf(endpoint);
    if (weight === 0) continue;
    last = endpoint;
    if (left < weight) return endpoint;
    left -= weight;
  }
  return last; // Where a sum of fractions was a little too much.
}
