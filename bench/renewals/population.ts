/** The hosts of a large node, some years after it began: most have a certificate, and those of one age are few. */
import type { Failures } from '#tls/acme/back-off.ts';
import { planRenewal } from '#tls/acme/renewal-plan.ts';
import type { RenewalWindow } from '#tls/acme/renewal-plan.ts';
import type { Random } from '../rebalance/random.ts';

export interface Current {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly renewAtMs: number;
  /** What the CA suggests; undefined: it suggests nothing. */
  readonly window: RenewalWindow | undefined;
}

export interface SimulatedHost {
  readonly name: string;
  readonly domain: string;
  readonly isTenant: boolean;
  readonly wantedMs: number;
  /** The CA does not reach it for so long, from the first time that it tries. */
  readonly brokenForMs: number;
  brokenUntilMs: number | undefined;
  current: Current | undefined;
  failures: ReadonlyMap<string, Failures>;
}

export interface PopulationOptions {
  readonly hosts: number;
  readonly domains: number;
  readonly tenant: number;
  readonly crowd: number;
  readonly brokenOfTenThousand: number;
}

const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;
export const CROWD_DAY = 10;
const LIFE_MS = 45 * DAY_MS;
/** As Let's Encrypt does, for clients whose clocks are behind. */
const BACKDATED_MS = HOUR_MS;
const BROKEN_MS = 3 * DAY_MS;
/** One in twenty of the tenant's hosts is new. */
const TENANT_NEW_PART = 20;
const TENANT_DOMAIN = 'tenant.example';

/** `hasWindows`: the CA suggests two days around two thirds of the life. */
export function currentFrom(name: string, issuedMs: number, hasWindows: boolean): Current {
  const notBeforeMs = issuedMs - BACKDATED_MS;
  const notAfterMs = notBeforeMs + LIFE_MS;
  const idealMs = notAfterMs - LIFE_MS / 3;
  const window = hasWindows ? { startMs: idealMs - DAY_MS, endMs: idealMs + DAY_MS } : undefined;
  const { atMs } = planRenewal(`${name} ${String(notBeforeMs)}`, { notBeforeMs, notAfterMs }, window);
  return { notBeforeMs, notAfterMs, renewAtMs: atMs, window };
}

export function populate(options: PopulationOptions, random: Random, hasWindows: boolean): readonly SimulatedHost[] {
  const tenantNew = Math.round(options.tenant / TENANT_NEW_PART);
  const old = options.hosts - options.crowd;
  const hosts: SimulatedHost[] = [];
  for (let index = 0; index < options.hosts; index += 1) {
    const isNew = index >= old;
    const isTenant = isNew ? index - old < tenantNew : index < options.tenant - tenantNew;
    // Some domains have many hosts, most have a few.
    const domain = isTenant ? TENANT_DOMAIN : `d${String(Math.floor(options.domains * random.unit() ** 1.5))}.example`;
    const name = `h${String(index)}.${domain}`;
    const isBroken = random.unit() * 10_000 < options.brokenOfTenThousand;
    hosts.push({
      name,
      domain,
      isTenant,
      wantedMs: isNew ? CROWD_DAY * DAY_MS : 0,
      brokenForMs: isBroken ? BROKEN_MS : 0,
      brokenUntilMs: undefined,
      current: isNew ? undefined : oldCertificate(name, random, hasWindows),
      failures: new Map(),
    });
  }
  return hosts;
}

/** One whose renewal is still to come. */
function oldCertificate(name: string, random: Random, hasWindows: boolean): Current {
  for (;;) {
    const current = currentFrom(name, -random.between(0, LIFE_MS), hasWindows);
    if (current.renewAtMs > 0) return current;
  }
}
