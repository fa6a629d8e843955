/** Attacks through the fields of create requests. */
import { join } from 'node:path';
import { expect } from 'vitest';
import * as z from 'zod';
import { ATTACKER, VICTIM } from '../../../support/attack.ts';
import { openSocketSpeaker } from '../../../support/speaker.ts';
import { allRefused, create, expectIndistinct, get, hosted, indistinct, post, refused, remove, succeed } from './cases.ts';
import type { AttackCase } from './cases.ts';
import type { AttackWorld } from '../../../support/attack.ts';

const IMAGE = '"Image":"own:1"';

const spelling: readonly AttackCase[] = [
  ...allRefused(
    'raw bodies',
    {
      'keys in lower case': create(`{${IMAGE},"hostconfig":{"privileged":true}}`),
      'keys in upper case': create(`{${IMAGE},"HOSTCONFIG":{"PRIVILEGED":true}}`),
      'a long s, which Go folds to s': create(`{${IMAGE},"Ho\u017FtConfig":{"Privileged":true}}`),
      'a Kelvin sign, which Go folds to k': create(`{${IMAGE},"HostConfig":{"Networ\u212AMode":"host"}}`),
      'escapes inside of a key': create(`{${IMAGE},"HostConfig":{"Pr\\u0069vileged":true}}`),
      'a duplicate in another spelling': create(`{${IMAGE},"HostConfig":{},"hostConfig":{"Privileged":true}}`),
      'a duplicate in the same spelling': create(`{${IMAGE},"HostConfig":{},"HostConfig":{"Privileged":true}}`),
      'a nested duplicate': create(`{${IMAGE},"HostConfig":{"Binds":[],"binds":["/:/host"]}}`),
      'a key that is unknown': create(`{${IMAGE},"SomethingNew":{"a":1}}`),
      'a prototype': create(`{${IMAGE},"__proto__":{"HostConfig":{"Privileged":true}}}`),
    },
    { status: [400, 403] },
  ),
  {
    row: 'raw bodies',
    name: 'of a query’s values the first counts, and a form in the body counts nothing',
    run: async (world) => {
      const made = await world.ask({
        method: 'POST',
        path: '/containers/create?name=first&name=granite',
        body: 'name=granite&HostConfig=x',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
      });
      expect(made.status, made.text).toBe(400);
      await succeed(world, post('/containers/create?name=first&name=granite', { Image: 'own:1' }));
      expect((await world.ask({ path: '/containers/first/json' })).status).toBe(200);
      expect((await world.ask({ path: '/containers/granite/json' })).status).toBe(404);
      await succeed(world, { method: 'DELETE', path: '/containers/first' });
    },
  },
];

const binds: readonly AttackCase[] = [
  ...allRefused(
    'binds',
    {
      'the root': hosted({ Binds: ['/:/host'] }),
      'read-only': hosted({ Binds: ['/etc:/host:ro'] }),
      'a path with dots': hosted({ Binds: ['/var/run/../../etc:/host'] }),
      'a relative path': hosted({ Binds: ['../../etc:/host'] }),
      'the engine’s own socket': hosted({ Binds: ['/run/containerd/containerd.sock:/s'] }),
      'as a mount': hosted({ Mounts: [{ Type: 'bind', Source: '/', Target: '/host' }] }),
      'as a mount in another spelling': hosted({ mounts: [{ type: 'bind', source: '/', target: '/host' }] }),
      'as a mount of another case': hosted({ Mounts: [{ Type: 'BIND', Source: '/', Target: '/host' }] }),
      'with propagation': hosted({
        Mounts: [{ Type: 'bind', Source: '/', Target: '/h', BindOptions: { Propagation: 'rshared' } }],
      }),
      'a volume whose name is a path': hosted({ Mounts: [{ Type: 'volume', Source: '/etc', Target: '/host' }] }),
      'a named pipe': hosted({ Mounts: [{ Type: 'npipe', Source: '\\\\.\\pipe\\docker_engine', Target: '/s' }] }),
      'a tmpfs with a source': hosted({ Mounts: [{ Type: 'tmpfs', Source: '/etc', Target: '/host' }] }),
    },
    { status: [400, 403] },
  ),
];

/** What the engine mounts into the attacker's container of that name. */
async function engineMounts(world: AttackWorld, name: string): Promise<readonly string[]> {
  const { Id } = z.object({ Id: z.string() }).parse(JSON.parse(await succeed(world, get(`/containers/${name}/json`))));
  using engine = openSocketSpeaker(join(world.node.dataDir, 'hosts', 'a', 'docker.sock'));
  const list = z
    .array(z.object({ Id: z.string(), Names: z.array(z.string()) }))
    .parse(JSON.parse((await engine.ask(get('/containers/json?all=1'))).text));
  const own = list.find(({ Names }) => Names.some((engineName) => engineName.includes(Id.slice(0, 16))));
  const inspected = await engine.ask(get(`/containers/${own?.Id ?? 'none'}/json`));
  return z
    .object({ Mounts: z.array(z.object({ Source: z.string() })) })
    .parse(JSON.parse(inspected.text))
    .Mounts.map(({ Source }) => Source);
}

const SOCKET_SPELLINGS = [
  '/var/run/docker.sock',
  '/run/docker.sock',
  '//var/run/docker.sock',
  '/var/run/../run/docker.sock',
  '/var/run/docker.sock/',
  '/var/run/docker.sock/../docker.sock',
  '/proc/1/root/run/docker.sock',
  '/VAR/RUN/docker.sock',
  '/var/run/docker.sock\0',
];

const sockets: readonly AttackCase[] = [
  {
    row: 'binds',
    name: 'the endpoint’s socket, in any spelling, is the tenant’s own or none',
    run: async (world) => {
      for (const source of SOCKET_SPELLINGS) {
        const answer = await world.ask(create({ HostConfig: { Binds: [`${source}:/s.sock`] } }, '?name=inner'));
        if (answer.status === 201) {
          expect(await engineMounts(world, 'inner'), source).toEqual([
            join(world.node.dataDir, 'sockets', ATTACKER, 'docker.sock'),
          ]);
          await succeed(world, remove('/containers/inner'));
        } else expect([400, 403], `${source}: ${answer.text}`).toContain(answer.status);
      }
    },
  },
  {
    row: 'binds',
    name: 'who speaks through that socket is the tenant whose container has it, whatever it says',
    run: async (world) => {
      await succeed(world, create({ HostConfig: { Binds: ['/var/run/docker.sock:/s.sock'] } }, '?name=inner'));
      using inner = openSocketSpeaker(join(world.node.dataDir, 'sockets', ATTACKER, 'docker.sock'));
      const headers = { host: VICTIM, 'x-tenant': VICTIM, authorization: 'Basic Z2xvYmV4Og==', 'x-registry-auth': 'e30=' };
      const listed = await inner.ask({ path: '/containers/json?all=1', headers });
      expect(listed.text).toContain('/ownbox');
      expect(listed.text).not.toContain('/granite');
      const within = { ...world, ask: inner.ask };
      await expectIndistinct(within, world.references.container, (name) => get(`/containers/${name}/json`));
      await expectIndistinct(within, world.references.container, (name) => remove(`/containers/${name}?force=1`));
      await expectIndistinct(within, world.references.exec, (id) => post(`/exec/${id}/start`, {}));
      await succeed(world, remove('/containers/inner'));
    },
  },
];

const drivers: readonly AttackCase[] = [
  ...allRefused(
    'volume drivers',
    {
      'a bind by the local driver': post('/volumes/create', {
        Name: 'x',
        DriverOpts: { type: 'none', o: 'bind', device: '/etc' },
      }),
      'in another spelling': post('/volumes/create', { name: 'x', driveropts: { type: 'none', o: 'bind', device: '/etc' } }),
      'a disk': post('/volumes/create', { Name: 'x', DriverOpts: { type: 'ext4', device: '/dev/sda1' } }),
      NFS: post('/volumes/create', { Name: 'x', DriverOpts: { type: 'nfs', o: 'addr=127.0.0.1', device: ':/' } }),
      'another driver': post('/volumes/create', { Name: 'x', Driver: 'rexray' }),
      'a name that climbs': post('/volumes/create', { Name: '../../etc' }),
      'options of a mount': hosted({
        Mounts: [
          {
            Type: 'volume',
            Source: 'x',
            Target: '/h',
            VolumeOptions: { DriverConfig: { Name: 'local', Options: { type: 'none', o: 'bind', device: '/etc' } } },
          },
        ],
      }),
      'options of a mount in another spelling': hosted({
        Mounts: [
          {
            Type: 'volume',
            Source: 'x',
            Target: '/h',
            volumeoptions: { driverconfig: { name: 'local', options: { device: '/etc', o: 'bind' } } },
          },
        ],
      }),
      'the driver of all volumes': hosted({ VolumeDriver: 'rexray' }),
    },
    { status: [400, 403, 404] },
  ),
];

const namespaces: readonly AttackCase[] = [
  ...indistinct('namespaces of others', 'container', {
    VolumesFrom: (name) => hosted({ VolumesFrom: [name] }),
    'VolumesFrom read-only': (name) => hosted({ VolumesFrom: [`${name}:ro`] }),
    'volumesfrom in lower case': (name) => hosted({ volumesfrom: [name] }),
    NetworkMode: (name) => hosted({ NetworkMode: `container:${name}` }),
    PidMode: (name) => hosted({ PidMode: `container:${name}` }),
    IpcMode: (name) => hosted({ IpcMode: `container:${name}` }),
    UTSMode: (name) => hosted({ UTSMode: `container:${name}` }),
    Cgroup: (name) => hosted({ Cgroup: `container:${name}` }),
  }),
  ...allRefused(
    'namespaces of others',
    {
      'the host’s processes': hosted({ PidMode: 'host' }),
      'the host’s memory': hosted({ IpcMode: 'host' }),
      'the host’s name': hosted({ UTSMode: 'host' }),
      'the host’s users': hosted({ UsernsMode: 'host' }),
      'the host’s cgroups': hosted({ CgroupnsMode: 'host' }),
    },
    { status: [400, 403] },
  ),
];

const privileges: readonly AttackCase[] = allRefused(
  'privileges',
  {
    privileged: hosted({ Privileged: true }),
    SYS_ADMIN: hosted({ CapAdd: ['SYS_ADMIN'] }),
    'all capabilities': hosted({ CapAdd: ['ALL'] }),
    'raw sockets in lower case': hosted({ CapAdd: ['cap_net_raw'] }),
    'a disk': hosted({ Devices: [{ PathOnHost: '/dev/sda', PathInContainer: '/dev/sda', CgroupPermissions: 'rwm' }] }),
    'a GPU': hosted({ DeviceRequests: [{ Count: -1, Capabilities: [['gpu']] }] }),
    'all devices': hosted({ DeviceCgroupRules: ['a *:* rwm'] }),
    'no seccomp': hosted({ SecurityOpt: ['seccomp=unconfined'] }),
    'no AppArmor': hosted({ SecurityOpt: ['apparmor=unconfined'] }),
    'system paths unmasked': hosted({ SecurityOpt: ['systempaths=unconfined'] }),
    'masked paths': hosted({ MaskedPaths: [], Privileged: true }),
    'read-only paths': hosted({ ReadonlyPaths: ['/nothing'] }),
    sysctls: hosted({ Sysctls: { 'net.ipv4.ip_forward': '1' } }),
    'kernel sysctls': hosted({ Sysctls: { 'kernel.core_pattern': '|/bin/sh' } }),
  },
  { status: [400, 403] },
);

const placement: readonly AttackCase[] = allRefused(
  'placement',
  {
    'another runtime': hosted({ Runtime: 'runc' }),
    'the cgroup root': hosted({ CgroupParent: '/' }),
    'the OOM score': hosted({ OomScoreAdj: -1000 }),
    'no OOM killer': hosted({ OomKillDisable: true }),
    'real time': hosted({ CpuRealtimeRuntime: 950_000 }),
    'the processors of others': hosted({ CpusetCpus: '0' }),
    'block devices': hosted({ BlkioDeviceReadBps: [{ Path: '/dev/sda', Rate: 1 }] }),
    'syslog to anywhere': hosted({ LogConfig: { Type: 'syslog', Config: { 'syslog-address': 'tcp://169.254.169.254:80' } } }),
    'logs in another spelling': hosted({ logconfig: { type: 'gelf', config: { 'gelf-address': 'udp://10.0.0.1:1' } } }),
    'the storage': hosted({ StorageOpt: { size: '1T' } }),
    'flags of the sandbox': hosted({ Annotations: { 'dev.gvisor.flag.debug-log': '/etc/x' } }),
    isolation: hosted({ Isolation: 'process' }),
    'more memory than there is': hosted({ Memory: 1e15 }),
    'the engine’s init': hosted({ InitPath: '/bin/sh' }),
  },
  { status: [400, 403] },
);

async function expectLabelsGrantNothing(world: AttackWorld, labels: Readonly<Record<string, string>>): Promise<void> {
  await succeed(world, create({ Labels: labels }, '?name=labelled'));
  const mine = await world.ask({ path: '/containers/labelled/json' });
  expect(mine.status).toBe(200);
  expect((await world.askAsVictim({ path: '/containers/labelled/json' })).status).toBe(404);
  await succeed(world, { method: 'DELETE', path: '/containers/labelled' });
}

const labels: readonly AttackCase[] = [
  {
    row: 'labels',
    name: 'labels that look like the platform’s own move nothing to another tenant',
    run: async (world) => {
      await expectLabelsGrantNothing(world, {
        'ecluse.tenant': 'globex',
        tenant: 'globex',
        'com.docker.compose.project': 'globex',
      });
    },
  },
  {
    row: 'labels',
    name: 'labels of another tenant’s objects make nothing theirs or mine',
    run: async (world) => {
      await expectLabelsGrantNothing(world, { vein: 'gold' });
    },
  },
  {
    row: 'labels',
    name: 'labels that an image brings along grant nothing',
    run: async (world) => {
      await succeed(
        world,
        post(
          `/commit?container=ownbox&repo=labelled&tag=1&changes=${encodeURIComponent('LABEL ecluse.tenant=globex vein=gold')}`,
          {},
        ),
      );
      expect((await world.askAsVictim({ path: '/images/labelled:1/json' })).status).toBe(404);
      await succeed(world, { method: 'DELETE', path: '/images/labelled:1' });
    },
  },
  {
    row: 'labels',
    name: 'volumes and networks with another tenant’s labels stay the maker’s',
    run: async (world) => {
      await succeed(world, post('/volumes/create', { Name: 'labelled', Labels: { vein: 'gold', tenant: 'globex' } }));
      await succeed(world, post('/networks/create', { Name: 'labelled', Labels: { vein: 'gold', tenant: 'globex' } }));
      for (const path of ['/volumes/labelled', '/networks/labelled']) {
        expect((await world.askAsVictim({ path })).status, path).toBe(404);
        await succeed(world, { method: 'DELETE', path });
      }
    },
  },
  refused(
    'labels',
    'too many labels',
    create({ Labels: Object.fromEntries(Array.from({ length: 1000 }, (_, index) => [`l${String(index)}`, 'x'])) }),
  ),
];

export const createFieldCases: readonly AttackCase[] = [
  ...spelling,
  ...sockets,
  ...binds,
  ...drivers,
  ...namespaces,
  ...privileges,
  ...placement,
  ...labels,
];
