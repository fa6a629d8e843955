/**
 * Certificates of public CAs for the hosts that are to have them: looks at what is due, has it ordered, a few at a time, and asks CAs when they want
 * what there is to be renewed. Plans are made by pure files beside; this one remembers, waits and runs.
 */
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import type { Log } from '#log';
import { failureFactsOf } from './acme-failure.ts';
import type { AcmeStore } from './acme-store.ts';
import { caFailed } from './back-off.ts';
import type { FailureKind, Failures } from './back-off.ts';
import { CaAccess } from './ca-access.ts';
import type { AcmeCaSettings, CaAccessDeps } from './ca-access.ts';
import type { CaTransport } from './ca-transport.ts';
import { NEW_HOST, candidateOf, informed, parseHostState, renewalOf, textOfState } from './host-state.ts';
import type { HostState } from './host-state.ts';
import { planOrders } from './order-queue.ts';
import type { Candidate, PlannedOrder } from './order-queue.ts';
import { runOrder } from './order-run.ts';
import type { OrderRunDeps, RunOutcome } from './order-run.ts';
import type { CaLimits, LimitName } from './rate-ledger.ts';
import { registeredDomainOf } from './registered-domain.ts';
import { Spending } from './spending.ts';

export interface AcmeEngineDeps extends Pick<OrderRunDeps, 'proofs' | 'owner' | 'install'> {
  readonly log: Log;
  readonly clock: Clock;
  readonly store: AcmeStore;
  readonly seal: CaAccessDeps['seal'];
  /** The hosts that are to have one, now. */
  readonly hosts: () => readonly string[];
  /** Whether what was installed for a host is served. */
  readonly isServed: (host: string) => boolean;
  readonly transportTo: (ca: AcmeCaSettings) => CaTransport;
}

export interface AcmeEngineOptions {
  /** In the order in which they are asked. */
  readonly cas: readonly AcmeCaSettings[];
  /** Orders at a time. */
  readonly ordersMax: number;
}

/** How it stands with a host. */
export interface AcmeHostStatus {
  readonly host: string;
  readonly ca: string | null;
  readonly notAfterMs: number | null;
  readonly renewAtMs: number | null;
  readonly lastError: HostState['lastError'];
}

export interface AcmeCounts {
  readonly issued: ReadonlyMap<string, number>;
  readonly failed: readonly { readonly ca: string; readonly kind: FailureKind; readonly count: number }[];
  /** Hosts that were due and waited for a limit, when it was looked at last. */
  readonly waiting: ReadonlyMap<LimitName, number>;
}

interface Known {
  readonly wantedMs: number;
  readonly state: HostState;
  /** As the store has it. */
  readonly text: string;
}

/** Orders that are planned at a time: to look at a hundred thousand hosts takes half a second. */
const PLANNED_MAX = 200;
/** A plan that is older is made anew: others may be more urgent by now. */
const PLAN_KEPT_MS = 30_000;
/** It is looked around at least so often, for hosts that have come. */
const ROUND_MAX_MS = 60_000;
const ROUND_MIN_MS = 50;
const INFO_ROUND_MAX = 100;
const INFO_AT_A_TIME = 8;
const ADDED_AT_A_TIME = 500;
const FORGET_MS = 3_600_000;
const ASK_ATTEMPTS_MAX = 5;

export class AcmeEngine implements AsyncDisposable {
  readonly #deps: AcmeEngineDeps;
  readonly #options: AcmeEngineOptions;
  readonly #spending: Spending;
  readonly #accesses: ReadonlyMap<string, CaAccess>;
  readonly #stop = new AbortController();
  readonly #known = new Map<string, Known>();
  readonly #called = new Set<string>();
  readonly #ofCa = new Map<string, Failures>();
  readonly #running = new Map<string, { readonly ca: string; readonly done: Promise<void> }>();
  /** Hosts that another node works at, and until when. */
  readonly #busy = new Map<string, number>();
  /** Hosts whose order at a CA is to be gone on with: that is paid. */
  readonly #begun = new Map<string, string>();
  readonly #issued = new Map<string, number>();
  readonly #failed: { readonly ca: string; readonly kind: FailureKind; count: number }[] = [];
  #waiting: ReadonlyMap<LimitName, number> = new Map();
  #queue: readonly PlannedOrder[] = [];
  #plannedMs = 0;
  #againMs: number | undefined;
  #forgotMs = 0;
  #wake = Promise.withResolvers<undefined>();
  #loop: Promise<void> | undefined;

  constructor(deps: AcmeEngineDeps, options: AcmeEngineOptions) {
    this.#deps = deps;
    this.#options = options;
    const limits = new Map<string, CaLimits>(options.cas.map((ca) => [ca.directory, ca.limits]));
    this.#spending = new Spending(deps.store, (ca) => limits.get(ca) ?? {});
    this.#accesses = new Map(
      options.cas.map((ca) => [ca.directory, new CaAccess({ ...deps, spending: this.#spending }, ca, deps.transportTo(ca))]),
    );
  }

  /** Begins to work. Once. */
  start(): void {
    this.#loop ??= this.#run();
  }

  /** Something has changed that may want an order: routes, or what is served. */
  nudge(): void {
    this.#queue = [];
    this.#plannedMs = 0;
    this.#wake.resolve(undefined);
  }

  /** Tries hosts again whatever failed before; `force`: also where what they have is not due. They have to be of those that get one. Returns how many. */
  async ask(hosts: readonly string[], force: boolean): Promise<number> {
    await this.#learn(hosts.filter((host) => !this.#known.has(host)));
    for (const host of hosts) {
      // What its CA says may be written at the same moment: then it is asked of what there is by then.
      for (let attempt = 0; attempt < ASK_ATTEMPTS_MAX; attempt += 1) {
        const known = this.#known.get(host);
        if (known === undefined) break;
        const askedMs = force || known.state.current === null ? this.#deps.clock.nowMs() : null;
        if (await this.#write(host, known, { ...known.state, askedMs, failures: {} })) break;
      }
    }
    for (const { directory } of this.#options.cas) await this.#caIs(directory, undefined);
    this.nudge();
    return hosts.length;
  }

  /** Begins with a host that a client has called. */
  async want(host: string): Promise<void> {
    await this.#learn([host]);
    const known = this.#known.get(host);
    if (known === undefined) return;
    const nowMs = this.#deps.clock.nowMs();
    await this.#write(host, known, { ...known.state, calledMs: nowMs, askedMs: known.state.current === null ? nowMs : null });
    this.#called.add(host);
    this.nudge();
  }

  /** Hosts that clients have called. */
  get called(): ReadonlySet<string> {
    return this.#called;
  }

  statusOf(host: string): AcmeHostStatus {
    const state = this.#known.get(host)?.state ?? NEW_HOST;
    const { current, lastError } = state;
    return {
      host,
      ca: current?.ca ?? null,
      notAfterMs: current?.notAfterMs ?? null,
      renewAtMs: renewalOf(state)?.atMs ?? null,
      lastError,
    };
  }

  counts(): AcmeCounts {
    return { issued: this.#issued, failed: this.#failed, waiting: this.#waiting };
  }

  /** What is under way is left as it is, for the next run. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#wake.resolve(undefined);
    await this.#loop;
    await Promise.all([...this.#running.values()].map(async ({ done }) => await done));
  }

  async #run(): Promise<void> {
    const { log } = this.#deps;
    let isLoaded = false;
    while (!this.#stop.signal.aborted) {
      let pauseMs = ROUND_MAX_MS;
      try {
        if (!isLoaded) await this.#load();
        isLoaded = true;
        pauseMs = await this.#round();
      } catch (error) {
        log.error({ reason: reasonOf(error) }, 'certificates could not be looked after; it is tried again');
      }
      await this.#pause(pauseMs);
    }
  }

  /** Until something happens, or it is time. */
  async #pause(ms: number): Promise<void> {
    const sleep = new AbortController();
    const slept = this.#deps.clock.sleep(ms, sleep.signal).catch(() => undefined);
    await Promise.race([slept, this.#wake.promise]);
    sleep.abort();
    this.#wake = Promise.withResolvers();
  }

  async #load(): Promise<void> {
    const { store } = this.#deps;
    for (const { ca, ...failures } of await store.cas()) this.#ofCa.set(ca, failures);
    for (const { host, wantedMs, state: text, orderCa } of await store.hosts()) {
      const state = parseHostState(text);
      this.#known.set(host, { wantedMs, state, text });
      if (state.calledMs !== null) this.#called.add(host);
      if (orderCa !== '') this.#begun.set(host, orderCa);
    }
    await this.#spending.catchUp();
  }

  /** Returns how long there is nothing to do. */
  async #round(): Promise<number> {
    const { clock, hosts } = this.#deps;
    const wanted = hosts();
    await this.#learn(wanted.filter((host) => !this.#known.has(host)));
    await this.#askForWindows(wanted);
    const nowMs = clock.nowMs();
    if (nowMs - this.#forgotMs >= FORGET_MS) {
      this.#forgotMs = nowMs;
      await this.#spending.forget([...this.#accesses.keys()], nowMs);
    }
    if (this.#queue.length === 0 || nowMs - this.#plannedMs >= PLAN_KEPT_MS) this.#plan(wanted, nowMs);
    this.#begin();
    const nextMs = Math.min(this.#againMs ?? Number.POSITIVE_INFINITY, this.#nextInfoMs(wanted));
    return Math.min(ROUND_MAX_MS, Math.max(ROUND_MIN_MS, nextMs - clock.nowMs()));
  }

  async #learn(hosts: readonly string[]): Promise<void> {
    const { store, clock } = this.#deps;
    for (let at = 0; at < hosts.length; at += ADDED_AT_A_TIME) {
      const some = hosts.slice(at, at + ADDED_AT_A_TIME);
      const nowMs = clock.nowMs();
      await store.addHosts(some, textOfState(NEW_HOST), nowMs);
      for (const host of some) {
        const row = await store.host(host);
        if (row !== undefined)
          this.#known.set(host, { wantedMs: row.wantedMs, state: parseHostState(row.state), text: row.state });
      }
    }
  }

  #plan(wanted: readonly string[], nowMs: number): void {
    const cas = this.#options.cas.map(({ directory: id }) => ({
      id,
      failures: this.#ofCa.get(id),
      underWay: [...this.#running.values()].filter(({ ca }) => ca === id).length,
    }));
    const plan = planOrders(this.#candidates(wanted, nowMs), {
      nowMs,
      cas,
      room: PLANNED_MAX,
      admit: ({ host, ca, renewal }) => {
        if (this.#begun.get(host) === ca) return { kind: 'go' };
        const account = this.#accesses.get(ca)?.knownAccount ?? '';
        return this.#spending.verdict(
          { kind: 'order', ca, account, names: [host], domains: [registeredDomainOf(host)], renewal },
          nowMs,
        );
      },
    });
    this.#queue = plan.orders;
    this.#plannedMs = nowMs;
    this.#waiting = plan.waiting;
    this.#againMs = Math.min(plan.againMs ?? Number.POSITIVE_INFINITY, ...this.#busy.values());
  }

  *#candidates(wanted: readonly string[], nowMs: number): Generator<Candidate> {
    for (const host of wanted) {
      const known = this.#known.get(host);
      const busyMs = this.#busy.get(host);
      if (busyMs !== undefined && busyMs <= nowMs) this.#busy.delete(host);
      if (known === undefined || this.#running.has(host) || (busyMs !== undefined && busyMs > nowMs)) continue;
      yield candidateOf(host, known.wantedMs, known.state, this.#deps.isServed(host));
    }
  }

  #begin(): void {
    const room = this.#options.ordersMax - this.#running.size;
    const now = this.#queue.slice(0, Math.max(0, room));
    this.#queue = this.#queue.slice(now.length);
    for (const planned of now) {
      const done = this.#order(planned).finally(() => {
        this.#running.delete(planned.host);
        this.#wake.resolve(undefined);
      });
      this.#running.set(planned.host, { ca: planned.ca, done });
    }
  }

  /** Never fails. */
  async #order(planned: PlannedOrder): Promise<void> {
    const { log, clock } = this.#deps;
    const { host, ca } = planned;
    const beganMs = clock.nowMs();
    const access = this.#accesses.get(ca);
    const known = this.#known.get(host);
    if (access === undefined || known === undefined) return;
    try {
      const deps = { ...this.#deps, spending: this.#spending, signal: this.#stop.signal };
      await this.#settle(planned, beganMs, await runOrder(deps, access, planned, known.state));
    } catch (error) {
      log.error({ host, ca, reason: reasonOf(error) }, 'an order ended in disorder; it is tried again');
      this.#busy.set(host, clock.nowMs() + ROUND_MAX_MS);
    }
  }

  async #settle({ host, ca }: PlannedOrder, beganMs: number, outcome: RunOutcome): Promise<void> {
    const { log } = this.#deps;
    if (outcome.kind === 'busy') {
      this.#busy.set(host, outcome.untilMs);
      return;
    }
    const known = this.#known.get(host);
    if (known !== undefined) this.#known.set(host, { ...known, state: outcome.state, text: textOfState(outcome.state) });
    const orderCa = outcome.kind === 'failed' ? (await this.#deps.store.host(host))?.orderCa : undefined;
    if (orderCa === undefined || orderCa === '') this.#begun.delete(host);
    else this.#begun.set(host, orderCa);
    if (outcome.kind === 'issued') {
      count(this.#issued, ca);
      await this.#caIs(ca, undefined);
      log.info({ host, ca, notAfterMs: outcome.state.current?.notAfterMs }, 'a certificate has come');
    }
    if (outcome.kind === 'failed') {
      const { kind, retryAfterMs } = outcome.facts;
      this.#countFailure(ca, kind);
      const nowMs = this.#deps.clock.nowMs();
      if (kind === 'ca' || (kind === 'rate-limit' && retryAfterMs === undefined))
        await this.#caIs(ca, caFailed(this.#ofCa.get(ca), { seed: ca, kind, nowMs, retryAfterMs, beganMs }));
      log.warn({ host, ca, kind, reason: outcome.message }, 'a certificate did not come');
    }
    // What was planned does not know of this yet.
    if (outcome.kind !== 'issued') this.#plannedMs = 0;
  }

  #countFailure(ca: string, kind: FailureKind): void {
    const known = this.#failed.find((one) => one.ca === ca && one.kind === kind);
    if (known === undefined) this.#failed.push({ ca, kind, count: 1 });
    else known.count += 1;
  }

  async #caIs(ca: string, failures: Failures | undefined): Promise<void> {
    if (failures === undefined ? !this.#ofCa.has(ca) : this.#ofCa.get(ca) === failures) return;
    if (failures === undefined) this.#ofCa.delete(ca);
    else this.#ofCa.set(ca, failures);
    await this.#deps.store.setCa(ca, failures);
  }

  #nextInfoMs(wanted: readonly string[]): number {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const host of wanted) nextMs = Math.min(nextMs, this.#infoAtMs(host));
    return nextMs;
  }

  #infoAtMs(host: string): number {
    const { current, infoAtMs } = this.#known.get(host)?.state ?? NEW_HOST;
    if (current === null || infoAtMs === null || !this.#accesses.has(current.ca)) return Number.POSITIVE_INFINITY;
    return Math.max(infoAtMs, this.#ofCa.get(current.ca)?.untilMs ?? 0);
  }

  /** Asks CAs when they want what there is to be renewed, a bounded number of times. */
  async #askForWindows(wanted: readonly string[]): Promise<void> {
    const nowMs = this.#deps.clock.nowMs();
    const due = wanted.filter((host) => this.#infoAtMs(host) <= nowMs && !this.#running.has(host)).slice(0, INFO_ROUND_MAX);
    for (let at = 0; at < due.length && !this.#stop.signal.aborted; at += INFO_AT_A_TIME)
      await Promise.all(due.slice(at, at + INFO_AT_A_TIME).map(async (host) => await this.#askForWindow(host)));
    if (due.length > 0) this.#plannedMs = 0;
  }

  async #askForWindow(host: string): Promise<void> {
    const { clock, log } = this.#deps;
    const known = this.#known.get(host);
    const current = known?.state.current ?? null;
    const access = current === null ? undefined : this.#accesses.get(current.ca);
    if (known === undefined || current === null || access === undefined) return;
    const nowMs = clock.nowMs();
    let after: HostState;
    try {
      const answer = current.id === null ? undefined : await (await access.client()).renewalInfo(current.id);
      if (answer === undefined) after = { ...known.state, infoAtMs: null };
      else {
        const { start, end } = answer.value.suggestedWindow;
        const window = { startMs: Date.parse(start), endMs: Date.parse(end) };
        // RFC 9773 §4.2: one that ends before it begins is to be ignored.
        const usable = window.endMs > window.startMs ? window : undefined;
        after = informed(known.state, { window: usable, retryAfterMs: answer.retryAfterMs, nowMs });
      }
    } catch (error) {
      log.debug({ host, ca: current.ca, reason: reasonOf(error) }, 'a CA did not say when to renew');
      after = informed(known.state, { window: undefined, retryAfterMs: failureFactsOf(error).retryAfterMs, nowMs });
    }
    await this.#write(host, known, after);
  }

  /** Where the store has something else by now, that is what is known. */
  async #write(host: string, before: Known, state: HostState): Promise<boolean> {
    const { store } = this.#deps;
    const text = textOfState(state);
    if (await store.setHostState(host, { before: before.text, after: text })) {
      this.#known.set(host, { ...before, state, text });
      return true;
    }
    const row = await store.host(host);
    if (row !== undefined) this.#known.set(host, { ...before, state: parseHostState(row.state), text: row.state });
    return false;
  }
}

function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}
