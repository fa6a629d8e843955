/** `docker update`: what may change of a container that exists, by the allow-list of `create`. Pure. */
import { parseCreate, SPEC_LIMITS } from './container-spec.ts';
import type { ContainerSpec } from './container-spec.ts';
import { foldFields } from '#caas/docker-api/go-json.ts';
import type { SpecRefusal } from './spec-refusal.ts';

export type UpdateResult =
  | {
      readonly kind: 'update';
      readonly spec: ContainerSpec;
      readonly memoryBytes: number;
      /** What the engine is told: only what was asked for. */
      readonly engineBody: Readonly<Record<string, unknown>>;
    }
  | SpecRefusal;

/** Zero means "leave it" for all of these (moby `Container.UpdateContainer`). */
const AMOUNTS = ['MemoryReservation', 'NanoCpus', 'CpuShares', 'CpuPeriod', 'CpuQuota'] as const;
const KEYS = ['Memory', 'MemorySwap', ...AMOUNTS, 'PidsLimit', 'RestartPolicy'];

const REASONS: Readonly<Record<string, string>> = {
  CpusetCpus: 'processors are shared by time: use --cpus',
  CpusetMems: 'processors are shared by time: use --cpus',
  CpuRealtimePeriod: 'there is no real-time scheduling',
  CpuRealtimeRuntime: 'there is no real-time scheduling',
  BlkioWeight: 'disks are shared evenly',
  KernelMemory: 'the sandbox has a kernel of its own, inside the memory limit',
  KernelMemoryTCP: 'the sandbox has a kernel of its own, inside the memory limit',
  OomKillDisable: 'a sandbox that is out of memory must end',
  Devices: 'it would reach outside of the sandbox',
  DeviceCgroupRules: 'it would reach outside of the sandbox',
  DeviceRequests: 'it would reach outside of the sandbox',
  CgroupParent: 'it is where your use is metered',
  Ulimits: 'limits of processes are set when the container is made',
};

/** Reads the body of an update of a container with this specification. */
export function parseUpdate(body: unknown, current: ContainerSpec, currentMemoryBytes: number): UpdateResult {
  const folded = foldFields(body, '', [...KEYS, 'MemorySwappiness'], REASONS);
  if (folded.kind === 'refused') return { kind: 'refused', status: 403, reason: folded.reason };
  const { MemorySwappiness, ...fields } = folded.fields;
  if (![undefined, null, -1, 0].some((idle) => idle === MemorySwappiness)) {
    return { kind: 'refused', status: 403, reason: 'MemorySwappiness is not supported: containers do not swap' };
  }
  const parsed = parseCreate({ Image: 'update', HostConfig: fields });
  if (parsed.kind === 'refused') return { ...parsed, reason: parsed.reason.replaceAll('HostConfig.', '') };
  const { hostConfig } = parsed.spec;
  const memoryBytes = hostConfig.Memory === 0 ? currentMemoryBytes : hostConfig.Memory;
  const amounts = Object.fromEntries(AMOUNTS.filter((key) => hostConfig[key] !== 0).map((key) => [key, hostConfig[key]]));
  const policy = hostConfig.RestartPolicy;
  const changed = {
    ...amounts,
    ...(hostConfig.Memory === 0 ? {} : { Memory: hostConfig.Memory }),
    ...(hostConfig.MemorySwap === 0 ? {} : { MemorySwap: hostConfig.MemorySwap }),
    ...(hostConfig.PidsLimit === null ? {} : { PidsLimit: hostConfig.PidsLimit }),
    ...(policy === null || policy.Name === '' ? {} : { RestartPolicy: policy }),
  };
  const { MemorySwap: _swap, ...forEngine } = changed;
  return {
    kind: 'update',
    spec: { ...current, hostConfig: { ...current.hostConfig, ...changed } },
    memoryBytes,
    engineBody: {
      ...forEngine,
      ...(hostConfig.Memory === 0 ? {} : { MemorySwap: memoryBytes }),
      ...(hostConfig.MemoryReservation === 0 ? {} : { MemoryReservation: Math.min(hostConfig.MemoryReservation, memoryBytes) }),
      ...(hostConfig.PidsLimit === null ? {} : { PidsLimit: pidsOf(hostConfig.PidsLimit) }),
    },
  };
}

function pidsOf(asked: number): number {
  return asked <= 0 ? SPEC_LIMITS.pidsMax : Math.min(asked, SPEC_LIMITS.pidsMax);
}
