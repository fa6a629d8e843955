/** The other side of ACME, by hand: every request can be made as it must not be, which no client library lets one do. */
import { X509Certificate, createHash, createHmac, generateKeyPairSync, sign, webcrypto } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { Agent, request } from 'node:https';
import type { Clock } from '#clock';
// Before the library: it needs what this one sets up.
import { isCertificateName } from '#tls/issue.ts';
import { Pkcs10CertificateRequestGenerator, SubjectAlternativeNameExtension } from '@peculiar/x509';
import { z } from 'zod';

const RETRIES_MAX = 20;
const POLLS_MAX = 100;

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** Null where it is no JSON. */
  readonly json: unknown;
}

export const orderSchema = z.object({
  status: z.string(),
  authorizations: z.array(z.string()),
  finalize: z.string(),
  certificate: z.string().optional(),
  replaces: z.string().optional(),
  error: z.object({ type: z.string() }).optional(),
});

export const authorizationSchema = z.object({
  status: z.string(),
  identifier: z.object({ value: z.string() }),
  wildcard: z.boolean().optional(),
  challenges: z.array(z.object({ type: z.string(), url: z.string(), token: z.string(), status: z.string() })),
});

const directorySchema = z.object({
  newNonce: z.string(),
  newAccount: z.string(),
  newOrder: z.string(),
  revokeCert: z.string(),
  keyChange: z.string(),
  renewalInfo: z.string(),
});

const windowSchema = z.object({ suggestedWindow: z.object({ start: z.string(), end: z.string() }) });

/** What is signed otherwise than it should be. */
export interface Crooked {
  readonly nonce?: string;
  readonly url?: string;
  readonly signedBy?: KeyObject;
  readonly alg?: string;
  readonly contentType?: string;
  readonly withJwk?: boolean;
}

function base64url(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

export function newAccountKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
}

/** `example.test` → DER of a request for it, signed by a key of its own. */
export async function csrFor(names: readonly string[], keys?: webcrypto.CryptoKeyPair): Promise<Buffer> {
  const own = keys ?? (await webcrypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']));
  const alternatives = names.filter(isCertificateName).map((value) => ({ type: 'dns', value }) as const);
  const made = await Pkcs10CertificateRequestGenerator.create({
    keys: own,
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    extensions: [new SubjectAlternativeNameExtension(alternatives)],
  });
  return Buffer.from(made.rawData);
}

/** The public half of a key, as ACME wants it. */
function jwkOf(key: KeyObject): Readonly<Record<string, unknown>> {
  const { kty, crv, x, y } = key.export({ format: 'jwk' });
  return { crv, kty, x, y };
}

export class AcmeSubscriber implements Disposable {
  readonly #agent: Agent;
  readonly #directoryUrl: string;
  readonly key: KeyObject;
  readonly thumbprint: string;
  readonly #clock: Clock;
  #urls: z.infer<typeof directorySchema> | undefined;
  #nonce: string | undefined;
  accountUrl: string | undefined;

  constructor(directoryUrl: string, caPem: string, options: { readonly clock: Clock; readonly key?: KeyObject }) {
    this.#directoryUrl = directoryUrl;
    this.#agent = new Agent({ keepAlive: true, ca: caPem });
    this.#clock = options.clock;
    this.key = options.key ?? newAccountKey();
    this.thumbprint = createHash('sha256')
      .update(JSON.stringify(jwkOf(this.key)))
      .digest('base64url');
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }

  async directory(): Promise<z.infer<typeof directorySchema>> {
    this.#urls ??= directorySchema.parse((await this.send('GET', this.#directoryUrl)).json);
    return this.#urls;
  }

  async send(method: string, url: string, body?: string, contentType = 'application/jose+json'): Promise<Reply> {
    const { promise, resolve, reject } = Promise.withResolvers<Reply>();
    const headers = body === undefined ? {} : { 'content-type': contentType, 'content-length': Buffer.byteLength(body) };
    const outgoing = request(url, { method, agent: this.#agent, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('error', reject);
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json: jsonOf(text) });
      });
    });
    outgoing.on('error', reject);
    outgoing.end(body);
    return await promise;
  }

  async newNonce(): Promise<string> {
    const { headers } = await this.send('HEAD', (await this.directory()).newNonce);
    return headerOf(headers, 'replay-nonce');
  }

  /** One signed request. `payload` undefined: POST-as-GET. */
  async postOnce(url: string, payload: unknown, crooked: Crooked = {}): Promise<Reply> {
    const nonce = crooked.nonce ?? this.#nonce ?? (await this.newNonce());
    this.#nonce = undefined;
    const signer =
      this.accountUrl === undefined || crooked.withJwk === true ? { jwk: jwkOf(this.key) } : { kid: this.accountUrl };
    const header = base64url({ alg: crooked.alg ?? 'ES256', nonce, url: crooked.url ?? url, ...signer });
    const body = payload === undefined ? '' : base64url(payload);
    const key = crooked.signedBy ?? this.key;
    const signature = sign('sha256', Buffer.from(`${header}.${body}`), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url');
    const text = JSON.stringify({ protected: header, payload: body, signature });
    const reply = await this.send('POST', url, text, crooked.contentType);
    const next = reply.headers['replay-nonce'];
    if (typeof next === 'string') this.#nonce = next;
    return reply;
  }

  /** Signed anew, with a new nonce, where the last one was not liked or the server broke. */
  async post(url: string, payload: unknown): Promise<Reply> {
    for (let tries = 1; ; tries += 1) {
      const reply = await this.postOnce(url, payload);
      const isPassing = reply.status >= 500 || problemOf(reply) === 'badNonce';
      if (!isPassing || tries === RETRIES_MAX) return reply;
    }
  }

  async register(binding?: { readonly kid: string; readonly key: string }): Promise<Reply> {
    const { newAccount } = await this.directory();
    const reply = await this.post(newAccount, {
      termsOfServiceAgreed: true,
      ...(binding === undefined ? {} : { externalAccountBinding: this.#bind(newAccount, binding) }),
    });
    const { location } = reply.headers;
    if (reply.status < 300) this.accountUrl = location;
    return reply;
  }

  async newOrder(names: readonly string[], more: Readonly<Record<string, unknown>> = {}): Promise<Reply> {
    const identifiers = names.map((value) => ({ type: 'dns', value }));
    return await this.post((await this.directory()).newOrder, { identifiers, ...more });
  }

  keyAuthorization(token: string): string {
    return `${token}.${this.thumbprint}`;
  }

  /** An order from its beginning to its certificate. `answer` puts the key authorization where the CA will look. */
  async obtain(
    names: readonly string[],
    options: {
      readonly type: string;
      readonly answer: (name: string, token: string, keyAuthorization: string) => Promise<void> | void;
      readonly more?: Readonly<Record<string, unknown>>;
    },
  ): Promise<{ readonly chainPem: string; readonly orderUrl: string }> {
    const reply = await this.newOrder(names, options.more);
    if (reply.status !== 201) throw new Error(`no order: ${reply.text}`);
    const orderUrl = headerOf(reply.headers, 'location');
    for (const url of orderSchema.parse(reply.json).authorizations) {
      const { status, challenges, identifier } = authorizationSchema.parse((await this.post(url, undefined)).json);
      const challenge = challenges.find(({ type }) => type === options.type);
      if (status === 'valid') continue;
      if (challenge === undefined) throw new Error(`no challenge ${options.type}`);
      await options.answer(identifier.value, challenge.token, this.keyAuthorization(challenge.token));
      await this.post(challenge.url, {});
      await this.until(url, ['valid', 'invalid']);
    }
    const { finalize } = orderSchema.parse((await this.post(orderUrl, undefined)).json);
    const finalized = await this.post(finalize, { csr: (await csrFor(names)).toString('base64url') });
    if (finalized.status !== 200) throw new Error(`not finalized: ${finalized.text}`);
    const { certificate } = orderSchema.parse((await this.until(orderUrl, ['valid', 'invalid'])).json);
    if (certificate === undefined) throw new Error('the order is invalid');
    return { chainPem: (await this.post(certificate, undefined)).text, orderUrl };
  }

  /** Asks again, as often as the server says, until the status is one of these. */
  async until(url: string, statuses: readonly string[]): Promise<Reply> {
    for (let polls = 0; polls < POLLS_MAX; polls += 1) {
      const reply = await this.post(url, undefined);
      const { status } = z.object({ status: z.string() }).parse(reply.json);
      if (statuses.includes(status)) return reply;
      await this.#clock.sleep(1_000 * Number(reply.headers['retry-after'] ?? 1));
    }
    throw new Error(`${url} did not come to ${statuses.join(' or ')}`);
  }

  async renewalWindow(
    renewalId: string,
  ): Promise<{ readonly startMs: number; readonly endMs: number; readonly retryAfter: string }> {
    const reply = await this.send('GET', `${(await this.directory()).renewalInfo}/${renewalId}`);
    const { start, end } = windowSchema.parse(reply.json).suggestedWindow;
    return { startMs: Date.parse(start), endMs: Date.parse(end), retryAfter: headerOf(reply.headers, 'retry-after') };
  }

  #bind(url: string, { kid, key }: { readonly kid: string; readonly key: string }): Readonly<Record<string, string>> {
    const header = base64url({ alg: 'HS256', kid, url });
    const payload = base64url(jwkOf(this.key));
    const signature = createHmac('sha256', Buffer.from(key, 'base64url')).update(`${header}.${payload}`).digest('base64url');
    return { protected: header, payload, signature };
  }
}

function headerOf(headers: IncomingHttpHeaders, name: string): string {
  const value = headers[name];
  if (typeof value !== 'string') throw new Error(`the answer has no ${name}`);
  return value;
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** `badNonce`, or undefined where the answer is no problem. */
export function problemOf({ json }: Reply): string | undefined {
  const problem = z.object({ type: z.string(), detail: z.string() }).safeParse(json);
  return problem.success ? problem.data.type.split(':').at(-1) : undefined;
}

/** The identifier of RFC 9773, put together from the certificate itself. */
export function renewalIdOf(leafPem: string): string {
  const { raw, serialNumber } = new X509Certificate(leafPem);
  // The last 20 octets of the extension with OID 2.5.29.35, whose first key is the identifier.
  const oid = Buffer.from('0603551d23', 'hex');
  const at = raw.indexOf(oid);
  const keyId = raw.subarray(raw.indexOf(Buffer.from([0x80, 20]), at) + 2).subarray(0, 20);
  return `${keyId.toString('base64url')}.${Buffer.from(serialNumber, 'hex').toString('base64url')}`;
}
