/**
 * What a tenant asked for: the create request, checked against an allow-list and rebuilt. Pure.
 *
 * Everything that reaches an engine is built here from parsed values; nothing of the client's bytes is passed on. Fields that could reach
 * outside of the sandbox are refused with the reason, never silently dropped.
 */
import { LRUCache } from 'lru-cache';
import * as z from 'zod';
import { foldFields } from '#caas/docker-api/go-json.ts';
import type { Fields } from '#caas/docker-api/go-json.ts';
import { checkCombination } from './spec-checks.ts';
import { OUTSIDE } from './spec-refusal.ts';
import type { SpecRefusal } from './spec-refusal.ts';
import { parseLogging } from './spec-logging.ts';
import { MOUNT_FIELDS, mountsAskedSchema, mountSchema, NO_MOUNTS_ASKED, parseMounts } from './spec-mounts.ts';
import type { MountsAsked, MountSpec } from './spec-mounts.ts';
import { networkingSchema, parseNetworking } from './spec-networks.ts';
import type { NetworkingSpec } from './spec-networks.ts';
import { parsePorts, portSpecSchema } from './spec-ports.ts';
import type { PortSpec } from './spec-ports.ts';

export interface SpecLimits {
  /** Given to containers that name no limit: nobody runs without one. */
  readonly memoryBytesDefault: number;
  readonly pidsMax: number;
  readonly shmBytesMax: number;
}

/**
 * pids count the sentry's and the stubs' host threads too, a few for each guest thread, hence the height.
 */
export const SPEC_LIMITS: SpecLimits = {
  memoryBytesDefault: 512 * 1024 * 1024,
  pidsMax: 4096,
  shmBytesMax: 1024 * 1024 * 1024,
};

const ENV_MAX = 500;

const text = z.string().max(4096);
const textList = z.array(z.string().max(128 * 1024)).max(ENV_MAX);
const command = z.union([textList, text.transform((value) => [value])]).nullable();
const integer = z.int();
const size = z.int().min(0);

/** Each probe is a program that starts in the sandbox. Testcontainers' modules ask every 250 ms. */
const PROBE_INTERVAL_NS_MIN = 1e8;
/** What is less the engine refuses, in Docker's words. */
const ENGINE_INTERVAL_NS_MIN = 1e6;

const healthcheck = z.object({
  Test: textList.nullable().optional(),
  Interval: integer
    .refine(
      (ns) => ns < ENGINE_INTERVAL_NS_MIN || ns >= PROBE_INTERVAL_NS_MIN,
      'must be at least 100ms: each probe is a program that starts in the sandbox',
    )
    .optional(),
  Timeout: integer.optional(),
  StartPeriod: integer.optional(),
  Retries: integer.optional(),
});

const configSchema = z.object({
  Hostname: z
    .string()
    .max(63)
    .regex(/^[A-Za-z0-9_.-]*$/)
    .default(''),
  Domainname: text.default(''),
  User: text.default(''),
  AttachStdin: z.boolean().default(false),
  AttachStdout: z.boolean().default(false),
  AttachStderr: z.boolean().default(false),
  ExposedPorts: z
    .record(z.string().regex(/^\d{1,5}(?:\/(?:tcp|udp|sctp))?$/), z.unknown())
    .nullable()
    .default({}),
  Tty: z.boolean().default(false),
  OpenStdin: z.boolean().default(false),
  StdinOnce: z.boolean().default(false),
  Env: textList.nullable().default(null),
  Cmd: command.default(null),
  Healthcheck: healthcheck.nullable().default(null),
  Image: z.string().min(1).max(512),
  WorkingDir: text.default(''),
  Entrypoint: command.default(null),
  Labels: z
    .record(z.string().max(1024), z.string().max(16 * 1024))
    .nullable()
    .default({}),
  StopSignal: z
    .string()
    .max(20)
    .regex(/^[A-Za-z0-9+-]*$/)
    .default(''),
  StopTimeout: z.int().min(0).max(600).nullable().default(null),
});

const ulimit = z.object({ Name: z.string().regex(/^[a-z]{1,20}$/), Hard: integer, Soft: integer });

const domain = z.string().regex(/^(?:\.|[A-Za-z0-9_][A-Za-z0-9_.-]{0,252})$/, 'is no domain');
const resolverOption = z.string().regex(/^[a-z0-9-]{1,40}(?::\d{1,6})?$/, 'is no option of a resolver');

const hostConfigSchema = z.object({
  Memory: size.default(0),
  MemoryReservation: size.default(0),
  MemorySwap: integer.default(0),
  NanoCpus: size.default(0),
  CpuShares: size.default(0),
  CpuPeriod: size.default(0),
  CpuQuota: integer.default(0),
  PidsLimit: integer.nullable().default(null),
  RestartPolicy: z
    .object({
      Name: z
        .enum(['', 'no', 'always', 'unless-stopped', 'on-failure'], {
          error: ({ input }) => `invalid restart policy '${String(input).slice(0, 40)}'`,
        })
        .default(''),
      MaximumRetryCount: size.default(0),
    })
    .nullable()
    .default({ Name: '', MaximumRetryCount: 0 }),
  AutoRemove: z.boolean().default(false),
  ReadonlyRootfs: z.boolean().default(false),
  Init: z.boolean().nullable().default(null),
  ShmSize: size.default(0),
  Tmpfs: z
    .record(z.string().regex(/^\/[^:]*$/), text)
    .nullable()
    .default({}),
  CapDrop: z
    .array(z.string().regex(/^[A-Za-z_]{1,40}$/))
    .nullable()
    .default(null),
  CapAdd: z
    .array(z.string().regex(/^[A-Za-z_]{1,40}$/))
    .nullable()
    .default(null),
  SecurityOpt: z.array(text).nullable().default(null),
  ExtraHosts: z
    .array(z.string().regex(/^[A-Za-z0-9_.-]+:(?:host-gateway|[0-9a-fA-F.:]+)$/))
    .nullable()
    .default(null),
  GroupAdd: z
    .array(z.string().regex(/^[A-Za-z0-9_.-]{1,64}$/))
    .nullable()
    .default(null),
  Ulimits: z.array(ulimit).nullable().default(null),
  ConsoleSize: z.tuple([size, size]).nullable().default([0, 0]),
  DnsSearch: z.array(domain).max(6).nullable().default(null),
  DnsOptions: z.array(resolverOption).max(10).nullable().default(null),
  /** A file of the client's; Docker keeps the name and does nothing with it. */
  ContainerIDFile: text.default(''),
});

export interface ContainerSpec {
  readonly config: z.infer<typeof configSchema>;
  readonly hostConfig: z.infer<typeof hostConfigSchema>;
  readonly networking: NetworkingSpec;
  /** Everything mounted but `hostConfig.Tmpfs`; complete once `Volumes.plan` saw it. */
  readonly mounts: readonly MountSpec[];
  readonly mountsAsked: MountsAsked;
  /** Of the json-file log driver, as asked for. */
  readonly logOptions: Readonly<Record<string, string>>;
  /** The image that the reference meant when the container was made. */
  readonly imageId: string;
  /** TCP ports that the image or the request exposes. */
  readonly tcpPorts: readonly number[];
  /** Those of all protocols, as `53/udp`. */
  readonly exposedPorts: readonly string[];
  readonly ports: readonly PortSpec[];
  readonly publishAll: boolean;
}

export type SpecResult =
  | {
      readonly kind: 'spec';
      readonly spec: Omit<ContainerSpec, 'imageId' | 'tcpPorts' | 'exposedPorts'>;
      readonly memoryBytes: number;
      readonly warnings: readonly string[];
    }
  | SpecRefusal;

/** What dockerode leaves in the body of its own options; Docker does not read it there, and it goes no further. */
const CLIENT_OPTIONS = ['name', 'platform', 'abortSignal'];

const CONFIG_REASONS: Readonly<Record<string, string>> = {
  MacAddress: 'addresses are assigned by the platform',
  NetworkDisabled: 'use --network none',
  Shell: 'it is for builds',
  OnBuild: 'it is for builds',
};
const HOST_CONFIG_REASONS: Readonly<Record<string, string>> = {
  Privileged: OUTSIDE,
  Devices: OUTSIDE,
  DeviceRequests: OUTSIDE,
  DeviceCgroupRules: OUTSIDE,
  PidMode: OUTSIDE,
  IpcMode: OUTSIDE,
  UTSMode: OUTSIDE,
  UsernsMode: OUTSIDE,
  CgroupnsMode: OUTSIDE,
  CgroupParent: 'it is where your use is metered',
  Cgroup: 'it is where your use is metered',
  Runtime: 'every container runs in a gVisor sandbox',
  Isolation: 'every container runs in a gVisor sandbox',
  Sysctls: OUTSIDE,
  OomScoreAdj: OUTSIDE,
  OomKillDisable: OUTSIDE,
  StorageOpt: OUTSIDE,
  Annotations: OUTSIDE,
  Dns: 'names are resolved by the platform',
};

/** Fields whose "nothing" is not a zero value, as clients send them. */
function withoutIdleValues(host: Fields): Fields {
  const idle = (key: string, values: readonly unknown[]): boolean => values.includes(host[key]);
  const entries = Object.entries(host).filter(
    ([key]) =>
      !(key === 'MemorySwappiness' && idle(key, [-1, null])) &&
      !(key === 'IpcMode' && idle(key, ['private', 'shareable'])) &&
      !(key === 'CgroupnsMode' && idle(key, ['private'])) &&
      !(key === 'Runtime' && idle(key, ['runsc', 'ecluse-runsc'])) &&
      !(key === 'Isolation' && idle(key, ['default'])),
  );
  return Object.fromEntries(entries);
}

type Nested =
  | { readonly kind: 'folded'; readonly config: Fields; readonly host: Fields }
  | { readonly kind: 'refused'; readonly reason: string };

/** Folds the objects inside of the two, so that no field of theirs is dropped for its spelling. */
function foldNested(config: Fields, host: Fields): Nested {
  const health = foldFields(config['Healthcheck'], 'Healthcheck', Object.keys(healthcheck.shape));
  if (health.kind === 'refused') return health;
  const policy = foldFields(host['RestartPolicy'], 'HostConfig.RestartPolicy', ['Name', 'MaximumRetryCount']);
  if (policy.kind === 'refused') return policy;
  const given = host['Ulimits'];
  const ulimits: Fields[] = [];
  for (const entry of Array.isArray(given) ? given : []) {
    const folded = foldFields(entry, 'HostConfig.Ulimits', Object.keys(ulimit.shape));
    if (folded.kind === 'refused') return folded;
    ulimits.push(folded.fields);
  }
  return {
    kind: 'folded',
    config: {
      ...config,
      Healthcheck: config['Healthcheck'] === undefined || config['Healthcheck'] === null ? null : health.fields,
    },
    host: { ...host, RestartPolicy: policy.fields, Ulimits: Array.isArray(given) ? ulimits : given },
  };
}

/** A value whose fault is told in Docker's own words needs no path before it. */
const WHOLE = /^invalid restart policy /;

function issueOf(error: z.ZodError, place: string): string {
  const issue = error.issues[0];
  const path = [place, ...(issue?.path ?? []).map(String)].filter((part) => part !== '').join('.');
  return `${path}: ${issue?.message ?? 'invalid'}`;
}

function refusal(status: 400 | 403, reason: string): SpecResult {
  return { kind: 'refused', status, reason };
}

/** What of a request's surroundings changes how it is read. */
export interface ParseOptions {
  readonly limits: SpecLimits;
  /** From API 1.44 on a container may join several networks when it is made. */
  readonly severalNetworks: boolean;
}

/** Fields of HostConfig that have a module of their own. */
const APART = ['PortBindings', 'PublishAllPorts', 'NetworkMode', 'Links', ...MOUNT_FIELDS];
/** Fields that pass only with a value that asks for nothing. */
const IDLE = ['LogConfig', 'MemorySwappiness', 'IpcMode', 'CgroupnsMode', 'Runtime', 'Isolation'];

type Parts = Pick<ContainerSpec, 'networking' | 'ports' | 'publishAll' | 'mounts' | 'mountsAsked' | 'logOptions'>;

/** Networks, ports and mounts of a folded request. */
function parseParts(
  host: Fields,
  outer: { readonly NetworkingConfig: unknown; readonly Volumes: unknown },
  severalNetworks: boolean,
): { readonly kind: 'parts'; readonly parts: Parts } | Extract<SpecResult, { kind: 'refused' }> {
  const networking = parseNetworking(host, outer.NetworkingConfig, severalNetworks);
  if (networking.kind === 'refused') return networking;
  const ports = parsePorts(host);
  if (ports.kind === 'refused') return { ...ports, isWhole: true };
  const mounting = parseMounts(host, outer.Volumes);
  if (mounting.kind === 'refused') return { ...mounting, isWhole: true };
  const logging = parseLogging(host['LogConfig']);
  if (logging.kind === 'refused') return logging;
  return {
    kind: 'parts',
    parts: {
      networking: networking.networking,
      ports: ports.ports,
      publishAll: ports.publishAll,
      mounts: mounting.mounts,
      mountsAsked: mounting.asked,
      logOptions: logging.options,
    },
  };
}

/** Parses the body of `POST /containers/create`. */
export function parseCreate(
  body: unknown,
  { limits, severalNetworks }: ParseOptions = { limits: SPEC_LIMITS, severalNetworks: true },
): SpecResult {
  const configKeys = [...Object.keys(configSchema.shape), 'Volumes'];
  const outer = foldFields(body, '', [...configKeys, 'HostConfig', 'NetworkingConfig', ...CLIENT_OPTIONS], CONFIG_REASONS);
  if (outer.kind === 'refused') return refusal(403, outer.reason);
  const { HostConfig, NetworkingConfig, Volumes, ...configFields } = outer.fields;
  const hostKeys = Object.keys(hostConfigSchema.shape);
  const host = foldFields(HostConfig, 'HostConfig', [...hostKeys, ...APART, ...IDLE], HOST_CONFIG_REASONS);
  if (host.kind === 'refused') return refusal(403, host.reason);
  const parts = parseParts(host.fields, { NetworkingConfig, Volumes }, severalNetworks);
  if (parts.kind === 'refused') return parts;
  const own = Object.entries(host.fields).filter(([key]) => key !== 'LogConfig' && !APART.includes(key));
  const rest = foldFields(withoutIdleValues(Object.fromEntries(own)), 'HostConfig', hostKeys, HOST_CONFIG_REASONS);
  if (rest.kind === 'refused') return refusal(403, rest.reason);

  const nested = foldNested(configFields, rest.fields);
  if (nested.kind === 'refused') return refusal(403, nested.reason);

  const config = configSchema.safeParse(nested.config);
  if (!config.success) return refusal(400, issueOf(config.error, ''));
  const hostConfig = hostConfigSchema.safeParse(nested.host);
  if (!hostConfig.success) {
    const [issue] = hostConfig.error.issues;
    if (issue !== undefined && WHOLE.test(issue.message))
      return { kind: 'refused', status: 400, reason: issue.message, isWhole: true };
    return refusal(400, issueOf(hostConfig.error, 'HostConfig'));
  }
  const spec = { config: config.data, hostConfig: hostConfig.data, ...parts.parts };
  const bad = checkCombination(spec);
  if (bad !== undefined) return bad;
  return {
    kind: 'spec',
    spec,
    memoryBytes: hostConfig.data.Memory === 0 ? limits.memoryBytesDefault : hostConfig.data.Memory,
    warnings: [],
  };
}

const storedSchema = z.object({
  config: configSchema,
  hostConfig: hostConfigSchema,
  networking: networkingSchema.default({ mode: 'default', wishes: [{ network: 'bridge', aliases: [], links: [] }] }),
  mounts: z.array(mountSchema).default([]),
  mountsAsked: mountsAskedSchema.default(NO_MOUNTS_ASKED),
  imageId: z.string(),
  tcpPorts: z.array(z.int()),
  exposedPorts: z.array(z.string()).default([]),
  ports: z.array(portSpecSchema).default([]),
  publishAll: z.boolean().default(false),
  logOptions: z.record(z.string(), z.string()).default({}),
});

/** Of all specifications that are kept parsed; most have two thousand. */
const PARSED_CHARS_MAX = 32 * 1024 * 1024;

/** A list of a thousand containers reads each spec anew; parsing is what such a list costs. Specs are immutable. */
const parsedSpecs = new LRUCache<string, ContainerSpec>({
  max: 5000,
  maxSize: PARSED_CHARS_MAX,
  sizeCalculation: (_spec, stored) => stored.length + 1,
});

/** Reads back a spec that this module wrote. */
export function parseStoredSpec(stored: string): ContainerSpec {
  const known = parsedSpecs.get(stored);
  if (known !== undefined) return known;
  const parsed = storedSchema.parse(JSON.parse(stored));
  // Specs from before ports were published know TCP ports only.
  const exposedPorts =
    parsed.exposedPorts.length > 0 ? parsed.exposedPorts : parsed.tcpPorts.map((port) => `${String(port)}/tcp`);
  const spec = { ...parsed, exposedPorts };
  parsedSpecs.set(stored, spec);
  return spec;
}
