/** What the admin API takes: bodies and queries, checked before anything of the node is called. What a name or a domain may be is the node's to say. */
import * as z from 'zod';
import { nearestWord } from '#suggest';
import { badRequest } from './api-error.ts';
import { CHANGES_MAX } from './limits.ts';

const COUNT_MAX = 1_000_000;
const DOMAINS_MAX = 100;
/** Docker's own least for a container. */
const MEMORY_BYTES_MIN = 6 * 1024 ** 2;

const count = z.int().min(0).max(COUNT_MAX);

const quota = z.strictObject({
  containersMax: count.exactOptional(),
  memoryBytesMax: z.int().min(MEMORY_BYTES_MIN).exactOptional(),
  imagesMax: count.exactOptional(),
  networksMax: count.exactOptional(),
  volumesMax: count.exactOptional(),
  portsMax: count.exactOptional(),
  cpuMilliMax: count.exactOptional(),
});

const domains = z
  .array(z.string().min(1).max(253))
  .max(DOMAINS_MAX)
  .describe('All host suffixes that its routes may use beside NAME-TENANT.DOMAIN.');

const address = z
  .string()
  .max(45)
  .describe('An address of the machine for its published ports. Empty: that of the Docker endpoint.');

export const tenantRequestSchema = z.strictObject({
  name: z.string().min(1).max(64).describe('Lower-case letters, digits and hyphens; it begins with a letter.'),
  quota: quota.exactOptional().describe('What is absent has its default.'),
  domains: domains.exactOptional(),
  address: address.exactOptional(),
});

export const tenantChangeSchema = z.strictObject({
  quota: quota.exactOptional(),
  domains: domains.exactOptional(),
  address: address.exactOptional(),
  state: z.enum(['active', 'suspended']).exactOptional().describe('A suspended tenant cannot use the Docker API.'),
});

/** A hundred copies take a minute; what a tenant may have in all is its quota's matter. */
export const cloneRequestSchema = z.strictObject({ count: z.int().min(1).max(100).describe('How many copies.') });

const endSessions = z
  .boolean()
  .prefault(false)
  .describe('Whether open exec sessions are ended; otherwise they keep a container where it is.');

export const migrateRequestSchema = z.strictObject({ to: z.string().min(1).max(64).describe('A host.'), endSessions });

export const planOrderSchema = z.strictObject({
  dryRun: z.boolean().prefault(false).describe('The plan alone; nothing is changed.'),
});
export const drainRequestSchema = planOrderSchema.extend({ endSessions });
/** A day: WebSockets that last longer are cut. */
const DRAIN_MS_MAX = 86_400_000;
export const upgradeRequestSchema = z.strictObject({
  drainMs: z.int().min(0).max(DRAIN_MS_MAX).exactOptional().describe('What connections of the old workers get to end.'),
});
export const restoreRequestSchema = z.strictObject({
  to: z.string().min(1).max(64).exactOptional().describe('A host. Absent: one is chosen.'),
});

/** A flag of a query: `?all`, `?all=1`, `?all=true`. */
export const flag = z.enum(['', '0', '1', 'false', 'true']).transform((text) => text !== '0' && text !== 'false');

const instant = z.string().transform((text, context) => {
  const atMs = /^\d{1,15}$/.test(text) ? Number(text) : Date.parse(text);
  if (!Number.isNaN(atMs)) return atMs;
  context.addIssue({ code: 'custom', message: `"${text.slice(0, 80)}" is no time: write milliseconds since 1970, or ISO 8601` });
  return z.NEVER;
});

const cursor = z
  .string()
  .regex(/^\d{1,15}$/, { error: 'a sequence number is an integer of at least 0' })
  .transform(Number);

const ofTenant = z.string().optional().describe('Only what belongs to this tenant.');

export const containersQuerySchema = z.strictObject({
  all: flag.prefault('0').describe('Also those that do not run.'),
  tenant: ofTenant,
});

export const usageQuerySchema = z.strictObject({
  tenant: ofTenant,
  since: instant.prefault('0').describe('Milliseconds since 1970, or ISO 8601.'),
  until: instant.optional().describe('As since. Absent: now.'),
  by: z.enum(['container', 'tenant', 'host', 'hour']).prefault('container').describe('What is summed up.'),
});

export const changesQuerySchema = z.strictObject({
  after: cursor.optional().describe('A sequence number; 0 is before the first change.'),
  limit: cursor
    .pipe(z.int().min(1).max(CHANGES_MAX))
    .prefault('100')
    .describe(`At most ${String(CHANGES_MAX)}.`),
  latest: flag.prefault('0').describe('The newest changes instead of those after a sequence number.'),
});

export const eventsQuerySchema = z.strictObject({
  after: cursor.optional().describe('A sequence number. Absent: from now on.'),
});

/** The value as the schema understands it; what is wrong becomes one 400 that names the first fault. */
export function parseRequest<S extends z.ZodType>(schema: S, value: unknown, what: 'body' | 'query'): z.infer<S> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  if (issue === undefined) throw badRequest(`the ${what} is not valid`);
  const where = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    const key = issue.keys[0] ?? '';
    const meant =
      issue.path.length === 0 && schema instanceof z.ZodObject ? nearestWord(key, Object.keys(schema.shape)) : undefined;
    throw badRequest(
      `the ${what} has an unknown key: ${[where, key].filter((part) => part !== '').join('.')}`,
      meant === undefined ? 'leave it out' : `did you mean ${meant}?`,
    );
  }
  throw badRequest(where === '' ? `the ${what} is not valid: ${issue.message}` : `${where}: ${issue.message}`);
}
