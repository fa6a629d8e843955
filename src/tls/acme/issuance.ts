/**
 * One order at one CA, from its names to a certificate: asked for or gone on with, proved, finalized, fetched and looked at. Nothing is served of it here.
 *
 * Waits go by the clock, so that a simulated one drives them. What has to survive a crash is handed to `note` before the CA is told to go on.
 */
import { createHash } from 'node:crypto';
import type { Clock } from '#clock';
import { reasonOf } from '#errors';
import { checkCertificate } from '#tls/certificate-check.ts';
import type { CheckedCertificate } from '#tls/certificate-check.ts';
import { acmeFailure, failureFactsOf, quotedText } from './acme-failure.ts';
import { AUTHORIZATION, CHALLENGE, ORDER } from './acme-messages.ts';
import type { Authorization, Challenge, Order, Problem } from './acme-messages.ts';
import { problemName } from './ca-client.ts';
import type { CaClient, Taken } from './ca-client.ts';
import { newCertificateRequest } from './certificate-request.ts';

export type ChallengeKind = 'http-01' | 'tls-alpn-01' | 'dns-01';

/** What a CA will look for. */
export interface Proof {
  readonly kind: ChallengeKind;
  /** Without `*.`. */
  readonly host: string;
  readonly token: string;
  readonly keyAuthorization: string;
}

/** Shows proofs where CAs look for them. */
export interface ProofPort {
  /** Returns when everybody who may be asked shows it. */
  readonly show: (proof: Proof) => Promise<void>;
  /** Whether it was looked at or not. Never fails. */
  readonly hide: (proof: Proof) => Promise<void>;
}

/** An order that was begun. */
export interface BegunOrder {
  readonly url: string;
  /** Of the certificate that is to come. */
  readonly keyPem: string;
}

export interface IssuanceRequest {
  readonly account: string;
  readonly names: readonly string[];
  readonly profile: string | undefined;
  /** The certificate that it takes the place of, by its ARI name. */
  readonly replaces: string | undefined;
  /** Those that may be used, the one to be used first. */
  readonly challenges: readonly ChallengeKind[];
  /** What an earlier run began. */
  readonly begun: BegunOrder | undefined;
}

export interface IssuanceDeps {
  readonly clock: Clock;
  readonly client: CaClient;
  readonly proofs: ProofPort;
  /** Makes what was begun last; undefined: it is over. */
  readonly note: (begun: BegunOrder | undefined) => Promise<void>;
  /** An order that was begun is gone: pays for another one. Throws where that is not to be asked for now. */
  readonly payAgain: () => Promise<void>;
  readonly signal: AbortSignal;
}

export interface Issuance {
  readonly certificate: CheckedCertificate;
}

/** A CA looks from several places, and asks again; one that queues orders takes minutes. */
const PROVED_WITHIN_MS = 10 * 60_000;
const ISSUED_WITHIN_MS = 10 * 60_000;
const POLL_FIRST_MS = 250;
const POLL_MAX_MS = 10_000;
/** A CA that says "in an hour" holds a place here that others wait for; it is asked again then, by another run. */
const POLL_ASKED_MAX_MS = 60_000;

export async function obtainCertificate(deps: IssuanceDeps, request: IssuanceRequest): Promise<Issuance> {
  const begun = await openOrder(deps, request);
  try {
    return { certificate: await carryOn(deps, request, begun) };
  } catch (error) {
    // What the CA refused is over. What it did not answer, or not now, goes on with the next run.
    if (!isToGoOn(error) && !deps.signal.aborted) await deps.note(undefined);
    throw error;
  }
}

/** Whether the order of a run that failed so is gone on with. */
export function isToGoOn(error: unknown): boolean {
  const { kind } = failureFactsOf(error);
  return kind === 'ca' || kind === 'rate-limit';
}

interface OpenOrder extends BegunOrder {
  readonly csr: string | undefined;
  readonly order: Order;
}

async function openOrder(deps: IssuanceDeps, request: IssuanceRequest): Promise<OpenOrder> {
  const { client, note, payAgain } = deps;
  const { account, begun, names, profile, replaces } = request;
  if (begun !== undefined) {
    const order = await readBegun(deps, account, begun);
    if (order !== undefined) return { ...begun, csr: undefined, order };
    await note(undefined);
    await payAgain();
  }
  const { newOrder, meta } = await client.directory();
  if (profile !== undefined && meta.profiles?.[profile] === undefined)
    throw acmeFailure('refused', `${client.ca} has no profile "${profile}"`, {
      mend: `set acme.profile to one that it has: ${
        Object.keys(meta.profiles ?? {})
          .map(quotedText)
          .join(', ') || 'none'
      }`,
    });
  const identifiers = names.map((value) => ({ type: 'dns', value }));
  const payload = { identifiers, ...(profile === undefined ? {} : { profile }), ...(replaces === undefined ? {} : { replaces }) };
  const { value: order, location } = await client.post(ORDER, { url: newOrder, account, payload });
  checkNames(client.ca, order, names);
  const { keyPem, csr } = await newCertificateRequest(names);
  await note({ url: location, keyPem });
  return { url: location, keyPem, csr, order };
}

/** Undefined: it is gone, or came to nothing. */
async function readBegun({ client }: IssuanceDeps, account: string, begun: BegunOrder): Promise<Order | undefined> {
  try {
    const { value } = await client.post(ORDER, { url: begun.url, account, payload: null });
    // A key that was made for it is in its request, which can be made anew as long as it was not sent.
    return value.status === 'invalid' ? undefined : value;
  } catch (error) {
    if (failureFactsOf(error).kind === 'refused') return undefined;
    throw error;
  }
}

function checkNames(ca: string, { identifiers }: Order, names: readonly string[]): void {
  const said = new Set(identifiers.map(({ value }) => value.toLowerCase()));
  if (said.size === names.length && names.every((name) => said.has(name))) return;
  throw acmeFailure('ca', `${ca} made an order for other names than ${names.join(', ')}`);
}

async function carryOn(deps: IssuanceDeps, request: IssuanceRequest, open: OpenOrder): Promise<CheckedCertificate> {
  const { client } = deps;
  const { account, names } = request;
  if (open.order.status === 'pending') {
    for (const url of open.order.authorizations) await prove(deps, request, url);
  }
  let last = await pollOrder(deps, account, open.url, (order) => order.status !== 'pending');
  if (last.status === 'ready') {
    const fresh = open.csr === undefined ? await newCertificateRequest(names) : { keyPem: open.keyPem, csr: open.csr };
    await deps.note({ url: open.url, keyPem: fresh.keyPem });
    const { value } = await client.post(ORDER, { url: last.finalize, account, payload: { csr: fresh.csr } });
    last = isOver(value) ? value : await pollOrder(deps, account, open.url, isOver);
    return await fetchIssued(deps, request, last, fresh.keyPem);
  }
  if (!isOver(last)) last = await pollOrder(deps, account, open.url, isOver);
  return await fetchIssued(deps, request, last, open.keyPem);
}

function isOver({ status }: Order): boolean {
  return status === 'valid' || status === 'invalid';
}

async function fetchIssued(
  { client, clock }: IssuanceDeps,
  { account, names }: IssuanceRequest,
  order: Order,
  keyPem: string,
): Promise<CheckedCertificate> {
  if (order.status === 'invalid') throw orderFailed(client.ca, order.error);
  if (order.certificate === undefined) throw acmeFailure('ca', `${client.ca} made a certificate, and does not say where it is`);
  const certPem = await client.download(order.certificate, account);
  return checkIssued(client.ca, { certPem, keyPem, names }, clock.nowMs());
}

/** What came back has to be what was asked for: the old one stays where it is not. */
function checkIssued(
  ca: string,
  { certPem, keyPem, names }: { readonly certPem: string; readonly keyPem: string; readonly names: readonly string[] },
  nowMs: number,
): CheckedCertificate {
  let checked: CheckedCertificate;
  try {
    checked = checkCertificate({ certPem, keyPem, force: false }, nowMs);
  } catch (error) {
    // Not what is asked for: the order is over, and another one is to be made.
    throw acmeFailure('internal', `${ca} sent a certificate that cannot be used: ${reasonOf(error)}`, {
      mend: 'it is tried again by itself; the one before is served on',
    });
  }
  const covered = new Set(checked.hosts);
  if (covered.size === names.length && names.every((name) => covered.has(name))) return checked;
  throw acmeFailure('internal', `${ca} sent a certificate for other names: ${checked.hosts.slice(0, 5).join(', ')}`, {
    mend: 'it is tried again by itself; the one before is served on',
  });
}

async function prove(deps: IssuanceDeps, request: IssuanceRequest, url: string): Promise<void> {
  const { client, proofs } = deps;
  const { account } = request;
  const { value: authorization } = await client.post(AUTHORIZATION, { url, account, payload: null });
  if (authorization.status === 'valid') return;
  if (authorization.status !== 'pending') throw notProved(client.ca, authorization);
  const { challenge, proof } = chosenProof(client, request, authorization);
  try {
    await proofs.show(proof);
    // One that a run before this one has told of is being looked at.
    if (challenge.status === 'pending') await client.post(CHALLENGE, { url: challenge.url, account, payload: {} });
    const last = await pollAuthorization(deps, account, url);
    if (last.status !== 'valid') throw notProved(client.ca, last);
  } finally {
    await proofs.hide(proof);
  }
}

function chosenProof(
  client: CaClient,
  { names, challenges }: IssuanceRequest,
  { identifier, challenges: offered, wildcard }: Authorization,
): { readonly challenge: Challenge; readonly proof: Proof } {
  const host = identifier.value.toLowerCase();
  if (!names.includes(wildcard === true ? `*.${host}` : host))
    throw acmeFailure('ca', `${client.ca} wants a proof for ${quotedText(host)}, which was not asked for`);
  for (const kind of challenges) {
    if (wildcard === true && kind !== 'dns-01') continue;
    const challenge = offered.find(({ type, token }) => type === kind && token !== undefined);
    if (challenge?.token === undefined) continue;
    const { token } = challenge;
    const thumbprint = createHash('sha256').update(JSON.stringify(client.jwk)).digest('base64url');
    return { challenge, proof: { kind, host, token, keyAuthorization: `${token}.${thumbprint}` } };
  }
  const what = wildcard === true ? `*.${host}` : host;
  throw acmeFailure(
    'refused',
    `${client.ca} offers for ${what} none of the challenges that can be met: ${offered.map(({ type }) => quotedText(type)).join(', ')}`,
    {
      mend: wildcard === true ? 'wildcards are proved by dns-01 only: set acme.dns' : 'set acme.challenges to one that it offers',
    },
  );
}

async function pollOrder(deps: IssuanceDeps, account: string, url: string, isDone: (order: Order) => boolean): Promise<Order> {
  const { client } = deps;
  return await poll(
    deps,
    ISSUED_WITHIN_MS,
    async () => await client.post(ORDER, { url, account, payload: null }),
    (order) => isDone(order) || order.status === 'invalid',
  );
}

async function pollAuthorization(deps: IssuanceDeps, account: string, url: string): Promise<Authorization> {
  const { client } = deps;
  return await poll(
    deps,
    PROVED_WITHIN_MS,
    async () => await client.post(AUTHORIZATION, { url, account, payload: null }),
    ({ status }) => status !== 'pending',
  );
}

async function poll<T>(
  { clock, client, signal }: IssuanceDeps,
  withinMs: number,
  ask: () => Promise<Taken<T>>,
  isDone: (value: T) => boolean,
): Promise<T> {
  const endMs = clock.monotonicMs() + withinMs;
  let pauseMs = POLL_FIRST_MS;
  for (;;) {
    const { value, retryAfterMs } = await ask();
    if (isDone(value)) return value;
    if (clock.monotonicMs() >= endMs)
      throw acmeFailure('ca', `${client.ca} did not come to an end in ${String(withinMs / 60_000)} minutes`);
    await clock.sleep(Math.max(pauseMs, Math.min(retryAfterMs ?? 0, POLL_ASKED_MAX_MS)), signal);
    pauseMs = Math.min(POLL_MAX_MS, pauseMs * 1.5);
  }
}

function notProved(ca: string, { identifier, challenges, status }: Authorization): Error {
  const error = challenges.find((challenge) => challenge.error !== undefined)?.error;
  const problem = problemName({ type: error?.type });
  const isRefusal = problem === 'caa' || problem === 'rejectedIdentifier';
  const why = error?.detail === undefined ? `the authorization is ${status}` : quotedText(error.detail);
  return acmeFailure(isRefusal ? 'refused' : 'validation', `${ca} did not validate ${quotedText(identifier.value)}: ${why}`, {
    mend: 'see that the name leads to this node, and that ports 80 and 443 are reachable from outside',
    problem,
  });
}

function orderFailed(ca: string, error: Problem | undefined): Error {
  const problem = problemName({ type: error?.type });
  return acmeFailure(
    'validation',
    `${ca} ended the order: ${error?.detail === undefined ? 'it gave no reason' : quotedText(error.detail)}`,
    { problem },
  );
}
