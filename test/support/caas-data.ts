/** Containers, tenants and what engines say of them, for tests of pure code. */
import { parseCreate } from '#caas/spec/container-spec.ts';
import type { ContainerSpec } from '#caas/spec/container-spec.ts';
import { inspectSchema } from '#caas/engine/engine-answers.ts';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';
import type { ContainerRow } from '#state/containers.ts';
import type { Tenant } from '#state/tenants.ts';

export const ENGINE_ID = 'e'.repeat(64);

export function tenantNamed(name: string, change: Partial<Tenant> = {}): Tenant {
  const quota = {
    containersMax: 10,
    memoryBytesMax: 2 ** 30,
    imagesMax: 10,
    networksMax: 10,
    volumesMax: 10,
    portsMax: 10,
    cpuMilliMax: 0,
  };
  return { name, createdMs: 0, state: 'active', quota, domains: [], address: '', ...change };
}

export function rowOf(change: Partial<ContainerRow> = {}): ContainerRow {
  return {
    id: 'a'.repeat(64),
    tenant: 'acme',
    name: 'web',
    host: 'a',
    engineId: ENGINE_ID,
    incarnation: 1,
    state: 'running',
    createdMs: Date.UTC(2026, 0, 1),
    startedMs: Date.UTC(2026, 0, 1),
    finishedMs: undefined,
    restartCount: 0,
    address: '10.90.1.2',
    resume: false,
    carriedStart: '',
    memoryBytes: 64 * 1024 ** 2,
    lanAddress: '10.90.4.2',
    placement: '',
    snapshot: '',
    spec: '{}',
    ...change,
  };
}

/** The spec that a create request makes. */
export function specOf(body: Readonly<Record<string, unknown>> = {}, tcpPorts: readonly number[] = [80]): ContainerSpec {
  const parsed = parseCreate({ Image: 'shop:1', ...body });
  if (parsed.kind === 'refused') throw new Error(parsed.reason);
  return {
    ...parsed.spec,
    imageId: `sha256:${'1'.repeat(64)}`,
    tcpPorts,
    exposedPorts: tcpPorts.map((port) => `${String(port)}/tcp`),
  };
}

/** What an engine says of a running container. */
export function inspectOf(
  state: Readonly<Record<string, unknown>> = {},
  rest: Readonly<Record<string, unknown>> = {},
): EngineInspect {
  return inspectSchema.parse({
    Id: ENGINE_ID,
    Path: 'sleep',
    Args: ['1'],
    LogPath: '/var/lib/docker/containers/x/x-json.log',
    State: {
      Status: 'running',
      Running: true,
      Paused: false,
      Restarting: false,
      OOMKilled: false,
      Dead: false,
      Pid: 4711,
      ExitCode: 0,
      Error: '',
      StartedAt: '2026-01-01T00:00:00Z',
      FinishedAt: '0001-01-01T00:00:00Z',
      ...state,
    },
    Config: { Hostname: 'h', Env: ['A=b'], Cmd: ['sleep', '1'], Labels: { x: 'y' } },
    GraphDriver: { Name: 'overlay2', Data: { UpperDir: '/var/lib/docker/overlay2/u' } },
    NetworkSettings: {
      Networks: { 'ecluse-abcdef-acme': { IPAddress: '10.90.1.2', IPPrefixLen: 24, Gateway: '10.90.1.1', MacAddress: '02:42' } },
    },
    ...rest,
  });
}
