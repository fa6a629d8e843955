/**
 * The query of `POST /build`, checked against an allow-list. Pure. What would reach outside of the tenant is refused with the reason; keys that
 * Docker does not know are ignored, as Docker does, and nothing of the client's goes on unparsed.
 */
import * as z from 'zod';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { foldFields } from '#caas/docker-api/go-json.ts';
import { booleanOf, integerOfQuery } from '#caas/docker-api/request.ts';
import { SPEC_LIMITS } from '#caas/spec/container-spec.ts';
import { parseReference, wholeReference } from '#caas/images/image-reference.ts';
import { registryAuthOf } from '#caas/registry/registry-auth.ts';
import type { RegistryAuth } from '#caas/registry/registry-auth.ts';
import type { GivenArguments } from './build-arguments.ts';

export interface BuildOptions {
  readonly dockerfile: string;
  /** Whole references. */
  readonly tags: readonly string[];
  readonly isQuiet: boolean;
  readonly noCache: boolean;
  /** Whether the tenant hears that containers of steps are removed: they always are. */
  readonly removal: 'never' | 'of success' | 'always';
  /** Pull what FROM names even where it is there. */
  readonly pull: boolean;
  readonly target: string;
  readonly platform: string;
  readonly arguments: GivenArguments;
  readonly labels: Readonly<Record<string, string>>;
  /** References whose layers may be used again; undefined: what the tenant has. */
  readonly cacheFrom: readonly string[] | undefined;
  readonly network: 'default' | 'none';
  /** 0: not said. */
  readonly memoryBytes: number;
  readonly cpuShares: number;
  readonly cpuPeriod: number;
  readonly cpuQuota: number;
  readonly shmBytes: number;
  readonly ulimits: readonly Readonly<{ Name: string; Soft: number; Hard: number }>[];
  readonly extraHosts: readonly string[];
}

const TAGS_MAX = 50;
const ENTRIES_MAX = 200;
const TEXT_CHARS_MAX = 16 * 1024;
const DOCKERFILE_CHARS_MAX = 512;
/** The kernel's own bounds. */
const CPU_SHARES_MAX = 262_144;
const CPU_PERIOD_MAX_US = 1_000_000;

const entries = z.record(z.string().max(1024), z.string().max(TEXT_CHARS_MAX));
const argumentEntries = z.record(z.string().max(1024), z.string().max(TEXT_CHARS_MAX).nullable());
const references = z.array(z.string().max(512)).max(ENTRIES_MAX);
const ulimit = z.object({ Name: z.string().regex(/^[a-z]{1,20}$/), Soft: z.int().default(0), Hard: z.int().default(0) });

/** A JSON value of the query; undefined where it is absent, empty or null. `what` as in Docker's message. */
function jsonOf<T>(query: URLSearchParams, key: string, schema: z.ZodType<T>, what: string): T | undefined {
  const text = query.get(key) ?? '';
  if (text === '') return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw dockerError(400, `error reading ${what}: invalid JSON`);
  }
  if (value === null) return undefined;
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw dockerError(
    400,
    `error reading ${what}: ${[...(issue?.path ?? []).map(String), issue?.message ?? 'invalid'].join(': ').slice(0, 300)}`,
  );
}

function within(query: URLSearchParams, key: string, min: number, max: number): number {
  const value = integerOfQuery(query, key) ?? 0;
  if (value === 0 || (value >= min && value <= max)) return value;
  throw dockerError(400, `ecluse: ${key} is ${String(value)}; it can be from ${String(min)} to ${String(max)}`);
}

function tagsOf(query: URLSearchParams): readonly string[] {
  const given = query.getAll('t').filter((name) => name !== '');
  if (given.length > TAGS_MAX) throw dockerError(400, `ecluse: more than ${String(TAGS_MAX)} names for one image`);
  const whole = given.map((name) => {
    if (name.includes('@')) throw dockerError(500, 'build tag cannot contain a digest');
    const parsed = parseReference(name);
    if (parsed !== undefined) return wholeReference(parsed);
    const isCase = parseReference(name.toLowerCase()) !== undefined;
    throw dockerError(500, `invalid reference format${isCase ? ': repository name must be lowercase' : ''}`);
  });
  return [...new Set(whole)];
}

const RUNS_CLASSIC = 'this endpoint has the classic builder: set DOCKER_BUILDKIT=0';

function checkBuilder(query: URLSearchParams): void {
  const version = query.get('version') ?? '';
  if (version === '2') throw dockerError(400, `ecluse: BuildKit is not available, ${RUNS_CLASSIC}`);
  if (version !== '' && version !== '1') throw dockerError(500, `invalid version ${JSON.stringify(version.slice(0, 40))}`);
  const outputs = jsonOf(query, 'outputs', z.array(z.unknown()), 'outputs') ?? [];
  if (outputs.length > 0) throw dockerError(400, `ecluse: --output needs BuildKit, and ${RUNS_CLASSIC}`);
  const remote = query.get('remote') ?? '';
  if (remote === 'client-session') {
    throw dockerError(
      400,
      'experimental session with v1 builder is no longer supported, use builder version v2 (BuildKit) instead',
    );
  }
  if (remote !== '') {
    throw dockerError(
      400,
      'ecluse: a context is not fetched from elsewhere; clone or download it, and send it: docker build FOLDER',
    );
  }
  if (booleanOf(query, 'squash')) throw dockerError(400, 'squash is only supported with experimental mode');
}

function checkIsolation(query: URLSearchParams): void {
  if (query.has('securityopt')) {
    throw dockerError(400, 'The daemon on this platform does not support setting security options on build');
  }
  const isolation = query.get('isolation') ?? '';
  if (isolation !== '' && isolation !== 'default') {
    throw dockerError(400, `Unsupported isolation: ${JSON.stringify(isolation.slice(0, 40))}`);
  }
  if ((query.get('cgroupparent') ?? '') !== '') throw dockerError(403, 'ecluse: cgroupparent: it is where your use is metered');
  for (const key of ['cpusetcpus', 'cpusetmems']) {
    if ((query.get(key) ?? '') !== '') throw dockerError(403, `ecluse: ${key}: the platform chooses where it runs`);
  }
}

/** As moby reads `rm` and `forcerm`. */
function removalOf(query: URLSearchParams): BuildOptions['removal'] {
  if (booleanOf(query, 'forcerm')) return 'always';
  return (query.get('rm') ?? '') === '' || booleanOf(query, 'rm') ? 'of success' : 'never';
}

function networkOf(query: URLSearchParams): BuildOptions['network'] {
  const mode = query.get('networkmode') ?? '';
  if (mode === '' || mode === 'default' || mode === 'bridge') return 'default';
  if (mode === 'none') return 'none';
  const reason =
    mode === 'host' || mode.startsWith('container:')
      ? 'it would reach outside of the sandbox'
      : 'a build reaches the outside, not the containers of a network; use default or none';
  throw dockerError(403, `ecluse: networkmode ${mode.slice(0, 100)}: ${reason}`);
}

function ulimitsOf(query: URLSearchParams): BuildOptions['ulimits'] {
  const given = jsonOf(query, 'ulimits', z.array(z.unknown()).max(ENTRIES_MAX), 'ulimit settings') ?? [];
  return given.map((entry) => {
    const folded = foldFields(entry, 'ulimits', Object.keys(ulimit.shape));
    if (folded.kind === 'refused') throw dockerError(400, `error reading ulimit settings: ${folded.reason}`);
    const parsed = ulimit.safeParse(folded.fields);
    if (!parsed.success)
      throw dockerError(400, 'error reading ulimit settings: a limit has a name in small letters and two numbers');
    return parsed.data;
  });
}

function extraHostsOf(query: URLSearchParams): readonly string[] {
  const given = query.getAll('extrahosts').slice(0, ENTRIES_MAX);
  for (const entry of given) {
    if (/^[A-Za-z0-9_.-]+:[0-9a-fA-F.:]+$/.test(entry)) continue;
    throw dockerError(400, `ecluse: extrahosts: ${entry.slice(0, 100)} is not NAME:ADDRESS`);
  }
  return given;
}

function platformOf(query: URLSearchParams): string {
  const platform = query.get('platform') ?? '';
  if (platform === '' || /^[A-Za-z0-9_-]+(?:\/[A-Za-z0-9._-]+){0,2}$/.test(platform)) return platform;
  throw dockerError(400, `${JSON.stringify(platform.slice(0, 100))} is an invalid platform`);
}

function dockerfileOf(query: URLSearchParams): string {
  const path = query.get('dockerfile') ?? '';
  if (path.length > DOCKERFILE_CHARS_MAX)
    throw dockerError(400, `ecluse: dockerfile: a path of more than ${String(DOCKERFILE_CHARS_MAX)} characters`);
  return path === '' ? 'Dockerfile' : path;
}

/** Parses the query; refusals are thrown in Docker's words. */
export function parseBuildQuery(query: URLSearchParams): BuildOptions {
  checkBuilder(query);
  checkIsolation(query);
  return {
    dockerfile: dockerfileOf(query),
    tags: tagsOf(query),
    isQuiet: booleanOf(query, 'q'),
    noCache: booleanOf(query, 'nocache'),
    removal: removalOf(query),
    pull: booleanOf(query, 'pull'),
    target: query.get('target') ?? '',
    platform: platformOf(query),
    arguments: new Map(Object.entries(jsonOf(query, 'buildargs', argumentEntries, 'build args') ?? {})),
    labels: jsonOf(query, 'labels', entries, 'labels') ?? {},
    cacheFrom: jsonOf(query, 'cachefrom', references, 'cachefrom')?.filter((name) => name !== ''),
    network: networkOf(query),
    memoryBytes: within(query, 'memory', 1, Number.MAX_SAFE_INTEGER),
    cpuShares: within(query, 'cpushares', 2, CPU_SHARES_MAX),
    cpuPeriod: within(query, 'cpuperiod', 1000, CPU_PERIOD_MAX_US),
    cpuQuota: within(query, 'cpuquota', 1000, Number.MAX_SAFE_INTEGER),
    shmBytes: Math.min(within(query, 'shmsize', 1, Number.MAX_SAFE_INTEGER), SPEC_LIMITS.shmBytesMax),
    ulimits: ulimitsOf(query),
    extraHosts: extraHostsOf(query),
  };
}

/** What the client knows of registries, by their names. */
export type RegistryLogins = ReadonlyMap<string, RegistryAuth>;

const LOGINS_CHARS_MAX = 64 * 1024;

/** `X-Registry-Config`. As in Docker, what cannot be read counts as none. */
export function registryLoginsOf(header: string | readonly string[] | undefined): RegistryLogins {
  const logins = new Map<string, RegistryAuth>();
  if (typeof header !== 'string' || header.length > LOGINS_CHARS_MAX) return logins;
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(header, 'base64url').toString('utf8'));
  } catch {
    return logins;
  }
  if (typeof value !== 'object' || value === null) return logins;
  for (const [registry, entry] of Object.entries(value)) {
    const login = registryAuthOf(entry);
    if (login !== undefined) logins.set(registry, login);
  }
  return logins;
}
