/** How loaded the hosts are, as placement asks for it: what engines say of themselves, what the meter measured, what is promised. */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import type { ContainerRow } from '#state/containers.ts';
import { listHosts } from '#state/hosts.ts';
import type { HostState } from '#state/hosts.ts';
import type { Sql } from '#state/sql.ts';
import { parseStoredSpec } from '#caas/spec/container-spec.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import type { Host } from './host.ts';
import type { Images } from '#caas/images/images.ts';
import type { Meter } from './meter.ts';
import type { HostFacts } from './placement.ts';

export interface HostLoadsDeps {
  readonly log: Log;
  readonly clock: Clock;
  readonly sql: Sql;
  readonly hosts: ReadonlyMap<string, Host>;
  readonly images: Images;
  readonly meter: Meter;
}

/** A machine's size does not change; whether it answers may. */
const SIZE_FRESH_MS = 30_000;

const RUNNING = new Set(['running', 'paused', 'restarting']);

interface Size {
  readonly atMs: number;
  readonly memoryBytes: number;
  readonly cpus: number;
}

interface Spent {
  readonly cpuNs: number;
  readonly atMs: number;
}

/** What tells replicas of one service: compose says it in labels, else the image does. */
export function serviceOf(spec: ContainerSpec): string {
  const labels = spec.config.Labels ?? {};
  const project = labels['com.docker.compose.project'];
  const service = labels['com.docker.compose.service'];
  return project === undefined || service === undefined ? spec.imageId : `${project}/${service}`;
}

/** Why a host in this state is given no containers, or undefined. */
const CLOSED: Readonly<Record<HostState, string | undefined>> = {
  active: undefined,
  draining: 'it is being drained',
  drained: 'it is drained',
};

export class HostLoads {
  readonly #deps: HostLoadsDeps;
  readonly #sizes = new Map<string, Size>();
  /** By container: the last reading, to turn counters into rates. */
  #spent = new Map<string, Spent>();
  #cpuMilli = new Map<string, number>();

  constructor(deps: HostLoadsDeps) {
    this.#deps = deps;
  }

  async #sizeOf(host: Host): Promise<Size | string> {
    const known = this.#sizes.get(host.name);
    const nowMs = this.#deps.clock.nowMs();
    if (known !== undefined && nowMs - known.atMs < SIZE_FRESH_MS) return known;
    try {
      const info = await host.info();
      const size = { atMs: nowMs, memoryBytes: info.MemTotal, cpus: info.NCPU };
      this.#sizes.set(host.name, size);
      return size;
    } catch (error) {
      return `its engine does not answer: ${reasonOf(error)}`;
    }
  }

  /** Rates since the last call, at least a second apart. */
  #readRates(): void {
    const readings = this.#deps.meter.readings();
    const next = new Map<string, Spent>();
    const rates = new Map<string, number>();
    for (const { container, cpuNs, sampledMs } of readings) {
      const before = this.#spent.get(container);
      const spanMs = before === undefined ? 0 : sampledMs - before.atMs;
      if (before !== undefined && spanMs < 1000) {
        next.set(container, before);
        rates.set(container, this.#cpuMilli.get(container) ?? 0);
        continue;
      }
      next.set(container, { cpuNs, atMs: sampledMs });
      rates.set(container, before === undefined ? 0 : Math.max(0, Math.round((cpuNs - before.cpuNs) / spanMs / 1000)));
    }
    this.#spent = next;
    this.#cpuMilli = rates;
  }

  /** The facts of hosts for one decision: of all, or of those that are named. */
  async facts(
    rows: readonly ContainerRow[],
    wish: { readonly tenant: string; readonly spec: ContainerSpec },
    among: readonly Host[] = [...this.#deps.hosts.values()],
  ): Promise<readonly HostFacts[]> {
    this.#readRates();
    const memory = new Map(this.#deps.meter.readings().map(({ container, memoryBytes }) => [container, memoryBytes]));
    const service = serviceOf(wish.spec);
    const states = new Map((await listHosts(this.#deps.sql)).map(({ name, state }) => [name, state]));
    return await Promise.all(
      among.map(async (host) => {
        const size = await this.#sizeOf(host);
        const here = rows.filter((row) => row.host === host.name);
        const sum = (of: (row: ContainerRow) => number): number => here.reduce((total, row) => total + of(row), 0);
        const mine = here.filter((row) => row.tenant === wish.tenant);
        return {
          name: host.name,
          outOfService: typeof size === 'string' ? size : CLOSED[states.get(host.name) ?? 'active'],
          memoryBytes: typeof size === 'string' ? 0 : size.memoryBytes,
          cpus: typeof size === 'string' ? 0 : size.cpus,
          promisedMemoryBytes: sum((row) => (RUNNING.has(row.state) ? row.memoryBytes : 0)),
          usedMemoryBytes: sum((row) => memory.get(row.id) ?? 0),
          usedCpuMilli: sum((row) => this.#cpuMilli.get(row.id) ?? 0),
          hasImage: typeof size !== 'string' && (await this.#deps.images.isOn(host, wish.spec.imageId)),
          replicas: mine.filter((row) => serviceOf(parseStoredSpec(row.spec)) === service).length,
          containers: here.length,
        };
      }),
    );
  }

  /** For the operator: why a tenant heard that there is no room. */
  report(reasons: readonly string[]): void {
    this.#deps.log.error({ reasons }, 'no host could take a container');
  }
}
