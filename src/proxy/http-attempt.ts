/**
 * One attempt to carry one request to one endpoint over HTTP/1.1, on Node's client and server.
 *
 * LIFECYCLE: connecting → waiting (head sent, body streams) → streaming (response head seen) → over. `over` is reached once, by the first of:
 * response finished, failure, time-out, client gone, cut. Both directions stream with backpressure and at most the sockets' own buffers.
 */
import { request as httpRequest } from 'node:http';
import type { ClientRequest, IncomingMessage, InformationEvent, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Attempt, AttemptOutcome } from './carrier.ts';
import { codeOf } from '#errors';
import { Deadline } from './deadline.ts';
import type { ExchangeError } from './error-response.ts';
import { count } from './exchange-record.ts';
import { downstreamResponseHeaders, headerBytes, passedTrailers, upstreamRequestHeaders } from './headers.ts';
import { HEAD_BYTES_MAX, STREAM_IDLE_TIMEOUT_MS, UPSTREAM_CONNECT_TIMEOUT_MS, UPSTREAM_FIRST_BYTE_TIMEOUT_MS } from './limits.ts';

export interface HttpAttemptDeps {
  readonly monotonicMs: () => number;
  readonly upstreamConnected: () => void;
  readonly draining: () => boolean;
}

/** The client's side of an attempt. */
export interface ClientSide {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Takes over both connections when the endpoint agrees to an upgrade; returns when they are closed. Absent: no upgrade was asked for. */
  readonly upgraded?: (upstream: Duplex, response: IncomingMessage, head: Buffer) => Promise<void>;
}

export class HttpAttempt {
  readonly #deps: HttpAttemptDeps;
  readonly #client: ClientSide;
  readonly #attempt: Attempt;
  readonly #upstream: ClientRequest;
  readonly #deadline = new Deadline();
  readonly #outcome = Promise.withResolvers<AttemptOutcome>();
  readonly #startMs: number;
  #connected = false;
  #reused = false;
  #response: IncomingMessage | undefined;
  #headTaken = false;
  #bodyBytesSent = 0;
  #bodyPumped = false;
  #over = false;

  /** Starts at once. Throws where Node refuses the head. */
  constructor(deps: HttpAttemptDeps, client: ClientSide, attempt: Attempt) {
    this.#deps = deps;
    this.#client = client;
    this.#attempt = attempt;
    this.#startMs = deps.monotonicMs();
    this.#upstream = this.#send();
    client.response.on('close', this.#onClientClose);
    this.#deadline.arm(UPSTREAM_CONNECT_TIMEOUT_MS, () => {
      this.#fail('connect-timeout');
    });
  }

  get outcome(): Promise<AttemptOutcome> {
    return this.#outcome.promise;
  }

  /** Ends the attempt now. */
  cut(error: ExchangeError): void {
    this.#fail(error);
  }

  #send(): ClientRequest {
    const { endpoint, agent, record } = this.#attempt;
    const { head } = record;
    const headers = upstreamRequestHeaders(head.rawHeaders, {
      method: head.method,
      framing: head.framing,
      upgrade: head.upgrade,
      facts: {
        clientAddress: head.clientAddress,
        proto: head.proto,
        host: head.authority,
        requestId: record.requestId,
        hostName: endpoint.hostName,
      },
    });
    const to = {
      host: endpoint.address,
      port: endpoint.port,
      method: head.method,
      path: head.target,
      headers,
      maxHeaderSize: HEAD_BYTES_MAX,
    };
    // An upgraded connection is never pooled, and needs to stay half open.
    const upstream =
      head.upgrade === undefined
        ? httpRequest({ ...to, agent })
        : httpRequest({
            ...to,
            createConnection: () => connect({ host: endpoint.address, port: endpoint.port, allowHalfOpen: true, noDelay: true }),
          });
    upstream.maxHeadersCount = 0; // The default drops what exceeds it in silence; bytes are the limit.
    count(record, 'upstreamOutBytes', head.method.length + head.target.length + 12 + headerBytes(headers));
    upstream.on('socket', (socket: Socket) => {
      this.#onSocket(socket);
    });
    upstream.on('information', (info: InformationEvent) => {
      this.#onInformation(info);
    });
    upstream.on('response', (response: IncomingMessage) => {
      this.#onResponse(response);
    });
    upstream.on('error', (error) => {
      this.#onUpstreamError(error);
    });
    upstream.on('close', () => {
      if (this.#response === undefined) this.#fail('upstream-reset');
    });
    upstream.on('upgrade', (response: IncomingMessage, socket: Duplex, first: Buffer) => {
      this.#onUpgrade(response, socket, first);
    });
    return upstream;
  }

  #onSocket(socket: Socket): void {
    if (this.#over) return;
    if (socket.connecting) {
      socket.once('connect', () => {
        this.#deps.upstreamConnected();
        this.#attempt.record.connectMs = this.#deps.monotonicMs() - this.#startMs;
        this.#onConnected();
      });
    } else {
      this.#reused = true;
      this.#attempt.record.connectMs = 0;
      this.#onConnected();
    }
  }

  /** The body is touched only from here on: until a connection stands, the request can go elsewhere. */
  #onConnected(): void {
    if (this.#over) return;
    this.#connected = true;
    this.#deadline.arm(UPSTREAM_FIRST_BYTE_TIMEOUT_MS, () => {
      this.#fail(this.#bodyPumped && !this.#client.request.complete ? 'request-timeout' : 'first-byte-timeout');
    });
    const { framing } = this.#attempt.record.head;
    if (framing.kind === 'none' || (framing.kind === 'fixed' && framing.bytes === 0)) {
      this.#upstream.end();
      return;
    }
    this.#bodyPumped = true;
    const { request } = this.#client;
    this.#upstream.flushHeaders();
    this.#upstream.on('drain', this.#onUpstreamDrain);
    request.on('data', this.#onRequestBody);
    request.on('end', this.#onRequestEnd);
  }

  readonly #onRequestBody = (chunk: Buffer): void => {
    this.#bodyBytesSent += chunk.length;
    count(this.#attempt.record, 'downstreamInBytes', chunk.length);
    count(this.#attempt.record, 'upstreamOutBytes', chunk.length);
    this.#deadline.progress();
    if (!this.#upstream.write(chunk)) this.#client.request.pause();
  };

  readonly #onUpstreamDrain = (): void => {
    this.#deadline.progress();
    this.#client.request.resume();
  };

  readonly #onRequestEnd = (): void => {
    this.#bodyBytesSent += 1; // An empty chunked body is sent as well: its end cannot be read twice.
    if (this.#attempt.record.head.framing.kind === 'chunked')
      this.#upstream.addTrailers(passedTrailers(this.#client.request.rawTrailers));
    this.#upstream.end();
    this.#deadline.progress();
  };

  #onInformation(info: InformationEvent): void {
    const { response } = this.#client;
    const { head } = this.#attempt.record;
    this.#deadline.progress();
    if (this.#over || response.headersSent || head.httpVersion !== '1.1' || info.statusCode === 101 || head.upgrade !== undefined)
      return;
    const headers = downstreamResponseHeaders(info.rawHeaders, { status: info.statusCode, trailers: false });
    count(this.#attempt.record, 'upstreamInBytes', headerBytes(info.rawHeaders));
    count(this.#attempt.record, 'downstreamOutBytes', headerBytes(headers));
    try {
      if (info.statusCode === 100) response.writeContinue();
      else response.writeInformation(info.statusCode, headers);
    } catch {
      this.#fail('upstream-invalid'); // Node refuses characters that a head cannot have.
    }
  }

  #onResponse(response: IncomingMessage): void {
    this.#response = response;
    if (this.#over) {
      response.resume();
      return;
    }
    const { record } = this.#attempt;
    const out = this.#client.response;
    const status = response.statusCode ?? 502;
    const bodyless = record.head.method === 'HEAD' || status === 204 || status === 304;
    const trailers = !bodyless && record.head.httpVersion === '1.1' && response.headers['content-length'] === undefined;
    const headers = downstreamResponseHeaders(response.rawHeaders, { status, trailers });
    record.firstByteMs = this.#deps.monotonicMs() - this.#startMs;
    count(record, 'upstreamInBytes', 13 + (response.statusMessage?.length ?? 0) + headerBytes(response.rawHeaders));
    if (this.#deps.draining()) out.shouldKeepAlive = false;
    try {
      out.writeHead(status, response.statusMessage, headers);
    } catch {
      this.#fail('upstream-invalid');
      return;
    }
    this.#headTaken = true;
    record.status = status;
    count(record, 'downstreamOutBytes', 13 + (response.statusMessage?.length ?? 0) + headerBytes(headers));
    this.#streamResponse(response, trailers);
  }

  #streamResponse(response: IncomingMessage, trailers: boolean): void {
    const { record } = this.#attempt;
    const out = this.#client.response;
    this.#deadline.arm(STREAM_IDLE_TIMEOUT_MS, () => {
      this.#fail('stream-idle');
    });
    response.on('data', (chunk: Buffer) => {
      count(record, 'upstreamInBytes', chunk.length);
      count(record, 'downstreamOutBytes', chunk.length);
      this.#deadline.progress();
      if (!out.write(chunk)) response.pause();
    });
    out.on('drain', () => {
      this.#deadline.progress();
      response.resume();
    });
    response.on('end', () => {
      if (!response.complete) return; // Cut short: `close` follows.
      if (trailers) out.addTrailers(passedTrailers(response.rawTrailers));
      out.end();
    });
    response.on('error', () => {
      this.#fail('upstream-truncated');
    });
    response.on('close', () => {
      if (!response.complete) this.#fail('upstream-truncated');
    });
    out.on('finish', () => {
      this.#settle({ kind: 'done' });
    });
    // A head whose body comes later (a long poll, server-sent events) must not wait for it; one whose body is here goes with it.
    setImmediate(() => {
      if (!this.#over && !out.writableEnded) out.flushHeaders();
    });
  }

  #onUpgrade(response: IncomingMessage, socket: Duplex, first: Buffer): void {
    this.#response = response;
    const { upgraded } = this.#client;
    if (this.#over || upgraded === undefined) {
      socket.destroy();
      this.#fail('upstream-invalid');
      return;
    }
    const { record } = this.#attempt;
    record.status = 101;
    record.firstByteMs = this.#deps.monotonicMs() - this.#startMs;
    count(record, 'upstreamInBytes', headerBytes(response.rawHeaders));
    this.#headTaken = true;
    this.#deadline.disarm();
    void this.#upgraded(async () => {
      await upgraded(socket, response, first);
    });
  }

  async #upgraded(spliced: () => Promise<void>): Promise<void> {
    await spliced();
    this.#settle({ kind: 'done' });
  }

  #onUpstreamError(error: Error): void {
    if (this.#response !== undefined && this.#headTaken) return; // The response's own end says how it went.
    const invalid = codeOf(error)?.startsWith('HPE_') === true;
    if (invalid) this.#fail('upstream-invalid');
    else this.#fail(this.#connected ? 'upstream-reset' : 'connect-failed');
  }

  readonly #onClientClose = (): void => {
    if (!this.#client.response.writableFinished) this.#fail('client-aborted');
  };

  #fail(error: ExchangeError): void {
    if (this.#over) return;
    if (error === 'client-aborted') {
      this.#settle({ kind: 'broken', error });
      return;
    }
    if (this.#headTaken) {
      this.#settle({ kind: 'broken', error });
      this.#breakClient();
      return;
    }
    this.#settle({
      kind: 'failed',
      error,
      connected: this.#connected,
      reusedConnection: this.#reused,
      responseBytes: this.#response !== undefined,
      bodyBytesSent: this.#bodyBytesSent,
    });
  }

  /** The client must not take a part for the whole: without framing only a reset tells. */
  #breakClient(): void {
    const { response, request } = this.#client;
    const framed = response.hasHeader('content-length') || request.httpVersion === '1.1';
    if (framed) request.socket.destroy();
    else request.socket.resetAndDestroy();
  }

  #settle(outcome: AttemptOutcome): void {
    if (this.#over) return;
    this.#over = true;
    this.#deadline.disarm();
    const { request, response } = this.#client;
    response.off('close', this.#onClientClose);
    request.off('data', this.#onRequestBody);
    request.off('end', this.#onRequestEnd);
    this.#upstream.off('drain', this.#onUpstreamDrain);
    // A finished exchange leaves its connection to the pool; everything else closes it.
    const clean = outcome.kind === 'done' && this.#response?.complete === true && this.#upstream.writableFinished;
    if (!clean) this.#upstream.destroy();
    this.#outcome.resolve(outcome);
  }
}
