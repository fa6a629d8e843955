/** What the admin API answers about the edge's settings: the schemas of the OpenAPI document, as those in `answers.ts`. */
import * as z from 'zod';
import { documentSchema } from '#routing/operator/schema.ts';
import { certificateExplanation } from './certificate-answers.ts';

const version = z.int().min(0).describe('A config version.');

const diffEntry = z.object({
  change: z.enum(['added', 'removed', 'changed']),
  kind: z.enum(['service', 'route', 'order', 'ca-bundle']).describe('order: the routes of a host are asked in another order.'),
  name: z.string().describe("A service's name, a route's host and path with what else it asks for, or a host."),
  before: z.unknown().optional().describe('Absent: it was not there.'),
  after: z.unknown().optional().describe('Absent: it is gone.'),
});
const diff = z.array(diffEntry).describe('The first of them.');
const differences = z.int().min(0).describe('How many there are in all.');

/** What more there is of a route or an endpoint is the data plane's own, and no promise. */
const OPEN = { additionalProperties: true };
const servedRoute = z.object({ host: z.string(), path: z.string(), serviceId: z.string() }).meta(OPEN);
const endpoint = z
  .object({ id: z.string(), address: z.string(), port: z.int().min(0).max(65_535), hostName: z.string(), generation: z.int() })
  .meta(OPEN);

const health = z
  .array(
    z.object({
      service: z.string(),
      endpoint: z.string().describe('As it was written.'),
      healthy: z.boolean(),
      reason: z.string().describe('Why the last check failed, or why it is unhealthy; empty: there is nothing to say.'),
      sinceMs: z.number().describe('Since when it is healthy or not, in milliseconds since 1970.'),
      checkedMs: z.number().describe('The last check; 0: there was none yet.'),
    }),
  )
  .describe('Endpoints that are checked.');

/** By the names that they have in the document. */
export const CONFIG_ANSWERS = {
  EdgeSettings: z.object({
    version: version.describe('In which operators changed something last. It is the ETag.'),
    document: documentSchema,
  }),
  EdgeReport: z.object({
    version,
    changed: z.boolean(),
    dryRun: z.boolean(),
    diff,
    differences,
    workers: z.array(z.object({ pid: z.int(), version })).describe('Those that serve it.'),
  }),
  EdgeHistory: z.object({
    versions: z
      .array(
        z.object({
          version,
          atMs: z.int().min(0).describe('Milliseconds since 1970.'),
          cause: z.enum(['apply', 'transaction', 'rollback']),
          note: z.string(),
          services: z.int().min(0).describe('How many of them changed.'),
          hosts: z.int().min(0).describe('How many of them changed.'),
        }),
      )
      .describe('The newest first.'),
  }),
  EdgeDiff: z.object({ diff, differences }),
  EdgeLint: z.object({ findings: z.array(z.object({ at: z.string(), message: z.string() })) }),
  ServiceHealth: z.object({ endpoints: health }),
  Explanation: z.object({
    version,
    host: z.string().optional().describe('As routes are asked for it. Absent: it is no host.'),
    path: z.string(),
    route: servedRoute.optional(),
    tenant: z.string().optional(),
    serviceId: z.string().optional(),
    endpoints: z.array(endpoint),
    outcome: z.string().describe('What a client gets.'),
    candidates: z
      .array(z.object({ route: servedRoute, tenant: z.string(), verdict: z.string().describe('"taken", or why it was not.') }))
      .describe('The first of them, in the order in which they are asked.'),
    health,
    certificate: certificateExplanation.describe('What a TLS handshake for it gets.'),
  }),
} as const;
