/**
 * One connection of a client through a published TCP port.
 *
 * LIFECYCLE: waiting (its container is on the move) ⇄ connecting → joined → over. The client's bytes stay in the kernel until it is joined, so a
 * connection that has to wait costs two objects, and one that was connecting when its container was frozen can begin anew.
 */
import type { Socket } from 'node:net';
import type { Endpoint } from '#routing/route-table.ts';
import { Tunnel } from '#proxy/connection/tunnel.ts';
import { settle } from '#proxy/record.ts';
import type { Movement } from '#proxy/record.ts';
import type { TenantBudget } from '#proxy/budget.ts';
import { createWheelEntry } from '#proxy/timing-wheel.ts';
import type { TimeoutOwner, WheelEntry } from '#proxy/timing-wheel.ts';
import type { Account } from '#proxy/traffic.ts';
import { Wire } from '#proxy/wire/wire.ts';
import type { WireOwner } from '#proxy/wire/wire.ts';
import { GONE_IDLE_TIMEOUT_MS, KEEP_ALIVE_MS, STREAM_IDLE_TIMEOUT_MS } from './limits.ts';
import type { PortDeps } from './open-port.ts';
import { isSameEndpoint } from './port-table.ts';

export interface StreamOwner {
  /** The connection could not be made, or must not be any more: what now? */
  onAgain(stream: TcpStream): void;
  onOver(stream: TcpStream): void;
}

export class TcpStream implements TimeoutOwner {
  readonly tenant: string;
  readonly #deps: PortDeps;
  readonly #owner: StreamOwner;
  readonly #socket: Socket;
  readonly #budget: TenantBudget;
  readonly #timer: WheelEntry;
  readonly #moved: Movement = createMovement();
  #endpoint: Endpoint | undefined;
  #account: Account | undefined;
  #client: Wire | undefined;
  #upstream: Wire | undefined;
  #tunnel: Tunnel | undefined;
  #isHeld = false;
  #isGone = false;
  #isOver = false;
  #seenBytes = 0;
  #movedMs = 0;

  /** `budget`: one of `connections` and one of `upgradedStreams` are taken from it. */
  constructor(socket: Socket, deps: PortDeps, budget: TenantBudget, owner: StreamOwner) {
    this.#socket = socket;
    this.#deps = deps;
    this.#budget = budget;
    this.#owner = owner;
    this.tenant = budget.tenant;
    this.#timer = createWheelEntry(this);
    socket.on('error', () => undefined); // `close` follows.
    socket.once('close', () => {
      if (this.#tunnel === undefined) this.cut();
    });
  }

  /** Where it leads; undefined while it waits. */
  get endpoint(): Endpoint | undefined {
    return this.#endpoint;
  }

  get isJoined(): boolean {
    return this.#tunnel !== undefined;
  }

  /** Lets it wait. False: the tenant has too many that wait. */
  hold(): boolean {
    if (this.#isHeld) return true;
    this.#isHeld = this.#budget.tryEnter('heldRequests');
    return this.#isHeld;
  }

  connect(endpoint: Endpoint): void {
    this.#letGo();
    this.#endpoint = endpoint;
    this.#deps.wheel.arm(this.#timer, this.#deps.limits().connectTimeoutMs);
    const upstream = Wire.connecting({ host: endpoint.address, port: endpoint.port }, this.#connectingOwner(), () => {
      this.#join(endpoint, upstream);
    });
    this.#upstream = upstream;
  }

  /** The connection was not made yet: it is given up and the owner asked again. */
  again(): void {
    if (this.#tunnel !== undefined || this.#endpoint === undefined) return;
    this.#dropUpstream();
    this.#owner.onAgain(this);
  }

  /** Its container is not there any more: `current` is what its port leads to now. */
  follow(current: Endpoint | undefined): void {
    const endpoint = this.#endpoint;
    if (endpoint === undefined || this.#isGone || (current !== undefined && isSameEndpoint(current, endpoint))) return;
    if (this.#tunnel === undefined) {
      this.again();
      return;
    }
    this.#isGone = true;
    this.#tunnel.hurry(GONE_IDLE_TIMEOUT_MS);
  }

  /** How long nothing has moved, to the precision of how often it is asked. */
  quietMs(nowMs: number): number {
    const { downstreamInBytes, upstreamInBytes } = this.#moved;
    if (downstreamInBytes + upstreamInBytes !== this.#seenBytes) {
      this.#seenBytes = downstreamInBytes + upstreamInBytes;
      this.#movedMs = nowMs;
    }
    return nowMs - this.#movedMs;
  }

  settle(nowMs: number): void {
    this.quietMs(nowMs);
    if (this.#account !== undefined) settle(this.#account, this.#moved);
  }

  /** Ends it at once. With a reset: the client cannot take what it got for the whole. */
  cut(): void {
    if (this.#isOver) return;
    if (this.#client === undefined) this.#socket.resetAndDestroy();
    else this.#client.reset();
    this.#upstream?.destroy();
    this.#over();
  }

  /** The connection did not come in time. */
  onTimeout(): void {
    this.#deps.counters.timedOut('connect-timeout');
    this.cut();
  }

  #connectingOwner(): WireOwner {
    return {
      onBytes: () => undefined,
      onDrain: () => undefined,
      onEnd: () => undefined,
      onClosed: () => {
        this.cut();
      },
    };
  }

  #join(endpoint: Endpoint, upstream: Wire): void {
    const deps = this.#deps;
    deps.wheel.disarm(this.#timer);
    if (this.#isOver || this.#upstream !== upstream) {
      upstream.destroy();
      return;
    }
    upstream.socket.setKeepAlive(true, KEEP_ALIVE_MS);
    deps.counters.upstreamConnected();
    this.#account = deps.traffic.open(this.tenant, endpoint.id);
    deps.traffic.streamBegins(this.#account);
    this.#movedMs = deps.clock.monotonicMs();
    const client = Wire.accepted(this.#socket, this.#connectingOwner(), deps.path);
    this.#client = client;
    this.#tunnel = new Tunnel({ client, endpoint: upstream }, undefined, {
      wheel: deps.wheel,
      idleTimeoutMs: STREAM_IDLE_TIMEOUT_MS,
      record: this.#moved,
      onOver: (timedOut) => {
        if (timedOut && !this.#isGone) deps.counters.timedOut('stream-idle');
        this.#over();
      },
    });
  }

  #dropUpstream(): void {
    const upstream = this.#upstream;
    this.#upstream = undefined;
    this.#endpoint = undefined;
    this.#deps.wheel.disarm(this.#timer);
    if (upstream === undefined) return;
    upstream.owner = { onBytes: () => undefined, onDrain: () => undefined, onEnd: () => undefined, onClosed: () => undefined };
    upstream.destroy();
  }

  #letGo(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#budget.leave('heldRequests');
  }

  #over(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#deps.wheel.disarm(this.#timer);
    this.#letGo();
    this.#budget.leave('connections');
    this.#budget.leave('upgradedStreams');
    if (this.#account !== undefined) {
      settle(this.#account, this.#moved);
      this.#deps.traffic.streamEnds(this.#account);
      this.#deps.traffic.close(this.#account);
      this.#account = undefined;
    }
    this.#owner.onOver(this);
  }
}

function createMovement(): Movement {
  return {
    downstreamInBytes: 0,
    downstreamOutBytes: 0,
    upstreamInBytes: 0,
    upstreamOutBytes: 0,
    settledDownstreamInBytes: 0,
    settledDownstreamOutBytes: 0,
    settledUpstreamInBytes: 0,
    settledUpstreamOutBytes: 0,
  };
}
