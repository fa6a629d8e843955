/**
 * A connection to an endpoint: carries one request after the other, reads and judges responses, and goes back to its pool in between.
 *
 * LIFECYCLE: connecting → ready → head → body → over → idle → (ready …) → closed; from head to tunnel where a switch of protocols is agreed.
 * `over`: the response is whole, the request is not. SECURITY: endpoints are tenants' code. A connection that said anything that was not asked
 * for (a surplus octet, something while it was idle) is never used again, so that what it said cannot answer somebody else.
 */
import type { ServiceTimeouts } from '#routing/route-table.ts';
import type { HeadView } from '#proxy/http1/head-view.ts';
import { METHOD } from '#proxy/http1/head-view.ts';
import { FRAMING, responseFraming } from '#proxy/http1/body-framing.ts';
import { NEED_MORE } from '#proxy/http1/head.ts';
import type { EndpointPool } from '#proxy/endpoints.ts';
import type { ExchangeError } from '#proxy/error-response.ts';
import type { ExchangeRecord } from '#proxy/record.ts';
import { codeOf, reasonOf } from '#errors';
import { connectOptions } from '#proxy/endpoint-security.ts';
import { secureFaultOf } from '#proxy/wire/secure-fault.ts';
import type { SecureFault } from '#proxy/wire/secure-fault.ts';
import { createWheelEntry } from '#proxy/timing-wheel.ts';
import type { TimeoutOwner, WheelEntry } from '#proxy/timing-wheel.ts';
import { Wire } from '#proxy/wire/wire.ts';
import type { WireOwner } from '#proxy/wire/wire.ts';
import { BodyFollower } from './body-follower.ts';
import { ResponseMemory } from './response-memory.ts';
import { HeadReader } from './head-reader.ts';
import type { ConnectionDeps } from './deps.ts';

/** Whoever sent the request that is under way. */
export interface UpstreamUser {
  readonly record: ExchangeRecord;
  /** The connection stands: the request can be sent. */
  onConnected(): void;
  /** A 1xx. The head is `[view.start, after)`. */
  onInterim(bytes: Buffer, view: HeadView): void;
  /** The final head came (`Upstream.head`, `Upstream.memory`), and `[after, end)` of the body behind it. */
  onResponse(bytes: Buffer, after: number, end: number): void;
  /** `[start, end)` more of the body, as it is framed by the endpoint. */
  onResponseBody(bytes: Buffer, start: number, end: number): void;
  /** The response is whole. */
  onResponseOver(): void;
  /** What was written has left. */
  onUpstreamDrain(): void;
  /** Nothing more comes, and nothing goes. */
  onUpstreamFailed(error: ExchangeError): void;
}

const STATE = { connecting: 0, ready: 1, head: 2, body: 3, over: 4, idle: 5, tunnel: 6, closed: 7 } as const;

const OF_SECURE_FAULT: Readonly<Record<SecureFault, ExchangeError>> = {
  certificate: 'upstream-certificate',
  alert: 'upstream-tls-alert',
  protocol: 'upstream-tls',
};

/** Early hints and the like: a few. An endpoint that sends them without end is stopped. */
const INTERIM_MAX = 32;
/** A read of that many bytes says that the body is long. */
const LONG_READ_BYTES = 32 * 1024;
/** As much of a body with its head says that a buffer of one's own pays off. */
const LONG_RESPONSE_BYTES = 8 * 1024;

/** A connection of a pool that can be used; the last that was. */
export function takeIdle(pool: EndpointPool<Upstream>): Upstream | undefined {
  let idle = pool.idle.pop();
  while (idle?.wire.closed === true) idle = pool.idle.pop();
  return idle;
}

export class Upstream implements WireOwner, TimeoutOwner {
  readonly wire: Wire;
  readonly pool: EndpointPool<Upstream>;
  /** What the head of the response at hand says. */
  readonly memory = new ResponseMemory();
  /** Exchanges that were carried before the one at hand. */
  served = 0;
  /** Whether the head of the request at hand was written, and whether a byte of its response came. */
  sent = false;
  answered = false;
  readonly #deps: ConnectionDeps;
  readonly #timer: WheelEntry;
  readonly #reader: HeadReader;
  readonly #body: BodyFollower;
  readonly #expected = { method: METHOD.get as number, upgrade: false };
  #user: UpstreamUser | undefined;
  /** Those of the service at hand that are not the node's. */
  #timeouts: ServiceTimeouts | undefined;
  #state: number = STATE.connecting;
  #interims = 0;
  #requestSent = false;
  /** Whether the connection may serve again. */
  #clean = true;
  #shared = true;
  #long = false;

  /** Connects at once; the user hears `onConnected` or `onUpstreamFailed`. */
  constructor(deps: ConnectionDeps, pool: EndpointPool<Upstream>, user: UpstreamUser) {
    this.#deps = deps;
    this.pool = pool;
    this.#user = user;
    this.#timeouts = user.record.service?.policy?.timeouts;
    this.#timer = createWheelEntry(this);
    this.#reader = new HeadReader(deps.responseHeads);
    this.#body = new BodyFollower(deps.chunkLimits);
    const { address, port, tls } = pool.endpoint;
    const security = tls === undefined ? undefined : deps.securities.of(tls);
    const secure = typeof security === 'object' ? connectOptions(security) : undefined;
    this.wire = Wire.connecting({ host: address, port, secure }, this, () => {
      this.#connected();
    });
    // SECURITY: what is to be spoken to over TLS never is in the clear.
    if (typeof security === 'string') this.wire.destroyWith(new Error(security));
    deps.wheel.arm(this.#timer, this.#timeouts?.connectMs ?? deps.limits.connectTimeoutMs);
  }

  /** Takes the connection out of the pool's idle ones for an exchange. */
  use(user: UpstreamUser): void {
    this.#user = user;
    this.#timeouts = user.record.service?.policy?.timeouts;
    this.sent = false;
    this.answered = false;
    this.#state = STATE.ready;
  }

  /** It carries what only one client may send: it never goes back to the pool. */
  keepToOneClient(): void {
    this.#shared = false;
  }

  /** One of `FRAMING`: of the response at hand. */
  get framing(): number {
    return this.#body.framing;
  }

  /** Whether the body of the response at hand is over, as far as it was read. */
  get bodyWhole(): boolean {
    return this.#body.whole;
  }

  /** The final head at hand, and the bytes that it lies in. Valid until something is read. */
  head(): { readonly bytes: Buffer; readonly view: HeadView } {
    if (!this.memory.repeated) return this.#reader;
    const view = this.#reader.sharedView;
    return { bytes: this.memory.read(view), view };
  }

  get connected(): boolean {
    return this.#state !== STATE.connecting;
  }

  /** To be called when the head of a request is written. */
  expectResponse(method: number, upgrade: boolean): void {
    this.#expected.method = method;
    this.#expected.upgrade = upgrade;
    this.#state = STATE.head;
    this.#requestSent = false;
    this.#interims = 0;
    this.sent = true;
    this.#awaitHead();
  }

  /** A part of the body went out: the endpoint gets its whole time again. */
  requestMoved(): void {
    if (this.#state === STATE.head) this.#awaitHead();
    else if (this.#state === STATE.body) this.#awaitMovement();
  }

  /** The whole request went out. */
  requestSent(): void {
    this.#requestSent = true;
    if (this.#state === STATE.over) this.#release();
  }

  /** Ends the connection without a word to its user. */
  abandon(): void {
    this.#user = undefined;
    this.wire.destroy();
  }

  /** The pool gives it up. */
  close(): void {
    this.wire.destroy();
  }

  /** Hands the wire over: what comes and goes from now on is somebody else's. */
  leaveToTunnel(): void {
    this.#user = undefined;
    this.#state = STATE.tunnel;
    this.#reader.release();
    this.#deps.wheel.disarm(this.#timer);
  }

  /** The user takes no more for now, or again. */
  stopReading(): void {
    this.wire.pause();
    this.#awaitMovement(); // Now it is the client that has to move.
  }

  readOn(): void {
    if (this.#state === STATE.body) this.#awaitMovement();
    this.wire.resume();
  }

  onBytes(buffer: Buffer, start: number, end: number): void {
    if (this.#user !== undefined) this.#user.record.upstreamInBytes += end - start;
    if (this.#state === STATE.head) this.#readHead(buffer, start, end);
    else if (this.#state === STATE.body) this.#readBody(buffer, start, end);
    else this.#surplus();
  }

  onDrain(): void {
    this.#user?.onUpstreamDrain();
  }

  onEnd(): void {
    switch (this.#state) {
      case STATE.head:
        this.#fail(this.answered ? 'upstream-invalid' : this.#faultOf(STATE.head));
        return;
      case STATE.body:
        if (this.#body.framing === FRAMING.untilClose) this.#over();
        else this.#fail('upstream-truncated');
        return;
      case STATE.over:
        this.#clean = false; // It may still read.
        return;
      default:
        this.wire.destroy();
    }
  }

  onClosed(): void {
    const state = this.#state;
    this.#state = STATE.closed;
    this.#reader.release();
    this.#deps.wheel.disarm(this.#timer);
    if (state === STATE.idle) {
      const { idle } = this.pool;
      const at = idle.lastIndexOf(this);
      if (at !== -1) idle.splice(at, 1);
    }
    const user = this.#user;
    this.#user = undefined;
    if (user === undefined) return;
    user.onUpstreamFailed(this.#faultOf(state));
  }

  #faultOf(state: number): ExchangeError {
    const { endpoint } = this.pool;
    const fault = endpoint.tls === undefined || state === STATE.body ? undefined : this.#secureFault();
    if (fault !== undefined) {
      this.#deps.secureFailed(endpoint, reasonOf(this.wire.fault));
      return fault;
    }
    if (state === STATE.connecting) {
      this.#deps.unreachable(endpoint, codeOf(this.wire.fault) ?? 'closed');
      return 'connect-failed';
    }
    return state === STATE.body ? 'upstream-truncated' : 'upstream-reset';
  }

  #secureFault(): ExchangeError | undefined {
    const { tls } = this.pool.endpoint;
    if (tls !== undefined && typeof this.#deps.securities.of(tls) === 'string') return 'upstream-tls-unusable';
    const fault = secureFaultOf(this.wire);
    return fault === undefined ? undefined : OF_SECURE_FAULT[fault];
  }

  onTimeout(): void {
    switch (this.#state) {
      case STATE.connecting:
        this.#fail('connect-timeout');
        return;
      case STATE.head:
        this.#fail(this.#requestSent || this.wire.blocked ? 'first-byte-timeout' : 'request-timeout');
        return;
      case STATE.body:
        this.#fail('stream-idle');
        return;
      case STATE.idle:
        this.wire.destroy();
        return;
      default:
    }
  }

  #awaitHead(): void {
    const { wheel, limits } = this.#deps;
    wheel.arm(this.#timer, this.#timeouts?.firstByteMs ?? limits.firstByteTimeoutMs);
  }

  #awaitMovement(): void {
    const { wheel, limits } = this.#deps;
    wheel.arm(this.#timer, this.#timeouts?.idleMs ?? limits.streamIdleTimeoutMs);
  }

  #connected(): void {
    if (this.#state !== STATE.connecting) return;
    this.#state = STATE.ready;
    this.#deps.wheel.disarm(this.#timer);
    this.#deps.upstreamConnected();
    this.#user?.onConnected();
  }

  #readHead(buffer: Buffer, start: number, end: number): void {
    const reader = this.#reader;
    const { memory } = this;
    this.answered = true;
    if (!reader.begun && memory.isRepeatedBy(buffer, start, end, this.#expected.method)) {
      this.#readFinal(buffer, start + memory.length, end);
      return;
    }
    let after = reader.read(buffer, start, end);
    while (after > NEED_MORE) {
      const { bytes, view } = reader;
      const framing = responseFraming(bytes, view, this.#expected);
      if (framing < 0) break;
      if (view.status >= 200 || view.status === 101) {
        memory.note(bytes, view, after, { framing, method: this.#expected.method });
        this.#readFinal(bytes, after, reader.end);
        return;
      }
      this.#interims += 1;
      if (this.#interims > INTERIM_MAX) break;
      this.#user?.onInterim(bytes, view);
      if (this.#state !== STATE.head) return;
      const { end: limit } = reader;
      if (after === limit) {
        reader.release();
        return;
      }
      // What follows moves into a reading of its own: a gathered head has its own buffer.
      const rest = reader.begun ? Buffer.from(bytes.subarray(after, limit)) : bytes;
      const from = reader.begun ? 0 : after;
      const to = reader.begun ? rest.length : limit;
      reader.release();
      after = reader.read(rest, from, to);
    }
    if (after === NEED_MORE) return;
    this.#fail('upstream-invalid');
  }

  /** The head is in `memory`: follows the body as far as it came. */
  #readFinal(bytes: Buffer, after: number, limit: number): void {
    const { framing, contentLength, persistent } = this.memory;
    this.#clean = persistent;
    const body = this.#body;
    body.begin(framing, contentLength);
    const end = body.follow(bytes, after, limit);
    if (end < 0) {
      this.#fail('upstream-invalid');
      return;
    }
    const over = body.whole;
    // PERF: an endpoint whose responses are long is read into a buffer of its own from the first byte on: nothing is copied then.
    this.#long = limit - after >= LONG_RESPONSE_BYTES;
    if (end < limit) this.#clean = false;
    this.#state = STATE.body;
    if (!over && framing !== FRAMING.tunnel) {
      this.#awaitMovement();
      if (body.left > LONG_READ_BYTES) this.wire.expectLong(true);
    }
    this.#user?.onResponse(bytes, after, end);
    this.#reader.release();
    if (over && this.#user !== undefined) this.#over();
  }

  #readBody(buffer: Buffer, start: number, limit: number): void {
    const end = this.#body.follow(buffer, start, limit);
    if (end < 0) {
      this.#fail('upstream-invalid');
      return;
    }
    if (end < limit) this.#clean = false;
    this.#awaitMovement();
    if (limit - start >= LONG_READ_BYTES) this.wire.expectLong(true);
    this.#user?.onResponseBody(buffer, start, end);
    if (this.#user !== undefined && this.#body.whole) this.#over();
  }

  #over(): void {
    const user = this.#user;
    this.#state = STATE.over;
    if (this.#requestSent) this.#release();
    user?.onResponseOver();
  }

  /** Back to the pool, or closed. */
  #release(): void {
    this.#user = undefined;
    const { pool, wire } = this;
    const { limits, wheel } = this.#deps;
    if (
      !this.#clean ||
      !this.#shared ||
      pool.retired ||
      wire.ended ||
      wire.closed ||
      pool.idle.length >= limits.upstreamIdleSocketsMax
    ) {
      wire.destroy();
      return;
    }
    this.#state = STATE.idle;
    this.served += 1;
    wire.expectLongLater(this.#long);
    pool.idle.push(this);
    wheel.arm(this.#timer, limits.upstreamIdleMs);
    wire.resume();
  }

  #surplus(): void {
    this.#clean = false;
    if (this.#state === STATE.over) {
      this.wire.pause();
      return;
    }
    this.#deps.poisoned();
    if (this.#state === STATE.ready) this.#fail('upstream-invalid');
    else this.wire.destroy();
  }

  #fail(error: ExchangeError): void {
    const user = this.#user;
    this.#user = undefined;
    this.wire.destroy();
    user?.onUpstreamFailed(error);
  }
}
