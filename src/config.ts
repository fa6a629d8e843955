/**
 * The node's configuration: `ecluse.yaml`, flags and defaults become one frozen `NodeConfig`.
 *
 * Precedence: flag, then file, then default. Defaults live in the schema only. Everything that is wrong with a file is said at once,
 * one line a problem, with the line of the file and the key that was probably meant.
 */
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import * as z from 'zod';
import { adminSocketOf, checkEngineSocketPath, checkSocketPath } from './node-paths.ts';
import { caasKeys } from '#caas/config.ts';
import type { RebalanceSettings } from '#caas/rebalance/rebalancer.ts';
import { acmeOf, tlsKeys } from '#tls/config.ts';
import type { AcmeSettings, UnknownNames } from '#tls/config.ts';
import { edgeFault, edgeKeys, edgeLimitsOf } from '#proxy/config.ts';
import type { EdgeLimits } from '#proxy/config.ts';
import { CONFIG_DESCRIPTION, WORKERS_MAX, configSchema } from './config-schema.ts';
import type { ConfigProfile } from './config-schema.ts';
import type { ListenAddress } from './listen-address.ts';
import { nearestWord } from './suggest.ts';
import { configInvalid, placedProblem, readYamlFile } from './yaml-file.ts';
import type { YamlFile } from './yaml-file.ts';

export interface NodeConfig {
  /** Absolute. */
  readonly dataDir: string;
  readonly listen: {
    readonly http: ListenAddress | undefined;
    readonly https: ListenAddress | undefined;
    readonly docker: ListenAddress | undefined;
    readonly metrics: ListenAddress | undefined;
    readonly adminSocket: string;
  };
  readonly workers: number;
  readonly hosts: readonly { readonly name: string; /** `managed`, or `unix:///path`. */ readonly engine: string }[];
  readonly domain: string;
  /** What `parseRegistries` takes. */
  readonly registries: readonly string[];
  readonly migration: {
    readonly transfer: 'shared' | 'tls';
    /** Bytes a second; undefined: no limit. */
    readonly bandwidth: number | undefined;
    readonly concurrency: number;
  };
  readonly rebalance: RebalanceSettings;
  readonly accessLogFile: string;
  readonly edge: EdgeLimits;
  /** What a TLS handshake gets whose name no certificate and no route is for. */
  readonly unknownNames: UnknownNames;
  /** Undefined: no certificates are asked for. */
  readonly acme: AcmeSettings | undefined;
  /** Addresses and networks that `parseTrustedProxies` takes. */
  readonly trustedProxies: readonly string[];
  /** Whether connections of trusted proxies begin with a PROXY header. */
  readonly proxyProtocol: boolean;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
  readonly demo: boolean;
  /** The file that was read, absolute; undefined: none. */
  readonly file: string | undefined;
  /** What every key of the file comes to, with flags and defaults, as JSON by its path (`edge.timeouts.idle`): for comparing. */
  readonly keys: ReadonlyMap<string, string>;
}

/** What the command line says; undefined: nothing. */
export interface ConfigRequest {
  readonly file: string | undefined;
  readonly dataDir: string | undefined;
  readonly demo: boolean;
  readonly overrides: {
    readonly http: string | undefined;
    readonly https: string | undefined;
    readonly docker: string | undefined;
    readonly metrics: string | undefined;
  };
}

const FILE_BYTES_MAX = 1024 * 1024;

/** All keys: those of the kernel and those of folders. */
function fileSchema(profile: ConfigProfile) {
  return configSchema(profile)
    .extend(edgeKeys)
    .extend(caasKeys)
    .extend(tlsKeys)
    .superRefine((written, context) => {
      const fault = edgeFault(written);
      if (fault !== undefined) context.addIssue({ code: 'custom', path: ['proxyProtocol'], message: fault });
    })
    .describe(CONFIG_DESCRIPTION);
}

/** The JSON Schema of `ecluse.yaml`, for editors; kept in docs/config.schema.json. */
export function configJsonSchema(): object {
  return z.toJSONSchema(fileSchema('node'), { io: 'input' });
}

/** Reads and checks everything. Errors: ECLUSE_CONFIG_INVALID, whose message has one line a problem. */
export async function loadConfig(request: ConfigRequest): Promise<NodeConfig> {
  const file =
    request.file === undefined
      ? undefined
      : await readYamlFile(request.file, { bytesMax: FILE_BYTES_MAX, mend: 'check what --config says' });
  const written = file?.value ?? {};
  const overridden = Object.fromEntries(Object.entries(request.overrides).filter(([, text]) => text !== undefined));
  const asked = Object.keys(overridden).length === 0 ? written : withListen(written, overridden);
  const profile: ConfigProfile = request.demo ? 'demo' : 'node';
  const parsed = fileSchema(profile).safeParse(asked, { error: plainMessage });
  if (!parsed.success) throw configInvalid(inOrder(parsed.error.issues.flatMap((issue) => problemsOf(issue, file))));
  const { data } = parsed;
  const base = request.file === undefined ? process.cwd() : dirname(resolve(request.file));
  const dataDir = request.dataDir === undefined ? resolve(base, data.data) : resolve(request.dataDir);
  const adminSocket = data.listen.admin ?? adminSocketOf(dataDir);
  checkSocketPath(adminSocket);
  for (const { name, engine } of data.hosts) if (engine === 'managed') checkEngineSocketPath(dataDir, name);
  const workers = data.workers === 'auto' ? Math.min(availableParallelism(), WORKERS_MAX) : data.workers;
  const accessLogFile = data.accessLog === undefined ? join(dataDir, 'logs', 'access.jsonl') : resolve(base, data.accessLog);
  const listen = { ...data.listen, admin: adminSocket };
  return {
    dataDir,
    listen: {
      http: data.listen.http,
      https: data.listen.https,
      docker: data.listen.docker,
      metrics: data.listen.metrics,
      adminSocket,
    },
    workers,
    hosts: data.hosts,
    domain: data.domain,
    registries: data.registries,
    migration: { ...data.migration, bandwidth: data.migration.bandwidth },
    rebalance: data.rebalance,
    accessLogFile,
    edge: edgeLimitsOf(data.edge),
    unknownNames: data.tls.unknownNames,
    acme: acmeOf(data.acme, base),
    trustedProxies: data.trustedProxies,
    proxyProtocol: data.proxyProtocol,
    logLevel: data.logLevel,
    demo: request.demo,
    file: request.file === undefined ? undefined : resolve(request.file),
    keys: keysOf({ ...data, data: dataDir, listen, workers, accessLog: accessLogFile }),
  };
}

/** What each key of the schema is in `effective`, which has what flags and the machine made of it. */
function keysOf(effective: object): ReadonlyMap<string, string> {
  const keys = new Map<string, string>();
  const walk = (schema: unknown, path: readonly string[]): void => {
    const properties = valueAt(schema, ['properties']);
    if (!isMapping(properties)) keys.set(path.join('.'), JSON.stringify(valueAt(effective, path) ?? null));
    else for (const key of Object.keys(properties)) walk(properties[key], [...path, key]);
  };
  walk(configJsonSchema(), []);
  return keys;
}

function isMapping(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The file's keys with flags over them. What is no mapping stays as it is, for the schema to refuse. */
function withListen(written: unknown, listen: Readonly<Record<string, unknown>>): unknown {
  if (!isMapping(written)) return written;
  const before = written['listen'] ?? {};
  return isMapping(before) ? { ...written, listen: { ...before, ...listen } } : written;
}

function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (value, step) => (typeof value === 'object' && value !== null ? Reflect.get(value, step) : undefined),
    root,
  );
}

/** The keys that the schema knows at a path. */
function keysAt(path: readonly PropertyKey[]): readonly string[] {
  const schema = path.reduce<unknown>(
    (node, step) => (typeof step === 'number' ? valueAt(node, ['items']) : valueAt(node, ['properties', step])),
    configJsonSchema(),
  );
  const properties = valueAt(schema, ['properties']);
  return isMapping(properties) ? Object.keys(properties) : [];
}

interface Problem {
  readonly line: number;
  readonly text: string;
}

/** By line of the file, as a reader mends them. */
function inOrder(problems: readonly Problem[]): readonly string[] {
  return problems.toSorted((one, other) => one.line - other.line).map((problem) => problem.text);
}

function problemsOf(issue: z.core.$ZodIssue, file: YamlFile | undefined): readonly Problem[] {
  const problem = (path: readonly PropertyKey[], why: string): Problem => placedProblem(file, path, why);
  if (issue.code !== 'unrecognized_keys') return [problem(issue.path, issue.message)];
  return issue.keys.map((key) => {
    const known = keysAt(issue.path);
    const meant = nearestWord(key, known);
    const hint = meant === undefined ? `the keys here are ${known.join(', ')}` : `did you mean ${meant}?`;
    return problem([...issue.path, key], `unknown key; ${hint}`);
  });
}

const KINDS: Readonly<Record<string, string>> = {
  object: 'a mapping of keys',
  array: 'a list',
  string: 'a text',
  number: 'a number',
};

/** What is said where the schema says nothing of its own. */
function plainMessage(issue: z.core.$ZodRawIssue): string | undefined {
  if (issue.code !== 'invalid_type') return undefined;
  if (issue.input === undefined) return 'this key is required';
  return `${JSON.stringify(issue.input).slice(0, 80)} is not ${KINDS[issue.expected] ?? `of type ${issue.expected}`}`;
}
