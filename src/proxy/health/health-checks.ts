/**
 * The health checks of a node: one for each endpoint of a service that wants them, run by the primary, so that an endpoint is asked once and not once
 * by every worker. Who holds requests hears of what changed.
 *
 * LIFECYCLE of a check: (a service comes) → first, at a moment of its own → again each period → (its endpoint goes) ended, and forgotten.
 * What changes of a service ends and begins the checks of exactly that; an endpoint that stays keeps what was found.
 */
import type { Endpoint, HealthCheck, Service } from '#routing/route-table.ts';
import type { EndpointTls } from '#routing/route-tls.ts';
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { Turns } from '#lifecycle';
import type { Log } from '#log';
import type { CheckMaterial } from './check-material.ts';
import { EndpointSecurities } from '#proxy/endpoint-security.ts';
import type { HealthChange } from '#proxy/protocol.ts';
import { healthAfter, inheritedHealth, newHealth, recounted } from './health-state.ts';
import type { CheckOutcome, HealthState } from './health-state.ts';
import { CHECKS_AT_ONCE, FIRST_CHECK_MS, PERIOD_JITTER } from './limits.ts';
import { probe } from './probe.ts';
import type { ProbeTarget } from './probe.ts';

/** An endpoint that is checked. */
export interface EndpointHealth extends HealthState {
  readonly serviceId: string;
  readonly endpointId: string;
}

export interface HealthChecksDeps {
  readonly log: Log;
  readonly clock: Clock;
  /** Called in a turn of its own, with all that changed since the last time. */
  readonly onChange: (change: HealthChange) => void;
  /** What endpoints are shown and judged by that are spoken to over TLS. */
  readonly material: Pick<CheckMaterial, 'load' | 'caBundle' | 'certificate'>;
  /** Absent: over the network, and by chance. */
  readonly probe?: (target: ProbeTarget, signal: AbortSignal) => Promise<CheckOutcome>;
  readonly random?: () => number;
}

interface Check {
  readonly serviceId: string;
  readonly endpointId: string;
  readonly target: ProbeTarget;
  readonly tls: EndpointTls | undefined;
  readonly health: HealthCheck;
  readonly stop: AbortController;
  state: HealthState;
}

export class HealthChecks implements AsyncDisposable {
  readonly #deps: HealthChecksDeps;
  readonly #checks = new Map<string, Check>();
  /** The ids of their endpoints, by service. None of them is empty. */
  readonly #ofService = new Map<string, ReadonlySet<string>>();
  readonly #securities: EndpointSecurities;
  readonly #turns = new Turns(CHECKS_AT_ONCE);
  readonly #running = new Set<Promise<void>>();
  readonly #changed = new Map<string, boolean>();
  #isOver = false;

  constructor(deps: HealthChecksDeps) {
    this.#deps = deps;
    this.#securities = new EndpointSecurities(deps.material);
  }

  /** What workers of an earlier generation hold for unhealthy: it counts until checks of our own have found otherwise. */
  inherit(endpointIds: readonly string[]): void {
    for (const id of endpointIds) {
      const check = this.#checks.get(id);
      if (check?.state.checkedMs === 0 && check.state.isHealthy) this.#set(check, inheritedHealth(this.#deps.clock.nowMs()));
    }
  }

  /** Services as they are from now on, and those that are gone. The work is that of the change. */
  changed(services: Iterable<Service>, removedServices: readonly string[]): void {
    if (this.#isOver) return;
    for (const id of removedServices) this.#keep(id, new Map());
    for (const service of services) {
      const { health } = service.policy ?? {};
      this.#keep(service.id, health === undefined ? new Map() : new Map(service.endpoints.map((one) => [one.id, one])));
      if (health !== undefined) for (const endpoint of service.endpoints) this.#check(service, endpoint, health);
    }
  }

  /** Endpoints that are to have no requests. */
  get unhealthy(): readonly string[] {
    return [...this.#checks.values()].filter(({ state }) => !state.isHealthy).map(({ endpointId }) => endpointId);
  }

  /** All that are checked. */
  all(): readonly EndpointHealth[] {
    return [...this.#checks.values()].map(({ serviceId, endpointId, state }) => ({ serviceId, endpointId, ...state }));
  }

  /** Ends all checks, and waits until their connections are closed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    for (const { stop } of this.#checks.values()) stop.abort();
    await Promise.all(this.#running);
  }

  /** Ends the checks of endpoints that a service has no more. */
  #keep(serviceId: string, wanted: ReadonlyMap<string, Endpoint>): void {
    for (const id of this.#ofService.get(serviceId) ?? []) if (!wanted.has(id)) this.#end(id);
    if (wanted.size === 0) this.#ofService.delete(serviceId);
    else this.#ofService.set(serviceId, new Set(wanted.keys()));
  }

  #end(endpointId: string): void {
    const check = this.#checks.get(endpointId);
    if (check === undefined) return;
    check.stop.abort();
    this.#checks.delete(endpointId);
    // It may stay in its service without being checked.
    if (!check.state.isHealthy) this.#tell(endpointId, true);
  }

  #check({ id: serviceId, sendProxy }: Service, { id: endpointId, address, port, tls }: Endpoint, health: HealthCheck): void {
    const { path, timeoutMs } = health;
    const target: ProbeTarget = { address, port, path, timeoutMs, sendProxy };
    const before = this.#checks.get(endpointId);
    const isSame = JSON.stringify([before?.target, before?.health, before?.tls]) === JSON.stringify([target, health, tls]);
    if (before !== undefined && isSame) return;
    before?.stop.abort();
    const state = before === undefined ? newHealth(this.#deps.clock.nowMs()) : recounted(before.state);
    const check: Check = { serviceId, endpointId, target, tls, health, stop: new AbortController(), state };
    this.#checks.set(endpointId, check);
    const running = this.#run(check).catch((error: unknown) => {
      this.#deps.log.error({ endpoint: endpointId, reason: reasonOf(error) }, 'the checks of an endpoint ended');
    });
    this.#running.add(running);
    void running.then(() => this.#running.delete(running));
  }

  async #run(check: Check): Promise<void> {
    const { clock, probe: ask = probe, random = Math.random } = this.#deps;
    const { signal } = check.stop;
    const { intervalMs } = check.health;
    let pauseMs = random() * Math.min(intervalMs, FIRST_CHECK_MS);
    while (await slept(clock, pauseMs, signal)) {
      const outcome = await this.#turns.run(
        () => undefined,
        async () => (signal.aborted ? undefined : await ask(await this.#targetOf(check), signal)),
      );
      if (outcome === undefined || signal.aborted) return;
      this.#set(check, healthAfter(check.state, outcome, check.health, clock.nowMs()));
      pauseMs = intervalMs * (1 + PERIOD_JITTER * (2 * random() - 1));
    }
  }

  /** With the material of now: CA bundles and certificates change without their services. */
  async #targetOf({ target, tls }: Check): Promise<ProbeTarget> {
    if (tls === undefined) return target;
    await this.#deps.material.load(tls);
    return { ...target, security: this.#securities.of(tls) };
  }

  /** An endpoint was found to be something. */
  #set(check: Check, next: HealthState): void {
    const before = check.state;
    check.state = next;
    if (before.isHealthy === next.isHealthy) return;
    const about = { service: check.serviceId, endpoint: check.endpointId };
    if (next.isHealthy) this.#deps.log.info(about, 'endpoint is healthy again');
    else this.#deps.log.warn({ ...about, reason: next.reason }, 'endpoint is unhealthy and gets no requests');
    this.#tell(check.endpointId, next.isHealthy);
  }

  /** What changes in one turn is said at once: with an address goes all that was behind it. */
  #tell(endpointId: string, isHealthy: boolean): void {
    this.#changed.set(endpointId, isHealthy);
    if (this.#changed.size > 1) return;
    setImmediate(() => {
      const changes = [...this.#changed];
      this.#changed.clear();
      if (this.#isOver || changes.length === 0) return;
      const of = (wanted: boolean): readonly string[] => changes.filter(([, healthy]) => healthy === wanted).map(([id]) => id);
      this.#deps.onChange({ unhealthy: of(false), healthy: of(true) });
    });
  }
}

/** False: it was called off. */
async function slept(clock: Clock, ms: number, signal: AbortSignal): Promise<boolean> {
  try {
    await clock.sleep(ms, signal);
    return !signal.aborted;
  } catch {
    return false; // Only the signal ends a sleep early.
  }
}
