/** Carries requests of HTTP/1.1 clients, upgrades included. */
import type { IncomingMessage } from 'node:http';
import { ServerResponse } from 'node:http';
import type { Attempt, AttemptOutcome, Carrier } from './carrier.ts';
import type { ExchangeError, LocalAnswer } from './error-response.ts';
import { HttpAttempt } from './http-attempt.ts';
import type { ClientSide, HttpAttemptDeps } from './http-attempt.ts';
import { LINGER_MS } from './limits.ts';
import { readHead } from './request-head.ts';
import type { RequestHead } from './request-head.ts';
import { Upgrade } from './upgrade.ts';

/** A carrier for a request with its response. */
export function httpCarrier(deps: HttpAttemptDeps, request: IncomingMessage, response: ServerResponse): Carrier {
  return new HttpCarrier(deps, { request, response, upgrade: undefined });
}

/** A carrier for a request that Node has taken out of HTTP, because it asks for an upgrade. */
export function upgradeCarrier(deps: HttpAttemptDeps, request: IncomingMessage, first: Buffer): Carrier {
  const { socket } = request;
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  return new HttpCarrier(deps, { request, response, upgrade: new Upgrade({ socket, response, first }) });
}

interface Parts {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly upgrade: Upgrade | undefined;
}

class HttpCarrier implements Carrier {
  readonly head: RequestHead;
  readonly #deps: HttpAttemptDeps;
  readonly #parts: Parts;
  #attempt: HttpAttempt | undefined;

  constructor(deps: HttpAttemptDeps, parts: Parts) {
    this.#deps = deps;
    this.#parts = parts;
    const head = readHead(parts.request);
    this.head = parts.upgrade === undefined ? { ...head, upgrade: undefined } : head;
  }

  onGone(listener: () => void): void {
    const { response } = this.#parts;
    if (response.destroyed || response.closed) listener();
    else response.once('close', listener);
  }

  async answer(answer: LocalAnswer): Promise<void> {
    const { request, response } = this.#parts;
    if (response.closed || response.headersSent) return;
    const bodyless = this.head.framing.kind === 'none';
    if (!bodyless || this.#deps.draining() || this.head.refusal !== undefined) response.shouldKeepAlive = false;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    response.once('finish', () => {
      resolve(undefined);
    });
    response.once('close', () => {
      resolve(undefined);
    });
    response.writeHead(answer.status, [...answer.headers]);
    response.end(this.head.method === 'HEAD' ? undefined : answer.text);
    await promise;
    if (!request.complete) linger(request);
    this.#parts.upgrade?.end();
  }

  async carry(attempt: Attempt): Promise<AttemptOutcome> {
    const { request, response, upgrade } = this.#parts;
    const client: ClientSide =
      upgrade === undefined
        ? { request, response }
        : {
            request,
            response,
            upgraded: async (upstream, answer, first) => {
              await upgrade.splice({ upstream, answer, first, record: attempt.record });
            },
          };
    let started: HttpAttempt;
    try {
      started = new HttpAttempt(this.#deps, client, attempt);
    } catch {
      // Node's client refuses a head that its server took: characters that a target cannot have.
      return {
        kind: 'failed',
        error: 'bad-request',
        connected: false,
        reusedConnection: false,
        responseBytes: false,
        bodyBytesSent: 0,
      };
    }
    this.#attempt = started;
    const outcome = await started.outcome;
    this.#attempt = undefined;
    if (outcome.kind === 'done' && !request.complete) linger(request);
    if (outcome.kind === 'done') upgrade?.end();
    return outcome;
  }

  cut(error: ExchangeError): void {
    if (this.#attempt === undefined) this.#parts.request.socket.destroy();
    else this.#attempt.cut(error);
  }
}

/** Reads the rest of a body away for a while, because closing on unread bytes resets the connection and with it our response. */
function linger(request: IncomingMessage): void {
  const timer = setTimeout(() => {
    request.socket.destroy();
  }, LINGER_MS);
  request.once('end', () => {
    clearTimeout(timer);
  });
  request.once('close', () => {
    clearTimeout(timer);
  });
  request.resume();
}
