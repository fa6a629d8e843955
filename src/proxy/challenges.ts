/** Proofs that CAs look for, as one worker shows them: a text at a path (HTTP-01), or a certificate at a handshake with `acme-tls/1` (TLS-ALPN-01). */
import { TLSSocket } from 'node:tls';
import type { Socket } from 'node:net';
import { HELLO_BYTES_MAX, readClientHello } from '#tls/client-hello.ts';
import type { EdgeCertificate } from '#tls/certificate.ts';
import { NO_PROOFS } from '#tls/acme/shown-proofs.ts';
import type { ShownProofs } from '#tls/acme/shown-proofs.ts';
import { SecureContexts } from '#tls/secure-contexts.ts';
import type { OwnResponse } from './error-response.ts';
import { lookAhead } from './look-ahead.ts';
import type { Look, LookOptions } from './look-ahead.ts';

/** RFC 8555 §8.3. */
const PATH = '/.well-known/acme-challenge/';
/** RFC 8737 §6.2. */
const PROTOCOL = 'acme-tls/1';
/** A CA that shows nothing more after its handshake. */
const LINGER_MS = 10_000;

export class Challenges {
  #texts: ReadonlyMap<string, string> = new Map();
  #certificates: ReadonlyMap<string, EdgeCertificate> = new Map();
  readonly #contexts = new SecureContexts();

  constructor() {
    this.show(NO_PROOFS);
  }

  /** From now on all of these, and no others. */
  show({ http, tls }: ShownProofs): void {
    this.#texts = new Map(http.map(({ token, keyAuthorization }) => [token, keyAuthorization]));
    this.#certificates = new Map(tls.map((certificate) => [certificate.name, certificate]));
  }

  /** PERF: asked for each request; where nothing is shown it is nothing. */
  get hasTexts(): boolean {
    return this.#texts.size > 0;
  }

  /** Whether the first bytes of a TLS connection have to be looked at. */
  get hasCertificates(): boolean {
    return this.#certificates.size > 0;
  }

  /** The answer to a request for `path`; undefined: it is for a route. */
  answerTo(path: string): OwnResponse | undefined {
    const text = path.startsWith(PATH) ? this.#texts.get(path.slice(PATH.length)) : undefined;
    if (text === undefined) return undefined;
    const fields = [
      ['Content-Type', 'application/octet-stream'],
      ['Cache-Control', 'no-store'],
    ] as const;
    return { status: 200, fields, body: text };
  }

  /** Reads who is called, puts it back, and tells the certificate for a CA that looks for it; undefined: it is for anybody else. Never where it closes first. */
  lookAt(
    socket: Socket,
    options: Omit<LookOptions<unknown>, 'late'>,
    done: (certificate: EdgeCertificate | undefined) => void,
  ): void {
    const look = (gathered: Buffer): Look<EdgeCertificate | undefined> | undefined => {
      const hello = readClientHello(gathered);
      if (hello.kind === 'more' && gathered.length < HELLO_BYTES_MAX) return undefined;
      const isOfCa = hello.kind === 'hello' && hello.protocols.length === 1 && hello.protocols[0] === PROTOCOL;
      return { found: isOfCa ? this.#certificates.get(hello.serverName ?? '') : undefined, after: 0 };
    };
    // What does not come in time is TLS's to end.
    lookAhead(socket, { ...options, late: undefined }, look, done);
  }

  /** Shows the certificate, and ends: nothing else is to be said on such a connection (RFC 8737 §3). */
  handshake(socket: Socket, certificate: EdgeCertificate): void {
    const secure = new TLSSocket(socket, {
      isServer: true,
      secureContext: this.#contexts.of(certificate),
      ALPNProtocols: [PROTOCOL],
    });
    secure.setTimeout(LINGER_MS, () => {
      secure.destroy();
    });
    secure.on('error', () => {
      secure.destroy();
    });
    secure.once('secure', () => {
      secure.end();
    });
    secure.resume();
  }
}
