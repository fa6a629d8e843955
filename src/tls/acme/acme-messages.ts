/** What CAs send (RFC 8555, 9773), checked: a CA may be wrong, and may lie. Keys that are not used are not looked at. */
import * as z from 'zod';
import { acmeFailure, quotedText } from './acme-failure.ts';

/** What there is to follow is of the CA's own origin, which is checked where it is followed. */
const link = z.url().max(2000);
const shortText = z.string().max(2000);
const time = z.iso.datetime({ offset: true });
/** A set of names may have a hundred; CAs give each an authorization with three challenges. */
const LIST_MAX = 200;

const problem = z.object({
  type: shortText.optional(),
  detail: z.string().max(20_000).optional(),
  status: z.number().optional(),
});
export type Problem = z.infer<typeof problem>;

const directory = z.object({
  newNonce: link,
  newAccount: link,
  newOrder: link,
  renewalInfo: link.optional(),
  meta: z
    .object({
      termsOfService: shortText.optional(),
      externalAccountRequired: z.boolean().optional(),
      profiles: z.record(z.string().max(100), z.string().max(20_000)).optional(),
    })
    .prefault({}),
});
export type Directory = z.infer<typeof directory>;

const account = z.object({ status: shortText });

const identifier = z.object({ type: shortText, value: shortText });

const order = z.object({
  status: z.enum(['pending', 'ready', 'processing', 'valid', 'invalid']),
  identifiers: z.array(identifier).max(LIST_MAX),
  authorizations: z.array(link).max(LIST_MAX),
  finalize: link,
  certificate: link.optional(),
  error: problem.optional(),
});
export type Order = z.infer<typeof order>;

/** RFC 8555 §8.3: at least 128 bits in base64url. It becomes a part of a path and of a message between processes. */
const token = z.string().regex(/^[A-Za-z0-9_-]{16,256}$/);

const challenge = z.object({ type: shortText, url: link, status: shortText, token: token.optional(), error: problem.optional() });
export type Challenge = z.infer<typeof challenge>;

const authorization = z.object({
  status: z.enum(['pending', 'valid', 'invalid', 'deactivated', 'expired', 'revoked']),
  identifier,
  challenges: z.array(challenge).max(LIST_MAX),
  wildcard: z.boolean().optional(),
});
export type Authorization = z.infer<typeof authorization>;

const renewalInfo = z.object({
  suggestedWindow: z.object({ start: time, end: time }),
  explanationURL: shortText.optional(),
});
export type RenewalInfo = z.infer<typeof renewalInfo>;

/** A kind of message: how it is called, and what it must be. */
export interface MessageKind<T> {
  readonly name: string;
  readonly schema: z.ZodType<T>;
}

export const DIRECTORY: MessageKind<Directory> = { name: 'directory', schema: directory };
export const ACCOUNT: MessageKind<z.infer<typeof account>> = { name: 'account', schema: account };
export const ORDER: MessageKind<Order> = { name: 'order', schema: order };
export const AUTHORIZATION: MessageKind<Authorization> = { name: 'authorization', schema: authorization };
export const CHALLENGE: MessageKind<Challenge> = { name: 'challenge', schema: challenge };
export const RENEWAL_INFO: MessageKind<RenewalInfo> = { name: 'renewal information', schema: renewalInfo };

/** Throws a failure of the kind `ca` where it is something else. */
export function readMessage<T>({ name, schema }: MessageKind<T>, value: unknown, ca: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = issue === undefined || issue.path.length === 0 ? '' : ` at ${quotedText(issue.path.map(String).join('.'))}`;
  throw acmeFailure('ca', `${ca} sent as ${name} what is none${where}: ${quotedText(issue?.message ?? '')}`, {
    mend: 'check that the URL of the directory is one of an ACME server',
  });
}

export function readProblem(value: unknown): Problem {
  const parsed = problem.safeParse(value);
  return parsed.success ? parsed.data : {};
}
