/** What an operator writes of TLS: CA bundles, and what routes and services want. Checked, and made what routing takes. Pure. */
import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import * as z from 'zod';
import { reasonOf } from '#errors';
import { parseRouteHost } from '#routing/host-name.ts';
import type { CaBundle, RouteTls, EndpointTls } from '#routing/route-tls.ts';
import { parseDurationMs } from '#units';
import { duration, faultOf } from './schema-parts.ts';

/** All of them are in the memory of every worker, and go there together. */
export const CA_BUNDLES_MAX = 100;
/** A handshake names those that it asks for, and a client reads that. */
const PEM_LENGTH_MAX = 64 * 1024;
const CERTIFICATES_MAX = 32;
const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const DAY_MS = 86_400_000;
const YEAR_MS = 365 * DAY_MS;
/** What lists of preloaded hosts ask for (hstspreload.org). */
const PRELOAD_MS_MIN = YEAR_MS;

export const caBundleName = z
  .string()
  .regex(NAME, 'a CA bundle has a name of letters, digits, dots, hyphens and underscores, 63 at most')
  .describe('A CA bundle of this file.');

const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----[\s\S]*?-----END \1-----/g;

export function certificatesOf(pem: string): readonly X509Certificate[] {
  return [...pem.matchAll(BLOCK)].map(([block]) => new X509Certificate(block));
}

function pemFault(pem: string): string | undefined {
  if (pem.includes('PRIVATE KEY'))
    return 'there is a private key in it: a CA bundle is certificates of CAs, and nothing that is secret';
  const labels = [...pem.matchAll(BLOCK)].map(([, label]) => label);
  if (labels.length === 0) return 'there is no certificate in it: write PEM, from -----BEGIN CERTIFICATE----- on';
  if (labels.length > CERTIFICATES_MAX) return `there are more than ${String(CERTIFICATES_MAX)} certificates in it`;
  if (labels.some((label) => label !== 'CERTIFICATE')) return 'there is something beside certificates in it';
  try {
    const stranger = certificatesOf(pem).find(({ ca }) => !ca);
    if (stranger === undefined) return undefined;
    return `"${stranger.subject.split('\n').join(', ').slice(0, 100)}" is no CA: it may sign nothing`;
  } catch (error) {
    return `it cannot be read: ${reasonOf(error)}`;
  }
}

export const caBundleSchema = z.strictObject({
  pem: z
    .string()
    .max(PEM_LENGTH_MAX)
    .superRefine(faultOf(pemFault))
    .describe('Certificates of CAs as PEM, one after the other. Each is trusted by itself, a root or not.'),
});

const clientCertificateSchema = z.strictObject({
  ca: caBundleName,
  mode: z
    .enum(['required', 'optional'])
    .exactOptional()
    .describe(
      'required (default): a request without a valid certificate gets 403, over plain HTTP too. optional: it goes on without an identity.',
    ),
  forward: z
    .boolean()
    .exactOptional()
    .describe('Whether endpoints get the certificate in Client-Cert and Client-Cert-Chain (RFC 9440). Default: true.'),
});

const hstsSchema = z
  .strictObject({
    maxAge: duration({ leastMs: 0, mostMs: 10 * YEAR_MS }).describe('How long browsers keep to HTTPS; 0s: they forget it.'),
    includeSubDomains: z.boolean().exactOptional().describe('Default: false.'),
    preload: z.boolean().exactOptional().describe('Asks lists of browsers to have the host. Hard to take back. Default: false.'),
  })
  .superRefine(
    faultOf(({ maxAge, includeSubDomains, preload }) =>
      preload === true && (includeSubDomains !== true || parseDurationMs(maxAge) < PRELOAD_MS_MIN)
        ? 'preload wants includeSubDomains, and maxAge of 365d at least'
        : undefined,
    ),
  );

export const routeTlsSchema = z.strictObject({
  clientCertificate: clientCertificateSchema.exactOptional().describe('Clients are asked for a certificate of a CA bundle.'),
  minVersion: z
    .enum(['TLSv1.2', 'TLSv1.3'])
    .exactOptional()
    .describe('The least version for its host. The strictest of the routes of a host counts. Default: TLSv1.2.'),
  hsts: hstsSchema.exactOptional().describe('Strict-Transport-Security, over HTTPS only. Default: what its endpoints say.'),
  redirect: z
    .boolean()
    .exactOptional()
    .describe('Whether plain HTTP gets 308 to HTTPS. Default: what ecluse.yaml says (tls.redirect).'),
});

export type RouteTlsSettings = z.infer<typeof routeTlsSchema>;

/** Names that are this machine's: a browser would keep every other program on it to HTTPS. */
export function hstsFault(host: string, tls: RouteTlsSettings | undefined): string | undefined {
  if (tls?.hsts === undefined) return undefined;
  const read = parseRouteHost(host);
  if (read.kind === 'any') return 'hsts is for hosts that are known by name, and not for *';
  const name = host.replace(/^\*\./, '');
  const isLocal = name === 'localhost' || name.endsWith('.localhost');
  return isLocal ? `hsts would keep browsers from everything else at ${host} that speaks plain HTTP` : undefined;
}

export const serviceTlsSchema = z
  .strictObject({
    serverName: z
      .string()
      .superRefine(
        faultOf((text) => (parseRouteHost(text).kind === 'exact' && isIP(text) === 0 ? undefined : 'write a host name')),
      )
      .exactOptional()
      .describe('For SNI, and what their certificates have to be for. Default: their addresses.'),
    ca: caBundleName.exactOptional().describe('Who has to have signed their certificates. Default: the CAs that Node knows.'),
    insecure: z
      .boolean()
      .exactOptional()
      .describe('Takes any certificate. DANGER: whoever is on the way can be the endpoint. Default: false.'),
    clientCertificate: z
      .string()
      .regex(NAME, 'write the name of a certificate, as ecluse cert ls has it')
      .exactOptional()
      .describe('The certificate that they are shown, by its name (ecluse cert ls).'),
  })
  .superRefine(
    faultOf(({ insecure, ca }) => (insecure === true && ca !== undefined ? 'write either ca or insecure' : undefined)),
  );

export type CaBundleSettings = z.infer<typeof caBundleSchema>;
export type ServiceTlsSettings = z.infer<typeof serviceTlsSchema>;

export function caBundleOf(name: string, { pem }: CaBundleSettings): CaBundle {
  return { name, pem };
}

export function routeTlsOf({ clientCertificate, minVersion, hsts, redirect }: RouteTlsSettings): RouteTls {
  return {
    ...(clientCertificate === undefined
      ? {}
      : {
          clientCertificate: {
            caBundle: clientCertificate.ca,
            mode: clientCertificate.mode ?? 'required',
            forward: clientCertificate.forward ?? true,
          },
        }),
    ...(minVersion === undefined ? {} : { minVersion }),
    ...(hsts === undefined ? {} : { hsts: hstsValue(hsts) }),
    ...(redirect === undefined ? {} : { redirect }),
  };
}

/** RFC 6797 §6.1. */
function hstsValue({ maxAge, includeSubDomains, preload }: NonNullable<RouteTlsSettings['hsts']>): string {
  const seconds = String(Math.floor(parseDurationMs(maxAge) / 1000));
  return `max-age=${seconds}${includeSubDomains === true ? '; includeSubDomains' : ''}${preload === true ? '; preload' : ''}`;
}

export function endpointTlsOf({ ca, ...rest }: ServiceTlsSettings): EndpointTls {
  return { ...rest, ...(ca === undefined ? {} : { caBundle: ca }) };
}
