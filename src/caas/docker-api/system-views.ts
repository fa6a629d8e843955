/** `docker version` and `docker info`: the tenant's own world, nothing of the hosts. Pure. */
import type { ContainerRow } from '#state/containers.ts';
import type { Tenant } from '#state/tenants.ts';
import { API_VERSION_MAX, API_VERSION_MIN } from './request.ts';

export interface PlatformFacts {
  readonly version: string;
  readonly kernel: string;
  readonly cpus: number;
  readonly runtimeVersion: string;
}

export function versionView(facts: PlatformFacts): Readonly<Record<string, unknown>> {
  const engine = {
    Version: facts.version,
    ApiVersion: API_VERSION_MAX,
    MinAPIVersion: API_VERSION_MIN,
    Os: 'linux',
    Arch: 'amd64',
  };
  return {
    Platform: { Name: 'Écluse' },
    Components: [
      {
        Name: 'Engine',
        Version: facts.version,
        Details: {
          ApiVersion: API_VERSION_MAX,
          MinAPIVersion: API_VERSION_MIN,
          Os: 'linux',
          Arch: 'amd64',
          Experimental: 'false',
          KernelVersion: facts.kernel,
        },
      },
      { Name: 'runsc', Version: facts.runtimeVersion, Details: {} },
    ],
    ...engine,
    GitCommit: '',
    GoVersion: '',
    KernelVersion: facts.kernel,
    BuildTime: '',
  };
}

export interface TenantFacts {
  readonly tenant: Tenant;
  readonly rows: readonly ContainerRow[];
  readonly images: number;
  readonly nowMs: number;
}

/** `docker info`: the tenant's own world; its quota is the size of its machine. */
export function infoView(facts: PlatformFacts, { tenant, rows, images, nowMs }: TenantFacts): Readonly<Record<string, unknown>> {
  const count = (...states: readonly string[]): number => rows.filter((row) => states.includes(row.state)).length;
  return {
    ID: `ECLUSE-${tenant.name}`,
    Name: 'ecluse',
    ServerVersion: facts.version,
    OperatingSystem: 'Écluse (gVisor)',
    OSType: 'linux',
    OSVersion: '',
    Architecture: 'x86_64',
    KernelVersion: facts.kernel,
    NCPU: facts.cpus,
    MemTotal: tenant.quota.memoryBytesMax,
    Containers: rows.length,
    ContainersRunning: count('running', 'restarting'),
    ContainersPaused: count('paused'),
    ContainersStopped: count('created', 'exited', 'dead', 'lost'),
    Images: images,
    Driver: 'overlay2',
    DriverStatus: [],
    SystemTime: new Date(nowMs).toISOString(),
    LoggingDriver: 'json-file',
    CgroupDriver: 'cgroupfs',
    CgroupVersion: '1',
    DefaultRuntime: 'runsc',
    Runtimes: { runsc: { path: 'runsc' } },
    Plugins: { Volume: [], Network: ['bridge', 'null'], Authorization: null, Log: ['json-file'] },
    Swarm: { NodeID: '', NodeAddr: '', LocalNodeState: 'inactive', ControlAvailable: false, Error: '', RemoteManagers: null },
    IndexServerAddress: 'https://index.docker.io/v1/',
    RegistryConfig: { IndexConfigs: {}, InsecureRegistryCIDRs: [], Mirrors: [] },
    SecurityOptions: ['name=gvisor'],
    Labels: [],
    ExperimentalBuild: false,
    MemoryLimit: true,
    SwapLimit: true,
    CpuCfsPeriod: true,
    CpuCfsQuota: true,
    CPUShares: true,
    PidsLimit: true,
    IPv4Forwarding: true,
    BridgeNfIptables: true,
    BridgeNfIp6tables: true,
    OomKillDisable: false,
    Debug: false,
    NFd: 0,
    NGoroutines: 0,
    NEventsListener: 0,
    HttpProxy: '',
    HttpsProxy: '',
    NoProxy: '',
    DockerRootDir: '/',
    LiveRestoreEnabled: true,
    InitBinary: 'docker-init',
    Warnings: null,
  };
}
