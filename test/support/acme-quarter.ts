/**
 * Ninety days of some nodes and one CA, with what goes wrong in such a time: refused nonces, errors, refusals with Retry-After, slow orders, hosts that are
 * not reached, a recall, an outage of two days, a node that is replaced. What the CA saw and what end users got is told; the CA counts for itself.
 */
import type { CaRecord, RenewalWindow } from './acme-ca/ca-state.ts';
import { startAcmeCa } from './acme-ca/acme-ca.ts';
import type { AcmeCa } from './acme-ca/acme-ca.ts';
import type { Certificate } from './acme-ca/resources.ts';
import type { Resolver } from './acme-ca/validation.ts';
import { caSettings, startAcmeFleet } from './acme-fleet.ts';
import type { AcmeFleet } from './acme-fleet.ts';
import { startAcmeResponder } from './acme-responder.ts';
import type { AcmeResponder } from './acme-responder.ts';
import { SimulatedClock } from './simulated-clock.ts';

export interface QuarterOptions {
  /** Hosts of one domain; a week has room for fifty. */
  readonly ofOneDomain: number;
  readonly others: number;
  readonly nodes: number;
  readonly ordersAtATime: number;
  readonly idleFactor: number;
  readonly seed: number;
}

export interface Quarter extends Pick<CaRecord, 'overLimit' | 'noncesReused' | 'noncesUnknown' | 'failedValidations' | 'madeUp'> {
  /** Hosts whose certificate ended before another one came, or that have none in the end. */
  readonly expired: readonly string[];
  readonly duplicates: readonly { readonly host: string | undefined; readonly because: string; readonly day: number }[];
  readonly orders: number;
  readonly certificates: number;
  readonly renewalsWithoutReplaces: readonly string[];
  readonly accounts: number;
  readonly requests: Readonly<Record<string, number>>;
  /** How often somebody's time had come. */
  readonly wakings: number;
}

const START_MS = Date.UTC(2028, 2, 1);
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
const DAYS = 90;
/** One in so many comes on day 5. */
const LATE_PART = 8;
/** Nobody reaches these in the first three days, and on two of those on which they may be renewed. */
const LOST = new Set(['h3.d3.test', 'h7.d7.test']);
const LOST_DAY = 33;

function at(day: number): number {
  return START_MS + day * DAY_MS;
}

export async function liveAcmeQuarter(options: QuarterOptions): Promise<Quarter> {
  const names = [
    ...Array.from({ length: options.ofOneDomain }, (_, index) => `h${String(index)}.many.test`),
    ...Array.from({ length: options.others }, (_, index) => `h${String(index)}.d${String(index % 40)}.test`),
  ];
  const early = names.filter((_, index) => index % LATE_PART !== 0);
  using clock = new SimulatedClock(START_MS);
  await using responder = await startAcmeResponder();
  const resolver = resolverOf(responder, clock);
  const { nodes, ordersAtATime: ordersMax, idleFactor, seed } = options;
  await using ca = await startAcmeCa({ clock, resolver, pollSeconds: 5, renewalInfoPollSeconds: 86_400, seed });
  const hosts = (): readonly string[] => (clock.nowMs() < at(5) ? early : names);
  await using fleet = await startAcmeFleet({ clock, nodes, responder, hosts, ordersMax, idleFactor, cas: [caSettings(ca)] });
  await live(clock, ca, fleet);
  const ended = names.filter((name) => (fleet.served.get(name)?.notAfterMs ?? 0) <= clock.nowMs());
  return { ...factsOf(ca), expired: [...fleet.gaps, ...ended], wakings: clock.wakings };
}

function resolverOf({ resolver }: AcmeResponder, clock: SimulatedClock): Resolver {
  const isLost = (name: string): boolean =>
    LOST.has(name) && (clock.nowMs() < at(3) || Math.abs(clock.nowMs() - at(LOST_DAY)) < DAY_MS);
  return {
    ...resolver,
    http: (name) => (isLost(name) ? undefined : resolver.http(name)),
    tls: (name) => (isLost(name) ? undefined : resolver.tls(name)),
  };
}

/** On day 20 the CA finds a fault of its own: a third of what it issued is to be renewed within a day. */
function recalled({ serial, atMs }: Certificate): RenewalWindow | undefined {
  return Number.parseInt(serial.slice(-4), 16) % 3 === 0 && atMs < at(20) ? { startMs: at(20), endMs: at(21) } : undefined;
}

async function live(clock: SimulatedClock, ca: AcmeCa, fleet: AcmeFleet): Promise<void> {
  const until = async (day: number): Promise<void> => {
    await clock.advance(at(day) - clock.nowMs());
  };
  Object.assign(ca.faults, {
    nonceRejectionRate: 0.1,
    serverErrorRate: 0.05,
    tooManyRate: 0.1,
    tooManyRetryAfterSeconds: 900,
    processingMs: 5 * MINUTE_MS,
    outages: [
      { fromMs: at(28), untilMs: at(29), kind: 'unavailable' },
      { fromMs: at(29), untilMs: at(30), kind: 'cut' },
    ],
  });
  await until(20);
  ca.moveWindows(recalled);
  await until(40);
  ca.faults.processingMs = 30 * MINUTE_MS;
  await fleet.restart(1);
  await until(50);
  ca.faults.processingMs = 0;
  await until(DAYS);
}

function factsOf({ record, accounts }: AcmeCa): Omit<Quarter, 'expired' | 'wakings'> {
  const hostOf = ({ names }: { readonly names: readonly string[] }): string => names[0] ?? '';
  const seen = new Set<string>();
  const renewalsWithoutReplaces = record.certificates.filter((certificate) => {
    const isFirst = !seen.has(hostOf(certificate));
    seen.add(hostOf(certificate));
    return !isFirst && certificate.replaces === undefined;
  });
  return {
    overLimit: record.overLimit,
    noncesReused: record.noncesReused,
    noncesUnknown: record.noncesUnknown,
    failedValidations: record.failedValidations,
    madeUp: record.madeUp,
    duplicates: record.duplicates.map(({ order, because }) => ({
      host: hostOf(order),
      because,
      day: (order.atMs - START_MS) / DAY_MS,
    })),
    orders: record.orders.length,
    certificates: record.certificates.length,
    renewalsWithoutReplaces: renewalsWithoutReplaces.map(hostOf),
    accounts: accounts().length,
    requests: Object.fromEntries(record.requests),
  };
}
