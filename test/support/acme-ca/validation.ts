/** The three challenges, looked at as a CA does (RFC 8555 §8, RFC 8737): over real connections, to where the test says that a name is. */
import { createHash } from 'node:crypto';
import { get } from 'node:http';
import { connect } from 'node:tls';
// Before the library: it needs what this one sets up.
import { isCertificateName } from '#tls/issue.ts';
import { SubjectAlternativeNameExtension, X509Certificate } from '@peculiar/x509';
import type { Challenge } from './resources.ts';
import { Problem } from './problem.ts';

export interface Place {
  readonly host: string;
  readonly port: number;
}

/** Where names are: instead of the DNS. Undefined: there is no such name. */
export interface Resolver {
  readonly http?: (name: string) => Place | undefined;
  readonly tls?: (name: string) => Place | undefined;
  /** The TXT records of a name, which begins with `_acme-challenge.`. */
  readonly txt?: (name: string) => Promise<readonly string[]> | readonly string[];
}

/** In real time: as Let's Encrypt, which waits 10 s. */
const LIMIT_MS = 10_000;
const BODY_BYTES_MAX = 4_096;
/** id-pe-acmeIdentifier. */
const ACME_IDENTIFIER = '1.3.6.1.5.5.7.1.31';

/** Resolves where the challenge is met; throws a Problem where not. */
export async function validate({ type, token, authorization }: Challenge, thumbprint: string, resolver: Resolver): Promise<void> {
  const keyAuthorization = `${token}.${thumbprint}`;
  switch (type) {
    case 'http-01':
      await validateHttp(authorization.name, { token, keyAuthorization }, resolver);
      break;
    case 'tls-alpn-01':
      await validateTls(authorization.name, keyAuthorization, resolver);
      break;
    case 'dns-01':
      await validateDns(authorization.name, keyAuthorization, resolver);
      break;
  }
}

function placeOf(name: string, find: ((name: string) => Place | undefined) | undefined): Place {
  const place = find?.(name);
  if (place === undefined) throw new Problem('dns', 400, `there is no address of ${name}`);
  return place;
}

function connectionProblem(name: string, error: Error): Problem {
  return new Problem('connection', 400, `no answer of ${name}: ${error.message}`);
}

async function validateHttp(
  name: string,
  { token, keyAuthorization }: { readonly token: string; readonly keyAuthorization: string },
  resolver: Resolver,
): Promise<void> {
  const { host, port } = placeOf(name, resolver.http);
  const { promise, resolve, reject } = Promise.withResolvers<{ readonly status: number; readonly text: string }>();
  const signal = AbortSignal.timeout(LIMIT_MS);
  const path = `/.well-known/acme-challenge/${token}`;
  const request = get(
    { host, port, path, headers: { host: name, 'user-agent': 'test-acme-ca' }, agent: false, signal },
    (response) => {
      let text = '';
      response.setEncoding('latin1');
      response.on('data', (chunk: string) => {
        text += chunk;
        if (text.length > BODY_BYTES_MAX) response.destroy(new Error('the answer is too long'));
      });
      response.on('error', reject);
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, text });
      });
    },
  );
  request.on('error', reject);
  const { status, text } = await promise.catch((error: unknown) => {
    throw connectionProblem(name, error instanceof Error ? error : new Error(String(error)));
  });
  // A real CA follows redirects; ours does not, so that none comes unnoticed.
  if (status !== 200) throw new Problem('unauthorized', 403, `${name} answers ${path} by ${String(status)}`);
  if (text.trimEnd() !== keyAuthorization)
    throw new Problem('unauthorized', 403, `${name} answers with another key authorization`);
}

async function validateTls(name: string, keyAuthorization: string, resolver: Resolver): Promise<void> {
  const { host, port } = placeOf(name, resolver.tls);
  const { promise, resolve, reject } = Promise.withResolvers<{ readonly protocol: string; readonly raw: Buffer | undefined }>();
  const socket = connect({ host, port, servername: name, ALPNProtocols: ['acme-tls/1'], rejectUnauthorized: false }, () => {
    resolve({
      protocol: socket.alpnProtocol === false ? '' : (socket.alpnProtocol ?? ''),
      raw: socket.getPeerX509Certificate()?.raw,
    });
  });
  socket.on('error', reject);
  socket.setTimeout(LIMIT_MS, () => {
    reject(new Error('it takes too long'));
  });
  try {
    const { protocol, raw } = await promise.catch((error: unknown) => {
      throw connectionProblem(name, error instanceof Error ? error : new Error(String(error)));
    });
    if (protocol !== 'acme-tls/1') throw new Problem('unauthorized', 403, `${name} does not speak acme-tls/1`);
    if (raw === undefined) throw new Problem('unauthorized', 403, `${name} has no certificate`);
    checkChallengeCertificate(raw, name, keyAuthorization);
  } finally {
    socket.destroy();
  }
}

/** RFC 8737 §3: the name alone, and a critical extension with the digest of the key authorization as an octet string. */
function checkChallengeCertificate(raw: Buffer, name: string, keyAuthorization: string): void {
  const certificate = new X509Certificate(raw);
  const alternatives = certificate.extensions.find((extension) => extension instanceof SubjectAlternativeNameExtension);
  const names = alternatives === undefined ? [] : alternatives.names.items;
  const isRightName = names.length === 1 && names[0]?.type === 'dns' && names[0].value.toLowerCase() === name;
  if (!isRightName || !isCertificateName(name)) throw new Problem('unauthorized', 403, `the certificate is not of ${name} alone`);
  const identifier = certificate.extensions.find(({ type }) => type === ACME_IDENTIFIER);
  if (identifier?.critical !== true) throw new Problem('unauthorized', 403, 'the certificate has no critical acmeIdentifier');
  const digest = createHash('sha256').update(keyAuthorization).digest();
  const expected = Buffer.concat([Buffer.from([0x04, digest.length]), digest]);
  if (!expected.equals(Buffer.from(identifier.value))) {
    throw new Problem('unauthorized', 403, 'the acmeIdentifier is not of this key authorization');
  }
}

async function validateDns(name: string, keyAuthorization: string, resolver: Resolver): Promise<void> {
  const record = `_acme-challenge.${name}`;
  const texts = (await resolver.txt?.(record)) ?? [];
  if (texts.length === 0) throw new Problem('dns', 400, `there is no TXT record of ${record}`);
  const digest = createHash('sha256').update(keyAuthorization).digest('base64url');
  if (!texts.includes(digest)) throw new Problem('unauthorized', 403, `no TXT record of ${record} is of this key authorization`);
}
