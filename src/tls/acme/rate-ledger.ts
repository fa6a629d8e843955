/**
 * What was asked of each CA, and whether it takes more: limits that CAs publish, as data. An order that would break one waits here, and not at the CA,
 * whose refusal costs more than the wait. What is counted are rows of the store, so that a restart, and another node, forget nothing.
 *
 * A limit is a sliding window: never more than `max` in any span. That holds for CAs that count so, for those with fixed windows, and for token buckets
 * that are refilled at `max` a span (Let's Encrypt since 2024).
 */
import { hash } from 'node:crypto';

export type LimitName =
  | 'accounts-per-address'
  | 'certificates-per-domain'
  | 'certificates-per-name-set'
  | 'failures-per-host'
  | 'orders-per-account';

export interface RateLimit {
  readonly max: number;
  readonly spanMs: number;
  /** The CA does not count orders for exactly the names of a certificate that it has made. */
  readonly exemptsSameNames?: true;
}

/** What an order is to a certificate that the CA has made before: nothing, for exactly its names, or said to replace it (RFC 9773), which CAs exempt from all limits. */
export type Renewal = 'none' | 'same-names' | 'replaces';

/** A limit that is absent is none. */
export type CaLimits = Readonly<Partial<Record<LimitName, RateLimit>>>;

/** One thing that was counted against one limit. */
export interface LedgerRow {
  /** What it was for; several rows have the same. */
  readonly id: string;
  /** The directory's URL. */
  readonly ca: string;
  readonly limit: LimitName;
  /** Whose it was: an account, a registered domain, a set of names, a host, an address. */
  readonly subject: string;
  readonly atMs: number;
}

/** What is to be asked of a CA. */
export type Intent =
  | {
      readonly kind: 'order';
      readonly ca: string;
      readonly account: string;
      readonly names: readonly string[];
      /** Registered domains of the names, each once. */
      readonly domains: readonly string[];
      readonly renewal: Renewal;
    }
  | { readonly kind: 'account'; readonly ca: string; readonly address: string };

export type Verdict =
  | { readonly kind: 'go' }
  | { readonly kind: 'wait'; readonly untilMs: number; readonly limit: LimitName; readonly subject: string };

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** https://letsencrypt.org/docs/rate-limits, as of 2026; what is exempt: "Limit exemptions for renewals" there. */
const LETS_ENCRYPT: CaLimits = {
  'orders-per-account': { max: 300, spanMs: 3 * HOUR_MS, exemptsSameNames: true },
  'certificates-per-domain': { max: 50, spanMs: 7 * DAY_MS, exemptsSameNames: true },
  'certificates-per-name-set': { max: 5, spanMs: 7 * DAY_MS },
  'failures-per-host': { max: 5, spanMs: HOUR_MS },
  'accounts-per-address': { max: 10, spanMs: 3 * HOUR_MS },
};

export const LIMIT_PRESETS = { 'lets-encrypt': LETS_ENCRYPT, none: {} } as const satisfies Record<string, CaLimits>;
export type LimitPreset = keyof typeof LIMIT_PRESETS;

export function isLimitName(text: string): text is LimitName {
  return Object.hasOwn(LETS_ENCRYPT, text);
}

/** Those of an order that is not made into a certificate: they are given back when it fails. */
export const CERTIFICATE_LIMITS: readonly LimitName[] = ['certificates-per-domain', 'certificates-per-name-set'];

/** The CA counts what arrives, a little later than it was sent, and by its own clock. */
const CLOCKS_APART_MS = 60_000;
const GO: Verdict = { kind: 'go' };

/** A set of names whatever their order. */
export function nameSetOf(names: readonly string[]): string {
  return hash('sha256', names.toSorted().join(' '), 'hex').slice(0, 32);
}

/** An account's failures at a host are one subject. */
export function failureSubjectOf(account: string, host: string): string {
  return `${account} ${host}`;
}

/** What is to be written down when an intent is carried out. Nothing where the CA has no limits. */
export function rowsOf(
  intent: Intent,
  limits: CaLimits,
  { id, nowMs }: { readonly id: string; readonly nowMs: number },
): readonly LedgerRow[] {
  return subjectsOf(intent)
    .filter(({ limit }) => limit !== 'failures-per-host' && ruleFor(intent, limits[limit]) !== undefined)
    .map(({ limit, subject }) => ({ id, ca: intent.ca, limit, subject, atMs: nowMs }));
}

/** What is to be written down when the CA did not reach a host. */
export function failureRowOf(
  failed: { readonly ca: string; readonly account: string; readonly host: string },
  limits: CaLimits,
  { id, nowMs }: { readonly id: string; readonly nowMs: number },
): readonly LedgerRow[] {
  if (limits['failures-per-host'] === undefined) return [];
  const subject = failureSubjectOf(failed.account, failed.host);
  return [{ id, ca: failed.ca, limit: 'failures-per-host', subject, atMs: nowMs }];
}

interface Subject {
  readonly limit: LimitName;
  readonly subject: string;
}

function subjectsOf(intent: Intent): readonly Subject[] {
  if (intent.kind === 'account') return [{ limit: 'accounts-per-address', subject: intent.address }];
  if (intent.renewal === 'replaces') return [];
  return [
    { limit: 'orders-per-account', subject: intent.account },
    ...intent.domains.map((subject) => ({ limit: 'certificates-per-domain' as const, subject })),
    { limit: 'certificates-per-name-set', subject: nameSetOf(intent.names) },
    ...intent.names.map((host) => ({
      limit: 'failures-per-host' as const,
      subject: failureSubjectOf(intent.account, host),
    })),
  ];
}

/** Undefined: the limit is not for this. */
function ruleFor(intent: Intent, rule: RateLimit | undefined): RateLimit | undefined {
  const isExempt = intent.kind === 'order' && intent.renewal === 'same-names' && rule?.exemptsSameNames === true;
  return isExempt ? undefined : rule;
}

/** The index of the rows: a question costs the subjects that it is about, however many rows there are. */
export class RateLedger {
  /** Times in order, by limit, CA and subject. */
  readonly #times = new Map<string, number[]>();

  static of(rows: Iterable<LedgerRow>): RateLedger {
    const ledger = new RateLedger();
    ledger.add(rows);
    return ledger;
  }

  add(rows: Iterable<LedgerRow>): void {
    for (const row of rows) {
      const key = keyOf(row);
      const times = this.#times.get(key);
      if (times === undefined) this.#times.set(key, [row.atMs]);
      else insert(times, row.atMs);
    }
  }

  /** Takes rows back that were added. */
  remove(rows: Iterable<LedgerRow>): void {
    for (const row of rows) {
      const key = keyOf(row);
      const times = this.#times.get(key);
      const at = times?.lastIndexOf(row.atMs) ?? -1;
      if (times === undefined || at === -1) continue;
      times.splice(at, 1);
      if (times.length === 0) this.#times.delete(key);
    }
  }

  /** Whether it may be asked now, else when, and by which limit: the one that keeps it longest. */
  verdict(intent: Intent, limits: CaLimits, nowMs: number): Verdict {
    let verdict: Verdict = GO;
    for (const { limit, subject } of subjectsOf(intent)) {
      const rule = ruleFor(intent, limits[limit]);
      if (rule === undefined) continue;
      const untilMs = this.#freeAtMs(keyOf({ ca: intent.ca, limit, subject }), rule);
      if (untilMs > nowMs && (verdict.kind === 'go' || untilMs > verdict.untilMs))
        verdict = { kind: 'wait', untilMs, limit, subject };
    }
    return verdict;
  }

  /** Forgets what no limit counts any more. Returns the moment up to which rows can go from the store as well. */
  forget(limitsByCa: ReadonlyMap<string, CaLimits>, nowMs: number): number {
    const spans = [...limitsByCa.values()].flatMap((limits) => Object.values(limits).map(({ spanMs }) => spanMs));
    const beforeMs = nowMs - Math.max(0, ...spans) - 2 * CLOCKS_APART_MS;
    for (const [key, times] of this.#times) {
      const kept = times.filter((atMs) => atMs >= beforeMs);
      if (kept.length === 0) this.#times.delete(key);
      else if (kept.length < times.length) this.#times.set(key, kept);
    }
    return beforeMs;
  }

  /** When there is room for one more. */
  #freeAtMs(key: string, { max, spanMs }: RateLimit): number {
    const times = this.#times.get(key) ?? [];
    const oldest = times[times.length - max];
    return oldest === undefined ? 0 : oldest + spanMs + CLOCKS_APART_MS;
  }
}

function keyOf({ ca, limit, subject }: Pick<LedgerRow, 'ca' | 'limit' | 'subject'>): string {
  return `${limit} ${ca} ${subject}`;
}

/** They come nearly in order: the search begins at the end. */
function insert(times: number[], atMs: number): void {
  let at = times.length;
  while (at > 0 && (times[at - 1] ?? 0) > atMs) at -= 1;
  times.splice(at, 0, atMs);
}
