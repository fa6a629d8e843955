/** What the parts of the CA share, and what it remembers for the test that asks afterwards. */
import type { Clock } from '#clock';
import type { Faults } from './faults.ts';
import type { IssuingCa } from './issuing.ts';
import type { LimitName, LimitRules, RateLimiter, Refusal } from './limits.ts';
import { Problem } from './problem.ts';
import type { Certificate, Order, Resources } from './resources.ts';
import type { Resolver } from './validation.ts';

export interface Profile {
  readonly description: string;
  readonly lifetimeMs: number;
}

export interface AcmeCaOptions {
  readonly clock: Clock;
  readonly resolver?: Resolver;
  /** The first one is that of orders that name none. */
  readonly profiles?: Readonly<Record<string, Profile>>;
  /** Ids and keys (base64url) of external accounts; where there are some, a new account needs one. */
  readonly externalAccounts?: ReadonlyMap<string, string>;
  /** How long a valid authorization can be used again. */
  readonly authorizationReuseMs?: number;
  readonly rules?: LimitRules;
  /** What it says of when to ask again: for pending work, and for renewal information. */
  readonly pollSeconds?: number;
  readonly renewalInfoPollSeconds?: number;
  /** Names it never issues for, and all below them. */
  readonly refusedNames?: readonly string[];
  readonly challengeTypes?: readonly ('http-01' | 'tls-alpn-01' | 'dns-01')[];
  readonly scheme?: 'https' | 'http';
  readonly seed?: number;
}

export interface RenewalWindow {
  readonly startMs: number;
  readonly endMs: number;
}

/** An order that was not to be made: another one for the same names was open, or their certificate had more than half of its life before it. */
export interface DuplicateOrder {
  readonly order: Order;
  readonly because: 'open-order' | 'fresh-certificate';
}

export class CaRecord {
  readonly orders: Order[] = [];
  readonly certificates: Certificate[] = [];
  readonly duplicates: DuplicateOrder[] = [];
  /** By `newOrder`, `newNonce`, and so on. */
  readonly requests = new Map<string, number>();
  /** Problems that it answered by, by type. */
  readonly problems = new Map<string, number>();
  /** Requests over a limit. What a fault made up is not among them. */
  readonly overLimit: Record<LimitName, number> = {
    newOrders: 0,
    domainCertificates: 0,
    sameNames: 0,
    failedValidations: 0,
    newAccounts: 0,
  };
  noncesReused = 0;
  noncesUnknown = 0;
  failedValidations = 0;
  /** What faults made up. */
  madeUp = { badNonces: 0, serverErrors: 0, tooMany: 0, unavailable: 0 };

  count(tally: Map<string, number>, key: string): void {
    tally.set(key, (tally.get(key) ?? 0) + 1);
  }
}

export interface CaState {
  readonly options: Required<Omit<AcmeCaOptions, 'seed' | 'scheme'>>;
  readonly resources: Resources;
  readonly limiter: RateLimiter;
  readonly issuing: IssuingCa;
  readonly faults: Faults;
  readonly record: CaRecord;
  readonly random: () => number;
  /** Validations that go on after their request was answered. */
  readonly background: Set<Promise<void>>;
  /** What the test says of when to renew; undefined: what follows from the lifetime. */
  readonly movedWindows: ((certificate: Certificate) => RenewalWindow | undefined)[];
  origin: string;
}

export function urlOf({ origin }: CaState, path: string): string {
  return `${origin}/acme/${path}`;
}

/** A request over a limit is counted, and answered as Let's Encrypt does. */
export function overLimit({ record }: CaState, { limit, key, waitMs }: Refusal): Problem {
  record.overLimit[limit] += 1;
  return new Problem('rateLimited', 429, `too many: ${limit} of ${key}`, Math.ceil(waitMs / 1_000));
}
