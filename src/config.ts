/**
 * The node's configuration: `ecluse.yaml`, flags and defaults become one frozen `NodeConfig`.
 *
 * Precedence: flag, then file, then default. Defaults live in the schema only. Everything that is wrong with a file is said at once,
 * one line a problem, with the line of the file and the key that was probably meant.
 */
import { open } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { LineCounter, isNode, parseDocument } from 'yaml';
import type { Document } from 'yaml';
import * as z from 'zod';
import { adminSocketOf, checkEngineSocketPath, checkSocketPath } from './node-paths.ts';
import { EcluseError, codeOf, reasonOf } from '#errors';
import { caasKeys } from '#caas/config.ts';
import type { RebalanceSettings } from '#caas/rebalance/rebalancer.ts';
import { edgeFault, edgeKeys, edgeLimitsOf } from '#proxy/config.ts';
import type { EdgeLimits } from '#proxy/config.ts';
import { CONFIG_DESCRIPTION, WORKERS_MAX, configSchema } from './config-schema.ts';
import type { ConfigProfile } from './config-schema.ts';
import type { ListenAddress } from './listen-address.ts';
import { nearestWord } from './suggest.ts';

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
  /** Addresses and networks that `parseTrustedProxies` takes. */
  readonly trustedProxies: readonly string[];
  /** Whether connections of trusted proxies begin with a PROXY header. */
  readonly proxyProtocol: boolean;
  readonly demo: boolean;
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
/** More problems than these are one mistake, seen many times. */
const PROBLEMS_MAX = 20;

/** All keys: those of the kernel and those of folders. */
function fileSchema(profile: ConfigProfile) {
  return configSchema(profile)
    .extend(edgeKeys)
    .extend(caasKeys)
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
  const file = request.file === undefined ? undefined : await readConfigFile(request.file);
  const written = file?.value ?? {};
  const overridden = Object.fromEntries(Object.entries(request.overrides).filter(([, text]) => text !== undefined));
  const asked = Object.keys(overridden).length === 0 ? written : withListen(written, overridden);
  const profile: ConfigProfile = request.demo ? 'demo' : 'node';
  const parsed = fileSchema(profile).safeParse(asked, { error: plainMessage });
  if (!parsed.success) throw invalid(inOrder(parsed.error.issues.flatMap((issue) => problemsOf(issue, file))));
  const { data } = parsed;
  const base = request.file === undefined ? process.cwd() : dirname(resolve(request.file));
  const dataDir = request.dataDir === undefined ? resolve(base, data.data) : resolve(request.dataDir);
  const adminSocket = data.listen.admin ?? adminSocketOf(dataDir);
  checkSocketPath(adminSocket);
  for (const { name, engine } of data.hosts) if (engine === 'managed') checkEngineSocketPath(dataDir, name);
  return {
    dataDir,
    listen: {
      http: data.listen.http,
      https: data.listen.https,
      docker: data.listen.docker,
      metrics: data.listen.metrics,
      adminSocket,
    },
    workers: data.workers === 'auto' ? Math.min(availableParallelism(), WORKERS_MAX) : data.workers,
    hosts: data.hosts,
    domain: data.domain,
    registries: data.registries,
    migration: { ...data.migration, bandwidth: data.migration.bandwidth },
    rebalance: data.rebalance,
    accessLogFile: data.accessLog === undefined ? join(dataDir, 'logs', 'access.jsonl') : resolve(base, data.accessLog),
    edge: edgeLimitsOf(data.edge),
    trustedProxies: data.trustedProxies,
    proxyProtocol: data.proxyProtocol,
    demo: request.demo,
  };
}

interface ConfigFile {
  readonly name: string;
  readonly value: unknown;
  readonly document: Document;
  readonly lines: LineCounter;
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

function invalid(problems: readonly string[], mend?: string, cause?: unknown): EcluseError {
  const shown = problems.slice(0, PROBLEMS_MAX);
  if (problems.length > shown.length) shown.push(`and ${String(problems.length - shown.length)} more problems`);
  const message = shown.join('\n');
  return new EcluseError({
    code: 'ECLUSE_CONFIG_INVALID',
    source: 'config',
    message,
    status: 400,
    cause,
    ...(mend === undefined ? {} : { mend }),
  });
}

/** Reads at most one byte more than is allowed, from whatever the path is: a pipe (`--config <(…)`) has no size to ask for. */
async function readBounded(path: string): Promise<Buffer> {
  await using handle = await open(path);
  const buffer = Buffer.alloc(FILE_BYTES_MAX + 1);
  let length = 0;
  while (length < buffer.length) {
    const { bytesRead } = await handle.read(buffer, length, buffer.length - length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return buffer.subarray(0, length);
}

async function readText(path: string): Promise<string> {
  let bytes: Buffer;
  try {
    bytes = await readBounded(path);
  } catch (error) {
    const why: Readonly<Record<string, string>> = {
      ENOENT: 'no such file',
      EISDIR: 'it is a directory',
      EACCES: 'this user may not read it',
    };
    throw invalid([`${path}: ${why[codeOf(error) ?? ''] ?? reasonOf(error)}`], 'check what --config says', error);
  }
  if (bytes.length > FILE_BYTES_MAX) {
    throw invalid([`${path}: the file has more than 1 MiB`], 'check what --config says: a configuration is much smaller');
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw invalid([`${path}: the file is not UTF-8 text`], 'check what --config says', error);
  }
}

async function readConfigFile(path: string): Promise<ConfigFile> {
  const text = await readText(path);
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, logLevel: 'error', prettyErrors: false });
  const faults = document.errors.map((error) => {
    const { line, col } = lines.linePos(error.pos[0]);
    return `${path}:${String(line)}: not YAML: ${reasonOf(error)} (column ${String(col)})`;
  });
  if (faults.length > 0) throw invalid(faults);
  try {
    // An empty file is an empty mapping: every key is optional.
    return { name: path, value: document.toJS() ?? {}, document, lines };
  } catch (error) {
    throw invalid([`${path}: not YAML: ${reasonOf(error)}`], undefined, error);
  }
}

/** `hosts[0].engine`, as people write it. */
function pathText(path: readonly PropertyKey[]): string {
  return path
    .map((step, index) => (typeof step === 'number' ? `[${String(step)}]` : `${index === 0 ? '' : '.'}${String(step)}`))
    .join('');
}

/** The line of a value, or of the nearest thing around it; 0 where the file has none (a flag set it). */
function lineOf(path: readonly PropertyKey[], file: ConfigFile | undefined): number {
  if (file === undefined) return 0;
  const node = path.length === 0 ? file.document.contents : file.document.getIn(path, true);
  const start = isNode(node) ? node.range?.[0] : undefined;
  if (start !== undefined) return file.lines.linePos(start).line;
  return path.length === 0 ? 0 : lineOf(path.slice(0, -1), file);
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

function problemsOf(issue: z.core.$ZodIssue, file: ConfigFile | undefined): readonly Problem[] {
  const problem = (path: readonly PropertyKey[], why: string): Problem => {
    const line = lineOf(path, file);
    const place = `${file?.name ?? 'command line'}${line === 0 ? '' : `:${String(line)}`}`;
    return { line, text: path.length === 0 ? `${place}: ${why}` : `${place}: ${pathText(path)}: ${why}` };
  };
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
