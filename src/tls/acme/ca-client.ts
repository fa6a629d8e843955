/**
 * A CA and our account there. `acme-client` makes and signs the requests and answers a refused nonce; what is sent goes by our transport, and what comes
 * back is checked here.
 *
 * Its own HTTP, axios with a retry of everything that failed, sends a signed request again with the nonce that it has used (publishlab/node-acme-client
 * issue 103), loses Retry-After and the type of a problem, has no limit on what comes back, and no roots of its own for each CA. So nothing of it is used
 * (docs/decisions/026-acme.md).
 *
 * INVARIANT: a nonce is signed once. It is taken from what is kept or asked for anew, and what a CA sends with a refusal of a nonce goes to the request
 * that was refused, and to no other.
 */
import type { IncomingHttpHeaders } from 'node:http';
import type { Clock } from '#clock';
import { acmeFailure, quotedText } from './acme-failure.ts';
import { ACCOUNT, DIRECTORY, RENEWAL_INFO, readMessage, readProblem } from './acme-messages.ts';
import type { Directory, MessageKind, Problem, RenewalInfo } from './acme-messages.ts';
import type { FailureKind } from './back-off.ts';
import type { CaTransport } from './ca-transport.ts';
import { retryAfterMsOf } from './retry-after.ts';

export interface CaSettings {
  /** The URL of its directory, which is its name everywhere. */
  readonly directory: string;
  readonly email: string | undefined;
  /** External account binding (RFC 8555 §7.3.4). */
  readonly eab: { readonly keyId: string; readonly hmacKey: string } | undefined;
}

export interface CaClientDeps {
  readonly clock: Clock;
  readonly send: CaTransport;
}

/** What the CA said to a signed request that it took. */
export interface Taken<T> {
  readonly value: T;
  /** Of what was made; empty: it names none. */
  readonly location: string;
  readonly retryAfterMs: number | undefined;
}

/** What of `acme-client` is used. Its types do not have it; the version is pinned, and `openCaClient` looks whether it is there. */
interface SignedHttp {
  maxBadNonceRetries: number;
  request: (url: string, method: string, options?: { readonly data?: unknown }) => Promise<SignedAnswer>;
  getNonce: () => Promise<string>;
  getJwk: () => object;
  signedRequest: (url: string, payload: object | null, options: SignOptions) => Promise<SignedAnswer>;
}

interface SignOptions {
  readonly kid?: string;
  readonly includeExternalAccountBinding?: boolean;
}

interface SignedAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** JSON where it is some, else text. */
  readonly data: unknown;
}

/** One in two refused, as test servers do, and one request in two million is lost: with 12 one of 400 certificates waited a minute for its next turn. */
const BAD_NONCE_RETRIES_MAX = 20;
/** They are good for some minutes; a CA hands out one with each answer. */
const NONCES_KEPT_MAX = 16;
const DIRECTORY_KEPT_MS = 3_600_000;
const BAD_NONCE = 'urn:ietf:params:acme:error:badNonce';
const PROBLEM_PREFIX = 'urn:ietf:params:acme:error:';

/** Problems of RFC 8555 §6.7 that say more than the status does. */
const KINDS: Readonly<Record<string, FailureKind>> = {
  rateLimited: 'rate-limit',
  serverInternal: 'ca',
  badNonce: 'ca',
  /** A CA that has lost it takes it again. */
  accountDoesNotExist: 'ca',
  caa: 'refused',
  rejectedIdentifier: 'refused',
  unsupportedIdentifier: 'refused',
  userActionRequired: 'refused',
  externalAccountRequired: 'refused',
  unauthorized: 'refused',
  invalidProfile: 'refused',
};

export class CaClient {
  readonly ca: string;
  readonly #deps: CaClientDeps;
  readonly #settings: CaSettings;
  readonly #http: SignedHttp;
  readonly #nonces: string[] = [];
  #directory: { readonly value: Directory; readonly readMs: number } | undefined;

  private constructor(deps: CaClientDeps, settings: CaSettings, http: SignedHttp) {
    this.ca = settings.directory;
    this.#deps = deps;
    this.#settings = settings;
    this.#http = http;
    http.maxBadNonceRetries = BAD_NONCE_RETRIES_MAX;
    http.request = async (url, method, options) => await this.#sendSigned(url, method, options?.data);
    http.getNonce = async () => this.#nonces.pop() ?? (await this.#newNonce());
  }

  /** Loads `acme-client`: 40 MB and a third of a second, which nodes without ACME do not spend. `accountKeyPem` signs everything. */
  static async open(deps: CaClientDeps, settings: CaSettings, accountKeyPem: string): Promise<CaClient> {
    const { Client } = await import('acme-client');
    const { eab, directory } = settings;
    const client: object = new Client({
      directoryUrl: directory,
      accountKey: accountKeyPem,
      ...(eab === undefined ? {} : { externalAccountBinding: { kid: eab.keyId, hmacKey: eab.hmacKey } }),
    });
    const http: unknown = 'http' in client ? client.http : undefined;
    if (!isSignedHttp(http)) throw new Error('this version of acme-client has no signed requests where they are looked for');
    return new CaClient(deps, settings, http);
  }

  /** As it was within the last hour. */
  async directory(): Promise<Directory> {
    const nowMs = this.#deps.clock.nowMs();
    if (this.#directory !== undefined && nowMs - this.#directory.readMs < DIRECTORY_KEPT_MS) return this.#directory.value;
    const value = readMessage(DIRECTORY, await this.#get(this.ca), this.ca);
    const links = [
      value.newNonce,
      value.newAccount,
      value.newOrder,
      ...(value.renewalInfo === undefined ? [] : [value.renewalInfo]),
    ];
    for (const url of links) this.#checkOrigin(url);
    this.#directory = { value, readMs: nowMs };
    return value;
  }

  /** Makes the account that belongs to the key, or finds it. Returns its URL. */
  async openAccount(): Promise<string> {
    const { newAccount, meta } = await this.directory();
    const { email, eab } = this.#settings;
    if (meta.externalAccountRequired === true && eab === undefined)
      throw acmeFailure('refused', `${this.ca} makes no account without an external account binding`, {
        mend: 'get a key id and an HMAC key from the CA, and set eab in acme',
      });
    const payload = { termsOfServiceAgreed: true, ...(email === undefined ? {} : { contact: [`mailto:${email}`] }) };
    const answer = await this.#signed(newAccount, payload, { includeExternalAccountBinding: eab !== undefined });
    const { status } = readMessage(ACCOUNT, answer.data, this.ca);
    if (status !== 'valid')
      throw acmeFailure('refused', `our account at ${this.ca} is ${quotedText(status)}`, { mend: 'ask the CA why' });
    const url = locationOf(answer);
    this.#checkOrigin(url);
    return url;
  }

  /** A signed request of the account. `payload` null: it asks only. */
  async post<T>(
    kind: MessageKind<T>,
    { url, account, payload }: { readonly url: string; readonly account: string; readonly payload: object | null },
  ): Promise<Taken<T>> {
    this.#checkOrigin(url);
    const answer = await this.#signed(url, payload, { kid: account });
    return {
      value: readMessage(kind, answer.data, this.ca),
      location: locationOf(answer),
      retryAfterMs: this.#retryAfterMs(answer.headers),
    };
  }

  /** A chain of certificates in PEM form. */
  async download(url: string, account: string): Promise<string> {
    this.#checkOrigin(url);
    const { data } = await this.#signed(url, null, { kid: account });
    if (typeof data === 'string') return data;
    throw acmeFailure('ca', `${this.ca} sent no certificate where it said that one is`);
  }

  /** When the CA wants a certificate to be renewed (RFC 9773); undefined: it does not say. */
  async renewalInfo(certificateId: string): Promise<Taken<RenewalInfo> | undefined> {
    const { renewalInfo } = await this.directory();
    if (renewalInfo === undefined) return undefined;
    const url = `${renewalInfo}/${certificateId}`;
    const { status, headers, body } = await this.#deps.send({ method: 'GET', url, body: undefined });
    const answer = { status, headers, data: parsedBody(headers, body) };
    if (status >= 400) throw this.#failure(answer);
    return { value: readMessage(RENEWAL_INFO, answer.data, this.ca), location: '', retryAfterMs: this.#retryAfterMs(headers) };
  }

  /** The account's key as CAs know it (RFC 7638). */
  get jwk(): object {
    return this.#http.getJwk();
  }

  async #get(url: string): Promise<unknown> {
    const { status, headers, body } = await this.#deps.send({ method: 'GET', url, body: undefined });
    const answer = { status, headers, data: parsedBody(headers, body) };
    if (status !== 200) throw this.#failure(answer);
    return answer.data;
  }

  async #newNonce(): Promise<string> {
    const { newNonce } = await this.directory();
    const { status, headers } = await this.#deps.send({ method: 'HEAD', url: newNonce, body: undefined });
    const nonce = nonceOf(headers);
    if (nonce !== undefined) return nonce;
    throw this.#failure({ status, headers, data: undefined }, 'it gave no nonce');
  }

  async #signed(url: string, payload: object | null, options: SignOptions): Promise<SignedAnswer> {
    const answer = await this.#http.signedRequest(url, payload, options);
    if (answer.status >= 200 && answer.status < 300) return answer;
    throw this.#failure(answer);
  }

  /** What `acme-client` sends by. */
  async #sendSigned(url: string, method: string, data: unknown): Promise<SignedAnswer> {
    if (method !== 'post') throw new Error(`acme-client sends ${method}, which is not expected of it`);
    const { status, headers, body } = await this.#deps.send({ method: 'POST', url, body: JSON.stringify(data) });
    const answer = { status, headers, data: parsedBody(headers, body) };
    const nonce = nonceOf(headers);
    // That of a refused nonce is for the same request, which acme-client signs with it.
    const isForIt = status === 400 && readProblem(answer.data).type === BAD_NONCE;
    if (!isForIt && nonce !== undefined && this.#nonces.length < NONCES_KEPT_MAX) this.#nonces.push(nonce);
    return answer;
  }

  /** A directory, or an order, that leads elsewhere could make us sign for somebody, or reach what only this machine reaches. */
  #checkOrigin(url: string): void {
    if (URL.canParse(url) && new URL(url).origin === new URL(this.ca).origin) return;
    throw acmeFailure('ca', `${this.ca} leads to ${quotedText(url).slice(0, 200)}, which is not of its own origin`, {
      mend: 'check that the URL of the directory is the one that the CA publishes',
    });
  }

  #retryAfterMs(headers: IncomingHttpHeaders): number | undefined {
    return retryAfterMsOf(headers['retry-after'], this.#deps.clock.nowMs());
  }

  #failure({ status, headers, data }: SignedAnswer, otherwise = 'it gave no reason'): Error {
    const { type, detail } = readProblem(data);
    const problem = problemName({ type });
    const kind = KINDS[problem ?? ''] ?? kindOfStatus(status);
    const why = detail === undefined ? otherwise : quotedText(detail);
    const what = problem === undefined ? String(status) : `${String(status)} ${quotedText(problem)}`;
    return acmeFailure(kind, `${this.ca} refused: ${why} (${what})`, {
      mend: MENDS[kind],
      retryAfterMs: this.#retryAfterMs(headers),
      problem,
    });
  }
}

const MENDS: Readonly<Record<FailureKind, string>> = {
  ca: 'it is tried again by itself',
  'rate-limit': 'it is tried again when the CA says so',
  validation: 'see that the host leads here',
  refused: 'see what the CA wants: its words say it',
  internal: 'see the log',
};

/** Without what all types begin with. */
export function problemName({ type }: Pick<Problem, 'type'>): string | undefined {
  return type?.startsWith(PROBLEM_PREFIX) === true ? type.slice(PROBLEM_PREFIX.length).slice(0, 100) : undefined;
}

function kindOfStatus(status: number): FailureKind {
  if (status === 429) return 'rate-limit';
  return status >= 400 && status < 500 ? 'refused' : 'ca';
}

function nonceOf(headers: IncomingHttpHeaders): string | undefined {
  const nonce = headers['replay-nonce'];
  // RFC 8555 §6.5.1: base64url; others must not be used.
  return typeof nonce === 'string' && /^[A-Za-z0-9_-]{1,512}$/.test(nonce) ? nonce : undefined;
}

function locationOf({ headers }: SignedAnswer): string {
  return headers.location ?? '';
}

function parsedBody(headers: IncomingHttpHeaders, body: Buffer): unknown {
  const text = body.toString('utf8');
  if (headers['content-type']?.includes('json') !== true) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text; // It is none, and is refused as what it is.
  }
}

function isSignedHttp(value: unknown): value is SignedHttp {
  const parts = ['request', 'getNonce', 'getJwk', 'signedRequest'] as const;
  return typeof value === 'object' && value !== null && parts.every((part) => typeof Reflect.get(value, part) === 'function');
}
