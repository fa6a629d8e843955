/**
 * The agent's end of one Docker Engine: HTTP over its unix socket, at a pinned API version.
 *
 * Why not dockerode: the firewall needs the engine's exact status and message, raw streams with half-close and its own limits
 * (docs/decisions/003-dependencies.md). dockerode is a client in our tests.
 *
 * Answers are `unknown` until a caller parses them. Error answers become EngineError with Docker's own status and message.
 */
import { Agent, request } from 'node:http';
import type { ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import type { Duplex, Readable } from 'node:stream';
import { EcluseError, reasonOf } from '#errors';
import { readWhole } from '#caas/byte-stream.ts';

/** The newest API that Debian 12's engine speaks; every later engine serves it too (moby's default minimum is 1.40). */
export const ENGINE_API_VERSION = '1.41';
/** No answer that is read whole (inspect, lists) is larger: 1 000 containers are about 2 MiB. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
/** An engine that does not begin to answer an ordinary call is hung. Streams and waits have no such limit. */
const CALL_TIMEOUT_MS = 120_000;

/** A list is a key that stands there several times. */
export type Query = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;

export interface EngineCall {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE' | 'HEAD';
  /** Path parts; each is encoded, so that none can climb out of its place. */
  readonly path: readonly string[];
  readonly query?: Query;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** How long the engine may take before it begins to answer, where that is known to be longer than usual. */
  readonly patienceMs?: number;
}

/** Files below an engine's own directories (DATA/hosts/NAME, /var/lib/docker, /run/docker): where they are is the operator's business. */
const ENGINE_PLACES = /\/hosts\/[a-z0-9-]+\/|^(?:var\/lib\/docker|(?:var\/)?run\/docker)\/|\/(?:var\/lib\/docker|run\/docker)\//;

/** Word by word: messages hold what tenants wrote, and one expression for it all takes quadratic time on a long path. */
export function withoutEnginePaths(message: string): string {
  return message.replaceAll(/[^\s:'"]+/g, (word) => {
    const slash = word.indexOf('/');
    return slash !== -1 && ENGINE_PLACES.test(word.slice(slash + 1)) ? `${word.slice(0, slash)}(engine file)` : word;
  });
}

/** An error answer of an engine. `status` and `message` are Docker's, without the engine's paths. */
export class EngineError extends EcluseError {
  constructor(status: number, message: string) {
    super({ code: 'ECLUSE_ENGINE_REFUSED', source: 'upstream', message: withoutEnginePaths(message), status });
    this.name = 'EngineError';
  }
}

/** The request target of a call, with the API version. */
export function pathOf(call: EngineCall): string {
  const path = call.path.map((part) => encodeURIComponent(part)).join('/');
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(call.query ?? {})) {
    if (typeof value === 'object') for (const one of value) query.append(key, one);
    else if (value !== undefined) query.set(key, String(value));
  }
  const text = query.toString();
  return `/v${ENGINE_API_VERSION}/${path}${text === '' ? '' : `?${text}`}`;
}

async function readText(response: IncomingMessage, bytesMax: number): Promise<string> {
  const body = await readWhole(response, bytesMax);
  if (body !== undefined) return body.toString('utf8');
  response.destroy();
  throw new EcluseError({
    code: 'ECLUSE_ENGINE_ANSWER_TOO_LARGE',
    source: 'upstream',
    message: 'the engine sent an answer that is too large',
    status: 502,
  });
}

function parseJson(text: string): unknown {
  try {
    const parsed: unknown = JSON.parse(text);
    return parsed;
  } catch {
    throw new EcluseError({
      code: 'ECLUSE_ENGINE_ANSWER_INVALID',
      source: 'upstream',
      message: 'the engine sent an answer that is no JSON',
      status: 502,
    });
  }
}

async function errorOf(response: IncomingMessage): Promise<EngineError> {
  return engineError(response.statusCode ?? 502, await readText(response, 1024 * 1024));
}

/** The error that an engine's answer tells: JSON with a message, or plain text. */
export function engineError(status: number, text: string): EngineError {
  let message = text.trim();
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === 'object' && parsed !== null && 'message' in parsed && typeof parsed.message === 'string')
      message = parsed.message;
  } catch {
    // Not JSON: the text itself is the message.
  }
  return new EngineError(status, message === '' ? 'the engine gave no reason' : message);
}

interface SentBody {
  readonly body: Readable;
  /** Told of each part that the kernel has taken: its memory may be used for something else. */
  readonly onSent: ((part: Buffer) => void) | undefined;
}

/** More than one, so that the engine never waits for us; each is a large one. */
const PARTS_UNDERWAY_MAX = 3;

function sendParts(body: Readable, outgoing: ClientRequest, onSent: (part: Buffer) => void): void {
  let underway = 0;
  body.on('data', (part: Buffer) => {
    underway += 1;
    if (underway >= PARTS_UNDERWAY_MAX) body.pause();
    outgoing.write(part, (error) => {
      underway -= 1;
      if (error !== undefined && error !== null) return; // The request's own 'error' tells.
      onSent(part);
      body.resume();
    });
  });
  body.once('end', () => outgoing.end());
}

export class EngineClient implements Disposable {
  readonly socketPath: string;
  readonly #agent: Agent;

  constructor(socketPath: string) {
    this.socketPath = socketPath;
    this.#agent = new Agent({ keepAlive: true, maxFreeSockets: 8 });
  }

  #send(
    call: EngineCall,
    options: { readonly timeoutMs: number; readonly agent: Agent | false; readonly headers: Record<string, string> },
  ) {
    const requestOptions: RequestOptions = {
      socketPath: this.socketPath,
      method: call.method,
      path: pathOf(call),
      agent: options.agent,
      headers: { host: 'docker', ...call.headers, ...options.headers },
      timeout: options.timeoutMs,
      ...(call.signal === undefined ? {} : { signal: call.signal }),
    };
    return request(requestOptions);
  }

  /** What a failure to talk to the engine is told as. */
  unreachable(error: unknown): EcluseError {
    if (error instanceof EcluseError) return error; // What we send failed by itself: a damaged archive.
    return new EcluseError({
      code: 'ECLUSE_ENGINE_UNREACHABLE',
      source: 'upstream',
      status: 503,
      message: `the Docker engine at ${this.socketPath} does not answer: ${reasonOf(error)}`,
      mend: 'check that dockerd runs and that the socket is the right one',
      cause: error,
    });
  }

  /** The response of a call, its body unread. A status of 400 or more throws. `timeoutMs` 0: none. */
  async #respond(call: EngineCall, timeoutMs: number, sent?: SentBody): Promise<IncomingMessage> {
    const body = sent?.body;
    const json = body === undefined && call.body !== undefined ? JSON.stringify(call.body) : undefined;
    // An engine that answers before it read a body, and is to close, closes at once: what it said would be lost (net/http, `closeAfterReply`).
    const streamed: Record<string, string> = body === undefined ? {} : { connection: 'keep-alive' };
    const headers: Record<string, string> =
      json === undefined ? streamed : { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(json)) };
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const outgoing = this.#send(call, { timeoutMs, agent: timeoutMs === 0 ? false : this.#agent, headers });
      outgoing.once('response', resolve);
      outgoing.once('timeout', () => outgoing.destroy(new Error(`no answer within ${String(timeoutMs)} ms`)));
      outgoing.once('error', (error) => {
        reject(this.unreachable(error));
      });
      if (body === undefined) {
        outgoing.end(json);
        return;
      }
      body.once('error', (error) => outgoing.destroy(error));
      if (sent?.onSent === undefined) body.pipe(outgoing);
      else sendParts(body, outgoing, sent.onSent);
    });
    if ((response.statusCode ?? 500) >= 400) throw await errorOf(response);
    return response;
  }

  /** A call whose JSON answer is read whole; undefined where there is no body (204, 304). */
  async call(call: EngineCall): Promise<{ readonly status: number; readonly json: unknown }> {
    const response = await this.#respond(call, Math.max(CALL_TIMEOUT_MS, call.patienceMs ?? 0));
    const text = await readText(response, ANSWER_BYTES_MAX);
    return { status: response.statusCode ?? 200, json: text.trim() === '' ? undefined : parseJson(text) };
  }

  /** A call whose answer is a stream; optionally with a body that is streamed too. The caller ends or destroys it. */
  async stream(call: EngineCall, body?: Readable, onSent?: (part: Buffer) => void): Promise<IncomingMessage> {
    return await this.#respond(call, 0, body === undefined ? undefined : { body, onSent });
  }

  /** An attach or exec: the raw connection after `101 UPGRADED`, with half-close. The caller owns the socket. */
  async hijack(call: EngineCall): Promise<Duplex> {
    const json = call.body === undefined ? '' : JSON.stringify(call.body);
    return await new Promise<Duplex>((resolve, reject) => {
      const outgoing = this.#send(call, {
        timeoutMs: CALL_TIMEOUT_MS,
        agent: false,
        headers: {
          connection: 'Upgrade',
          upgrade: 'tcp',
          'content-type': 'application/json',
          'content-length': String(Buffer.byteLength(json)),
        },
      });
      outgoing.once('upgrade', (_response, socket, head) => {
        socket.setTimeout(0);
        if (head.length > 0) socket.unshift(head);
        resolve(socket);
      });
      outgoing.once('response', (response) => {
        errorOf(response).then(reject, reject);
      });
      outgoing.once('timeout', () => outgoing.destroy(new Error('no answer to the upgrade')));
      outgoing.once('error', (error) => {
        reject(this.unreachable(error));
      });
      outgoing.end(json);
    });
  }

  /** True while the engine answers its ping. */
  async isAlive(): Promise<boolean> {
    try {
      const response = await this.#respond({ method: 'GET', path: ['_ping'] }, 3000);
      response.resume();
      return true;
    } catch {
      return false; // Whatever the reason: it does not serve.
    }
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }
}
