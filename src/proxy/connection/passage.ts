/**
 * The passage of one request through the lock: from a client to a connection of an endpoint, and the response back.
 *
 * One for each client connection, used for one exchange after the other, and for one attempt after the other of an exchange. What a client got
 * is never taken back: once a byte of a response is written, a fault cuts the connection so that no part can pass for the whole.
 */
import type { EndpointPool, StreamTally } from '#proxy/endpoints.ts';
import type { ExchangeError } from '#proxy/error-response.ts';
import type { Exchange, ExchangePassage } from '#proxy/exchange.ts';
import { FRAMING } from '#proxy/http1/body-framing.ts';
import type { HeadView } from '#proxy/http1/head-view.ts';

import { NO_FIT } from '#proxy/http1/rewrite.ts';
import { eventStreamOf } from '#proxy/http1/stream-kind.ts';
import { isTimeout } from '#proxy/counters.ts';
import type { DataPlane } from '#proxy/data-plane.ts';
import { beginStream } from '#proxy/record.ts';
import type { ExchangeRecord } from '#proxy/record.ts';
import type { Wire } from '#proxy/wire/wire.ts';
import type { ClientPeer } from './client-peer.ts';
import { EventStream, randomRetryMs } from './event-stream.ts';
import type { FirstPiece } from './first-piece.ts';
import { RequestMirror } from './mirrors.ts';
import { isRepeatable } from './request-facts.ts';
import type { RequestFacts } from './request-facts.ts';
import { RequestHead } from './request-head.ts';
import { COALESCE_BYTES_MAX, OUTPUT, ResponseWriter, kindOf, writeHeadAndBody } from './response-writer.ts';
import type { ClientFacts } from './response-writer.ts';
import { Tunnel, framesOf } from './tunnel.ts';
import type { TunnelOptions, WebSocketFrames } from './tunnel.ts';
import { Upstream, takeIdle } from './upstream.ts';
import type { UpstreamUser } from './upstream.ts';

/** The client's end of a passage. */
export interface PassageEnd extends ClientFacts {
  readonly record: ExchangeRecord;
  readonly wire: Wire;
  readonly peer: ClientPeer;
  readonly facts: RequestFacts;
  /** Whether the head at hand is the one before it again. */
  readonly repeated: boolean;
  /** Whether all of the request at hand was read. */
  readonly requestWhole: boolean;
  head(): { readonly bytes: Buffer; readonly view: HeadView };
  /** What came of the body with the head. */
  firstPiece(): FirstPiece;
  /** The request waits for another attempt: nothing more of it is read. */
  park(): void;
  requestBegun(ready: boolean): void;
  /** The exchange is finished and answered. */
  answered(closes: boolean): void;
  takeRest(): Buffer | undefined;
  leaveToTunnel(): void;
  /** A tunnel has said all: the wire is closed in order. */
  backFromTunnel(): void;
  /** The wire is closed. */
  onClosed(): void;
}

export class Passage implements UpstreamUser, ExchangePassage {
  readonly record: ExchangeRecord;
  readonly #plane: DataPlane;
  readonly #client: PassageEnd;
  readonly #exchange: Exchange;
  readonly #writer: ResponseWriter;
  #upstream: Upstream | undefined;
  #tunnel: Tunnel | undefined;
  readonly #head: RequestHead;
  readonly #mirror: RequestMirror;
  /** The events of the response at hand, where it is a stream of them, and how it is to be ended. */
  #events: EventStream | undefined;
  #ending: { readonly tally: StreamTally; readonly isLate: boolean } | undefined;
  #connectSinceMs = 0;
  /** When the head of the response came, as long as its turn lasts; else -1. */
  #turnMs = -1;
  #bodyBytesSent = 0;
  /** Whether a byte of the final response went to the client, and whether all of it did. */
  #responded = false;
  #responseOver = false;
  #continued = false;
  /** Whether the client may or may not send the body that it announced. */
  #bodyUncertain = false;
  /** What the tenant's budget has for bytes that the client does not take. */
  #bufferedBytes = 0;

  constructor(plane: DataPlane, client: PassageEnd, exchange: Exchange) {
    this.#plane = plane;
    this.#client = client;
    this.#exchange = exchange;
    this.record = client.record;
    this.#writer = new ResponseWriter(plane.connectionDeps.chunkLimits);
    this.#head = new RequestHead(client);
    this.#mirror = new RequestMirror(plane.mirrors);
  }

  /** Sends the request over an idle connection, or over one that is made for it. */
  carry(pool: EndpointPool<Upstream>): void {
    this.#responded = false;
    this.#responseOver = false;
    this.#continued = false;
    this.#bodyUncertain = false;
    this.#bodyBytesSent = 0;
    this.#events = undefined;
    this.#ending = undefined;
    const own = this.record.service?.sendProxy !== undefined;
    const idle = own ? undefined : takeIdle(pool);
    if (idle === undefined) {
      this.#connectSinceMs = this.#plane.clock.monotonicMs();
      this.#upstream = new Upstream(this.#plane.connectionDeps, pool, this);
      return;
    }
    this.#upstream = idle;
    this.record.connectMs = 0;
    idle.use(this);
    this.#send(idle);
  }

  onConnected(): void {
    const upstream = this.#upstream;
    if (upstream === undefined) return;
    this.record.connectMs = this.#plane.clock.monotonicMs() - this.#connectSinceMs;
    this.#send(upstream);
  }

  /** Sends `[start, end)` more of the body. */
  sendBody(buffer: Buffer, start: number, end: number): void {
    const upstream = this.#upstream;
    if (upstream === undefined) return; // It answered and went: the rest is read away.
    const { wire } = this.#client;
    if (end > start) {
      this.#bodyBytesSent += end - start;
      this.record.upstreamOutBytes += end - start;
      this.#mirror.sendBody(buffer, start, end);
      if (!upstream.wire.pass(wire, buffer, start, end)) wire.pause();
    }
    if (!this.#client.requestWhole) {
      upstream.requestMoved();
      return;
    }
    this.#mirror.requestSent();
    if (this.#responseOver) this.#upstream = undefined;
    upstream.requestSent();
    if (this.#responseOver) this.#end();
  }

  onUpstreamDrain(): void {
    const { wire, requestWhole } = this.#client;
    if (!requestWhole) wire.resume();
    this.#upstream?.requestMoved();
  }

  onInterim(bytes: Buffer, view: HeadView): void {
    const { minor, wire } = this.#client;
    if (view.status === 100) this.#continued = true;
    if (minor === 0 || wire.closed) return;
    if (!this.#writer.interim(wire, bytes, view)) this.#clientBlocks();
    this.record.downstreamOutBytes += this.#writer.writtenBytes;
  }

  onResponse(bytes: Buffer, after: number, end: number): void {
    const upstream = this.#upstream;
    if (upstream === undefined) return;
    const { record } = this;
    const { wire } = this.#client;
    this.#turnMs = this.#plane.clock.monotonicMs();
    record.firstByteMs = this.#turnMs - record.startMs;
    this.#bodyUncertain = this.#mustClose();
    const client = this.#bodyUncertain
      ? { minor: this.#client.minor, persistent: false, wallMs: this.#client.wallMs }
      : this.#client;
    if (client !== this.#client) this.#client.facts.persistent = false;
    const { framing } = upstream;
    const frames = framing === FRAMING.tunnel ? framesOf(upstream.head()) : undefined;
    if (!this.#writeResponseHead(upstream, client)) {
      upstream.abandon();
      this.onUpstreamFailed('upstream-invalid');
      return;
    }
    record.status = upstream.memory.status;
    this.#responded = true;
    if (framing === FRAMING.chunked || framing === FRAMING.untilClose) this.#followEvents(upstream, bytes, { start: after, end });
    else frames?.toClient.follow(bytes, after, end);
    const ready = this.#writer.begin(wire, upstream.wire, bytes, { start: after, end });
    record.downstreamOutBytes += this.#writer.writtenBytes;
    if (framing === FRAMING.tunnel) this.#switch(upstream, frames);
    else if (!ready) this.#clientBlocks();
  }

  /** Writes the head at hand to the output. False: it does not fit. */
  #writeResponseHead(upstream: Upstream, client: ClientFacts): boolean {
    const { memory, framing } = upstream;
    const kind = kindOf(client);
    const { actions, tls } = this.record;
    const fields = actions === undefined ? undefined : (tls === undefined ? actions.plain : actions.secure).edits;
    const again = memory.rewrittenFor(kind, fields);
    if (again !== undefined) {
      this.#writer.repeat(again, framing, client);
      return true;
    }
    const { bytes, view } = upstream.head();
    if (this.#writer.head(bytes, view, framing, { client, fields }) === NO_FIT) return false;
    if (memory.repeated) memory.rewrote(kind, fields, OUTPUT.out.subarray(0, OUTPUT.at));
    return true;
  }

  onResponseBody(bytes: Buffer, start: number, end: number): void {
    const upstream = this.#upstream;
    const { wire } = this.#client;
    this.#turnMs = -1;
    if (upstream === undefined || wire.closed) return;
    const last = this.#events === undefined ? -1 : this.#events.follow(bytes, start, end);
    const ends = last !== -1 && this.#ending !== undefined;
    const ready = this.#writer.body(wire, upstream.wire, bytes, { start, end: ends ? last : end });
    this.record.downstreamOutBytes += this.#writer.writtenBytes;
    if (ends) this.#endEvents(true);
    else if (!ready) this.#clientBlocks();
    if (this.#ending?.isLate === true) this.#endEventsIfBetween();
  }

  onResponseOver(): void {
    const { wire, requestWhole } = this.#client;
    this.#responseOver = true;
    if (!wire.closed) this.#writer.finish(wire);
    this.record.downstreamOutBytes += this.#writer.writtenBytes;
    this.#unblock();
    if (!requestWhole) {
      this.#turnMs = -1;
      if (!this.#bodyUncertain) return; // The rest of the request still goes to its endpoint.
      this.#upstream?.abandon();
    }
    this.#upstream = undefined;
    this.#end();
  }

  onUpstreamFailed(error: ExchangeError): void {
    this.#unblock();
    this.#mirror.drop();
    const upstream = this.#upstream;
    this.#upstream = undefined;
    if (isTimeout(error)) this.#plane.counters.timedOut(error);
    if (this.#responseOver) {
      this.#client.facts.persistent = false;
      this.#end();
    } else if (this.#responded) this.#break(error);
    else {
      this.#client.park(); // Until it goes elsewhere, no more of its body may come.
      this.#exchange.attemptFailed({
        error,
        method: this.record.head.toString('latin1', 0, this.record.methodEnd),
        connected: upstream?.sent === true,
        reusedConnection: (upstream?.served ?? 0) > 0,
        responseBytes: upstream?.answered === true,
        bodyBytesSent: this.#bodyBytesSent,
      });
    }
  }

  /** The client takes more again. */
  clientReady(): void {
    this.#unblock();
    this.#upstream?.readOn();
  }

  /** What the client sends cannot be the rest of its request. */
  requestBroken(error: ExchangeError, detail: string): void {
    this.#unblock();
    const answerable = !this.#responded;
    this.#mirror.drop();
    this.#upstream?.abandon();
    this.#upstream = undefined;
    this.#client.facts.persistent = false;
    if (answerable) this.#exchange.refuse(error, detail);
    else this.#break(error);
  }

  /** Ends the attempt, visibly where the client has seen a part of the response. */
  cut(error: ExchangeError): void {
    if (this.#tunnel !== undefined) {
      this.#exchange.abandon(error);
      this.#tunnel.cut();
      return;
    }
    this.#unblock();
    this.#mirror.drop();
    const upstream = this.#upstream;
    this.#upstream = undefined;
    upstream?.abandon();
    if (this.#responseOver) {
      this.#client.facts.persistent = false;
      this.#end();
    } else if (this.#responded) this.#break(error);
    else {
      this.#exchange.abandon(error); // Out of the hold, if it is there.
      this.#exchange.refuse(error);
    }
  }

  /** The client is gone. */
  abandon(): void {
    this.#unblock();
    this.#mirror.drop();
    const upstream = this.#upstream;
    this.#upstream = undefined;
    if (this.#tunnel !== undefined) this.#tunnel.cut();
    upstream?.abandon();
  }

  /** Whether it is a stream without an end of its own. */
  get isStream(): boolean {
    return this.#tunnel !== undefined || (this.#events !== undefined && !this.#responseOver);
  }

  /** Ends such a stream in order, as soon as that is possible. `isLate`: even where a part of a message is lost. */
  endStream(tally: StreamTally, isLate: boolean): void {
    if (this.#tunnel !== undefined) {
      this.#tunnel.restart(() => {
        this.#tunnel = undefined;
        tally.closedWebSockets += 1;
        this.#exchange.finish();
        this.#client.backFromTunnel();
      }, isLate);
    } else if (this.#events !== undefined && !this.#responseOver) {
      this.#ending = { tally, isLate };
      this.#endEventsIfBetween();
    }
  }

  /** Takes the attempt back, where the endpoint has got nothing or may get it twice, and the client knows of nothing. The request is parked. */
  withdraw(): boolean {
    const upstream = this.#upstream;
    if (upstream === undefined || this.#responded) return false;
    if (upstream.sent && !isRepeatable(this.#client.facts)) return false;
    this.#unblock();
    this.#upstream = undefined;
    upstream.abandon();
    this.#client.park();
    return true;
  }

  /** Bytes that the client has sent and taken. */
  movedBytes(): number {
    return this.record.downstreamInBytes + this.record.downstreamOutBytes - this.#client.wire.queuedBytes;
  }

  /** Whether it is the client that everything waits for. `reading`: its body is not over. */
  waitsForClient(reading: boolean): boolean {
    return this.#client.wire.queuedBytes > 0 || (reading && !this.#client.wire.paused);
  }

  #send(upstream: Upstream): void {
    const client = this.#client;
    const { facts } = client;
    if (!this.#head.write(upstream)) {
      this.#upstream = undefined;
      upstream.abandon();
      this.#exchange.refuse('head-too-large');
      return;
    }
    const piece = client.firstPiece();
    const length = OUTPUT.at;
    const pieceBytes = piece.end - piece.start;
    this.#bodyBytesSent = pieceBytes;
    this.record.upstreamOutBytes += length + pieceBytes;
    let ready: boolean;
    if (length + pieceBytes <= COALESCE_BYTES_MAX) {
      if (pieceBytes > 0) piece.bytes.copy(OUTPUT.out, length, piece.start, piece.end);
      ready = upstream.wire.write(OUTPUT.out, 0, length + pieceBytes);
    } else ready = writeHeadAndBody(upstream.wire, client.wire, piece.bytes, piece);
    if (this.record.actions !== undefined && this.#exchange.isFirstAttempt) this.#mirror.begin(client, this.#head, length);
    upstream.expectResponse(facts.method, facts.upgrade);
    if (client.requestWhole) upstream.requestSent();
    client.requestBegun(ready);
  }

  /** A client that was told no 100 may or may not send its body: what follows cannot be known (RFC 9110 §10.1.1). */
  #mustClose(): boolean {
    const { facts, requestWhole } = this.#client;
    return facts.expectsContinue && !this.#continued && !requestWhole;
  }

  #clientBlocks(): void {
    this.#upstream?.stopReading();
    if (this.#bufferedBytes > 0) return;
    const bytes = this.#client.wire.heldBytes;
    if (this.#plane.budgets.of(this.#exchange.tenant).tryEnter('bufferedBytes', bytes)) this.#bufferedBytes = bytes;
    else
      this.#plane.later(() => {
        if (this.#exchange.active && this.#client.wire.blocked) this.cut('tenant-busy');
      });
  }

  #unblock(): void {
    if (this.#bufferedBytes === 0) return;
    this.#plane.budgets.of(this.#exchange.tenant).leave('bufferedBytes', this.#bufferedBytes);
    this.#bufferedBytes = 0;
  }

  /** Begins to follow a response that is a stream of events. */
  #followEvents(upstream: Upstream, bytes: Buffer, piece: { readonly start: number; readonly end: number }): void {
    if (upstream.bodyWhole) return;
    const { bytes: head, view } = upstream.head();
    const kind = eventStreamOf(head, view);
    if (kind === undefined) return;
    beginStream(this.#plane.traffic, this.record);
    this.#events = new EventStream(upstream.framing, kind === 'encoded', this.#plane.connectionDeps.chunkLimits);
    this.#events.follow(bytes, piece.start, piece.end);
  }

  #endEventsIfBetween(): void {
    const events = this.#events;
    if (events === undefined || this.#ending === undefined) return;
    if (events.isBetween || (this.#ending.isLate && events.isBetweenChunks)) this.#endEvents(events.isBetween);
  }

  /** Ends a stream of events here, with the time after which the client shall come again. */
  #endEvents(isBetween: boolean): void {
    const { wire } = this.#client;
    const text = this.#events?.farewell(randomRetryMs(), isBetween) ?? '';
    if (this.#ending !== undefined) this.#ending.tally.endedEventStreams += 1;
    this.#events = undefined;
    this.#ending = undefined;
    this.#unblock();
    this.#upstream?.abandon();
    this.#upstream = undefined;
    this.#responseOver = true;
    this.#turnMs = -1;
    this.#writer.endWith(wire, text);
    this.record.downstreamOutBytes += this.#writer.writtenBytes;
    this.#end();
  }

  #switch(upstream: Upstream, frames: WebSocketFrames | undefined): void {
    const client = this.#client;
    beginStream(this.#plane.traffic, this.record);
    this.#upstream = undefined;
    upstream.leaveToTunnel();
    client.leaveToTunnel();
    const { connectionDeps, limits } = this.#plane;
    const options: TunnelOptions = {
      wheel: connectionDeps.wheel,
      idleTimeoutMs: this.record.service?.policy?.timeouts?.idleMs ?? limits.streamIdleTimeoutMs,
      record: this.record,
      onOver: (timedOut) => {
        this.#tunnel = undefined;
        if (timedOut) this.#exchange.abandon('stream-idle');
        this.#exchange.finish();
        client.onClosed();
      },
    };
    this.#tunnel = new Tunnel({ client: client.wire, endpoint: upstream.wire }, client.takeRest(), options, frames);
  }

  /** All went well: the client's connection goes on, or is closed as it was told. */
  #end(): void {
    this.#mirror.drop();
    this.#exchange.finish(this.#turnMs < 0 ? undefined : this.#turnMs);
    this.#client.answered(!this.#client.persistent || !this.#client.requestWhole || this.#writer.endsWithConnection);
  }

  /** The client must not take a part for the whole: without framing only a reset tells. */
  #break(error: ExchangeError): void {
    this.#unblock();
    this.#exchange.abandon(error);
    this.#exchange.finish();
    const { wire } = this.#client;
    // What a client does not take would stay in the kernel until its connection is given up there.
    if (this.#writer.endsWithConnection || error === 'client-too-slow') wire.reset();
    else wire.destroy();
  }
}
