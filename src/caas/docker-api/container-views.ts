/**
 * Docker's JSON of containers, rebuilt from parsed parts: what a tenant may see and nothing of the host it runs on. Pure.
 * Shapes: Docker Engine API 1.41 (`ContainerSummary`, `ContainerInspectResponse`).
 */
import { formatDuration } from '#units';
import type { ContainerRow } from '#state/containers.ts';
import type { ContainerSpec } from '#caas/container-spec.ts';
import type { EngineInspect } from '#caas/engine-answers.ts';

const ZERO_TIME = '0001-01-01T00:00:00Z';

function timeOf(ms: number | undefined): string {
  return ms === undefined ? ZERO_TIME : new Date(ms).toISOString();
}

function healthText(inspect: EngineInspect | undefined): string {
  const status = inspect?.State.Health?.Status;
  if (status === undefined || status === 'none' || status === '') return '';
  return status === 'starting' ? ' (health: starting)' : ` (${status})`;
}

/** The STATUS column, in moby's words (`container.State.String`). */
export function statusText(row: ContainerRow, inspect: EngineInspect | undefined, nowMs: number): string {
  const since = (ms: number | undefined): string => formatDuration(Math.max(0, nowMs - (ms ?? nowMs)));
  switch (row.state) {
    case 'running':
      return `Up ${since(row.startedMs)}${healthText(inspect)}`;
    case 'paused':
      return `Up ${since(row.startedMs)} (Paused)`;
    case 'restarting':
      return `Restarting (${String(inspect?.State.ExitCode ?? 0)}) ${since(row.finishedMs)} ago`;
    case 'exited':
      return `Exited (${String(inspect?.State.ExitCode ?? 0)}) ${since(row.finishedMs)} ago`;
    case 'creating':
    case 'created':
      return 'Created';
    case 'dead':
    case 'lost':
      return 'Dead';
  }
}

/** `lost` is our word; Docker's for a container that cannot be brought back is `dead`. */
function dockerState(row: ContainerRow): string {
  if (row.state === 'lost') return 'dead';
  return row.state === 'creating' ? 'created' : row.state;
}

function commandText(inspect: EngineInspect | undefined): string {
  return inspect === undefined ? '' : [inspect.Path, ...(inspect.Args ?? [])].join(' ');
}

function networkMode(spec: ContainerSpec): string {
  return spec.hostConfig.NetworkMode === 'none' ? 'none' : 'default';
}

/** The one network that a tenant sees so far, under the name that clients expect. */
function networksOf(spec: ContainerSpec, inspect: EngineInspect | undefined): Readonly<Record<string, unknown>> {
  if (spec.hostConfig.NetworkMode === 'none') return {};
  const [network] = Object.values(inspect?.NetworkSettings.Networks ?? {});
  return {
    bridge: {
      IPAMConfig: null,
      Links: null,
      Aliases: null,
      NetworkID: '',
      EndpointID: '',
      Gateway: network?.Gateway ?? '',
      IPAddress: network?.IPAddress ?? '',
      IPPrefixLen: network?.IPPrefixLen ?? 0,
      IPv6Gateway: '',
      GlobalIPv6Address: '',
      GlobalIPv6PrefixLen: 0,
      MacAddress: network?.MacAddress ?? '',
      DriverOpts: null,
    },
  };
}

export function summaryView(
  row: ContainerRow,
  spec: ContainerSpec,
  inspect: EngineInspect | undefined,
  nowMs: number,
): Readonly<Record<string, unknown>> {
  return {
    Id: row.id,
    Names: [`/${row.name}`],
    Image: spec.config.Image,
    ImageID: spec.imageId,
    Command: commandText(inspect),
    Created: Math.floor(row.createdMs / 1000),
    Ports: spec.tcpPorts.map((port) => ({ PrivatePort: port, Type: 'tcp' })),
    Labels: inspect?.Config.Labels ?? spec.config.Labels ?? {},
    State: dockerState(row),
    Status: statusText(row, inspect, nowMs),
    HostConfig: { NetworkMode: networkMode(spec) },
    NetworkSettings: { Networks: networksOf(spec, inspect) },
    Mounts: [],
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
  return {
    Binds: null,
    ContainerIDFile: '',
    LogConfig: { Type: 'json-file', Config: {} },
    PortBindings: {},
    VolumeDriver: '',
    VolumesFrom: null,
    Privileged: false,
    PublishAllPorts: false,
    CgroupParent: '',
    Runtime: 'runsc',
    Isolation: '',
    Devices: [],
    ...spec.hostConfig,
    Memory: row.memoryBytes,
    NetworkMode: networkMode(spec),
  };
}

function configView(spec: ContainerSpec, inspect: EngineInspect | undefined): Readonly<Record<string, unknown>> {
  const { config } = spec;
  const merged = inspect?.Config ?? config; // The engine's has what the image brought in.
  return {
    ...config,
    Hostname: merged.Hostname,
    Env: merged.Env ?? [],
    Cmd: merged.Cmd,
    Entrypoint: merged.Entrypoint,
    WorkingDir: merged.WorkingDir,
    User: merged.User,
    Labels: merged.Labels ?? {},
    ExposedPorts: merged.ExposedPorts ?? {},
    Volumes: null,
    OnBuild: null,
  };
}

function networkSettingsView(
  row: ContainerRow,
  spec: ContainerSpec,
  inspect: EngineInspect | undefined,
): Readonly<Record<string, unknown>> {
  return {
    Bridge: '',
    SandboxID: '',
    HairpinMode: false,
    LinkLocalIPv6Address: '',
    LinkLocalIPv6PrefixLen: 0,
    Ports: Object.fromEntries(spec.tcpPorts.map((port) => [`${String(port)}/tcp`, null])),
    SandboxKey: '',
    SecondaryIPAddresses: null,
    SecondaryIPv6Addresses: null,
    EndpointID: '',
    GlobalIPv6Address: '',
    GlobalIPv6PrefixLen: 0,
    IPv6Gateway: '',
    Gateway: '',
    IPAddress: row.address,
    IPPrefixLen: row.address === '' ? 0 : 24,
    MacAddress: '',
    Networks: networksOf(spec, inspect),
  };
}

export function inspectView(
  row: ContainerRow,
  spec: ContainerSpec,
  inspect: EngineInspect | undefined,
  execIds: readonly string[],
): Readonly<Record<string, unknown>> {
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
    GraphDriver: { Name: 'overlay2', Data: null },
    Mounts: [],
    Config: configView(spec, inspect),
    NetworkSettings: networkSettingsView(row, spec, inspect),
  };
}
