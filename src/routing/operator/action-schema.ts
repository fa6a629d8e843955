/** What an operator writes of the actions of a route: checked, and made what routing takes. Pure. */
import * as z from 'zod';
import type { FieldChange, RequestKey, RouteActions } from '#routing/actions.ts';
import { isFieldValue, isToken } from '#routing/header-field.ts';
import { parsePathPrefix } from '#routing/path-prefix.ts';
import { redirectFault } from '#routing/rewritten-path.ts';
import { parseDurationMs } from '#units';
import { duration, faultOf, serviceName } from './schema-parts.ts';

/** As long as policies for content get. */
const VALUE_LENGTH_MAX = 4096;
/** Heads are written to a buffer of 128 KiB that has room for the longest that came, and this. */
const FIELDS_MAX = 32;
const FIELDS_LENGTH_MAX = 16 * 1024;
/** It is in the memory of every worker. */
const BODY_LENGTH_MAX = 64 * 1024;
const REQUESTS_MAX = 1_000_000;
const PERIOD_MS_MAX = 86_400_000;
/** Each is a line of a file; many more want a service of their own (`forward`). */
const USERS_MAX = 1000;
const PASSED_MAX = 32;

/** They are of one connection, or framing, or ours to say. */
const NOT_TO_BE_CHANGED: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'content-length',
  'expect',
  'http2-settings',
  'close',
  'forwarded',
  'x-real-ip',
  'x-request-id',
  'client-cert',
  'client-cert-chain',
]);
const OUR_PREFIXES = ['x-forwarded-', 'x-ecluse-'] as const;

function fieldFault(name: string, value: string | null, side: 'request' | 'response'): string | undefined {
  // What counts an underscore as a hyphen would see the field that we do not.
  const lower = name.toLowerCase().replaceAll('_', '-');
  if (!isToken(name)) return `"${name.slice(0, 80)}" is no name of a header field`;
  if (NOT_TO_BE_CHANGED.has(lower) || OUR_PREFIXES.some((prefix) => lower.startsWith(prefix)))
    return `${name} belongs to the connection or says where a request comes from; it cannot be changed`;
  if (side === 'response' && lower === 'date') return 'Date is the time of the response; it cannot be changed';
  if (side === 'request' && lower === 'host' && (value === null || !HOST.test(value)))
    return 'Host can only be a host, with or without a port';
  if (value !== null && !isFieldValue(value, VALUE_LENGTH_MAX))
    return `the value of ${name} cannot be sent: write 1 to ${String(VALUE_LENGTH_MAX)} characters of ASCII`;
  return undefined;
}

const HOST = /^(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?$/i;

function fieldsFault(fields: Readonly<Record<string, string | null>>, side: 'request' | 'response'): string | undefined {
  const entries = Object.entries(fields);
  if (entries.length > FIELDS_MAX) return `more than ${String(FIELDS_MAX)} header fields`;
  if (entries.reduce((sum, [name, value]) => sum + name.length + (value ?? '').length, 0) > FIELDS_LENGTH_MAX)
    return `more than ${String(FIELDS_LENGTH_MAX)} characters of header fields`;
  const names = new Set(entries.map(([name]) => name.toLowerCase()));
  if (names.size !== entries.length) return 'a header field is there twice';
  return entries.map(([name, value]) => fieldFault(name, value, side)).find((fault) => fault !== undefined);
}

const fieldsSchema = (side: 'request' | 'response') =>
  z
    .record(z.string(), z.string().nullable())
    .superRefine(faultOf((fields) => fieldsFault(fields, side)))
    .describe('By name: the value that it gets, instead of any that it has, or null to take it away.');

const redirectSchema = z.strictObject({
  to: z
    .string()
    .superRefine(faultOf(redirectFault))
    .describe('A URL or a path with {host}, {path}, {query} and {uri} (path and query): https://{host}{uri}.'),
  status: z
    .union([z.literal(301), z.literal(302), z.literal(303), z.literal(307), z.literal(308)])
    .exactOptional()
    .describe('Default: 302. 301 and 308 are kept by browsers for good.'),
});

const respondSchema = z.strictObject({
  status: z.int().min(200).max(599),
  body: z.string().max(BODY_LENGTH_MAX).exactOptional(),
  contentType: z
    .string()
    .refine((text) => isFieldValue(text, 255), 'write a media type: up to 255 characters of ASCII')
    .exactOptional()
    .describe('Default: text/plain; charset=utf-8.'),
});

const KEY = /^(?:all|ip|(?:header|cookie):[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64})$/;

const rateLimitSchema = z.strictObject({
  requests: z.int().min(1).max(REQUESTS_MAX),
  per: duration({ leastMs: 100, mostMs: PERIOD_MS_MAX }).exactOptional().describe('Default: 1s.'),
  burst: z.int().min(1).max(REQUESTS_MAX).exactOptional().describe('How many may come at once. Default: as many as requests.'),
  by: z
    .string()
    .regex(KEY, 'write ip, header:NAME, cookie:NAME or all')
    .exactOptional()
    .describe('Whose requests are counted together: ip (default), header:NAME, cookie:NAME, or all.'),
});

/** What `ecluse hash-password` prints: scrypt in the form of PHC, of costs that a worker can bear. */
const PASSWORD_HASH = /^\$scrypt\$ln=1[0-6],r=8,p=1\$[A-Za-z0-9+/]{16,86}\$[A-Za-z0-9+/]{43,86}$/;
const USER_NAME = /^[\u0021-\u0039\u003b-\u007e]{1,64}$/;

function usersFault(users: Readonly<Record<string, string>>): string | undefined {
  const names = Object.keys(users);
  if (names.length === 0) return 'there is no user';
  if (names.length > USERS_MAX) return `there are more than ${String(USERS_MAX)} users`;
  const wrong = names.find((name) => !USER_NAME.test(name));
  return wrong === undefined
    ? undefined
    : `"${wrong.slice(0, 80)}" is no name of a user: write 1 to 64 characters of ASCII, without blanks and colons`;
}

const basicSchema = z.strictObject({
  realm: z
    .string()
    .regex(/^[\u0020-\u0021\u0023-\u005b\u005d-\u007e]{1,80}$/, 'a realm has 1 to 80 characters of ASCII, without quotes')
    .exactOptional()
    .describe('What browsers show. Default: restricted.'),
  users: z
    .record(z.string(), z.string().regex(PASSWORD_HASH, 'write what ecluse hash-password prints'))
    .superRefine(faultOf(usersFault))
    .describe('By name: what ecluse hash-password printed.'),
});

const forwardSchema = z.strictObject({
  service: serviceName,
  path: z
    .string()
    .max(1024)
    .regex(/^\/[\w\-.~/!$&'()*+,;=:@%?]*$/, 'write a path, with a query or without')
    .exactOptional()
    .describe('Where it is asked. Default: /.'),
  timeout: duration({ leastMs: 50, mostMs: 60_000 }).exactOptional().describe('Default: 5s.'),
  pass: z
    .array(z.string())
    .max(PASSED_MAX)
    .superRefine(faultOf((names) => names.map((name) => fieldFault(name, 'x', 'request')).find((fault) => fault !== undefined)))
    .exactOptional()
    .describe('Fields of its answer that go on to the endpoint, and that no client can send.'),
});

const authSchema = z
  .strictObject({ basic: basicSchema.exactOptional(), forward: forwardSchema.exactOptional() })
  .refine(({ basic, forward }) => (basic === undefined) !== (forward === undefined), 'write either basic or forward');

const mirrorSchema = z.union([
  serviceName,
  z.strictObject({ service: serviceName, percent: z.number().min(0).max(100).exactOptional().describe('Default: 100.') }),
]);

export const actionsSchema = z
  .strictObject({
    stripPrefix: z
      .string()
      .superRefine(
        faultOf((text) => {
          const read = parsePathPrefix(text);
          if (read.kind === 'invalid') return read.reason;
          return read.prefix === '' ? 'there is nothing to strip of /' : undefined;
        }),
      )
      .exactOptional()
      .describe('What endpoints do not get to see of paths: of /api/x they get /x.'),
    setRequestHeaders: fieldsSchema('request').exactOptional(),
    setResponseHeaders: fieldsSchema('response').exactOptional(),
    redirect: redirectSchema.exactOptional().describe('Answers itself; the route has no service then.'),
    respond: respondSchema.exactOptional().describe('Answers itself; the route has no service then.'),
    rateLimit: rateLimitSchema.exactOptional().describe('What is too much gets 429.'),
    auth: authSchema.exactOptional(),
    mirror: mirrorSchema.exactOptional().describe('Gets copies of the requests; its answers are thrown away.'),
  })
  .refine(({ redirect, respond }) => redirect === undefined || respond === undefined, 'write either redirect or respond')
  .refine(
    ({ redirect, respond, mirror }) => mirror === undefined || (redirect ?? respond) === undefined,
    'what is answered here is not mirrored',
  );

export type ActionSettings = z.infer<typeof actionsSchema>;

const PERIOD_MS = 1000;
const FORWARD_TIMEOUT_MS = 5000;
const REDIRECT_STATUS = 302;

/** Services that are asked or copied to, beside the one that answers. */
export function helperServicesOf(actions: ActionSettings | undefined): readonly string[] {
  const { auth, mirror } = actions ?? {};
  const asked = auth?.forward === undefined ? [] : [auth.forward.service];
  return mirror === undefined ? asked : [...asked, typeof mirror === 'string' ? mirror : mirror.service];
}

/** As routing takes them. `serviceIdOf` gives the id of a service by its name. */
export function actionsOf(settings: ActionSettings, serviceIdOf: (name: string) => string): RouteActions {
  const { stripPrefix, setRequestHeaders, setResponseHeaders, redirect, respond, rateLimit, auth, mirror } = settings;
  const prefix = stripPrefix === undefined ? undefined : parsePathPrefix(stripPrefix);
  return {
    ...(prefix?.kind === 'prefix' ? { stripPrefix: prefix.prefix } : {}),
    ...(setRequestHeaders === undefined ? {} : { requestFields: changesOf(setRequestHeaders) }),
    ...(setResponseHeaders === undefined ? {} : { responseFields: changesOf(setResponseHeaders) }),
    ...(redirect === undefined ? {} : { redirect: { to: redirect.to, status: redirect.status ?? REDIRECT_STATUS } }),
    ...(respond === undefined ? {} : { respond: { body: '', contentType: 'text/plain; charset=utf-8', ...respond } }),
    ...(rateLimit === undefined ? {} : { rateLimit: limitOf(rateLimit) }),
    ...(auth === undefined ? {} : { auth: authOf(auth, serviceIdOf) }),
    ...(mirror === undefined ? {} : { mirror: mirrorOf(mirror, serviceIdOf) }),
  };
}

function changesOf(fields: Readonly<Record<string, string | null>>): readonly FieldChange[] {
  return Object.entries(fields).map(([written, value]) => ({
    name: written.toLowerCase(),
    written,
    value: value ?? undefined,
  }));
}

function limitOf({ requests, per, burst, by }: NonNullable<ActionSettings['rateLimit']>): NonNullable<RouteActions['rateLimit']> {
  return {
    requests,
    perMs: per === undefined ? PERIOD_MS : parseDurationMs(per),
    burst: burst ?? requests,
    by: keyOf(by ?? 'ip'),
  };
}

function keyOf(by: string): RequestKey {
  const [kind = '', name = ''] = by.split(':', 2);
  if (kind === 'header') return { kind, name: name.toLowerCase() };
  if (kind === 'cookie') return { kind, name };
  return { kind: kind === 'all' ? 'all' : 'ip' };
}

function authOf(auth: NonNullable<ActionSettings['auth']>, serviceIdOf: (name: string) => string): RouteActions['auth'] {
  const { basic, forward } = auth;
  if (basic !== undefined) return { kind: 'basic', realm: basic.realm ?? 'restricted', users: basic.users };
  if (forward === undefined) return undefined;
  return {
    kind: 'forward',
    serviceId: serviceIdOf(forward.service),
    path: forward.path ?? '/',
    timeoutMs: forward.timeout === undefined ? FORWARD_TIMEOUT_MS : parseDurationMs(forward.timeout),
    pass: (forward.pass ?? []).map((name) => name.toLowerCase()),
  };
}

function mirrorOf(
  mirror: NonNullable<ActionSettings['mirror']>,
  serviceIdOf: (name: string) => string,
): NonNullable<RouteActions['mirror']> {
  if (typeof mirror === 'string') return { serviceId: serviceIdOf(mirror), percent: 100 };
  return { serviceId: serviceIdOf(mirror.service), percent: mirror.percent ?? 100 };
}
