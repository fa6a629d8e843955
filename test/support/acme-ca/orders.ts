/** Orders and their authorizations (RFC 8555 §7.4, §7.5). */
import { randomBytes } from 'node:crypto';
import { isIP } from 'node:net';
import { z } from 'zod';
import { isCertificateName } from '#tls/issue.ts';
import type { Answer } from './answer.ts';
import { overLimit, urlOf } from './ca-state.ts';
import type { CaState, DuplicateOrder } from './ca-state.ts';
import { namesKey } from './limits.ts';
import type { Renewal } from './limits.ts';
import { Problem, malformed, problemDocument } from './problem.ts';
import { readReplaces, windowOf } from './renewal-info.ts';
import { authorizationStatus, statusOf } from './resources.ts';
import type { Account, Authorization, Certificate, Challenge, Order } from './resources.ts';
import { validate } from './validation.ts';

const NAMES_MAX = 100;
const ORDER_LIFE_MS = 7 * 86_400_000;

const newOrderSchema = z.object({
  identifiers: z.array(z.object({ type: z.string(), value: z.string() })).min(1),
  notBefore: z.unknown().exactOptional(),
  notAfter: z.unknown().exactOptional(),
  replaces: z.string().exactOptional(),
  profile: z.string().exactOptional(),
});

export function newOrder(state: CaState, account: Account, payload: unknown): Answer {
  const parsed = newOrderSchema.safeParse(payload);
  if (!parsed.success) throw malformed('an order has a list of identifiers, with type and value each');
  const { identifiers, notBefore, notAfter, replaces, profile = defaultProfile(state) } = parsed.data;
  if (notBefore !== undefined || notAfter !== undefined) throw malformed('this CA chooses the dates itself');
  if (!Object.hasOwn(state.options.profiles, profile))
    throw new Problem('invalidProfile', 400, `there is no profile "${profile}"`);
  const names = readNames(state, identifiers);
  const { faults, record } = state;
  if (state.random() < faults.tooManyRate) {
    record.madeUp.tooMany += 1;
    throw new Problem('rateLimited', 429, 'too much is going on here', faults.tooManyRetryAfterSeconds);
  }
  const nowMs = state.options.clock.nowMs();
  const replaced = replaces === undefined ? undefined : readReplaces(state, replaces, account, names);
  const renewal = renewalOf(state, names, replaced);
  const refusal = state.limiter.newOrder({ account: account.id, names, renewal }, nowMs);
  if (refusal !== undefined) throw overLimit(state, refusal);
  const order: Order = {
    id: state.resources.newId(),
    account,
    names,
    profile,
    authorizations: names.map((name) => authorizationOf(state, account, name)),
    replaces: replaced,
    renewal,
    atMs: nowMs,
    expiresMs: nowMs + ORDER_LIFE_MS,
    error: undefined,
    isFinalizing: false,
    certificate: undefined,
    readyMs: 0,
  };
  const because = whyDuplicate(state, order);
  if (because !== undefined) record.duplicates.push({ order, because });
  if (replaced !== undefined) state.resources.replacement.set(replaced, order);
  state.resources.orders.set(order.id, order);
  const key = namesKey(names);
  state.resources.ordersOf.set(key, [...(state.resources.ordersOf.get(key) ?? []), order]);
  record.orders.push(order);
  const answer = answerOrder(state, order);
  return { ...answer, status: 201 };
}

function defaultProfile({ options }: CaState): string {
  return Object.keys(options.profiles)[0] ?? '';
}

function readNames(
  { options }: CaState,
  identifiers: readonly { readonly type: string; readonly value: string }[],
): readonly string[] {
  if (identifiers.length > NAMES_MAX) throw malformed(`an order has ${String(NAMES_MAX)} names at most`);
  const names = identifiers.map(({ type, value }) => {
    if (type !== 'dns' || isIP(value) !== 0) throw new Problem('unsupportedIdentifier', 400, 'this CA knows DNS names alone');
    const name = value.toLowerCase();
    if (!isCertificateName(name) || !name.includes('.'))
      throw new Problem('rejectedIdentifier', 400, `"${value}" is no public name`);
    const isRefused = options.refusedNames.some((refused) => name === refused || name.endsWith(`.${refused}`));
    if (isRefused) throw new Problem('rejectedIdentifier', 403, `the policy of this CA forbids ${name}`);
    return name;
  });
  if (new Set(names).size !== names.length) throw malformed('a name is there twice');
  return names.toSorted();
}

function renewalOf(state: CaState, names: readonly string[], replaced: Certificate | undefined): Renewal {
  if (replaced !== undefined) {
    const { startMs, endMs } = windowOf(state, replaced);
    const nowMs = state.options.clock.nowMs();
    if (nowMs >= startMs && nowMs <= endMs) return 'ari';
  }
  return state.resources.issuedNames.has(namesKey(names)) ? 'same-names' : 'none';
}

function whyDuplicate(state: CaState, order: Order): DuplicateOrder['because'] | undefined {
  const others = state.resources.ordersOf.get(namesKey(order.names)) ?? [];
  const isOpen = (other: Order): boolean => !['valid', 'invalid'].includes(statusOf(other, order.atMs));
  if (others.some(isOpen)) return 'open-order';
  const newest = others.findLast(({ certificate }) => certificate !== undefined)?.certificate;
  if (newest === undefined || newest.revokedMs !== undefined) return undefined;
  const halfMs = (newest.notBeforeMs + newest.notAfterMs) / 2;
  return order.atMs < Math.min(halfMs, windowOf(state, newest).startMs) ? 'fresh-certificate' : undefined;
}

function authorizationOf(state: CaState, account: Account, name: string): Authorization {
  const { resources, options } = state;
  const key = `${account.id} ${name}`;
  const nowMs = options.clock.nowMs();
  const known = resources.authorizationOf.get(key);
  if (known !== undefined && authorizationStatus(known, nowMs) === 'valid') return known;
  const isWildcard = name.startsWith('*.');
  const challenges: Challenge[] = [];
  const authorization: Authorization = {
    id: resources.newId(),
    account,
    name: isWildcard ? name.slice(2) : name,
    isWildcard,
    challenges,
    status: 'pending',
    expiresMs: nowMs + ORDER_LIFE_MS,
  };
  for (const type of options.challengeTypes) {
    // RFC 8555 §7.4.1: only the DNS can speak for all names below one.
    if (isWildcard && type !== 'dns-01') continue;
    const challenge: Challenge = {
      id: resources.newId(),
      type,
      token: randomBytes(32).toString('base64url'),
      authorization,
      status: 'pending',
      validatedMs: undefined,
      error: undefined,
    };
    challenges.push(challenge);
    resources.challenges.set(challenge.id, challenge);
  }
  resources.authorizations.set(authorization.id, authorization);
  resources.authorizationOf.set(key, authorization);
  return authorization;
}

export function answerOrder(state: CaState, order: Order): Answer {
  const status = statusOf(order, state.options.clock.nowMs());
  const url = urlOf(state, `order/${order.id}`);
  const isWaiting = status === 'pending' || status === 'processing';
  return {
    status: 200,
    headers: { location: url, ...(isWaiting ? { 'retry-after': String(state.options.pollSeconds) } : {}) },
    body: {
      status,
      expires: new Date(order.expiresMs).toISOString(),
      identifiers: order.names.map((value) => ({ type: 'dns', value })),
      profile: order.profile,
      authorizations: order.authorizations.map(({ id }) => urlOf(state, `authz/${id}`)),
      finalize: `${url}/finalize`,
      ...(order.replaces === undefined ? {} : { replaces: order.replaces.renewalId }),
      ...(order.error === undefined ? {} : { error: order.error }),
      ...(status === 'valid' && order.certificate !== undefined
        ? { certificate: urlOf(state, `cert/${order.certificate.id}`) }
        : {}),
    },
  };
}

function challengeBody(state: CaState, challenge: Challenge): Readonly<Record<string, unknown>> {
  const { id, type, token, status, validatedMs, error } = challenge;
  return {
    type,
    token,
    status,
    url: urlOf(state, `chall/${id}`),
    ...(validatedMs === undefined ? {} : { validated: new Date(validatedMs).toISOString() }),
    ...(error === undefined ? {} : { error }),
  };
}

const deactivateSchema = z.object({ status: z.literal('deactivated') });

export function answerAuthorization(state: CaState, authorization: Authorization, payload: unknown): Answer {
  if (payload !== undefined) {
    if (!deactivateSchema.safeParse(payload).success) throw malformed('an authorization can be deactivated, nothing else');
    authorization.status = 'deactivated';
  }
  const status = authorizationStatus(authorization, state.options.clock.nowMs());
  return {
    status: 200,
    headers: status === 'pending' ? { 'retry-after': String(state.options.pollSeconds) } : {},
    body: {
      status,
      expires: new Date(authorization.expiresMs).toISOString(),
      identifier: { type: 'dns', value: authorization.name },
      challenges: authorization.challenges.map((challenge) => challengeBody(state, challenge)),
      ...(authorization.isWildcard ? { wildcard: true } : {}),
    },
  };
}

/** The client says that a challenge can be looked at, which goes on after the answer; or asks how it stands. */
export function answerChallenge(state: CaState, challenge: Challenge, payload: unknown): Answer {
  const { authorization } = challenge;
  const status = authorizationStatus(authorization, state.options.clock.nowMs());
  if (payload !== undefined && challenge.status === 'pending') {
    if (status !== 'pending') throw malformed(`the authorization is ${status}`);
    challenge.status = 'processing';
    const work = look(state, challenge).finally(() => state.background.delete(work));
    state.background.add(work);
  }
  return {
    status: 200,
    headers: {
      link: `<${urlOf(state, `authz/${authorization.id}`)}>;rel="up"`,
      ...(challenge.status === 'processing' ? { 'retry-after': String(state.options.pollSeconds) } : {}),
    },
    body: challengeBody(state, challenge),
  };
}

async function look(state: CaState, challenge: Challenge): Promise<void> {
  const { authorization } = challenge;
  const { account, name } = authorization;
  const { clock, resolver, authorizationReuseMs } = state.options;
  try {
    if (state.faults.challengesFail) throw new Problem('connection', 400, 'nothing is seen from here');
    await validate(challenge, account.thumbprint, resolver);
    challenge.status = 'valid';
    challenge.validatedMs = clock.nowMs();
    authorization.status = 'valid';
    authorization.expiresMs = clock.nowMs() + authorizationReuseMs;
  } catch (error) {
    const problem = error instanceof Problem ? error : new Problem('serverInternal', 500, String(error));
    challenge.status = 'invalid';
    challenge.error = problemDocument(problem);
    authorization.status = 'invalid';
    state.record.failedValidations += 1;
    state.limiter.failedValidation(account.id, name, clock.nowMs());
    for (const order of state.resources.orders.values()) {
      if (order.authorizations.includes(authorization)) order.error ??= problemDocument(problem);
    }
  }
}
