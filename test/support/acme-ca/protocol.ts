/** Who asks, and whether it may: what comes before every signed request is acted on (RFC 8555 §6). */
import type { KeyObject } from 'node:crypto';
import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { urlOf } from './ca-state.ts';
import type { CaState } from './ca-state.ts';
import { checkSignature, readJwk, readJws } from './jws.ts';
import type { Jws } from './jws.ts';
import { Problem, malformed } from './problem.ts';
import type { Account } from './resources.ts';

const BODY_BYTES_MAX = 65_536;

export class Nonces {
  readonly #open = new Set<string>();
  readonly #used = new Set<string>();

  issue(): string {
    const nonce = randomBytes(16).toString('base64url');
    this.#open.add(nonce);
    return nonce;
  }

  use(nonce: string): 'good' | 'used' | 'unknown' {
    if (this.#used.has(nonce)) return 'used';
    if (!this.#open.delete(nonce)) return 'unknown';
    this.#used.add(nonce);
    return 'good';
  }
}

export interface SignedRequest {
  /** Undefined: it is signed by a key that it brings. */
  readonly account: Account | undefined;
  readonly jwk: unknown;
  readonly key: KeyObject;
  readonly payload: unknown;
}

export async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    if (!Buffer.isBuffer(chunk)) continue;
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw malformed('the body is too long');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw malformed('the body is no JSON');
  }
}

/** `signer`: `jwk` where a key has to be brought, `kid` where it has to be that of an account, `either` where both are right. */
export async function authenticate(
  state: CaState,
  nonces: Nonces,
  request: IncomingMessage,
  signer: 'jwk' | 'kid' | 'either',
): Promise<SignedRequest> {
  const body = await bodyOf(request);
  if (request.headers['content-type'] !== 'application/jose+json') {
    throw new Problem('malformed', 415, 'signed requests are application/jose+json');
  }
  const jws = readJws(jsonOf(body));
  const { jwk, kid, url } = jws.header;
  if ((jwk === undefined) === (kid === undefined)) throw malformed('a request has either a jwk or a kid');
  if (signer !== 'either' && (signer === 'jwk') !== (jwk !== undefined))
    throw malformed(`this request is signed with a ${signer}`);
  const account = kid === undefined ? undefined : accountOf(state, kid);
  const key = account?.key ?? readJwk(jwk).key;
  checkSignature(jws, key);
  checkNonce(state, nonces, jws);
  if (url !== `${state.origin}${request.url ?? ''}`)
    throw new Problem('unauthorized', 403, 'the signed url is not the one that was asked');
  if (account !== undefined && account.status !== 'valid') throw new Problem('unauthorized', 403, 'the account is deactivated');
  return { account, jwk, key, payload: jws.payload };
}

function accountOf(state: CaState, kid: string): Account {
  const id = kid.startsWith(urlOf(state, 'account/')) ? kid.slice(urlOf(state, 'account/').length) : '';
  const account = state.resources.accounts.get(id);
  if (account === undefined) throw new Problem('accountDoesNotExist', 400, 'there is no such account');
  return account;
}

function checkNonce({ record, faults, random }: CaState, nonces: Nonces, { header }: Jws): void {
  if (header.nonce === undefined) throw new Problem('badNonce', 400, 'there is no nonce');
  const use = nonces.use(header.nonce);
  if (use === 'used') record.noncesReused += 1;
  if (use === 'unknown') record.noncesUnknown += 1;
  if (use !== 'good') throw new Problem('badNonce', 400, `the nonce is ${use}`);
  if (random() >= faults.nonceRejectionRate) return;
  record.madeUp.badNonces += 1;
  throw new Problem('badNonce', 400, 'the nonce is not liked');
}
