/** Create requests: what passes, what the engine gets, what is refused. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseCreate, parseStoredSpec, SPEC_LIMITS } from '#caas/spec/container-spec.ts';
import { engineCreateBody } from '#caas/spec/engine-create-body.ts';
import type { Placement } from '#caas/spec/engine-create-body.ts';
import { specOf } from '../../support/caas-data.ts';

const PLACEMENT: Placement = {
  runtime: 'ecluse-runsc',
  cgroupParent: '/ecluse/x',
  network: { name: 'net', address: '10.90.4.2', gateway: '10.90.4.1' },
  hostname: 'abc',
  memoryBytes: 2 ** 27,
  mounts: [],
};

function refusal(body: unknown): string {
  const parsed = parseCreate(body);
  return parsed.kind === 'refused' ? `${String(parsed.status)} ${parsed.reason}` : 'passed';
}

function hostConfigSent(body: Readonly<Record<string, unknown>>, placement = PLACEMENT): unknown {
  return engineCreateBody(specOf(body), placement)['HostConfig'];
}

describe('parseCreate()', () => {
  test('takes what Docker’s client sends for `docker run IMAGE`', () => {
    const body = {
      Hostname: '',
      Domainname: '',
      User: '',
      AttachStdin: false,
      AttachStdout: true,
      AttachStderr: true,
      Tty: false,
      OpenStdin: false,
      StdinOnce: false,
      Env: null,
      Cmd: ['true'],
      Image: 'bb',
      Volumes: {},
      WorkingDir: '',
      Entrypoint: null,
      OnBuild: null,
      Labels: {},
      HostConfig: {
        Binds: null,
        ContainerIDFile: '',
        LogConfig: { Type: '', Config: {} },
        NetworkMode: 'default',
        PortBindings: {},
        AutoRemove: false,
        RestartPolicy: { Name: 'no', MaximumRetryCount: 0 },
        VolumeDriver: '',
        VolumesFrom: null,
        ConsoleSize: [0, 0],
        CapAdd: null,
        CapDrop: null,
        CgroupnsMode: '',
        Dns: [],
        DnsOptions: [],
        DnsSearch: [],
        ExtraHosts: null,
        GroupAdd: null,
        IpcMode: '',
        Cgroup: '',
        Links: null,
        OomScoreAdj: 0,
        PidMode: '',
        Privileged: false,
        PublishAllPorts: false,
        ReadonlyRootfs: false,
        SecurityOpt: null,
        UTSMode: '',
        UsernsMode: '',
        ShmSize: 0,
        Isolation: '',
        CpuShares: 0,
        Memory: 0,
        NanoCpus: 0,
        CgroupParent: '',
        BlkioWeight: 0,
        BlkioWeightDevice: [],
        Devices: [],
        DeviceRequests: null,
        MemorySwappiness: -1,
        OomKillDisable: false,
        PidsLimit: 0,
        Ulimits: null,
        CpuCount: 0,
        MaskedPaths: null,
        ReadonlyPaths: null,
      },
      NetworkingConfig: {
        EndpointsConfig: { default: { IPAMConfig: null, Links: null, Aliases: null, NetworkID: '', DriverOpts: null } },
      },
    };
    expect(parseCreate(body)).toMatchObject({
      kind: 'spec',
      memoryBytes: SPEC_LIMITS.memoryBytesDefault,
      spec: { config: { Image: 'bb', Cmd: ['true'] } },
    });
  });

  test('takes inner fields in any spelling and refuses unknown ones', () => {
    const body = {
      Image: 'x',
      HostConfig: { restartpolicy: { name: 'always' }, Ulimits: [{ name: 'nofile', soft: 1, HARD: 2 }] },
      Healthcheck: { test: ['NONE'] },
    };
    expect(parseCreate(body)).toMatchObject({
      kind: 'spec',
      spec: {
        config: { Healthcheck: { Test: ['NONE'] } },
        hostConfig: { RestartPolicy: { Name: 'always', MaximumRetryCount: 0 }, Ulimits: [{ Name: 'nofile', Soft: 1, Hard: 2 }] },
      },
    });
    expect(refusal({ Image: 'x', HostConfig: { RestartPolicy: { Nmae: 'always' } } })).toBe(
      '403 HostConfig.RestartPolicy.Nmae is not supported',
    );
    expect(refusal({ Image: 'x', Healthcheck: { StartInterval: 5 } })).toBe('403 Healthcheck.StartInterval is not supported');
  });

  test('takes a command as text, and what dockerode leaves in the body', () => {
    expect(parseCreate({ Image: 'x', Cmd: 'ls', name: 'n', platform: 'linux' })).toMatchObject({
      kind: 'spec',
      spec: { config: { Cmd: ['ls'] } },
    });
  });

  test('says which field it refuses and why', () => {
    expect(refusal({ Image: 'x', Healthcheck: { Test: ['NONE'], Interval: 2e7 } })).toContain('must be at least 100ms');
    expect(refusal({ Image: 'x', Healthcheck: { Test: ['NONE'], Interval: 25e7 } })).toBe('passed');
    expect(refusal({ Image: 'x', HostConfig: { Memory: 4_000_000 } })).toMatch(/^400 Minimum memory limit allowed is 64MB/);
    expect(refusal({ Image: 'x', HostConfig: { AutoRemove: true, RestartPolicy: { Name: 'always' } } })).toBe(
      "400 can't create 'AutoRemove' container with restart policy",
    );
    expect(refusal({ Image: 'x', HostConfig: { CapAdd: ['cap_sys_admin'] } })).toMatch(
      /^403 HostConfig\.CapAdd: cap_sys_admin is not allowed/,
    );
    expect(refusal({ Image: 'x', HostConfig: { SecurityOpt: ['no-new-privileges:true', 'apparmor=unconfined'] } })).toMatch(
      /^403 HostConfig\.SecurityOpt: apparmor=unconfined/,
    );
    expect(refusal({ Image: 'x', HostConfig: { LogConfig: { TYPE: 'gelf' } } })).toBe(
      '403 HostConfig.LogConfig.Type: only json-file is supported',
    );
    expect(
      refusal({ Image: 'x', Labels: Object.fromEntries(Array.from({ length: 201 }, (_value, index) => [String(index), ''])) }),
    ).toBe('400 more than 200 labels');
    expect(refusal({})).toMatch(/^400 Image: /);
    expect(refusal({ Image: 'x', HostConfig: { Memory: 2 ** 60 } })).toMatch(/^400 HostConfig\.Memory: /);
  });

  test('answers whatever JSON it is given', () => {
    const field = fc.constantFrom(
      'Image',
      'Cmd',
      'HostConfig',
      'NetworkingConfig',
      'Labels',
      'ExposedPorts',
      'Healthcheck',
      'hostconfig',
    );
    fc.assert(
      fc.property(fc.oneof(fc.jsonValue(), fc.dictionary(field, fc.jsonValue())), (body) =>
        ['spec', 'refused'].includes(parseCreate(body).kind),
      ),
    );
  });
});

describe('engineCreateBody()', () => {
  test('sets what the platform decides, whatever was asked for', () => {
    const sent = hostConfigSent({
      HostConfig: {
        NetworkMode: 'bridge',
        Memory: 2 ** 30,
        MemorySwap: -1,
        MemoryReservation: 2 ** 40,
        PidsLimit: -1,
        ShmSize: 2 ** 40,
      },
    });
    expect(sent).toMatchObject({
      Runtime: 'ecluse-runsc',
      CgroupParent: '/ecluse/x',
      NetworkMode: 'net',
      Privileged: false,
      IpcMode: 'private',
      Memory: 2 ** 27,
      MemorySwap: 2 ** 27,
      MemoryReservation: 2 ** 27,
      PidsLimit: 4096,
      ShmSize: 2 ** 30,
      CapDrop: ['NET_RAW'],
      LogConfig: { Type: 'json-file', Config: { 'max-size': '10485760', 'max-file': '3' } },
    });
    expect(hostConfigSent({ HostConfig: { PidsLimit: 20, CapDrop: ['ALL', 'NET_RAW'] } })).toMatchObject({
      PidsLimit: 20,
      CapDrop: ['ALL', 'NET_RAW'],
    });
    expect(hostConfigSent({ HostConfig: { NetworkMode: 'none' } }, { ...PLACEMENT, network: undefined })).toMatchObject({
      NetworkMode: 'none',
    });
  });

  test('names the image by its id and the host by the container', () => {
    expect(engineCreateBody(specOf(), PLACEMENT)).toMatchObject({ Image: `sha256:${'1'.repeat(64)}`, Hostname: 'abc' });
    expect(engineCreateBody(specOf({ Hostname: 'own' }), PLACEMENT)).toMatchObject({ Hostname: 'own' });
  });

  test('a stored spec reads back as it was', () => {
    const spec = specOf({ Env: ['A=b'], Labels: { x: 'y' }, HostConfig: { RestartPolicy: { Name: 'always' }, Init: true } });
    expect(parseStoredSpec(JSON.stringify(spec))).toEqual(spec);
  });
});
