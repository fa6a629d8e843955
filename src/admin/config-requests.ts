/** Changes of the edge's settings, as they come: everything that is wrong with one is said at once, each with its path. */
import * as z from 'zod';
import { EcluseError } from '#errors';
import { hasPrototypeKey } from '#routing/operator/schema.ts';
import { pathText, tryJson } from '#json';
import { nearestWord } from '#suggest';
import { badRequest } from './api-error.ts';
import type { Precondition } from './entity-tag.ts';
import { flag } from './requests.ts';

/** More problems than these are one mistake, seen many times. */
const PROBLEMS_MAX = 20;
const NOTE_CHARS_MAX = 500;

const version = z
  .string()
  .regex(/^\d{1,15}$/, 'a version is a whole number')
  .transform(Number);

export const changeQuerySchema = z.strictObject({
  dryRun: flag.prefault('0').describe('Says what would change, and whether it holds; nothing is changed.'),
  note: z.string().max(NOTE_CHARS_MAX).prefault('').describe('Why, for the history.'),
});
export const rollbackSchema = z.strictObject({ to: z.int().min(0).describe('A version of the history; 0: before the first.') });
export const historyQuerySchema = z.strictObject({
  limit: version.pipe(z.int().min(1).max(1000)).prefault('50').describe('The newest so many; at most 1000.'),
});
export const diffQuerySchema = z.strictObject({ since: version.describe('A version of the history.') });
export const explainQuerySchema = z.strictObject({
  host: z.string().min(1).max(300).describe('As the field Host has it.'),
  target: z.string().min(1).max(16_384).prefault('/').describe('Path and query.'),
  method: z.string().min(1).max(64).prefault('GET').describe('The method of the request.'),
  headers: z
    .string()
    .max(65_536)
    .prefault('{}')
    .transform(tryJson)
    .pipe(
      z.record(
        z.string().transform((name) => name.toLowerCase()),
        z.string(),
      ),
    )
    .describe('JSON: header fields by name.'),
  version: version.optional().describe('With what operators wrote in this version. Absent: as it is.'),
});

/** The version that `If-Match` names; undefined: whatever there is. Errors: ECLUSE_REQUEST_INVALID. */
export function versionOfPrecondition(precondition: Precondition): number | undefined {
  if (precondition === undefined) return undefined;
  const [tag = '', ...others] = precondition;
  const found = /^(?:W\/)?"(\d{1,15})"$/.exec(tag)?.[1];
  if (found === undefined || others.length > 0)
    throw badRequest(`If-Match cannot be ${precondition.join(', ').slice(0, 60)}`, 'send the ETag of /v1/config');
  return Number(found);
}

/** Errors: ECLUSE_CONFIG_INVALID, with one line a problem. */
export function parseConfig<S extends z.ZodType>(schema: S, value: unknown, keys = KEYS): z.output<S> {
  if (hasPrototypeKey(value)) throw badRequest('the key __proto__ is no key of anything here', 'leave it out');
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const lines = problemLines(parsed.error.issues, keys);
  const shown = lines.slice(0, PROBLEMS_MAX);
  if (lines.length > shown.length) shown.push(`and ${String(lines.length - shown.length)} more problems`);
  throw new EcluseError({
    code: 'ECLUSE_CONFIG_INVALID',
    source: 'config',
    status: 400,
    message: shown.join('\n'),
    mend: 'nothing was changed; mend that and try again',
  });
}

export interface ConfigProblem {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** Keys that are known anywhere in what operators write, for a word that was meant. */
const KEYS: readonly string[] = [
  'services',
  'routes',
  'endpoints',
  'sendProxy',
  'url',
  'balance',
  'health',
  'interval',
  'timeout',
  'unhealthyAfter',
  'healthyAfter',
  'timeouts',
  'connect',
  'firstByte',
  'idle',
  'limits',
  'connections',
  'pending',
  'hold',
  'match',
  'host',
  'path',
  'methods',
  'headers',
  'service',
  'split',
  'weight',
  'actions',
  'stripPrefix',
  'setRequestHeaders',
  'setResponseHeaders',
  'redirect',
  'respond',
  'rateLimit',
  'auth',
  'basic',
  'forward',
  'mirror',
  'tls',
  'caBundles',
  'pem',
  'clientCertificate',
  'ca',
  'mode',
  'minVersion',
  'hsts',
  'maxAge',
  'includeSubDomains',
  'preload',
  'serverName',
  'insecure',
  'operations',
  'op',
  'name',
  'route',
];

/** `keys`: those that may have been meant where one is unknown. */
export function problemsOf(issues: readonly z.core.$ZodIssue[], keys = KEYS): readonly ConfigProblem[] {
  return issues.flatMap((issue): readonly ConfigProblem[] => {
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => {
        const meant = nearestWord(key, keys);
        return { path: [...issue.path, key], message: `unknown key${meant === undefined ? '' : `; did you mean ${meant}?`}` };
      });
    }
    // What is wrong with a key of a mapping is said of the key.
    if (issue.code === 'invalid_key') return issue.issues.map(({ message }) => ({ path: issue.path, message }));
    // Of what may be written in several ways, the way that was meant is one whose faults are further down.
    const ways = issue.code === 'invalid_union' ? issue.errors : [];
    const meant = ways.find((way) => way.every(({ code, path }) => code !== 'invalid_type' || path.length > 0));
    if (meant !== undefined)
      return problemsOf(meant, keys).map(({ path, message }) => ({ path: [...issue.path, ...path], message }));
    return [{ path: issue.path, message: issue.message }];
  });
}

function problemLines(issues: readonly z.core.$ZodIssue[], keys: readonly string[]): string[] {
  return problemsOf(issues, keys).map(({ path, message }) => (path.length === 0 ? message : `${pathText(path)}: ${message}`));
}
