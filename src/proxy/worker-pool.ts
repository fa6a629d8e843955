/**
 * The workers, as the primary runs them: forked, kept at one config version, replaced when they die, drained at the end.
 *
 * LIFECYCLE of a slot: forked → booted (has config and freezes; takes part in changes) → listening → gone → (back-off) → forked.
 * INVARIANT: a worker is sent what is committed and frozen in the same turn in which it starts to count as booted. IPC keeps the order, so it
 * misses no later change.
 */
import cluster from 'node:cluster';
import { tableWith } from '#routing/compile.ts';
import type { EndpointUse } from '#routing/activator.ts';
import type { RouteDelta, RouteTable } from '#routing/route-table.ts';
import type { Coverage } from '#tls/certificate.ts';
import type { CertificateIndex } from '#tls/certificate-index.ts';
import { reasonOf } from '#errors';
import { KeyedLock } from '#lifecycle';
import { WAKE_SAME_MS, WORKER_ACK_TIMEOUT_MS, WORKER_DRAIN_MS, WORKER_START_TIMEOUT_MS } from './limits.ts';
import { RateLimits } from './actions/rate-limits.ts';
import type { Spends } from './actions/rate-limits.ts';
import { CertificateDelivery } from './certificate-delivery.ts';
import { committedOf, committedWith, configRefused, endpointsOf, routeConfigOf } from './committed.ts';
import type { Committed } from './committed.ts';
import { CheckMaterial } from './health/check-material.ts';
import { HealthChecks } from './health/health-checks.ts';
import type { EndpointHealth } from './health/health-checks.ts';
import { Loads } from './loads.ts';
import { aggregateMetrics } from './metrics.ts';
import { probeAddresses } from './port-probe.ts';
import { NOTHING_FROZEN } from './protocol.ts';
import type { ChangeableOptions, EdgeChange, FreezeOptions, FreezeResult, ListenAddresses, ToWorker } from './protocol.ts';
import { answerWanted } from './issuing.ts';
import { NO_PROOFS } from '#tls/acme/shown-proofs.ts';
import type { ShownProofs } from '#tls/acme/shown-proofs.ts';
import { Wakes } from './wakes.ts';
import { trafficKeeper } from './traffic-keeping.ts';
import { bootRefused, optionsRefused, refusalOf, sumOfFreezes } from './worker-answers.ts';
import { changeableOf, checkWorkers, shareOfOptions } from './worker-pool-options.ts';
import type { ChangeOptions, WorkerPoolDeps, WorkerPoolOptions, WorkerStatus } from './worker-pool-options.ts';
import { WorkerProcess } from './worker-process.ts';
import { keepSlot, learner, upWithin } from './worker-slot.ts';
import type { Forked, Member } from './worker-slot.ts';
import type { Ask, Reply } from './generation/conversation.ts';
import { OldWorkers } from './generation/old-workers.ts';
import type { Predecessor } from './generation/predecessors.ts';

/**
 * PERF: V8 may put more of what it calls into a function that it optimises: 0.4 of 14.4 µs for each request (`npm run bench -- proxy`). Node's
 * version is pinned: one whose V8 does not know them would not start a worker, which every test would show.
 */
const WORKER_FLAGS = ['--max-inlined-bytecode-size-cumulative=4000', '--max-inlined-bytecode-size=1000'];

export class WorkerPool implements AsyncDisposable {
  readonly #deps: WorkerPoolDeps;
  /** Without what the workers began with, which is out of date after the first change, and large. */
  readonly #options: Omit<WorkerPoolOptions, 'initial'>;
  #ticketKeys: Uint8Array | undefined;
  readonly #listen: ListenAddresses;
  readonly #members = new Set<Member>();
  readonly #changes = new KeyedLock();
  readonly #stop = new AbortController();
  readonly #slots: Promise<void>[] = [];
  /** Endpoint id to the end of its hold, in monotonic ms. */
  readonly #freezes = new Map<string, number>();
  readonly #wakes: Wakes;
  readonly #loads: Loads<Member | Predecessor>;
  readonly #health: HealthChecks;
  readonly #old: OldWorkers | undefined;
  readonly #rateLimits: RateLimits;
  readonly #delivery: CertificateDelivery;
  #committed: Committed;
  /** What CAs may look for. */
  #proofs = NO_PROOFS;
  /** Limits are of the whole node. */
  #changeable: ChangeableOptions;

  private constructor(deps: WorkerPoolDeps, { initial, ...options }: WorkerPoolOptions, listen: ListenAddresses) {
    this.#deps = deps;
    this.#options = options;
    this.#ticketKeys = options.ticketKeys;
    this.#listen = listen;
    this.#committed = committedOf(initial);
    this.#changeable = changeableOf(options);
    this.#loads = new Loads(deps.clock);
    this.#rateLimits = new RateLimits(deps.clock);
    this.#wakes = new Wakes(deps.clock, { againMs: WAKE_SAME_MS, tell: options.onWake });
    this.#old = OldWorkers.of(deps.log, options.succession, {
      traffic: trafficKeeper(deps.log, options.onTraffic),
      loads: (worker, loads) => {
        this.#loads.told(worker, loads);
      },
      wake: (endpointIds) => {
        this.#wakes.ask(endpointIds);
      },
      spent: (worker, spends) => {
        this.#spent(worker, spends);
      },
      wanted: (worker, hosts) => {
        answerWanted(deps.log, options.issue, worker, hosts);
      },
      gone: (worker) => {
        this.#loads.forget(worker);
      },
      found: ({ unhealthy }) => {
        this.#health.inherit(unhealthy);
      },
    });
    this.#health = this.#checkHealth();
    this.#delivery = new CertificateDelivery({
      index: () => this.certificates,
      stock: options.certificates,
      missing: (names) => {
        this.#committed = { ...this.#committed, certificates: this.certificates.with([], names) };
      },
    });
  }

  /** Begins to check what is served, with what earlier generations found: none of our own workers is to try what is known to be down. */
  #checkHealth(): HealthChecks {
    const health = new HealthChecks({
      material: new CheckMaterial({
        ...this.#deps,
        caBundle: (name) => this.#committed.table.caBundles.get(name),
        index: () => this.certificates,
        stock: this.#options.certificates,
      }),
      ...this.#deps,
      onChange: (change) => {
        void this.#askAll({ kind: 'health', ...change }, WORKER_ACK_TIMEOUT_MS);
      },
    });
    health.changed(this.#committed.table.services.values(), []);
    for (const { unhealthy } of this.#options.succession?.predecessors.all() ?? []) health.inherit(unhealthy);
    return health;
  }

  /** Starts the workers and returns when all of them listen. */
  static async open(deps: WorkerPoolDeps, options: WorkerPoolOptions): Promise<WorkerPool> {
    checkWorkers(options.workers);
    const listen = await probeAddresses(options.listen, (at) => options.succession?.predecessors.listenOn(at) === true);
    const execArgv = [...(cluster.settings.execArgv ?? process.execArgv), ...WORKER_FLAGS];
    cluster.setupPrimary({ exec: options.workerFile, args: [], execArgv, serialization: 'advanced' });
    const pool = new WorkerPool(deps, options, listen);
    try {
      await Promise.all(
        Array.from({ length: options.workers }, async () => {
          await pool.#startSlot();
        }),
      );
    } catch (error) {
      await pool[Symbol.asyncDispose]();
      throw error;
    }
    pool.#old?.begin(() => ({ kind: 'adopt', config: routeConfigOf(pool.#committed), ...pool.#held() }));
    return pool;
  }

  /** Where the workers listen, with real ports. */
  get listening(): ListenAddresses {
    return this.#listen;
  }

  /** The version that is committed. */
  get version(): number {
    return this.#committed.table.version;
  }

  status(): WorkerStatus[] {
    return [...this.#members].map(({ process, listening, version }) => ({
      pid: process.pid,
      state: listening ? 'listening' : 'starting',
      version,
    }));
  }

  /** Workers of earlier generations, which end when their connections have. */
  retiring(): readonly Pick<Predecessor, 'pid' | 'generation'>[] {
    return this.#old?.all().map(({ pid, generation }) => ({ pid, generation })) ?? [];
  }

  /** This primary goes, and another comes: the workers serve on for it, and get `drainMs` from then on. To be followed by the end of this process. */
  async detach(drainMs: number): Promise<void> {
    this.#stop.abort();
    await this.#health[Symbol.asyncDispose]();
    await this.#changes.run('change', async () => {
      await this.#askAll({ kind: 'detach', drainMs }, WORKER_ACK_TIMEOUT_MS);
    });
  }

  /** Brings all workers to a new version, or none: then it throws ECLUSE_CONFIG_REFUSED and the old version stays. The work is that of the change. */
  async change(change: EdgeChange, options: ChangeOptions = {}): Promise<void> {
    await this.#changes.run('change', async () => {
      await this.#change(change, options);
    });
  }

  /** Whether a change of what is committed holds together. Errors: ECLUSE_CONFIG_REFUSED. */
  check(delta: RouteDelta): void {
    const compiled = tableWith(this.#committed.table, delta);
    if (compiled.kind === 'rejected') throw configRefused(delta.version, compiled.reason);
  }

  /** What is committed, compiled. */
  get table(): RouteTable {
    return this.#committed.table;
  }

  /** What is committed. */
  get certificates(): CertificateIndex<Coverage> {
    return this.#committed.certificates;
  }

  /** Holds new requests for the endpoints on all workers; returns when nothing is under way there. */
  async freeze(endpointIds: readonly string[], options: FreezeOptions): Promise<FreezeResult> {
    const endMs = this.#deps.clock.monotonicMs() + options.deadlineMs;
    for (const id of endpointIds) this.#freezes.set(id, endMs);
    const results = await this.#askAll({ kind: 'freeze', endpointIds, ...options }, options.drainMs + WORKER_ACK_TIMEOUT_MS);
    const frozen = results
      .map((reply) => (reply.kind === 'ack' ? reply.frozen : undefined))
      .filter((result) => result !== undefined);
    return frozen.reduce(sumOfFreezes, NOTHING_FROZEN);
  }

  /** Lets requests for the endpoints go on, in order, to where the committed config says. */
  async thaw(endpointIds: readonly string[]): Promise<void> {
    for (const id of endpointIds) this.#freezes.delete(id);
    await this.#askAll({ kind: 'thaw', endpointIds }, WORKER_ACK_TIMEOUT_MS);
  }

  /** The endpoints that are checked, and what was found. */
  health(): readonly EndpointHealth[] {
    return this.#health.all();
  }

  /** What is under way at an endpoint, in all workers together. */
  useOf(endpointId: string): EndpointUse {
    return this.#loads.of(endpointId);
  }

  /** The endpoints could not be woken: who waits for them gets a 503, and so does who comes within `retryAfterMs`. */
  async wakeFailed(endpointIds: readonly string[], retryAfterMs: number): Promise<void> {
    this.#wakes.failed(endpointIds, retryAfterMs);
    await this.#askAll({ kind: 'wake-failed', endpointIds, retryAfterMs }, WORKER_ACK_TIMEOUT_MS);
  }

  /** The metrics of all workers as one Prometheus text. */
  async metrics(): Promise<string> {
    const replies = await this.#askAll({ kind: 'metrics' }, WORKER_ACK_TIMEOUT_MS);
    return await aggregateMetrics(replies.flatMap((reply) => (reply.kind === 'metrics' ? [reply.metrics] : [])));
  }

  /** What tickets are sealed with from now on. Nothing where they are the same. */
  async useTicketKeys(keys: Uint8Array): Promise<void> {
    if (this.#ticketKeys !== undefined && Buffer.compare(this.#ticketKeys, keys) === 0) return;
    this.#ticketKeys = keys;
    await this.#askAll({ kind: 'ticket-keys', keys }, WORKER_ACK_TIMEOUT_MS);
  }

  /** From now on all workers show these to CAs, and no others. Returns when they do. */
  async show(proofs: ShownProofs): Promise<void> {
    this.#proofs = proofs; // In one turn with the question: who boots from here on has them already.
    await this.#askAll({ kind: 'proofs', proofs }, WORKER_ACK_TIMEOUT_MS);
  }

  /** Opens the access log anew, after a rotation. */
  async reopenAccessLog(): Promise<void> {
    await this.#askAll({ kind: 'reopen-log' }, WORKER_ACK_TIMEOUT_MS);
  }

  /**
   * Gives all workers other options, or none: then it throws ECLUSE_OPTIONS_REFUSED, and what they had is what they have again. Those that start later
   * boot with them; those of earlier generations keep theirs. Limits are of the whole node. Returns the processes that have them.
   */
  async reconfigure(options: ChangeableOptions): Promise<readonly number[]> {
    return await this.#changes.run('change', async () => {
      const before = this.#changeable;
      const message = (of: ChangeableOptions): Ask => ({ kind: 'options', options: shareOfOptions(of, this.#options.workers) });
      this.#changeable = options; // In one turn with the question: who boots from here on has them already.
      const asked = this.#booted().map(async ({ process }) => await process.ask(message(options), WORKER_ACK_TIMEOUT_MS));
      const reason = (await Promise.allSettled(asked)).map(refusalOf).find((text) => text !== undefined);
      if (reason === undefined) return this.#booted().map(({ process }) => process.pid);
      this.#changeable = before;
      for (const { process } of this.#booted()) process.tell(message(before));
      throw optionsRefused(reason);
    });
  }

  /** Stops accepting, gives what is under way `WORKER_DRAIN_MS`, and ends the workers. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    const checks = this.#health[Symbol.asyncDispose]();
    const old = this.#old?.[Symbol.asyncDispose]();
    await Promise.all(
      [...this.#members].map(async ({ process }) => {
        try {
          await process.ask({ kind: 'drain', deadlineMs: WORKER_DRAIN_MS }, WORKER_DRAIN_MS + 1000);
        } catch {
          process.kill(); // Gone already, or stuck.
        }
        const timer = setTimeout(() => {
          process.kill();
        }, 1000);
        await process.exit;
        clearTimeout(timer);
      }),
    );
    await Promise.all(this.#slots);
    await old;
    await checks;
  }

  async #change(change: EdgeChange, { thaw = [], persist }: ChangeOptions): Promise<void> {
    const { version } = change.routes;
    const compiled = tableWith(this.#committed.table, change.routes);
    if (compiled.kind === 'rejected') throw configRefused(version, compiled.reason);
    const participants = this.#booted();
    const replies = await Promise.allSettled(
      participants.map(async ({ process }) => await process.ask({ kind: 'prepare', change }, WORKER_ACK_TIMEOUT_MS)),
    );
    let next: Committed;
    try {
      const reason = replies.map(refusalOf).find((text) => text !== undefined);
      if (reason !== undefined) throw configRefused(version, reason);
      next = committedWith(this.#committed, compiled.table, change);
      await persist?.();
    } catch (error) {
      for (const { process } of participants) process.tell({ kind: 'abort', version });
      throw error;
    }
    this.#committed = next;
    for (const id of thaw) this.#freezes.delete(id);
    const { isAsleep, isThere } = endpointsOf(next);
    this.#wakes.keepOnly(isAsleep);
    this.#loads.keepOnly(isThere);
    this.#health.changed(change.routes.services, change.routes.removedServices);
    this.#old?.changed(change, thaw);
    // Who booted meanwhile has the old version and has not prepared this one.
    const late = this.#booted().filter((member) => !participants.includes(member));
    for (const { process } of late) process.tell({ kind: 'prepare', change });
    await Promise.all(
      [...participants, ...late].map(async (member) => {
        await this.#commit(member, version, thaw);
      }),
    );
  }

  async #commit(member: Member, version: number, thaw: readonly string[]): Promise<void> {
    try {
      const reply = await member.process.ask({ kind: 'commit', version, thaw }, WORKER_ACK_TIMEOUT_MS);
      if (reply.kind === 'refused') throw configRefused(version, reply.reason);
      member.version = version;
    } catch (error) {
      this.#deps.log.warn({ pid: member.process.pid, version, reason: reasonOf(error) }, 'worker did not commit and is replaced');
      member.process.kill();
    }
  }

  /** Asks every booted worker. One that does not answer is replaced: it boots with what is committed and frozen. */
  async #askAll(message: Ask, timeoutMs: number): Promise<Reply[]> {
    const old = this.#old?.askAll(message, timeoutMs);
    const replies = await Promise.all(
      this.#booted().map(async ({ process }) => {
        try {
          return await process.ask(message, timeoutMs);
        } catch (error) {
          this.#deps.log.warn(
            { pid: process.pid, asked: message.kind, reason: reasonOf(error) },
            'worker did not answer and is replaced',
          );
          process.kill();
          return undefined;
        }
      }),
    );
    return [...replies.filter((reply) => reply !== undefined), ...((await old) ?? [])];
  }

  #booted(): Member[] {
    return [...this.#members].filter((member) => member.booted);
  }

  /** Starts a slot; returns when its first worker listens, rejects when that one does not come up. The slot then lives until dispose. */
  async #startSlot(): Promise<void> {
    const first = this.#fork();
    await first.up;
    const { signal } = this.#stop;
    this.#slots.push(keepSlot({ ...this.#deps, signal, fork: () => this.#fork() }, first.member));
  }

  #fork(): Forked {
    const up = Promise.withResolvers<undefined>();
    const member: Member = {
      process: new WorkerProcess({
        online: () => {
          void this.#boot(member).catch(up.reject);
        },
        listening: () => {
          member.listening = true;
          up.resolve(undefined);
        },
        traffic: trafficKeeper(this.#deps.log, this.#options.onTraffic),
        loads: (loads) => {
          if (this.#members.has(member)) this.#loads.told(member, loads);
        },
        wake: (endpointIds) => {
          this.#wakes.ask(endpointIds);
        },
        spent: (spends) => {
          this.#spent(member, spends);
        },
        wanted: (hosts) => {
          answerWanted(this.#deps.log, this.#options.issue, member.process, hosts);
        },
        called: (names) => {
          this.#options.onCalled?.(names);
        },
      }),
      startMs: this.#deps.clock.monotonicMs(),
      booted: false,
      listening: false,
      version: 0,
      progressed: () => undefined,
    };
    this.#members.add(member);
    const ended = (): void => {
      this.#members.delete(member);
      this.#loads.forget(member);
    };
    return { member, up: upWithin(member, up.promise, ended) };
  }

  /** Tells the other workers what `by` let through of rate limits, and remembers it for those that come. */
  #spent(by: Member | Predecessor, { spends, how }: Spends): void {
    this.#rateLimits.hear({ spends, how });
    for (const member of this.#booted()) if (member !== by) member.process.tell({ kind: 'spent-elsewhere', spends, how });
    this.#old?.spent({ spends, how }, by);
  }

  /** What is held and not woken now, for who comes. */
  #held(): Pick<ToWorker & { readonly kind: 'boot' }, 'freezes' | 'failedWakes' | 'unhealthy' | 'proofs'> {
    const nowMs = this.#deps.clock.monotonicMs();
    return {
      freezes: [...this.#freezes].map(([id, endMs]) => ({ endpointIds: [id], deadlineMs: Math.max(0, endMs - nowMs) })),
      failedWakes: [...this.#wakes.failures()],
      unhealthy: this.#health.unhealthy,
      proofs: this.#proofs,
    };
  }

  /** Sends certificates, which may change meanwhile, and then what is committed and frozen by then. Rejects where the worker refuses it. */
  async #boot(member: Member): Promise<void> {
    const reply = await this.#delivery.deliver(learner(member), async () => await this.#bootNow(member));
    if (reply.kind === 'refused') throw bootRefused(reply, member.version, this.#listen);
    const spends = this.#rateLimits.levels();
    if (spends.length > 0) member.process.tell({ kind: 'spent-elsewhere', spends, how: 'least' });
  }

  /** What is sent, and that it counts as booted, are of one turn. */
  async #bootNow(member: Member): Promise<Reply> {
    member.booted = true;
    member.version = this.version;
    const { succession, unknownNames = 'default', workers, onCalled } = this.#options;
    const generation = { generation: succession?.generation ?? 1, successorSocket: succession?.socketPath };
    return await member.process.ask(
      {
        kind: 'boot',
        options: {
          ...shareOfOptions(this.#changeable, workers),
          workers,
          listen: this.#listen,
          unknownNames,
          tellsCalled: onCalled !== undefined,
          ticketKeys: this.#ticketKeys,
          ...generation,
        },
        config: routeConfigOf(this.#committed),
        ...this.#held(),
      },
      WORKER_START_TIMEOUT_MS,
    );
  }
}
