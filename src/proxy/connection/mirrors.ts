/**
 * Copies of requests, for services that are tried with them (`mirror`). Nobody waits for a copy: what it gets in answer is thrown away, and one that
 * does not take its request as fast as it comes is given up.
 */
import type { Mirror } from '#routing/actions.ts';
import type { Endpoint, Service } from '#routing/route-table.ts';
import { METHOD } from '#proxy/http1/head-view.ts';
import type { HeadView } from '#proxy/http1/head-view.ts';
import type { Counters } from '#proxy/counters.ts';
import type { EndpointPool, Endpoints, Visit } from '#proxy/endpoints.ts';
import { createRecord } from '#proxy/record.ts';
import type { ExchangeRecord } from '#proxy/record.ts';
import type { ConnectionDeps } from './deps.ts';
import type { FirstPiece } from './first-piece.ts';
import type { RequestFacts } from './request-facts.ts';
import { OUTPUT } from './response-writer.ts';
import { Upstream, takeIdle } from './upstream.ts';
import type { UpstreamUser } from './upstream.ts';

/** Of one worker at once: each is a connection. More than these mean that the mirror is slower than the service. */
const MIRRORS_MAX = 256;
/** What of one waits to be sent: a body that comes faster than it goes on. */
const QUEUED_BYTES_MAX = 256 * 1024;

/** What of a worker copies need. */
export interface MirrorDeps {
  readonly counters: Counters;
  readonly endpoints: Endpoints<Upstream>;
  readonly connectionDeps: ConnectionDeps;
  readonly serviceOf: (serviceId: string) => Service | undefined;
  /** An endpoint of a service that takes requests now. */
  readonly endpointFor: (serviceId: string) => Endpoint | undefined;
  /** A copy left its endpoint. */
  readonly ended: () => void;
}

export class Mirrors {
  readonly #deps: MirrorDeps;
  readonly #underWay = new Set<MirroredRequest>();

  constructor(deps: MirrorDeps) {
    this.#deps = deps;
  }

  /** Sends a copy, or leaves it. `head`: as it was sent, with what came of the body. */
  begin({ serviceId, percent }: Mirror, head: Buffer, method: number): MirroredRequest | undefined {
    if (percent < 100 && Math.random() * 100 >= percent) return undefined;
    const { counters, endpoints, connectionDeps, serviceOf, endpointFor, ended } = this.#deps;
    const endpoint = endpointFor(serviceId);
    const service = serviceOf(serviceId);
    if (endpoint === undefined || service?.sendProxy !== undefined || this.#underWay.size >= MIRRORS_MAX) {
      counters.mirrored('skipped');
      return undefined;
    }
    const pool = endpoints.poolOf(service?.tenant ?? '', endpoint);
    const copy: MirroredRequest = new MirroredRequest({ connectionDeps, pool, head, method }, (outcome) => {
      if (!this.#underWay.delete(copy)) return;
      endpoints.leave(pool, copy);
      ended();
      counters.mirrored(outcome);
    });
    this.#underWay.add(copy);
    endpoints.enter(pool, copy);
    copy.begin();
    return copy;
  }
}

/** The client whose request is copied. */
export interface MirroredClient {
  readonly record: ExchangeRecord;
  readonly facts: RequestFacts;
  readonly requestWhole: boolean;
  firstPiece(): FirstPiece;
}

/** The copy of the request at hand of one client, while its body comes. */
export class RequestMirror {
  readonly #mirrors: Mirrors;
  #copy: MirroredRequest | undefined;

  constructor(mirrors: Mirrors) {
    this.#mirrors = mirrors;
  }

  /** Copies what was just sent, if its route says so: `length` octets in the output, and as much of the body as came. */
  begin(client: MirroredClient, { introductionBytes }: { readonly introductionBytes: number }, length: number): void {
    const { facts, requestWhole } = client;
    const mirror = client.record.actions?.actions.mirror;
    if (mirror === undefined || introductionBytes > 0 || facts.upgrade || facts.method === METHOD.connect) return;
    const piece = client.firstPiece();
    const head = Buffer.concat([OUTPUT.out.subarray(0, length), piece.bytes.subarray(piece.start, piece.end)]);
    this.#copy = this.#mirrors.begin(mirror, head, facts.method);
    if (requestWhole) this.requestSent();
  }

  sendBody(buffer: Buffer, start: number, end: number): void {
    this.#copy?.sendBody(buffer, start, end);
  }

  requestSent(): void {
    this.#copy?.requestSent();
    this.#copy = undefined;
  }

  /** The rest of the request does not come. */
  drop(): void {
    this.#copy?.cut();
    this.#copy = undefined;
  }
}

interface Original {
  readonly connectionDeps: ConnectionDeps;
  readonly pool: EndpointPool<Upstream>;
  readonly head: Buffer;
  readonly method: number;
}

export class MirroredRequest implements UpstreamUser, Visit {
  readonly record: ExchangeRecord = createRecord('', undefined);
  readonly isStream = false;
  readonly #original: Original;
  readonly #onOver: (outcome: 'sent' | 'failed') => void;
  #upstream: Upstream | undefined;
  /** What cannot be sent yet: there is no connection. */
  #queue: Buffer[];
  #queuedBytes = 0;
  #whole = false;
  #responseOver = false;

  constructor(original: Original, onOver: (outcome: 'sent' | 'failed') => void) {
    this.#original = original;
    this.#onOver = onOver;
    this.#queue = [original.head];
  }

  begin(): void {
    const { connectionDeps, pool } = this.#original;
    const idle = takeIdle(pool);
    if (idle === undefined) {
      this.#upstream = new Upstream(connectionDeps, pool, this);
      return;
    }
    this.#upstream = idle;
    idle.use(this);
    this.onConnected();
  }

  /** `[start, end)` more of the body: it is copied, the bytes go to somebody else. */
  sendBody(buffer: Buffer, start: number, end: number): void {
    const upstream = this.#upstream;
    if (upstream === undefined) return;
    const waiting = this.#queuedBytes + upstream.wire.queuedBytes;
    if (waiting + end - start > QUEUED_BYTES_MAX) {
      this.cut();
      return;
    }
    const copy = Buffer.from(buffer.subarray(start, end));
    if (upstream.connected) upstream.wire.write(copy, 0, copy.length);
    else {
      this.#queue.push(copy);
      this.#queuedBytes += copy.length;
    }
  }

  /** The request is whole. */
  requestSent(): void {
    this.#whole = true;
    const upstream = this.#upstream;
    if (upstream?.sent !== true) return;
    if (this.#responseOver) this.#end('sent');
    upstream.requestSent();
  }

  onConnected(): void {
    const upstream = this.#upstream;
    if (upstream === undefined) return;
    const bytes = Buffer.concat(this.#queue);
    this.#queue = [];
    this.#queuedBytes = 0;
    upstream.wire.write(bytes, 0, bytes.length);
    upstream.expectResponse(this.#original.method, false);
    if (this.#whole) upstream.requestSent();
  }

  onInterim(_bytes: Buffer, _view: HeadView): void {
    // Nobody asked.
  }

  onResponse(): void {
    // What it says is nobody's.
  }

  onResponseBody(): void {
    // As above.
  }

  onResponseOver(): void {
    this.#responseOver = true;
    if (this.#whole) this.#end('sent');
  }

  onUpstreamDrain(): void {
    this.#upstream?.requestMoved();
  }

  onUpstreamFailed(): void {
    this.#end('failed');
  }

  endStream(): void {
    // It is none.
  }

  replay(): boolean {
    return false;
  }

  /** Ends it: for freezes, and where the rest of the request does not come. */
  cut(): void {
    const upstream = this.#upstream;
    this.#end('failed');
    upstream?.abandon();
  }

  #end(outcome: 'sent' | 'failed'): void {
    if (this.#upstream === undefined) return;
    this.#upstream = undefined;
    this.#queue = [];
    this.#onOver(outcome);
  }
}
