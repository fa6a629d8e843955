/** Accounts (RFC 8555 §7.3): made, bound, changed, given another key. */
import { z } from 'zod';
import type { Answer } from './answer.ts';
import { overLimit, urlOf } from './ca-state.ts';
import type { CaState } from './ca-state.ts';
import { checkBinding, checkSignature, readJwk, readJws, thumbprintOf } from './jws.ts';
import type { Jwk } from './jws.ts';
import { Problem, malformed } from './problem.ts';
import type { Account } from './resources.ts';

const contactSchema = z.array(z.string().regex(/^mailto:[^@\s,?]+@[^@\s,?]+\.[a-z]+$/)).max(10);

const newAccountSchema = z.object({
  contact: contactSchema.exactOptional(),
  termsOfServiceAgreed: z.boolean().exactOptional(),
  onlyReturnExisting: z.boolean().exactOptional(),
  externalAccountBinding: z.unknown().exactOptional(),
});

const updateSchema = z.object({
  contact: contactSchema.exactOptional(),
  status: z.literal('deactivated').exactOptional(),
});

function answerOf(state: CaState, account: Account, status: number): Answer {
  const url = urlOf(state, `account/${account.id}`);
  return {
    status,
    headers: { location: url },
    body: { status: account.status, contact: account.contact, orders: `${url}/orders` },
  };
}

export function byThumbprint(state: CaState, thumbprint: string): Account | undefined {
  return state.resources.accounts.values().find((account) => account.thumbprint === thumbprint);
}

export function newAccount(state: CaState, jwk: unknown, payload: unknown, address: string): Answer {
  const parsed = newAccountSchema.safeParse(payload);
  if (!parsed.success) throw malformed('the account has members of the wrong kind');
  const { contact = [], termsOfServiceAgreed, onlyReturnExisting, externalAccountBinding } = parsed.data;
  const { jwk: publicJwk, key } = readJwk(jwk);
  const thumbprint = thumbprintOf(publicJwk);
  const known = byThumbprint(state, thumbprint);
  if (known !== undefined) {
    if (known.status !== 'valid') throw new Problem('unauthorized', 403, 'the account is deactivated');
    return answerOf(state, known, 200);
  }
  if (onlyReturnExisting === true) throw new Problem('accountDoesNotExist', 400, 'no account has this key');
  if (termsOfServiceAgreed !== true) throw malformed('an account has to agree to the terms of service');
  const externalId = bindingOf(state, externalAccountBinding, publicJwk);
  const refusal = state.limiter.newAccount(address, state.options.clock.nowMs());
  if (refusal !== undefined) throw overLimit(state, refusal);
  const account: Account = { id: state.resources.newId(), key, thumbprint, status: 'valid', contact, externalId };
  state.resources.accounts.set(account.id, account);
  return answerOf(state, account, 201);
}

function bindingOf(state: CaState, binding: unknown, jwk: Jwk): string | undefined {
  const { externalAccounts } = state.options;
  if (externalAccounts.size === 0) return undefined;
  if (binding === undefined) throw new Problem('externalAccountRequired', 403, 'an account here is bound to an external one');
  return checkBinding(binding, urlOf(state, 'new-account'), jwk, externalAccounts);
}

export function updateAccount(state: CaState, account: Account, payload: unknown): Answer {
  if (payload === undefined) return answerOf(state, account, 200);
  const parsed = updateSchema.safeParse(payload);
  if (!parsed.success) throw malformed('of an account, contacts can be changed, and its status to deactivated');
  if (parsed.data.contact !== undefined) account.contact = parsed.data.contact;
  if (parsed.data.status !== undefined) account.status = parsed.data.status;
  return answerOf(state, account, 200);
}

const keyChangeSchema = z.object({ account: z.string(), oldKey: z.unknown() });

export function changeKey(state: CaState, account: Account, payload: unknown): Answer {
  const inner = readJws(payload);
  const { jwk, key } = readJwk(inner.header.jwk);
  if (inner.header.nonce !== undefined || inner.header.url !== urlOf(state, 'key-change')) {
    throw malformed('the inner request has the url of the outer one, and no nonce');
  }
  checkSignature(inner, key);
  const parsed = keyChangeSchema.safeParse(inner.payload);
  if (!parsed.success || parsed.data.account !== urlOf(state, `account/${account.id}`)) {
    throw malformed('the inner request is not of this account');
  }
  if (thumbprintOf(readJwk(parsed.data.oldKey).jwk) !== account.thumbprint)
    throw malformed('oldKey is not the key of the account');
  const thumbprint = thumbprintOf(jwk);
  if (byThumbprint(state, thumbprint) !== undefined) throw new Problem('malformed', 409, 'another account has this key');
  account.key = key;
  account.thumbprint = thumbprint;
  return answerOf(state, account, 200);
}
