/** Answers challenges of ACME as a host does: HTTP-01 in plain text, TLS-ALPN-01 with a certificate that is made for it. */
import { createHash, webcrypto } from 'node:crypto';
import { KeyObject } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo, Server } from 'node:net';
import { createSecureContext, createServer as createTlsServer } from 'node:tls';
import type { SecureContext } from 'node:tls';
// Before the library: it needs what this one sets up.
import { isCertificateName } from '#tls/issue.ts';
import { Extension, SubjectAlternativeNameExtension, X509CertificateGenerator } from '@peculiar/x509';
import type { Resolver } from './acme-ca/validation.ts';

export interface AcmeResponder extends AsyncDisposable {
  /** Every name is here. */
  readonly resolver: Required<Resolver>;
  /** By token. */
  readonly http: Map<string, string>;
  readonly tls: (name: string, keyAuthorization: string, faults?: ChallengeFaults) => Promise<void>;
  /** By the name of the record. */
  readonly txt: Map<string, readonly string[]>;
}

interface ChallengeFaults {
  readonly names?: readonly string[];
  readonly isCritical?: boolean;
}

const KEY = { name: 'ECDSA', namedCurve: 'P-256' } as const;

async function challengeContext(name: string, keyAuthorization: string, faults: ChallengeFaults): Promise<SecureContext> {
  const { names = [name], isCritical = true } = faults;
  const keys = await webcrypto.subtle.generateKey(KEY, true, ['sign', 'verify']);
  const digest = createHash('sha256').update(keyAuthorization).digest();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    keys,
    name: [{ CN: ['challenge'] }],
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + 3_600_000),
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    extensions: [
      new SubjectAlternativeNameExtension(names.filter(isCertificateName).map((value) => ({ type: 'dns', value }) as const)),
      new Extension('1.3.6.1.5.5.7.1.31', isCritical, Buffer.concat([Buffer.from([4, digest.length]), digest])),
    ],
  });
  const key = KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' });
  return createSecureContext({ cert: certificate.toString('pem'), key });
}

async function portOf(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  return isInet(address) ? address.port : 0;
}

function isInet(address: AddressInfo | string | null): address is AddressInfo {
  return typeof address === 'object' && address !== null;
}

export async function startAcmeResponder(): Promise<AcmeResponder> {
  const http = new Map<string, string>();
  const txt = new Map<string, readonly string[]>();
  const contexts = new Map<string, SecureContext>();
  const plain = createServer((request, response) => {
    const text = http.get(request.url?.replace('/.well-known/acme-challenge/', '') ?? '');
    response.writeHead(text === undefined ? 404 : 200).end(text);
  });
  const secure = createTlsServer({
    ALPNProtocols: ['acme-tls/1'],
    SNICallback: (name, done) => {
      const context = contexts.get(name);
      done(context === undefined ? new Error('no challenge for this name') : null, context);
    },
  });
  secure.on('tlsClientError', () => undefined);
  const [httpPort, tlsPort] = [await portOf(plain), await portOf(secure)];
  return {
    http,
    txt,
    tls: async (name, keyAuthorization, faults = {}) => {
      contexts.set(name, await challengeContext(name, keyAuthorization, faults));
    },
    resolver: {
      http: () => ({ host: '127.0.0.1', port: httpPort }),
      tls: () => ({ host: '127.0.0.1', port: tlsPort }),
      txt: (record) => txt.get(record) ?? [],
    },
    [Symbol.asyncDispose]: async () => {
      plain.closeAllConnections();
      plain.close();
      secure.close();
      await Promise.all([once(plain, 'close'), once(secure, 'close')]);
    },
  };
}
