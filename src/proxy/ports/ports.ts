/**
 * The published ports of one worker: which are listened on, where they lead, and who waits.
 *
 * A version's ports are opened when it is prepared and closed when one without them is committed. A port that cannot be listened on never refuses a
 * version, which is other tenants' too: it is logged, counted (`ecluse_published_ports_unbound`) and tried again.
 */
import type { Endpoint, PublishedPort } from '#routing/route-table.ts';
import { codeOf, reasonOf } from '#errors';
import type { Log } from '#log';
import type { FreezeOptions, FreezeResult, ListenAddress } from '#proxy/protocol.ts';
import { provePlain } from '#proxy/wire/fast-read.ts';
import { WAKE_AGAIN_MS } from '#proxy/limits.ts';
import type { Wakes } from '#proxy/wakes.ts';
import { Freezes } from './freezes.ts';
import type { Drain } from '#proxy/listener.ts';
import { DRAIN_STEP_MS, QUIET_MS, UNBOUND_RETRY_MS } from './limits.ts';
import type { OpenPort, PortAnswer, PortDeps } from './open-port.ts';
import { overlaps, portKey, tableOf } from './port-table.ts';
import type { PortTable } from './port-table.ts';
import { TcpPort } from './tcp-port.ts';
import type { TcpStream } from './tcp-stream.ts';
import { UdpPort } from './udp-port.ts';

export interface PortsDeps extends Pick<PortDeps, 'clock' | 'limits' | 'budgets' | 'traffic' | 'counters' | 'wheel'> {
  readonly log: Log;
  readonly wakes: Pick<Wakes, 'ask' | 'failedForMs'>;
}

type Emptied = Pick<FreezeResult, 'cut' | 'waitedMs'>;

export class Ports implements Disposable {
  readonly #deps: PortsDeps;
  readonly #freezes: Freezes;
  readonly #open = new Map<string, OpenPort>();
  /** Being opened; resolves when that is decided. */
  readonly #opening = new Map<string, Promise<void>>();
  /** Why a port is not listened on, by key. */
  readonly #unbound = new Map<string, string>();
  /** Ports that are gone, with streams that are not over yet. */
  readonly #leaving = new Set<TcpPort>();
  #reserved: readonly ListenAddress[] = [];
  #current: PortTable = new Map();
  #prepared: { readonly version: number; readonly table: PortTable } | undefined;
  #retry: NodeJS.Timeout | undefined;
  #wakeAgain: NodeJS.Timeout | undefined;
  #isClosed = false;
  #portDeps: PortDeps | undefined;

  constructor(deps: PortsDeps) {
    this.#deps = deps;
    this.#freezes = new Freezes(deps.clock, () => {
      this.#changed();
    });
  }

  /** Ports that are listened on. */
  get listening(): number {
    return this.#open.size;
  }

  get unbound(): number {
    return this.#unbound.size;
  }

  /** TCP connections and UDP sessions. */
  get streamCount(): number {
    let sum = 0;
    for (const port of this.#open.values()) sum += port.streamCount;
    for (const port of this.#leaving) sum += port.streamCount;
    return sum;
  }

  /** Where TCP connections and UDP sessions lead, one entry for each. */
  *endpointsInUse(): Generator<string> {
    for (const port of this.#open.values()) yield* port.endpointsInUse();
    for (const port of this.#leaving) yield* port.endpointsInUse();
  }

  /** Where the worker itself listens: no tenant's port may come to lie there. */
  reserve(addresses: readonly (ListenAddress | undefined)[]): void {
    this.#reserved = addresses.filter((address) => address !== undefined);
  }

  /** What `commit` may make current; undefined: what is current. `opened` opens what it has and the current version has not. */
  prepare(version: number, ports: readonly PublishedPort[] | undefined): void {
    this.#prepared = { version, table: ports === undefined ? this.#current : tableOf(ports) };
  }

  /** Listens on all ports that are current or prepared, as far as that is possible. Never rejects. */
  async opened(): Promise<void> {
    const wanted = [...this.#current.values(), ...(this.#prepared?.table.values() ?? [])];
    await Promise.all(wanted.map(async (port) => await this.#ensure(port)));
  }

  commit(version: number): void {
    if (this.#prepared?.version !== version) return;
    this.#current = this.#prepared.table;
    this.#prepared = undefined;
    this.#closeUnwanted();
    this.#changed();
  }

  abort(version: number): void {
    if (this.#prepared?.version !== version) return;
    this.#prepared = undefined;
    this.#closeUnwanted();
  }

  /** Lets who comes wait, without waiting for what is under way. */
  hold(endpointIds: readonly string[], deadlineMs: number): void {
    this.#freezes.freeze(endpointIds, deadlineMs);
  }

  /** Lets who comes wait, and returns when nothing is under way but connections that are carried. `lasts`: whether an endpoint is frozen still. */
  async freeze(endpointIds: readonly string[], options: FreezeOptions, lasts: (endpointId: string) => boolean): Promise<Emptied> {
    this.hold(endpointIds, options.deadlineMs);
    const ids = new Set(endpointIds);
    const isCarried = (stream: TcpStream): boolean => options.streams === 'carry' && stream.isJoined;
    return await this.#emptied({ endMs: this.#deps.clock.monotonicMs() + options.drainMs, keepsIdle: false }, (stream) => {
      const id = stream.endpoint?.id;
      return id !== undefined && ids.has(id) && lasts(id) && !isCarried(stream);
    });
  }

  thaw(endpointIds: readonly string[]): void {
    this.#freezes.thaw(endpointIds);
  }

  /** Where the ports of the current version lead. */
  *endpoints(): Generator<Endpoint> {
    for (const { endpoint } of this.#current.values()) yield endpoint;
  }

  /** Sleepers could not be woken: who waits for them is cut. */
  wakeFailed(): void {
    this.#changed();
  }

  /** Brings the accounts up to date. */
  settle(): void {
    const nowMs = this.#deps.clock.monotonicMs();
    for (const stream of this.#streams()) stream.settle(nowMs);
    for (const port of this.#leaving) if (port.streams.size === 0) this.#leaving.delete(port);
  }

  /** Stops listening and returns when all streams have ended, at the latest at the drain's end. */
  async drain(drain: Drain): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#retry);
    for (const port of this.#open.values()) port.stopListening();
    await this.#emptied(drain, () => true);
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    clearInterval(this.#retry);
    clearTimeout(this.#wakeAgain);
    this.#freezes[Symbol.dispose]();
    for (const port of [...this.#open.values(), ...this.#leaving]) port.close();
    this.#open.clear();
    this.#leaving.clear();
  }

  /** Connections that are not made yet begin anew; the others are cut once nothing moves in them, and all at the end. */
  async #emptied(drain: Drain, isMeant: (stream: TcpStream) => boolean): Promise<Emptied> {
    const { clock } = this.#deps;
    const startMs = clock.monotonicMs();
    let cut = 0;
    for (const stream of this.#streams()) if (isMeant(stream) && !stream.isJoined) stream.again();
    for (;;) {
      const nowMs = clock.monotonicMs();
      const isLate = nowMs >= drain.endMs;
      let left = 0;
      for (const stream of this.#streams()) {
        if (!isMeant(stream)) continue;
        if (isLate || (!drain.keepsIdle && stream.quietMs(nowMs) >= QUIET_MS)) {
          stream.cut();
          cut += 1;
        } else left += 1;
      }
      if (left === 0) return { cut, waitedMs: Math.round(clock.monotonicMs() - startMs) };
      await clock.sleep(DRAIN_STEP_MS);
    }
  }

  *#streams(): Generator<TcpStream> {
    for (const port of this.#open.values()) if (port instanceof TcpPort) yield* port.streams;
    for (const port of this.#leaving) yield* port.streams;
  }

  #wanted(key: string): PublishedPort | undefined {
    return this.#current.get(key) ?? this.#prepared?.table.get(key);
  }

  #answerTo(key: string): PortAnswer {
    const port = this.#current.get(key);
    if (port === undefined) {
      const coming = this.#prepared?.table.get(key);
      return { verdict: coming === undefined ? 'refuse' : 'wait', port: coming };
    }
    const { id, state } = port.endpoint;
    const freeze = this.#freezes.stateOf(id);
    if (freeze !== 'open') return { verdict: freeze === 'frozen' ? 'wait' : 'refuse', port };
    if (state === undefined) return { verdict: 'connect', port };
    return { verdict: this.#deps.wakes.failedForMs(id) > 0 ? 'refuse' : 'wait', port };
  }

  /** Asks for a sleeper that somebody waits for, and again while somebody does. */
  #wake({ id, state }: Endpoint): void {
    if (state === undefined || this.#freezes.stateOf(id) !== 'open') return;
    this.#deps.wakes.ask([id]);
    this.#wakeAgain ??= setTimeout(() => {
      this.#wakeAgain = undefined;
      this.#changed();
    }, WAKE_AGAIN_MS).unref();
  }

  #changed(): void {
    for (const port of [...this.#open.values(), ...this.#leaving]) port.changed();
  }

  async #ensure(port: PublishedPort): Promise<void> {
    const key = portKey(port);
    if (this.#open.has(key) || this.#isClosed) return;
    const known = this.#opening.get(key);
    const opening = known ?? this.#tryOpen(key, port);
    if (known === undefined) this.#opening.set(key, opening);
    await opening;
  }

  async #tryOpen(key: string, port: PublishedPort): Promise<void> {
    try {
      const own = this.#reserved.find((address) => overlaps(port, address));
      if (own !== undefined) throw new Error(`the node itself listens on ${own.host}:${String(own.port)}`);
      const deps = await this.#makePortDeps();
      const opened = port.protocol === 'tcp' ? await TcpPort.open(key, port, deps) : await UdpPort.open(key, port, deps);
      if (this.#wanted(key) === undefined || this.#isClosed) opened.close();
      else this.#open.set(key, opened);
      this.#unbound.delete(key);
    } catch (error) {
      this.#failed(key, port, error);
    } finally {
      this.#opening.delete(key);
    }
  }

  #failed(key: string, port: PublishedPort, error: unknown): void {
    const reason = reasonOf(error);
    if (this.#unbound.get(key) !== reason) {
      const { tenant, endpoint } = port;
      this.#deps.log.error(
        { tenant, container: endpoint.id, port: key, code: codeOf(error), reason },
        'a published port is not open',
      );
    }
    this.#unbound.set(key, reason);
    this.#retry ??= setInterval(() => {
      this.#tryAgain();
    }, UNBOUND_RETRY_MS).unref();
  }

  #tryAgain(): void {
    for (const key of this.#unbound.keys()) {
      const port = this.#wanted(key);
      if (port === undefined) this.#unbound.delete(key);
      else void this.#ensure(port);
    }
    if (this.#unbound.size > 0) return;
    clearInterval(this.#retry);
    this.#retry = undefined;
  }

  #closeUnwanted(): void {
    for (const [key, port] of this.#open) {
      if (this.#wanted(key) !== undefined) continue;
      this.#open.delete(key);
      port.stopListening();
      if (port instanceof TcpPort && port.streams.size > 0) this.#leaving.add(port);
    }
    for (const key of this.#unbound.keys()) if (this.#wanted(key) === undefined) this.#unbound.delete(key);
  }

  async #makePortDeps(): Promise<PortDeps> {
    if (this.#portDeps !== undefined) return this.#portDeps;
    const fast = await provePlain();
    this.#portDeps ??= {
      ...this.#deps,
      path: { fast },
      answerTo: (key) => this.#answerTo(key),
      wanted: (endpoint) => {
        this.#wake(endpoint);
      },
      streamCount: () => this.streamCount,
      onFault: (key, error) => {
        this.#deps.log.error({ port: key, reason: reasonOf(error) }, 'the listener of a published port failed');
      },
    };
    return this.#portDeps;
  }
}
