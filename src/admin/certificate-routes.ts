/** The routes of the admin API for the edge's certificates. */
import * as z from 'zod';
import { PEM_BYTES_MAX } from '#tls/certificate-check.ts';
import { doneRoute, jsonRoute } from './admin-route.ts';
import type { AdminRoute } from './admin-route.ts';
import { CERTIFICATE_ANSWERS } from './certificate-answers.ts';

const NAME_FAULT = 'a name has up to 63 small letters, digits, dots, dashes and underscores, and begins with a letter or digit';
const SIZE_FAULT = `it has more than ${String(PEM_BYTES_MAX / 1024)} KiB`;

/** A host's name is one, so that operators can call a certificate as what it is for. */
export const certificateName = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, { error: NAME_FAULT });
const pem = z.string().max(PEM_BYTES_MAX, { error: SIZE_FAULT });

export const certificateUploadSchema = z.strictObject({
  name: certificateName.describe('What it is called; one of that name is replaced.'),
  certPem: pem.describe('The leaf, and what signed it.'),
  keyPem: pem.describe('Its private key. It is never answered.'),
  force: z.boolean().prefault(false).describe('Take one that is not valid today as well.'),
});

const renewalSchema = z.strictObject({
  host: z.string().min(1).max(255).nullable().describe('The host; null: all that get certificates of CAs.'),
  force: z.boolean().prefault(false).describe('Also where it is not time yet.'),
});

export const CERTIFICATE_ROUTES: readonly AdminRoute[] = [
  jsonRoute({
    method: 'GET',
    path: 'certs',
    summary: 'Certificates that people added or that came from CAs, and hosts that wait for one',
    answer: CERTIFICATE_ANSWERS.CertificateList,
    handle: async ({ control }) => await control.certificates.list(),
  }),
  jsonRoute({
    method: 'POST',
    path: 'certs',
    summary: 'Serve a certificate, in place of what has its name',
    body: certificateUploadSchema,
    status: 201,
    refusals: [409],
    answer: CERTIFICATE_ANSWERS.CertificateAdded,
    handle: async ({ control, body }) => await control.certificates.add(body),
  }),
  jsonRoute({
    method: 'POST',
    path: 'cert-renewals',
    summary: 'Ask CAs again for certificates, whatever failed before',
    body: renewalSchema,
    status: 202,
    refusals: [404, 409],
    answer: CERTIFICATE_ANSWERS.RenewalsAsked,
    handle: async ({ control, body }) => await control.certificates.renew(body),
  }),
  doneRoute({
    method: 'DELETE',
    path: 'certs/{name}',
    summary: 'Serve a certificate no more',
    refusals: [404],
    handle: async ({ control, captured }) => {
      await control.certificates.remove(captured('name'));
    },
  }),
];
