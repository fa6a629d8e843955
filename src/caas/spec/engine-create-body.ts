/** The create request that an engine gets for a container: rebuilt from its specification, with what the platform decides. Pure. */
import { macAddressOf } from '#isolation/host-addresses.ts';
import { SPEC_LIMITS } from './container-spec.ts';
import type { ContainerSpec, SpecLimits } from './container-spec.ts';
import { engineLogConfig } from './spec-logging.ts';

/** Where a container runs and under which engine names. */
export interface Placement {
  readonly runtime: string;
  readonly cgroupParent: string;
  /** Engine network, the container's address on it, and the way out; undefined for `--network none`. */
  readonly network: { readonly name: string; readonly address: string; readonly gateway: string } | undefined;
  readonly hostname: string;
  readonly memoryBytes: number;
  /** The engine's `Mounts`. */
  readonly mounts: readonly Readonly<Record<string, unknown>>[];
}

/** What an engine container is made from, beside its row. */
export interface EngineContainerWish {
  readonly spec: ContainerSpec;
  /** The engine's `Mounts`. */
  readonly mounts: Placement['mounts'];
  /** Absent: the one that follows from its virtual id. */
  readonly name?: string;
}

/** The body of the engine's create call. */
export function engineCreateBody(
  spec: ContainerSpec,
  placement: Placement,
  limits: SpecLimits = SPEC_LIMITS,
): Readonly<Record<string, unknown>> {
  const { config, hostConfig } = spec;
  const { ConsoleSize, ContainerIDFile: _file, ...limitsOfHost } = hostConfig;
  return {
    ...config,
    Image: spec.imageId,
    Hostname: config.Hostname === '' ? placement.hostname : config.Hostname,
    StopTimeout: config.StopTimeout ?? undefined,
    Healthcheck: config.Healthcheck ?? undefined,
    HostConfig: {
      ...limitsOfHost,
      ConsoleSize: ConsoleSize ?? [0, 0],
      Runtime: placement.runtime,
      CgroupParent: placement.cgroupParent,
      NetworkMode: placement.network?.name ?? 'none',
      ExtraHosts: (hostConfig.ExtraHosts ?? []).map((entry) =>
        entry.replace(/:host-gateway$/, `:${placement.network?.gateway ?? '127.0.0.1'}`),
      ),
      Memory: placement.memoryBytes,
      MemorySwap: placement.memoryBytes,
      MemoryReservation: Math.min(hostConfig.MemoryReservation, placement.memoryBytes),
      PidsLimit: Math.min(
        hostConfig.PidsLimit === null || hostConfig.PidsLimit <= 0 ? limits.pidsMax : hostConfig.PidsLimit,
        limits.pidsMax,
      ),
      ShmSize: Math.min(hostConfig.ShmSize, limits.shmBytesMax),
      CapDrop: [...new Set([...(hostConfig.CapDrop ?? []), 'NET_RAW'])],
      LogConfig: engineLogConfig(spec.logOptions),
      // Without domains of its own a container would get the host's.
      DnsSearch: (hostConfig.DnsSearch ?? []).length === 0 ? ['.'] : hostConfig.DnsSearch,
      Mounts: placement.mounts,
      Privileged: false,
      IpcMode: 'private',
    },
    ...(placement.network === undefined
      ? {}
      : {
          // Engines before 28 derive the same one by themselves; packet rules hold the container to it.
          MacAddress: macAddressOf(placement.network.address),
          NetworkingConfig: {
            EndpointsConfig: { [placement.network.name]: { IPAMConfig: { IPv4Address: placement.network.address } } },
          },
        }),
  };
}
