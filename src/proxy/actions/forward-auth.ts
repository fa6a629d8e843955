/**
 * Asks a service about a request before it goes on, as Traefik's ForwardAuth and nginx's auth_request do: a GET with the head of the request and where
 * it was for in `X-Forwarded-…`. A 2xx lets it through, any other answer below 500 is the client's; all else refuses it.
 */
import { Agent, request as httpRequest } from 'node:http';
import type { IncomingMessage, RequestOptions } from 'node:http';
import { Agent as SecureAgent, request as httpsRequest } from 'node:https';
import { connectOptions } from '#proxy/endpoint-security.ts';
import type { EndpointSecurities, EndpointSecurity } from '#proxy/endpoint-security.ts';
import type { ForwardAuth } from '#routing/actions.ts';
import type { Endpoint } from '#routing/route-table.ts';
import type { OwnResponse } from '#proxy/error-response.ts';

/** What is asked about. */
export interface AskedRequest {
  /** The head as it came. */
  readonly head: string;
  /** Lines about who the client is by its certificate; may be empty. */
  readonly identity: string;
  readonly method: string;
  readonly host: string;
  /** Path and query. */
  readonly uri: string;
  readonly proto: 'http' | 'https';
  readonly client: string;
  readonly requestId: string;
}

export type AuthAnswer =
  /** `lines`: fields that go on. */
  | { readonly kind: 'pass'; readonly lines: string }
  | { readonly kind: 'answer'; readonly response: OwnResponse }
  | { readonly kind: 'failed'; readonly reason: string };

/** Connections of a worker to all such services. */
const SOCKETS_MAX = 128;
/** Requests of a worker that wait for an answer: each may hold a head of 32 KiB. */
const ASKED_MAX = 1024;
/** Of an answer that goes to the client: a page that asks for a login. */
const BODY_BYTES_MAX = 64 * 1024;
/** Of what goes on to the endpoint. */
const LINES_LENGTH_MAX = 16 * 1024;
const HEAD_BYTES_MAX = 32 * 1024;

const AGENT_OPTIONS = { keepAlive: true, maxSockets: SOCKETS_MAX, maxTotalSockets: SOCKETS_MAX, timeout: 30_000 } as const;

/** Of the request's own fields: those of a connection, of framing, and what we say of it. */
const NOT_ASKED: ReadonlySet<string> = new Set([
  'client-cert',
  'client-cert-chain',
  'connection',
  'content-length',
  'expect',
  'host',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'forwarded',
  'x-real-ip',
  'x-request-id',
]);
/** Of the answer: what a browser needs to log in. */
const ANSWERED = ['location', 'www-authenticate', 'content-type', 'cache-control', 'set-cookie'] as const;

export class ForwardAuthority implements Disposable {
  readonly #securities: Pick<EndpointSecurities, 'of'>;
  readonly #agent = new Agent(AGENT_OPTIONS);
  /** SECURITY: connections of other TLS settings, or of other material, never mix. What is replaced ends by its time-out. */
  readonly #secureAgents = new WeakMap<EndpointSecurity, SecureAgent>();
  #asked = 0;

  constructor(securities: Pick<EndpointSecurities, 'of'>) {
    this.#securities = securities;
  }

  async ask(auth: ForwardAuth, endpoint: Endpoint, asked: AskedRequest): Promise<AuthAnswer> {
    if (this.#asked >= ASKED_MAX) return { kind: 'failed', reason: 'too many requests wait for an answer' };
    this.#asked += 1;
    try {
      const response = await this.#answerTo(auth, endpoint, asked);
      const status = response.statusCode ?? 0;
      if (status >= 200 && status < 300) {
        response.resume();
        return passed(auth, response);
      }
      if (status >= 300 && status < 500)
        return { kind: 'answer', response: { status, fields: answeredFields(response), body: await bodyOf(response) } };
      response.destroy();
      return { kind: 'failed', reason: `it answered ${String(status)}` };
    } catch (error) {
      return { kind: 'failed', reason: error instanceof Error ? error.message : String(error) };
    } finally {
      this.#asked -= 1;
    }
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }

  async #answerTo({ path, timeoutMs }: ForwardAuth, endpoint: Endpoint, asked: AskedRequest): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const options: RequestOptions = {
      host: endpoint.address,
      port: endpoint.port,
      path,
      method: 'GET',
      maxHeaderSize: HEAD_BYTES_MAX,
      headers: fieldsOf(asked),
      signal: AbortSignal.timeout(timeoutMs),
    };
    const { tls } = endpoint;
    const security = tls === undefined ? undefined : this.#securities.of(tls);
    if (typeof security === 'string') throw new Error(security);
    const request =
      security === undefined
        ? httpRequest({ ...options, agent: this.#agent }, resolve)
        : httpsRequest({ ...options, agent: this.#secureAgentOf(security) }, resolve);
    request.on('error', reject);
    request.end();
    return await promise;
  }

  #secureAgentOf(security: EndpointSecurity): SecureAgent {
    const known = this.#secureAgents.get(security);
    if (known !== undefined) return known;
    const agent = new SecureAgent({ ...AGENT_OPTIONS, ...connectOptions(security) });
    this.#secureAgents.set(security, agent);
    return agent;
  }
}

/** The fields of the request itself, those of several lines joined, and where it was for. */
function fieldsOf({ head, identity, method, host, uri, proto, client, requestId }: AskedRequest): Record<string, string> {
  const fields = new Map<string, string>();
  for (const line of head.split('\r\n').slice(1)) {
    const colon = line.indexOf(':');
    const name = line.slice(0, colon).toLowerCase();
    const plain = name.replaceAll('_', '-');
    if (colon < 1 || NOT_ASKED.has(plain) || plain.startsWith('x-forwarded-') || plain.startsWith('x-ecluse-')) continue;
    const value = line.slice(colon + 1).trim();
    const before = fields.get(name);
    fields.set(name, before === undefined ? value : `${before}${name === 'cookie' ? '; ' : ', '}${value}`);
  }
  for (const line of identity.split('\r\n')) {
    const colon = line.indexOf(': ');
    if (colon > 0) fields.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 2));
  }
  return {
    ...Object.fromEntries(fields),
    'x-forwarded-method': method,
    'x-forwarded-proto': proto,
    'x-forwarded-host': host,
    'x-forwarded-uri': uri,
    'x-forwarded-for': client,
    'x-request-id': requestId,
  };
}

function passed({ pass }: ForwardAuth, { headers }: IncomingMessage): AuthAnswer {
  let lines = '';
  for (const name of pass) {
    const value = headers[name];
    if (value !== undefined) lines += `${name}: ${Array.isArray(value) ? value.join(', ') : value}\r\n`;
  }
  if (lines.length <= LINES_LENGTH_MAX) return { kind: 'pass', lines };
  return { kind: 'failed', reason: `it answered with fields of more than ${String(LINES_LENGTH_MAX)} characters` };
}

function answeredFields({ headers }: IncomingMessage): OwnResponse['fields'] {
  return ANSWERED.flatMap((name) => {
    const value = headers[name];
    if (value === undefined) return [];
    return (Array.isArray(value) ? value : [value]).map((one) => [name, one] as const);
  });
}

/** As Latin-1; empty where it is too long. */
async function bodyOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response) {
    if (!Buffer.isBuffer(chunk)) continue; // Nobody sets an encoding, so every chunk is one.
    length += chunk.length;
    if (length > BODY_BYTES_MAX) {
      response.destroy();
      return '';
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('latin1');
}
