/** What the admin API answers about certificates: the schemas of the OpenAPI document, as those in `answers.ts`. */
import * as z from 'zod';

const instantMs = z.int().describe('Milliseconds since 1970.');

const certificate = z.object({
  name: z.string(),
  version: z.int().min(1).describe('Counts from 1 with each that takes the place of another.'),
  source: z.enum(['uploaded', 'acme']),
  addedMs: instantMs,
  notBeforeMs: instantMs,
  notAfterMs: instantMs,
  hosts: z.array(z.string()).describe('Names that it covers: exact, or *.example.com.'),
  issuer: z.string().describe('A distinguished name.'),
  keyKind: z.string().describe('RSA 2048, EC P-256.'),
  fingerprint: z.string().describe('SHA-256 of the DER, in hexadecimal digits.'),
  renewal: z
    .object({
      renewAtMs: instantMs
        .nullable()
        .describe('When a CA is asked for the next one; null: it is not known yet, or as soon as it may be.'),
      lastError: z.string().nullable().describe('Why the last attempt came to nothing.'),
    })
    .nullable()
    .describe('Null: nobody asks for the next one.'),
  warnings: z.array(z.string()).describe('What is not as it should be, for people.'),
});

/** By the names that they have in the document. */
export const CERTIFICATE_ANSWERS = {
  CertificateList: z.object({
    certificates: z.array(certificate).describe('By name.'),
    waiting: z
      .array(z.object({ host: z.string(), lastError: z.string().nullable().describe('Why the last attempt came to nothing.') }))
      .describe('Hosts that are to get one of a CA, and have none yet: the first of them.'),
  }),
  RenewalsAsked: z.object({ hosts: z.int().describe('For how many hosts CAs are asked.') }),
  CertificateAdded: z.object({ certificate, notes: z.array(z.string()).describe('What was put right or is to be known.') }),
} as const;

/** What a handshake gets. */
export const certificateExplanation = z.object({
  kind: z
    .enum(['added', 'internal', 'default', 'none'])
    .describe("added: one that people added; internal: of the node's own CA, for the host of a route; none: an alert."),
  name: z.string().describe('What one that was added is called; empty for others.'),
  hosts: z.array(z.string()),
  source: z.enum(['uploaded', 'acme']).nullable(),
  notAfterMs: z.number().nullable().describe('Milliseconds since 1970; null for none.'),
});
