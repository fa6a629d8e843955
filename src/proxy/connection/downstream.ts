/**
 * A client's connection of HTTP/1.x: reads one request after the other, has each carried, and closes or goes on after its answer.
 *
 * LIFECYCLE: idle → head → (parked →) body → wait → idle …, or → linger → closed; to tunnel where a switch of protocols is agreed.
 * `parked`: the request is held, or its connection to an endpoint is being made; `body`: the rest of it is being sent; `wait`: it was sent whole.
 * What comes after a request waits in `#rest`, at most one read of it, and then in TCP.
 */
import type { ExchangeError, OwnResponse } from '#proxy/error-response.ts';
import { errorOfStatus } from '#proxy/error-response.ts';
import { Exchange } from '#proxy/exchange.ts';
import type { ExchangePort } from '#proxy/exchange.ts';
import { NEED_MORE, parseHead } from '#proxy/http1/head.ts';
import { METHOD } from '#proxy/http1/head-view.ts';
import type { HeadView } from '#proxy/http1/head-view.ts';
import { REFUSED, refusalOf } from '#proxy/http1/refusal.ts';
import type { DataPlane } from '#proxy/data-plane.ts';
import { LINGER_BYTES_MAX, LINGER_MS } from '#proxy/limits.ts';
import { createRecord, resetOutcome, resetRecord, settle } from '#proxy/record.ts';
import type { ExchangeRecord } from '#proxy/record.ts';
import { createRequestId, writeRequestId } from '#proxy/request-id.ts';
import { createWheelEntry } from '#proxy/timing-wheel.ts';
import type { TimeoutOwner, WheelEntry } from '#proxy/timing-wheel.ts';
import { Wire } from '#proxy/wire/wire.ts';
import type { WireOwner } from '#proxy/wire/wire.ts';
import { BodyFollower } from './body-follower.ts';
import type { ClientPeer } from './client-peer.ts';
import type { ClientConnection } from './deps.ts';
import { FirstPiece } from './first-piece.ts';
import { HeadReader } from './head-reader.ts';
import { KeptHead, KnownHost, noteHead } from './kept-head.ts';
import { writeLocalAnswer } from './local-answer.ts';
import { Passage } from './passage.ts';
import type { PassageEnd } from './passage.ts';
import { Progress } from './progress.ts';
import { createRequestFacts, judgeRequest, resetRequestFacts } from './request-facts.ts';
import type { Socket } from 'node:net';

const STATE = { idle: 0, head: 1, parked: 2, body: 3, wait: 4, linger: 5, tunnel: 6, closed: 7 } as const;

/** A client that says it sends no more, as `nc -N` does, still gets its answer; one that went away looks the same, and is given up after this. */
const HALF_CLOSED_MS = 1_000;
/** What is left of a body of known length, from where on reads go into buffers of their own. */
const LONG_BODY_BYTES = 32 * 1024;

export class Downstream implements WireOwner, TimeoutOwner, ExchangePort, PassageEnd, ClientConnection {
  readonly record: ExchangeRecord;
  readonly wire: Wire;
  readonly facts: ReturnType<typeof createRequestFacts> = createRequestFacts();
  readonly peer: ClientPeer;
  readonly #plane: DataPlane;
  readonly #exchange: Exchange;
  readonly passage: Passage;
  readonly #reader: HeadReader;
  readonly #body: BodyFollower;
  readonly #timer: WheelEntry;
  readonly #requestId = createRequestId();
  #state: number = STATE.idle;
  readonly #kept = new KeptHead();
  /** Whether the head at hand lies where it was read. */
  #live = false;
  /** What came of the body with the head. */
  readonly #piece = new FirstPiece();
  /** Whether the head at hand is the one before it again. */
  repeated = false;
  #rest: Buffer | undefined;
  #halfClosed = false;
  readonly #progress: Progress;
  #lingerBytes = 0;
  /** Whether no request came yet. */
  #fresh = true;
  /** Whether the request at hand is long. */
  #long = false;
  readonly #host = new KnownHost();

  constructor(plane: DataPlane, socket: Socket, peer: ClientPeer) {
    this.#plane = plane;
    this.peer = peer;
    this.record = createRecord(peer.address, peer.tls);
    this.#exchange = new Exchange(plane, this);
    this.#reader = new HeadReader(plane.connectionDeps.requestHeads);
    this.#body = new BodyFollower(plane.connectionDeps.chunkLimits);
    this.#timer = createWheelEntry(this);
    this.#progress = new Progress(plane.limits);
    this.wire = Wire.accepted(socket, this, peer.readPath);
    this.passage = new Passage(plane, this, this.#exchange);
    plane.downstreams.add(this);
    plane.connectionDeps.wheel.arm(this.#timer, plane.limits.headTimeoutMs);
  }

  /** Whether the connection may serve another request after the one at hand. */
  get persistent(): boolean {
    return this.facts.persistent && !this.#halfClosed && !this.#plane.draining;
  }

  get minor(): number {
    return this.facts.minor;
  }

  get wallMs(): number {
    return this.record.startWallMs;
  }

  get requestWhole(): boolean {
    return this.#body.whole;
  }

  /** Closes a connection that has no request under way; for drains. */
  closeIdle(): void {
    if (this.#state === STATE.idle) this.#close();
  }

  /** Brings the account of the exchange at hand up to date. */
  settle(): void {
    if (this.record.account !== undefined && this.#exchange.active) settle(this.record.account, this.record);
  }

  onBytes(buffer: Buffer, start: number, end: number): void {
    switch (this.#state) {
      case STATE.idle:
      case STATE.head:
        this.#readHead(buffer, start, end);
        return;
      case STATE.body:
        this.#readBody(buffer, start, end);
        return;
      case STATE.linger:
        this.#lingerBytes += end - start;
        if (this.#lingerBytes > LINGER_BYTES_MAX) this.wire.destroy();
        return;
      default:
        this.#keepRest(buffer, start, end);
    }
  }

  onDrain(): void {
    this.passage.clientReady();
  }

  onEnd(): void {
    switch (this.#state) {
      case STATE.idle:
        this.#close();
        return;
      case STATE.wait:
      case STATE.parked:
        if (!this.#body.whole) break;
        this.#halfClosed = true;
        this.#plane.connectionDeps.wheel.arm(this.#timer, HALF_CLOSED_MS);
        return;
      case STATE.linger:
        this.wire.destroyWhenWritten();
        return;
      default:
    }
    this.wire.destroy();
  }

  onClosed(): void {
    this.#state = STATE.closed;
    this.#plane.connectionDeps.wheel.disarm(this.#timer);
    this.#reader.release();
    this.#plane.downstreams.delete(this);
    if (this.#exchange.active) {
      this.passage.abandon();
      this.#exchange.abandon(this.record.error ?? 'client-aborted');
      this.#exchange.finish();
    }
    this.#exchange.leaveConnection();
  }

  onTimeout(): void {
    switch (this.#state) {
      case STATE.idle:
        this.#close();
        return;
      case STATE.head:
        this.#plane.counters.timedOut('request-timeout');
        this.#openNew(this.#reader.end);
        this.#exchange.refuse('request-timeout');
        return;
      case STATE.linger:
        this.wire.destroy();
        return;
      default:
        if (this.#exchange.active) this.#lookAtProgress();
    }
  }

  requestPath(): string {
    const { head, pathStart, pathEnd } = this.record;
    return pathEnd === pathStart ? '/' : head.toString('latin1', pathStart, pathEnd);
  }

  /** What comes after it is not counted: it is one read at most. */
  heldBytes(): number {
    return this.record.headBytes + this.#piece.end - this.#piece.start;
  }

  respond(response: OwnResponse): void {
    const { record, facts } = this;
    const closes = !this.persistent || !this.#body.whole || record.error === 'method-refused';
    writeLocalAnswer(this.wire, record, { response, closes, facts });
    this.#exchange.finish();
    this.answered(closes);
  }

  /** The exchange at hand is finished: goes on with the next, or closes. */
  answered(closes: boolean): void {
    this.#piece.drop();
    if (this.#state === STATE.closed) return;
    if (closes) {
      // PERF: nothing more can come that was asked for. Over TLS the end has to be said.
      if (this.#body.whole && this.#rest === undefined && this.peer.tls === undefined && this.record.error === undefined)
        this.wire.destroyWhenQuiet();
      this.#close();
      return;
    }
    this.#state = STATE.idle;
    this.wire.expectLongLater(this.#long);
    this.#long = false;
    if (this.#rest === undefined) {
      this.#plane.connectionDeps.wheel.arm(this.#timer, this.#plane.limits.idleTimeoutMs);
      this.wire.resume();
    } else
      setImmediate(() => {
        this.#readRest();
      }); // Others get their turn between the requests of one connection.
  }

  /** The head and raw bytes of the request at hand, whether they still lie where they were read or were kept. Valid until something is read. */
  head(): { readonly bytes: Buffer; readonly view: HeadView } {
    if (this.#live && !this.repeated) return this.#reader;
    const view = this.#reader.sharedView;
    const { bytes, length } = this.#kept;
    parseHead(bytes, 0, length, view); // It was parsed before: it is whole and valid.
    return { bytes, view };
  }

  firstPiece(): FirstPiece {
    return this.#piece;
  }

  /** The request waits: nothing more of it is read. */
  park(): void {
    if (this.#state === STATE.closed) return;
    this.#state = STATE.parked;
    if (!this.#body.whole) this.wire.pause();
  }

  /** The request went out as far as it came. `ready`: the endpoint keeps up. */
  requestBegun(ready: boolean): void {
    this.#piece.drop();
    const { wheel } = this.#plane.connectionDeps;
    this.#progress.begin(this.record.downstreamInBytes);
    wheel.arm(this.#timer, this.#halfClosed ? HALF_CLOSED_MS : this.#untilNextLookMs());
    if (this.#body.whole) this.#state = STATE.wait;
    else this.#beginBody();
    if (this.#rest === undefined && (ready || this.requestWhole)) this.wire.resume();
    else this.wire.pause();
  }

  /** Takes what the client sent too early for the request at hand: what it says after a switch of protocols. */
  takeRest(): Buffer | undefined {
    const rest = this.#rest;
    this.#rest = undefined;
    return rest;
  }

  /** Hands the wire over. */
  leaveToTunnel(): void {
    this.#state = STATE.tunnel;
    this.#plane.connectionDeps.wheel.disarm(this.#timer);
  }

  /** Takes the wire back from a tunnel that has said all. */
  backFromTunnel(): void {
    this.wire.owner = this;
    this.#close();
  }

  #readRest(): void {
    const rest = this.takeRest();
    if (rest === undefined || this.#state !== STATE.idle) return;
    this.#readHead(rest, 0, rest.length);
    if (this.#reading()) this.wire.resume();
  }

  /** PERF: a client that uploads is read into a buffer of its own, from the next read on, and for its next request. */
  #expectLong(): void {
    this.#long = true;
    this.wire.expectLong(true);
  }

  #reading(): boolean {
    return this.#state === STATE.head || this.#state === STATE.idle;
  }

  #keepRest(buffer: Buffer, start: number, end: number): void {
    const more = buffer.subarray(start, end);
    this.#rest = this.#rest === undefined ? Buffer.from(more) : Buffer.concat([this.#rest, more]);
    this.wire.pause();
  }

  #readHead(buffer: Buffer, start: number, end: number): void {
    if (this.#state === STATE.idle && this.#kept.isRepeatedBy(buffer, start, end)) {
      this.repeated = true;
      resetOutcome(this.record);
      this.#open(end - start);
      const after = start + this.#kept.length;
      this.#carryOn(buffer, start, after, end);
      return;
    }
    this.repeated = false;
    const after = this.#reader.read(buffer, start, end);
    if (after === NEED_MORE) {
      // The first head of a connection has its time from the connection on.
      if (this.#state === STATE.idle && !this.#fresh)
        this.#plane.connectionDeps.wheel.arm(this.#timer, this.#plane.limits.headTimeoutMs);
      this.#state = STATE.head;
      return;
    }
    this.#openNew(end - start);
    if (after < 0) this.#refuseHead(after);
    else this.#begin(after);
    this.#reader.release();
  }

  #openNew(bytes: number): void {
    resetRecord(this.record);
    resetRequestFacts(this.facts);
    this.record.client = this.peer.address;
    this.#open(bytes);
  }

  #open(bytes: number): void {
    const { record } = this;
    this.#fresh = false;
    writeRequestId(this.#requestId);
    record.requestId = this.#requestId;
    record.downstreamInBytes = bytes;
    this.#state = STATE.parked;
    this.#body.begin(0, 0);
    this.#exchange.open();
  }

  #refuseHead(code: number): void {
    const { status, reason } = refusalOf(code);
    this.facts.persistent = false;
    this.#plane.counters.headRefused(status);
    this.#exchange.refuse(errorOfStatus(status), reason);
  }

  #begin(after: number): void {
    const { bytes, view, end } = this.#reader;
    const { facts } = this;
    this.#kept.keep(bytes, view.start, after);
    noteHead(this.record, this.#kept, bytes, view);
    if (this.peer.trusted) this.peer.readChain(bytes, view, this.record);
    const refused = judgeRequest(bytes, view, this.peer.tls !== undefined, facts);
    if (refused < 0) {
      this.#refuseHead(refused);
      return;
    }
    // What a proxy says of its clients, and what changes the connection, is looked at anew each time.
    this.#kept.repeatable =
      facts.persistent &&
      !facts.expectsContinue &&
      !this.peer.trusted &&
      view.method !== METHOD.trace &&
      view.method !== METHOD.connect;
    this.#carryOn(bytes, view.base, after, end);
  }

  /** The head is known: follows the body as far as it came, and has the request carried. */
  #carryOn(bytes: Buffer, base: number, after: number, end: number): void {
    const { record, facts } = this;
    this.#body.begin(facts.framing, facts.contentLength);
    const stop =
      facts.contentLength > this.#plane.limits.requestBodyBytesMax ? REFUSED.bodyTooLong : this.#body.follow(bytes, after, end);
    if (stop < 0) {
      this.#refuseHead(stop);
      return;
    }
    record.downstreamInBytes = stop - base;
    if (stop < end) this.#keepRest(bytes, stop, end);
    if (stop - after >= LONG_BODY_BYTES) this.#long = true;
    this.#piece.set(bytes, after, stop);
    this.#live = true;
    const proof = this.#plane.challenges.hasTexts ? this.#plane.challenges.answerTo(this.requestPath()) : undefined;
    if (proof === undefined) {
      const error = this.#route(bytes);
      if (error === undefined) this.#exchange.start(facts.upgrade);
      else this.#exchange.refuse(error);
    } else {
      this.#kept.repeatable = false; // It was not routed, and its repetition may have to be.
      this.#exchange.answer(proof);
    }
    this.#live = false;
    if (this.#state !== STATE.parked) return;
    // It waits: what it needs later is kept, and no more is read than came.
    this.#piece.keep();
    this.park();
    this.#plane.connectionDeps.wheel.arm(this.#timer, this.#untilNextLookMs());
  }

  #route(bytes: Buffer): ExchangeError | undefined {
    const { record, facts } = this;
    if (facts.method === METHOD.trace) return 'method-refused';
    const error = this.#exchange.route(this.repeated ? record.host : this.#host.of(bytes, this.#reader.view), this.repeated);
    if (facts.method === METHOD.connect && this.#exchange.matched?.route.connect !== true) return 'method-refused';
    return error ?? this.#exchange.admitConnection();
  }

  #beginBody(): void {
    this.#state = STATE.body;
    if (this.#body.left > LONG_BODY_BYTES) this.#expectLong();
    // Over TLS a pause keeps back only what is not decrypted yet: what came since then is the body's next bytes.
    const came = this.takeRest();
    if (came !== undefined) this.#readBody(came, 0, came.length);
  }

  #readBody(buffer: Buffer, start: number, limit: number): void {
    const end = this.#body.follow(buffer, start, limit);
    const refused = this.#body.payloadBytes > this.#plane.limits.requestBodyBytesMax ? REFUSED.bodyTooLong : end;
    if (refused < 0) {
      const { status, reason } = refusalOf(refused);
      this.passage.requestBroken(errorOfStatus(status), reason);
      return;
    }
    const { record } = this;
    record.downstreamInBytes += end - start;
    if (limit - start >= LONG_BODY_BYTES) this.#expectLong();
    if (end < limit) this.#keepRest(buffer, end, limit);
    if (this.#body.whole) this.#state = STATE.wait;
    this.passage.sendBody(buffer, start, end);
  }

  #untilNextLookMs(): number {
    const { totalTimeoutMs } = this.#plane.limits;
    return this.#progress.untilNextMs(this.record.startMs, totalTimeoutMs === 0 ? 0 : this.#plane.clock.monotonicMs());
  }

  /** Cuts a client that moves too little of a body, and what took too long in all. */
  #lookAtProgress(): void {
    const { connectionDeps, counters } = this.#plane;
    if (this.#halfClosed) {
      this.wire.destroy();
      return;
    }
    const untilNextMs = this.#untilNextLookMs();
    const waits = this.passage.waitsForClient(this.#state === STATE.body);
    const stalls = this.#progress.stalls(this.passage.movedBytes(), waits);
    if (untilNextMs <= 0 || stalls) {
      const error = untilNextMs <= 0 ? 'total-timeout' : 'client-too-slow';
      counters.timedOut(error);
      this.passage.cut(error);
      return;
    }
    connectionDeps.wheel.arm(this.#timer, untilNextMs);
  }

  /** Says that no more comes, and reads away what the client still sends for a while: closing on it would reset what we said. */
  #close(): void {
    if (this.wire.closed) return;
    this.#state = STATE.linger;
    this.#rest = undefined;
    this.#lingerBytes = 0;
    this.#plane.connectionDeps.wheel.arm(this.#timer, LINGER_MS);
    if (this.wire.ended) this.wire.destroyWhenWritten();
    else {
      this.wire.end();
      this.wire.resume();
    }
  }
}
