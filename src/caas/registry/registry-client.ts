/**
 * HTTP to a registry for one operation of one tenant: with the tenant's credentials, to addresses that were checked when they were connected to, and
 * with every hop of a redirect checked again. The protocol is the OCI distribution specification with Docker's token authentication.
 *
 * Credentials go to the registry's own origin and to the token server that it names, never behind a redirect.
 */
import { Agent as HttpAgent, request as httpRequest } from 'node:http';
import type { IncomingMessage, OutgoingHttpHeaders, RequestOptions } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { lookup } from 'node:dns';
import type { LookupFunction } from 'node:net';
import type { Readable } from 'node:stream';
import { getCACertificates, rootCertificates } from 'node:tls';
import * as z from 'zod';
import { EcluseError, codeOf, reasonOf } from '#errors';
import { tryJson } from '#json';
import { readWhole } from '#caas/byte-stream.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import type { RegistryAuth } from './registry-auth.ts';
import { hopTo, isForeignAddress } from './registry-access.ts';
import type { RegistryPlace, RegistryPolicy } from './registry-access.ts';

/** From the call to the head of the answer. */
const ANSWER_LIMIT_MS = 60_000;
/** A connection on which nothing moves any more. */
const IDLE_LIMIT_MS = 60_000;
const REDIRECTS_MAX = 5;
/** Of one pull or push to one host: an engine moves five blobs at a time. */
const CONNECTIONS = { keepAlive: true, maxSockets: 8 };
/** Error bodies and tokens; manifests have their own limit. */
const SMALL_BODY_BYTES_MAX = 1024 * 1024;
/** Of a challenge, which a tenant's own registry may write: reading it takes quadratic time. */
const CHALLENGE_CHARS_MAX = 2048;
const CLIENT_ID = 'ecluse';

export interface RegistryCall {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Of the registry (`/v2/…`), or whole, where it gave one (the place of an upload). */
  readonly target: string | URL;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: Readable | Buffer;
  /** What Docker would have asked by, where that is something else: its users read it in errors. */
  readonly toldAs?: 'HEAD';
}

export interface RegistryFault {
  readonly code: string;
  readonly message: string;
  /** Engines tell the message only of faults that have one. */
  readonly detail?: unknown;
}

/** A registry that could not be asked, or had a fault of its own: another attempt may do. */
export class RegistryUnavailable extends EcluseError {
  constructor(message: string) {
    super({ code: 'ECLUSE_DOCKER_REFUSED', source: 'upstream', status: 500, message });
    this.name = 'RegistryUnavailable';
  }
}

/** An answer of a registry that is no success. */
export class RegistryError extends EcluseError {
  readonly faults: readonly RegistryFault[];

  constructor(status: number, faults: readonly RegistryFault[]) {
    const words = faults.map(({ code, message }) => `${code.toLowerCase().replaceAll('_', ' ')}: ${message}`);
    const message = words.length === 1 ? (words[0] ?? '') : ['errors:', ...words, ''].join('\n');
    super({ code: 'ECLUSE_DOCKER_REFUSED', source: 'upstream', status, message });
    this.name = 'RegistryError';
    this.faults = faults;
  }
}

const faultsSchema = z.object({
  errors: z
    .array(
      z.object({
        code: z.string().max(100).default('UNKNOWN'),
        message: z.string().max(2000).default(''),
        detail: z.unknown().optional(),
      }),
    )
    .min(1),
});
const tokenSchema = z.object({ token: z.string().optional(), access_token: z.string().optional() });

interface Challenge {
  readonly scheme: 'basic' | 'bearer';
  readonly params: ReadonlyMap<string, string>;
}

/** `Bearer realm="…",service="…"`. Of several, the first that is known. */
export function parseChallenge(given: string | undefined): Challenge | undefined {
  const header = given?.slice(0, CHALLENGE_CHARS_MAX);
  const found = /(?:^|,\s*)(basic|bearer)\s+/i.exec(header ?? '');
  if (header === undefined || found === null) return undefined;
  const params = new Map<string, string>();
  for (const [, key = '', quoted, plain] of header
    .slice(found.index + found[0].length)
    .matchAll(/([a-z_]+)=(?:"([^"]*)"|([^\s",]+))/gi)) {
    if (!params.has(key.toLowerCase())) params.set(key.toLowerCase(), quoted ?? plain ?? '');
  }
  return { scheme: found[1]?.toLowerCase() === 'basic' ? 'basic' : 'bearer', params };
}

export interface RegistryTarget {
  readonly place: RegistryPlace;
  readonly auth: RegistryAuth | undefined;
  /** `repository:library/busybox:pull`; undefined: for a log-in. */
  readonly scope: string | undefined;
  readonly signal: AbortSignal;
}

/** Go's words for what went wrong with a connection, as Docker's users know them. */
function connectFault(url: URL, error: unknown): string {
  const place = `${url.hostname}:${url.port === '' ? (url.protocol === 'http:' ? '80' : '443') : url.port}`;
  switch (codeOf(error)) {
    case 'ECONNREFUSED':
      return `dial tcp ${place}: connect: connection refused`;
    case 'EHOSTUNREACH':
      return `dial tcp ${place}: connect: no route to host`;
    case 'ENETUNREACH':
      return `dial tcp ${place}: connect: network is unreachable`;
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
    case 'ENODATA':
      return `dial tcp: lookup ${url.hostname}: no such host, or none that this node may reach`;
    case undefined:
    default:
      return reasonOf(error).slice(0, 300);
  }
}

/** How Go names a request in errors. */
function goUrl({ method, toldAs }: Pick<RegistryCall, 'method' | 'toldAs'>, url: URL): string {
  const told = toldAs ?? method;
  return `${told.slice(0, 1)}${told.slice(1).toLowerCase()} "${url.origin}${url.pathname}"`;
}

/** Resolves a name to the addresses that may be connected to; the connection uses just these, so that a second answer of a name server cannot differ. */
function checkedLookup(isNamed: boolean): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { all: true, verbatim: true }, (error, all) => {
      if (error !== null) {
        callback(error, '', 0);
        return;
      }
      const allowed = isNamed ? all : all.filter(({ address }) => isForeignAddress(address));
      const [first] = allowed;
      // A name that exists in private only is answered as one that does not: nobody explores the operator's names from here.
      if (first === undefined) callback(Object.assign(new Error('no public address'), { code: 'ENOTFOUND' }), '', 0);
      else if (options.all === true) callback(null, allowed);
      else callback(null, first.address, first.family);
    });
  };
}

/** Roots of Node and of the machine, which is where operators put theirs. */
let trustedRoots: string[] | undefined;
function roots(): string[] {
  trustedRoots ??= [...new Set([...rootCertificates, ...getCACertificates('system')])];
  return trustedRoots;
}

export class RegistryClient implements Disposable {
  readonly #policy: RegistryPolicy;
  readonly #target: RegistryTarget;
  readonly #agents = { http: new HttpAgent(CONNECTIONS), https: new HttpsAgent(CONNECTIONS) };
  #origin: Promise<URL> | undefined;
  #challenge: Challenge | undefined;
  #token: Promise<string> | undefined;

  constructor(policy: RegistryPolicy, target: RegistryTarget) {
    this.#policy = policy;
    this.#target = target;
  }

  /** One exchange, without redirects and authorization. Rejects with words that name the URL. */
  async #send(call: Omit<RegistryCall, 'target'>, url: URL): Promise<IncomingMessage> {
    const place = hopTo(this.#policy, url);
    const isTls = url.protocol === 'https:';
    const options: RequestOptions = {
      method: call.method,
      headers: { 'user-agent': CLIENT_ID, ...call.headers },
      agent: isTls ? this.#agents.https : this.#agents.http,
      lookup: checkedLookup(place.isNamed),
      timeout: IDLE_LIMIT_MS,
      signal: this.#target.signal,
    };
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const outgoing = isTls
      ? httpsRequest(url, { ...options, ca: roots(), rejectUnauthorized: !place.isInsecure })
      : httpRequest(url, options);
    const timer = setTimeout(() => outgoing.destroy(new Error('the registry does not answer')), ANSWER_LIMIT_MS);
    outgoing.once('response', resolve);
    outgoing.on('timeout', () => outgoing.destroy(new Error('the registry does not answer')));
    outgoing.on('error', reject);
    if (call.body === undefined || Buffer.isBuffer(call.body)) outgoing.end(call.body);
    else {
      const { body } = call;
      // An upload may take longer than an answer.
      clearTimeout(timer);
      body.once('error', (error) => outgoing.destroy(error));
      body.pipe(outgoing);
    }
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The registry's scheme and address, asked once. The answer of `/v2/` says too how it wants to be authorized. */
  async #open(): Promise<URL> {
    const { host, port, isInsecure } = this.#target.place;
    const secure = new URL(`https://${host}:${String(port)}/`);
    const plain = new URL(`http://${host}:${String(port)}/`);
    let failure: unknown;
    for (const origin of isInsecure ? [secure, plain] : [secure]) {
      try {
        const answer = await this.#send({ method: 'GET' }, new URL('/v2/', origin));
        this.#challenge = parseChallenge(answer.headers['www-authenticate']);
        answer.resume();
        return origin;
      } catch (error) {
        failure = error;
      }
    }
    if (failure instanceof EcluseError) throw failure;
    const tried = isInsecure ? plain : secure;
    throw new RegistryUnavailable(`Get "${new URL('/v2/', tried).href}": ${connectFault(tried, failure)}`);
  }

  async origin(): Promise<URL> {
    this.#origin ??= this.#open();
    return await this.#origin;
  }

  async #fetchToken(params: ReadonlyMap<string, string>): Promise<string> {
    const realm = URL.parse(params.get('realm') ?? '');
    if (realm === null) throw dockerError(500, 'unable to retrieve auth token: invalid authorization server');
    const { auth, scope } = this.#target;
    const fields = new URLSearchParams();
    const service = params.get('service');
    if (service !== undefined) fields.set('service', service);
    if (scope !== undefined) fields.set('scope', scope);
    let answer: IncomingMessage;
    if (auth !== undefined && auth.identityToken !== '') {
      fields.set('grant_type', 'refresh_token');
      fields.set('refresh_token', auth.identityToken);
      fields.set('client_id', CLIENT_ID);
      const headers = { 'content-type': 'application/x-www-form-urlencoded' };
      answer = await this.#hop({ method: 'POST', headers, body: Buffer.from(fields.toString()) }, realm);
    } else {
      const hasPassword = auth !== undefined && auth.username !== '';
      if (hasPassword) fields.set('account', auth.username);
      for (const [key, value] of fields) realm.searchParams.set(key, value);
      answer = await this.#hop({ method: 'GET', headers: hasPassword ? { authorization: basicOf(auth) } : {} }, realm);
    }
    await throwUnlessGood(answer);
    const parsed = tokenSchema.safeParse(await jsonOf(answer));
    const token = parsed.success ? (parsed.data.token ?? parsed.data.access_token) : undefined;
    if (token === undefined) throw dockerError(500, 'authorization server did not include a token in the response');
    return token;
  }

  async #authorization(): Promise<OutgoingHttpHeaders> {
    const { auth } = this.#target;
    if (auth !== undefined && auth.registryToken !== '') return { authorization: `Bearer ${auth.registryToken}` };
    const challenge = this.#challenge;
    if (challenge === undefined) return {};
    if (challenge.scheme === 'basic') {
      if (auth === undefined || auth.username === '') throw dockerError(500, 'no basic auth credentials');
      return { authorization: basicOf(auth) };
    }
    this.#token ??= this.#fetchToken(challenge.params);
    return { authorization: `Bearer ${await this.#token}` };
  }

  async #authorizationFor(call: RegistryCall, url: URL): Promise<OutgoingHttpHeaders> {
    if (this.#challenge?.scheme !== 'basic' || (this.#target.auth?.username ?? '') !== '') return await this.#authorization();
    const isRead = call.method === 'GET' || call.method === 'HEAD';
    throw dockerError(500, `${isRead ? `${goUrl(call, url)}: ` : ''}no basic auth credentials`);
  }

  /** An exchange whose faults of the connection are told in Docker's words. */
  async #hop(call: Omit<RegistryCall, 'target'>, url: URL): Promise<IncomingMessage> {
    try {
      return await this.#send(call, url);
    } catch (error) {
      if (error instanceof EcluseError) throw error;
      throw new RegistryUnavailable(`${goUrl(call, url)}: ${connectFault(url, error)}`);
    }
  }

  /** A call with authorization, redirects followed where it has no body. The answer may be a refusal; `throwUnlessGood` makes an error of it. */
  async call(call: RegistryCall): Promise<IncomingMessage> {
    const origin = await this.origin();
    let url = new URL(call.target, origin);
    for (let hop = 0; ; hop += 1) {
      const isOwn = url.origin === origin.origin;
      const headers = { ...call.headers, ...(isOwn ? await this.#authorizationFor(call, url) : {}) };
      const answer = await this.#hop({ ...call, headers }, url);
      const location = [301, 302, 303, 307, 308].includes(answer.statusCode ?? 0) ? answer.headers.location : undefined;
      if (location === undefined || (call.method !== 'GET' && call.method !== 'HEAD'))
        return await this.#orAgain(call, url, answer);
      answer.resume();
      const next = URL.parse(location, url);
      if (next === null || hop >= REDIRECTS_MAX) throw dockerError(502, 'ecluse: the registry redirects to nowhere');
      url = next;
    }
  }

  /** Tokens of long pulls expire: once more with a new one, where nothing was sent that cannot be sent again. */
  async #orAgain(call: RegistryCall, url: URL, answer: IncomingMessage): Promise<IncomingMessage> {
    const origin = await this.origin();
    const challenge =
      answer.statusCode === 401 && url.origin === origin.origin ? parseChallenge(answer.headers['www-authenticate']) : undefined;
    if (challenge?.scheme !== 'bearer' || (call.body !== undefined && !Buffer.isBuffer(call.body))) return answer;
    answer.resume();
    this.#challenge = challenge;
    this.#token = undefined;
    return await this.#hop({ ...call, headers: { ...call.headers, ...(await this.#authorization()) } }, url);
  }

  /** A page of the registry's first protocol, which has nothing but the search left. As in Docker, an insecure registry is pinged before. */
  async visit(path: string): Promise<IncomingMessage> {
    const { host, port, isInsecure } = this.#target.place;
    const secure = new URL(`https://${host}:${String(port)}/`);
    const origin = isInsecure ? await this.#pinged(secure, new URL(`http://${host}:${String(port)}/`)) : secure;
    return await this.#hop({ method: 'GET' }, new URL(path, origin));
  }

  /** Which of the two answers. */
  async #pinged(secure: URL, plain: URL): Promise<URL> {
    const faults: string[] = [];
    for (const origin of [secure, plain]) {
      try {
        (await this.#hop({ method: 'GET' }, new URL('/v1/_ping', origin))).resume();
        return origin;
      } catch (error) {
        if (!(error instanceof RegistryUnavailable)) throw error;
        faults.push(error.message);
      }
    }
    const [first = '', second = ''] = faults;
    throw new RegistryUnavailable(
      `invalid registry endpoint "${new URL('/v1/', plain).href}". HTTPS attempt: ${first}. HTTP attempt: ${second}`,
    );
  }

  /** `docker login`: whether the registry takes the credentials. */
  async logIn(): Promise<void> {
    const origin = await this.origin();
    const url = new URL('/v2/', origin);
    const answer = await this.#hop({ method: 'GET', headers: await this.#authorization() }, url);
    answer.resume();
    const status = answer.statusCode ?? 0;
    if (status === 200) return;
    throw dockerError(500, `login attempt to ${url.href} failed with status: ${String(status)} ${answer.statusMessage ?? ''}`);
  }

  [Symbol.dispose](): void {
    this.#agents.http.destroy();
    this.#agents.https.destroy();
  }
}

function basicOf({ username, password }: RegistryAuth): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

async function jsonOf(answer: IncomingMessage): Promise<unknown> {
  return tryJson((await readWhole(answer, SMALL_BODY_BYTES_MAX))?.toString('utf8') ?? '');
}

/** Words for a body that ended too early; errors of our own stay. */
export function brokenBody(error: unknown): unknown {
  if (error instanceof EcluseError) return error;
  return new RegistryUnavailable(`the registry ended its answer too early: ${reasonOf(error).slice(0, 200)}`);
}

/** Makes an error of an answer of 400 or more, in the words of the registry where it has some. */
export async function throwUnlessGood(answer: IncomingMessage): Promise<void> {
  const status = answer.statusCode ?? 0;
  if (status >= 200 && status < 300) return; // Redirects were followed where they may be.
  const parsed = faultsSchema.safeParse(await jsonOf(answer));
  answer.destroy();
  if (parsed.success && status < 500) throw new RegistryError(status, parsed.data.errors);
  if (status === 401) throw new RegistryError(401, [{ code: 'UNAUTHORIZED', message: 'incorrect username or password' }]);
  const message = `received unexpected HTTP status: ${String(status)} ${answer.statusMessage ?? ''}`;
  // What was asked by HEAD has no body to say more.
  if (status >= 400 && status < 500) throw new RegistryError(status, [{ code: 'UNKNOWN', message }]);
  throw new RegistryUnavailable(message);
}
