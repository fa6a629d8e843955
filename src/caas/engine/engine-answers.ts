/** What engines answer, parsed: only the fields that we use, and nothing else of it goes any further. */
import * as z from 'zod';

const health = z.object({ Status: z.string(), FailingStreak: z.number(), Log: z.array(z.unknown()).nullish() });

export const inspectSchema = z.object({
  Id: z.string().regex(/^[0-9a-f]{64}$/),
  Path: z.string(),
  Args: z.array(z.string()).nullish(),
  RestartCount: z.int().default(0),
  LogPath: z.string().default(''),
  ExecIDs: z.array(z.string()).nullish(),
  State: z.object({
    Status: z.string(),
    Running: z.boolean(),
    Paused: z.boolean(),
    Restarting: z.boolean(),
    OOMKilled: z.boolean(),
    Dead: z.boolean(),
    Pid: z.int(),
    ExitCode: z.int(),
    Error: z.string(),
    StartedAt: z.string(),
    FinishedAt: z.string(),
    Health: health.nullish(),
  }),
  Config: z.object({
    Hostname: z.string(),
    Env: z.array(z.string()).nullish(),
    Cmd: z.array(z.string()).nullish(),
    Entrypoint: z.array(z.string()).nullish(),
    WorkingDir: z.string().default(''),
    User: z.string().default(''),
    ExposedPorts: z.record(z.string(), z.unknown()).nullish(),
    Labels: z.record(z.string(), z.string()).nullish(),
    Volumes: z.record(z.string(), z.unknown()).nullish(),
  }),
  GraphDriver: z.object({ Name: z.string(), Data: z.record(z.string(), z.string()).nullish() }).nullish(),
  Mounts: z.array(z.object({ Type: z.string(), Name: z.string().optional(), Destination: z.string() })).nullish(),
  NetworkSettings: z.object({
    Networks: z
      .record(z.string(), z.object({ IPAddress: z.string(), IPPrefixLen: z.int(), Gateway: z.string(), MacAddress: z.string() }))
      .nullish(),
  }),
});
export type EngineInspect = z.infer<typeof inspectSchema>;

/** A container's address; empty where it has none. Ours are on one network. */
export function addressOf({ NetworkSettings }: EngineInspect): string {
  const [network] = Object.values(NetworkSettings.Networks ?? {});
  return network?.IPAddress ?? '';
}

export const createdSchema = z.object({ Id: z.string().regex(/^[0-9a-f]{64}$/), Warnings: z.array(z.string()).nullish() });

const imageConfig = z.object({
  Hostname: z.string().default(''),
  Domainname: z.string().default(''),
  User: z.string().default(''),
  AttachStdin: z.boolean().default(false),
  AttachStdout: z.boolean().default(false),
  AttachStderr: z.boolean().default(false),
  ExposedPorts: z.record(z.string(), z.unknown()).nullish(),
  Tty: z.boolean().default(false),
  OpenStdin: z.boolean().default(false),
  StdinOnce: z.boolean().default(false),
  Env: z.array(z.string()).nullish(),
  Cmd: z.array(z.string()).nullish(),
  Healthcheck: z
    .object({
      Test: z.array(z.string()).optional(),
      Interval: z.number().optional(),
      Timeout: z.number().optional(),
      StartPeriod: z.number().optional(),
      Retries: z.number().optional(),
    })
    .nullish(),
  Image: z.string().default(''),
  Volumes: z.record(z.string(), z.unknown()).nullish(),
  WorkingDir: z.string().default(''),
  Entrypoint: z.array(z.string()).nullish(),
  OnBuild: z.array(z.string()).nullish(),
  Labels: z.record(z.string(), z.string()).nullish(),
  StopSignal: z.string().optional(),
  StopTimeout: z.number().nullish(),
  Shell: z.array(z.string()).nullish(),
});
export type EngineImageConfig = z.infer<typeof imageConfig>;

export const imageSchema = z.object({
  Id: z.string().regex(/^sha256:[0-9a-f]{64}$/),
  RepoTags: z.array(z.string()).nullish(),
  Created: z.string(),
  Size: z.int(),
  Architecture: z.string(),
  Variant: z.string().optional(),
  Os: z.string(),
  OsVersion: z.string().optional(),
  Author: z.string().default(''),
  Comment: z.string().default(''),
  DockerVersion: z.string().default(''),
  /** The image that it was made from on this engine (commit, build); empty for one that came whole. */
  Parent: z.string().default(''),
  Container: z
    .string()
    .regex(/^[0-9a-f]*$/)
    .default(''),
  ContainerConfig: imageConfig.nullish(),
  Config: imageConfig.nullish(),
  RootFS: z.object({ Type: z.string(), Layers: z.array(z.string()).nullish() }).nullish(),
});
export type EngineImage = z.infer<typeof imageSchema>;

export const eventSchema = z.object({
  Type: z.string(),
  Action: z.string(),
  Actor: z.object({ ID: z.string(), Attributes: z.record(z.string(), z.string()).nullish() }),
  timeNano: z.number().optional(),
});
export type EngineEvent = z.infer<typeof eventSchema>;

const ZERO_TIME = '0001-01-01T00:00:00Z';

/** Milliseconds of one of Docker's timestamps; undefined for its zero. */
export function engineTimeMs(text: string): number | undefined {
  if (text === '' || text === ZERO_TIME) return undefined;
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? undefined : ms;
}

/** TCP ports among `8080/tcp` keys. */
export function tcpPortsOf(exposed: Readonly<Record<string, unknown>> | null | undefined): readonly number[] {
  return Object.keys(exposed ?? {})
    .filter((key) => !key.includes('/') || key.endsWith('/tcp'))
    .map((key) => Number.parseInt(key, 10))
    .filter((port) => port >= 1 && port <= 65_535);
}
