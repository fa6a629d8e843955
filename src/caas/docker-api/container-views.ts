/**
 * Docker's JSON of containers, rebuilt from parsed parts: what a tenant may see and nothing of the host it runs on. Pure.
 * Shapes: Docker Engine API 1.41 (`ContainerSummary`, `ContainerInspectResponse`).
 */
import { formatDuration } from '#units';
import type { ContainerRow } from '#state/containers.ts';
import type { PublishedPortRow } from '#state/published-ports.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import { bridgeView, endpointsView } from './network-views.ts';
import type { ContainerNetworks } from './network-views.ts';
import { portBindingsView, portListView, portMapView } from './port-views.ts';
import type { ShownPorts } from './port-views.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import { mountsView } from './volume-views.ts';
import type { EngineSummary } from './engine-summaries.ts';

const ZERO_TIME = '0001-01-01T00:00:00Z';

function timeOf(ms: number | undefined): string {
  return ms === undefined ? ZERO_TIME : new Date(ms).toISOString();
}

function healthText(health: string | undefined): string {
  if (health === undefined || health === 'none' || health === '') return '';
  return health === 'starting' ? ' (health: starting)' : ` (${health})`;
}

/** The STATUS column, in moby's words (`container.State.String`). */
export function statusText(
  row: ContainerRow,
  engine: Pick<EngineSummary, 'exitCode' | 'health'> | undefined,
  nowMs: number,
): string {
  const since = (ms: number | undefined): string => formatDuration(Math.max(0, nowMs - (ms ?? nowMs)));
  switch (row.state) {
    case 'running':
      return `Up ${since(row.startedMs)}${healthText(engine?.health)}`;
    case 'paused':
      return `Up ${since(row.startedMs)} (Paused)`;
    case 'restarting':
      return `Restarting (${String(engine?.exitCode ?? 0)}) ${since(row.finishedMs)} ago`;
    case 'exited':
      return `Exited (${String(engine?.exitCode ?? 0)}) ${since(row.finishedMs)} ago`;
    case 'creating':
    case 'created':
      return 'Created';
    case 'dead':
    case 'lost':
      return 'Dead';
  }
}

/** `lost` is our word; Docker's for a container that cannot be brought back is `dead`. */
export function dockerState(row: ContainerRow): string {
  if (row.state === 'lost') return 'dead';
  return row.state === 'creating' ? 'created' : row.state;
}

/** What the store knows of a container, put together for a view. */
export interface ContainerSubject {
  readonly row: ContainerRow;
  readonly spec: ContainerSpec;
  readonly networks: ContainerNetworks;
  /** What it holds. */
  readonly ports: readonly PublishedPortRow[];
}

function shownPorts({ row, spec, ports }: ContainerSubject): ShownPorts {
  const isUp = ['running', 'paused'].includes(row.state) && spec.networking.mode !== 'none';
  return { spec, rows: ports, isUp };
}

export function summaryView(
  subject: ContainerSubject,
  engine: EngineSummary | undefined,
  nowMs: number,
): Readonly<Record<string, unknown>> {
  const { row, spec, networks } = subject;
  return {
    Id: row.id,
    Names: [`/${row.name}`],
    Image: spec.config.Image,
    ImageID: spec.imageId,
    Command: engine?.command ?? '',
    Created: Math.floor(row.createdMs / 1000),
    Ports: portListView(shownPorts(subject)),
    Labels: engine?.labels ?? spec.config.Labels ?? {},
    State: dockerState(row),
    Status: statusText(row, engine, nowMs),
    HostConfig: { NetworkMode: spec.networking.mode },
    NetworkSettings: { Networks: endpointsView(row, networks) },
    Mounts: mountsView(spec.mounts),
  };
}

function stateView(row: ContainerRow, inspect: EngineInspect | undefined): Readonly<Record<string, unknown>> {
  const state = inspect?.State;
  const isRunning = ['running', 'paused', 'restarting'].includes(row.state);
  const health = state?.Health;
  return {
    Status: dockerState(row),
    Running: isRunning,
    Paused: row.state === 'paused',
    Restarting: row.state === 'restarting',
    OOMKilled: state?.OOMKilled ?? false,
    Dead: row.state === 'dead' || row.state === 'lost',
    // Host process ids mean nothing to a tenant; clients only ask whether it is zero.
    Pid: isRunning ? 1 : 0,
    ExitCode: state?.ExitCode ?? 0,
    Error: row.state === 'lost' ? 'the host lost this container; remove it and create it again' : (state?.Error ?? ''),
    StartedAt: timeOf(row.startedMs),
    FinishedAt: timeOf(row.finishedMs),
    ...(health === null || health === undefined ? {} : { Health: { ...health, Log: health.Log ?? [] } }),
  };
}

function hostConfigView(row: ContainerRow, spec: ContainerSpec): Readonly<Record<string, unknown>> {
  const { binds, mounts, volumeDriver, volumesFrom } = spec.mountsAsked;
  return {
    Binds: binds.length === 0 ? null : binds,
    Mounts: mounts.length === 0 ? undefined : mounts, // Docker leaves an empty one out.
    LogConfig: { Type: 'json-file', Config: spec.logOptions },
    PortBindings: portBindingsView(spec.ports),
    VolumeDriver: volumeDriver,
    VolumesFrom: volumesFrom.length === 0 ? null : volumesFrom,
    Privileged: false,
    PublishAllPorts: spec.publishAll,
    CgroupParent: '',
    Runtime: 'runsc',
    Isolation: '',
    Devices: [],
    IpcMode: 'private',
    Dns: [],
    ...spec.hostConfig,
    Tmpfs: Object.keys(spec.hostConfig.Tmpfs ?? {}).length === 0 ? undefined : spec.hostConfig.Tmpfs,
    Memory: row.memoryBytes,
    NetworkMode: spec.networking.mode,
  };
}

/** What request and image declare. */
function volumesView(destinations: readonly string[]): Readonly<Record<string, unknown>> | null {
  return destinations.length === 0 ? null : Object.fromEntries(destinations.map((destination) => [destination, {}]));
}

function configView(spec: ContainerSpec, inspect: EngineInspect | undefined): Readonly<Record<string, unknown>> {
  const { Healthcheck, StopTimeout, ...config } = spec.config;
  const merged = inspect?.Config ?? config; // The engine's has what the image brought in.
  return {
    ...config,
    ...(Healthcheck === null ? {} : { Healthcheck }),
    ...(StopTimeout === null ? {} : { StopTimeout }),
    Hostname: merged.Hostname,
    Env: merged.Env ?? null,
    Cmd: merged.Cmd,
    Entrypoint: merged.Entrypoint,
    WorkingDir: merged.WorkingDir,
    User: merged.User,
    Labels: merged.Labels ?? {},
    ExposedPorts: merged.ExposedPorts ?? {},
    Volumes: volumesView([...spec.mountsAsked.volumes, ...Object.keys(inspect?.Config.Volumes ?? {})]),
    OnBuild: null,
  };
}

function networkSettingsView(subject: ContainerSubject): Readonly<Record<string, unknown>> {
  const { row, networks } = subject;
  return {
    Bridge: '',
    SandboxID: '',
    HairpinMode: false,
    LinkLocalIPv6Address: '',
    LinkLocalIPv6PrefixLen: 0,
    Ports: portMapView(shownPorts(subject)),
    SandboxKey: '',
    SecondaryIPAddresses: null,
    SecondaryIPv6Addresses: null,
    GlobalIPv6Address: '',
    GlobalIPv6PrefixLen: 0,
    IPv6Gateway: '',
    ...bridgeView(row, networks),
    Networks: endpointsView(row, networks),
  };
}

export function inspectView(
  subject: ContainerSubject,
  inspect: EngineInspect | undefined,
  execIds: readonly string[],
): Readonly<Record<string, unknown>> {
  const { row, spec } = subject;
  return {
    Id: row.id,
    Created: timeOf(row.createdMs),
    Path: inspect?.Path ?? '',
    Args: inspect?.Args ?? [],
    State: stateView(row, inspect),
    Image: spec.imageId,
    ResolvConfPath: '',
    HostnamePath: '',
    HostsPath: '',
    LogPath: '',
    Name: `/${row.name}`,
    RestartCount: row.restartCount,
    Driver: 'overlay2',
    Platform: 'linux',
    MountLabel: '',
    ProcessLabel: '',
    AppArmorProfile: '',
    ExecIDs: execIds.length === 0 ? null : execIds,
    HostConfig: hostConfigView(row, spec),
    GraphDriver: { Name: 'overlay2', Data: {} },
    Mounts: mountsView(spec.mounts),
    Config: configView(spec, inspect),
    NetworkSettings: networkSettingsView(subject),
  };
}
