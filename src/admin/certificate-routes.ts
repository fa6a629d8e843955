/** The routes of the admin API for the edge's certificates. */
import * as z from 'zod';
import { PEM_BYTES_MAX } from '#tls/certificate-check.ts';
import type { AdminRoute } from './admin-route.ts';
import { readJson, sendJson } from './exchange.ts';
import { parseRequest } from './requests.ts';

const NAME_FAULT = 'a name has up to 63 small letters, digits, dots, dashes and underscores, and begins with a letter or digit';
const SIZE_FAULT = `it has more than ${String(PEM_BYTES_MAX / 1024)} KiB`;

/** A host's name is one, so that operators can call a certificate as what it is for. */
export const certificateName = z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, { error: NAME_FAULT });
const pem = z.string().max(PEM_BYTES_MAX, { error: SIZE_FAULT });

export const certificateUploadSchema = z.strictObject({
  name: certificateName,
  certPem: pem,
  keyPem: pem,
  force: z.boolean().prefault(false),
});

export const CERTIFICATE_ROUTES: readonly AdminRoute[] = [
  {
    method: 'GET',
    path: 'certs',
    handle: async (exchange, { control }) => {
      sendJson(exchange, 200, { certificates: await control.certificates.list() });
    },
  },
  {
    method: 'POST',
    path: 'certs',
    handle: async (exchange, { control }) => {
      const upload = parseRequest(certificateUploadSchema, await readJson(exchange), 'body');
      sendJson(exchange, 201, await control.certificates.add(upload));
    },
  },
  {
    method: 'DELETE',
    path: 'certs/{name}',
    handle: async (exchange, { control }) => {
      await control.certificates.remove(exchange.captured['name'] ?? '');
      exchange.response.writeHead(204).end();
    },
  },
];
