/** Signed requests (RFC 8555 §6.2, RFC 7515): read and verified with nothing but OpenSSL. */
import { createHash, createHmac, createPublicKey, timingSafeEqual, verify } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { z } from 'zod';
import { Problem, malformed } from './problem.ts';

const BASE64URL = /^[A-Za-z0-9_-]*$/;
const base64url = z.string().regex(BASE64URL);

const jwkSchema = z.discriminatedUnion('kty', [
  z.strictObject({ kty: z.literal('EC'), crv: z.literal('P-256'), x: base64url, y: base64url }),
  z.strictObject({ kty: z.literal('RSA'), n: base64url, e: base64url }),
]);

export type Jwk = z.infer<typeof jwkSchema>;

/** `header`, of the unprotected kind, must not be there: what it says is not signed. */
const flattened = z.strictObject({ protected: base64url.min(1), payload: base64url, signature: base64url.min(1) });

const headerSchema = z.object({
  alg: z.string(),
  nonce: base64url.min(1).exactOptional(),
  url: z.string(),
  jwk: z.unknown().exactOptional(),
  kid: z.string().exactOptional(),
});

export interface Jws {
  readonly header: z.infer<typeof headerSchema>;
  /** Absent for an empty payload, which POST-as-GET has. */
  readonly payload: unknown;
  readonly signature: Buffer;
  readonly signed: string;
}

function jsonOf(text: string, what: string): unknown {
  try {
    return JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
  } catch {
    throw malformed(`${what} is no JSON in base64url`);
  }
}

export function readJws(value: unknown): Jws {
  const body = flattened.safeParse(value);
  if (!body.success) throw malformed('the body is no flattened JWS with a protected header, a payload and a signature');
  const header = headerSchema.safeParse(jsonOf(body.data.protected, 'the protected header'));
  if (!header.success) throw malformed('the protected header lacks alg or url, or they are no strings');
  return {
    header: header.data,
    payload: body.data.payload === '' ? undefined : jsonOf(body.data.payload, 'the payload'),
    signature: Buffer.from(body.data.signature, 'base64url'),
    signed: `${body.data.protected}.${body.data.payload}`,
  };
}

const RSA_BITS_MIN = 2048;

export function readJwk(value: unknown): { readonly jwk: Jwk; readonly key: KeyObject } {
  const parsed = jwkSchema.safeParse(value);
  if (!parsed.success) throw new Problem('badPublicKey', 400, 'the key is neither a public EC key on P-256 nor a public RSA key');
  const jwk = parsed.data;
  let key: KeyObject;
  try {
    key = createPublicKey({ key: jwk, format: 'jwk' });
  } catch {
    throw new Problem('badPublicKey', 400, 'the key is no key');
  }
  if (jwk.kty === 'RSA' && (key.asymmetricKeyDetails?.modulusLength ?? 0) < RSA_BITS_MIN) {
    throw new Problem('badPublicKey', 400, 'an RSA key has 2048 bits at least');
  }
  return { jwk, key };
}

/** RFC 7638. */
export function thumbprintOf(jwk: Jwk): string {
  const members = jwk.kty === 'EC' ? { crv: jwk.crv, kty: jwk.kty, x: jwk.x, y: jwk.y } : { e: jwk.e, kty: jwk.kty, n: jwk.n };
  return createHash('sha256').update(JSON.stringify(members)).digest('base64url');
}

const ES256_BYTES = 64;

export function checkSignature({ header, signature, signed }: Jws, key: KeyObject): void {
  const expected = key.asymmetricKeyType === 'ec' ? 'ES256' : 'RS256';
  if (header.alg !== 'ES256' && header.alg !== 'RS256') {
    throw new Problem('badSignatureAlgorithm', 400, 'signatures are made by ES256 or RS256');
  }
  if (header.alg !== expected) throw malformed(`this key does not sign by ${header.alg}`);
  const isRight =
    expected === 'ES256'
      ? signature.length === ES256_BYTES && verify('sha256', Buffer.from(signed), { key, dsaEncoding: 'ieee-p1363' }, signature)
      : verify('sha256', Buffer.from(signed), key, signature);
  if (!isRight) throw malformed('the signature is not of this key');
}

/** The binding of an external account (RFC 8555 §7.3.4). Returns its key's id. */
export function checkBinding(value: unknown, url: string, account: Jwk, keys: ReadonlyMap<string, string>): string {
  const binding = readJws(value);
  const { alg, kid, nonce, url: signedUrl } = binding.header;
  if (alg !== 'HS256' || kid === undefined || nonce !== undefined) throw malformed('a binding has HS256, a kid and no nonce');
  if (signedUrl !== url) throw malformed('the url of the binding is not that of the request');
  const bound = readJwk(binding.payload);
  if (thumbprintOf(bound.jwk) !== thumbprintOf(account)) throw malformed('what the binding binds is not the key of the account');
  const key = keys.get(kid);
  const mac = createHmac('sha256', Buffer.from(key ?? '', 'base64url'))
    .update(binding.signed)
    .digest();
  if (key === undefined || mac.length !== binding.signature.length || !timingSafeEqual(mac, binding.signature)) {
    throw new Problem('unauthorized', 403, 'the binding is not of a key that this CA gave');
  }
  return kid;
}
