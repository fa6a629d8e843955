/** Mounts of a create request: Docker's readings and refusals (compared with dockerd 20.10), and the ways to a host that are closed. */
import { describe, expect, test } from 'vitest';
import { parseCreate, parseStoredSpec } from '#caas/spec/container-spec.ts';
import { mountSchema } from '#caas/spec/spec-mounts.ts';
import type { MountSpec } from '#caas/spec/spec-mounts.ts';
import { completeMounts, hostOfVolumes } from '#caas/volumes/volume-planning.ts';
import type { PlacedVolume } from '#caas/volumes/volume-planning.ts';
import { specOf } from '../../support/caas-data.ts';

function refusal(body: Readonly<Record<string, unknown>>): string {
  const parsed = parseCreate({ Image: 'bb', ...body });
  return parsed.kind === 'refused' ? `${String(parsed.status)} ${parsed.reason}` : 'passed';
}

const ofHost = (host: Readonly<Record<string, unknown>>): string => refusal({ HostConfig: host });
const ofBind = (bind: string): string => ofHost({ Binds: [bind] });
const ofMount = (mount: Readonly<Record<string, unknown>>): string => ofHost({ Mounts: [mount] });

function mountsOf(host: Readonly<Record<string, unknown>>): readonly MountSpec[] {
  return specOf({ HostConfig: host }).mounts;
}

const HOST_PATH = /^403 ecluse: host paths cannot be mounted: /;
const NAMES = 'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path';

describe('Binds', () => {
  test('names a volume, with its mode', () => {
    expect(mountsOf({ Binds: ['data:/srv/../data/', 'logs:/logs:ro,Z,nocopy', '/anonymous'] })).toMatchObject([
      { kind: 'volume', name: 'data', destination: '/data', readOnly: false, noCopy: false, anonymous: false, mode: 'z' },
      { kind: 'volume', name: 'logs', destination: '/logs', readOnly: true, noCopy: true, mode: 'ro,Z,nocopy' },
      { kind: 'volume', name: '', destination: '/anonymous', anonymous: true, mode: '' },
    ]);
  });

  test.each([
    ['', "400 invalid volume specification: ''"],
    [':', "400 invalid volume specification: ':'"],
    [':/a', "400 invalid volume specification: ':/a'"],
    ['/a:', "400 invalid volume specification: '/a:'"],
    ['/a:ro', "400 invalid volume specification: '/a:ro'"],
    ['aa:/b:c:d', "400 invalid volume specification: 'aa:/b:c:d'"],
    ['aa:/b:ro:d:e', "400 invalid volume specification: 'aa:/b:ro:d:e'"],
    [
      'xx',
      `400 invalid volume specification: 'xx': invalid mount config for type "volume": invalid mount path: 'xx' mount path must be absolute`,
    ],
    [
      '/',
      `400 invalid volume specification: '/': invalid mount config for type "volume": invalid specification: destination can't be '/'`,
    ],
    [
      'xx:/',
      `400 invalid volume specification: 'xx:/': invalid mount config for type "volume": invalid specification: destination can't be '/'`,
    ],
    [
      'xx:/a/../..',
      `400 invalid volume specification: 'xx:/a/../..': invalid mount config for type "volume": invalid specification: destination can't be '/'`,
    ],
    [
      'xx:a',
      `400 invalid volume specification: 'xx:a': invalid mount config for type "volume": invalid mount path: 'a' mount path must be absolute`,
    ],
    [
      'xx:/a:shared',
      `400 invalid volume specification: 'xx:/a:shared': invalid mount config for type "volume": field BindOptions must not be specified`,
    ],
    [
      '/run/docker.sock:/s:nocopy',
      `400 invalid volume specification: '/run/docker.sock:/s:nocopy': invalid mount config for type "bind": field VolumeOptions must not be specified`,
    ],
    ['xx:/a:zz', '400 invalid mode: zz'],
    ['xx:/a:ro,rw', '400 invalid mode: ro,rw'],
    ['xx:/a:z,Z', '400 invalid mode: z,Z'],
    ['xx:/a:copy', '400 invalid mode: copy'],
    ['x:/a', '400 create x: volume name is too short, names should be at least two alphanumeric characters'],
    ['./x:/a', `400 create ./x: "./x" includes invalid characters for a local volume name, ${NAMES}`],
    ['x/../y:/a', `400 create x/../y: "x/../y" includes invalid characters for a local volume name, ${NAMES}`],
    ['..:/a', `400 create ..: ".." includes invalid characters for a local volume name, ${NAMES}`],
    ['-xx:/a', `400 create -xx: "-xx" includes invalid characters for a local volume name, ${NAMES}`],
    ['xx:/a\nb', '400 ecluse: a mount path has no control characters'],
  ])('%j: %s', (bind, message) => {
    expect(ofBind(bind)).toBe(message);
  });

  test.each([
    '/:/host',
    '/etc:/x:ro',
    '//etc:/x',
    '/var/lib/docker/volumes/other/_data:/x',
    '/var/run/docker.sock/../../etc:/x',
    '/var/run/../../etc:/x',
    '/var/run:/x',
    '/run:/run',
    '/var/run/docker.sock.d:/x',
    '/VAR/RUN/DOCKER.SOCK:/x',
    '/proc/1/root/var/run/docker.sock:/x',
    '/var/run/docker.sock\0/etc:/x',
    '/run/containerd/containerd.sock:/x',
  ])('nothing of a host: %j', (bind) => {
    expect(ofBind(bind)).toMatch(HOST_PATH);
  });

  test.each([
    ['/var/run/docker.sock:/var/run/docker.sock', '/var/run/docker.sock'],
    ['//var/run/docker.sock:/var/run/docker.sock:rw', '/var/run/docker.sock'],
    ['/run/docker.sock:/var/run/docker.sock:ro', '/run/docker.sock'],
    ['/var/run//./docker.sock/:/var/run/docker.sock:rprivate,z', '/var/run/docker.sock'],
    ['/etc/../run/docker.sock:/var/run/docker.sock', '/run/docker.sock'],
  ])('the socket to the own endpoint: %j', (bind, source) => {
    const readOnly = bind.endsWith(':ro');
    expect(mountsOf({ Binds: [bind] })).toMatchObject([
      { kind: 'endpoint-socket', source, destination: '/var/run/docker.sock', readOnly },
    ]);
  });

  test('mounts do not propagate, and a socket’s path is one that can be connected to', () => {
    expect(ofBind('/run/docker.sock:/s:rshared')).toBe(
      '403 ecluse: HostConfig.Binds: mounts do not propagate between a sandbox and its host (rshared)',
    );
    expect(ofBind(`/run/docker.sock:/${'s'.repeat(100)}`)).toMatch(/^400 ecluse: .*at most 90 characters/);
  });
});

describe('Mounts', () => {
  test('volumes, tmpfs and the socket, whatever the spelling of keys', () => {
    const mounts = mountsOf({
      Mounts: [
        { type: 'volume', SOURCE: 'data', target: '/d', readonly: true, volumeoptions: { nocopy: true, labels: { a: 'b' } } },
        { Type: 'tmpfs', Target: '/t', TmpfsOptions: { SizeBytes: 1024, Mode: 0o1777 } },
        { Type: 'bind', Source: '/var/run/docker.sock', Target: '/s', BindOptions: { Propagation: 'rprivate' } },
        { Type: 'volume', Target: '/anonymous' },
      ],
    });
    expect(mounts).toMatchObject([
      { kind: 'volume', name: 'data', destination: '/d', readOnly: true, noCopy: true, labels: { a: 'b' } },
      { kind: 'tmpfs', destination: '/t', sizeBytes: 1024, fileMode: 0o1777 },
      { kind: 'endpoint-socket', destination: '/s' },
      { kind: 'volume', name: '', anonymous: true },
    ]);
    expect(mounts.map((mount) => mountSchema.parse(mount))).toEqual(mounts);
  });

  test.each([
    [{}, '400 invalid mount config for type "": field Target must not be empty'],
    [{ Type: 'volume' }, '400 invalid mount config for type "volume": field Target must not be empty'],
    [
      { Type: 'volume', Target: 'a' },
      `400 invalid mount config for type "volume": invalid mount path: 'a' mount path must be absolute`,
    ],
    [
      { Type: 'volume', Target: '/' },
      `400 invalid mount config for type "volume": invalid specification: destination can't be '/'`,
    ],
    [
      { Type: 'volume', Target: '/a', ReadOnly: true },
      '400 invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes',
    ],
    [
      { Type: 'volume', Target: '/a', Source: '/etc' },
      `400 create /etc: "/etc" includes invalid characters for a local volume name, ${NAMES}`,
    ],
    [
      { Type: 'volume', Target: '/a', Source: 'xx', BindOptions: {} },
      '400 invalid mount config for type "volume": field BindOptions must not be specified',
    ],
    [
      { Type: 'tmpfs', Target: '/a', Source: 'x' },
      '400 invalid mount config for type "tmpfs": field Source must not be specified',
    ],
    [
      { Type: 'tmpfs', Target: '/a', TmpfsOptions: { SizeBytes: -1 } },
      /^400 invalid mount config for type "tmpfs": TmpfsOptions/,
    ],
    [{ Type: 'bind', Target: '/a' }, '400 invalid mount config for type "bind": field Source must not be empty'],
    [
      { Type: 'bind', Target: '/a', Source: 'x' },
      `400 invalid mount config for type "bind": invalid mount path: 'x' mount path must be absolute`,
    ],
    [
      { Type: 'bind', Target: '/a', Source: '/run/docker.sock', BindOptions: { Propagation: 'foo' } },
      '400 invalid mount config for type "bind": invalid propagation mode: foo',
    ],
    [
      { Type: 'bind', Target: '/a', Source: '/run/docker.sock', BindOptions: { Propagation: 'shared' } },
      /^403 ecluse: HostConfig.Mounts: mounts do not propagate/,
    ],
    [{ Type: 'npipe', Target: '/a', Source: 'x' }, '400 invalid mount config for type "npipe": mount type unknown'],
    [{ Type: 'cluster', Target: '/a', Source: 'x' }, '400 invalid mount config for type "cluster": mount type unknown'],
    [{ Type: 'image', Target: '/a', Source: 'bb' }, '400 invalid mount config for type "image": mount type unknown'],
    [{ Type: 'BIND', Target: '/a', Source: '/' }, '400 invalid mount config for type "BIND": mount type unknown'],
    [{ Type: 'bind', type: 'volume', Target: '/a', Source: '/' }, /given twice in different spellings/],
    [{ Type: 'bind', Target: '/a', ['\u017Fource']: '/etc' }, HOST_PATH],
    [{ Type: 'bind', Target: '/a', Source: '/var/run/docker.sock/../../etc' }, HOST_PATH],
    [
      { Type: 'volume', Target: '/a', Source: 'xx', VolumeOptions: { Subpath: '../..' } },
      /^403 ecluse: .*Subpath is not supported/,
    ],
    [
      { Type: 'volume', Target: '/a', Source: 'xx', VolumeOptions: { DriverConfig: { Name: 'foo' } } },
      '400 create xx: error looking up volume plugin foo: plugin "foo" not found',
    ],
  ])('%j', (mount, message) => {
    const said = ofMount(mount);
    expect(typeof message === 'string' ? said === message : message.test(said), said).toBe(true);
  });

  const driven = (options: Readonly<Record<string, string>>): string =>
    ofMount({ Type: 'volume', Target: '/a', Source: 'xx', VolumeOptions: { DriverConfig: { Name: 'local', Options: options } } });

  test.each([
    [{ type: 'none', o: 'bind', device: '/etc' }, /^403 ecluse: create xx: only a tmpfs can be mounted/],
    [{ type: 'nfs', o: 'addr=10.0.0.1', device: ':/' }, /^403 ecluse: create xx: only a tmpfs/],
    [{ type: 'ext4', device: '/dev/sda1' }, /^403 ecluse: create xx: only a tmpfs/],
    [{ type: 'tmpfs', device: '/etc' }, /^403 ecluse: create xx: only a tmpfs/],
    [{ type: 'tmpfs', device: 'tmpfs', o: 'bind,size=1m' }, /^403 ecluse: create xx: the option bind/],
    [{ type: 'tmpfs', device: 'tmpfs', o: 'size=1m,mpol=bind:0' }, /^403 ecluse: create xx: the option mpol=bind:0/],
    [{ type: 'tmpfs', device: 'tmpfs', o: 'size=50%' }, /^403 ecluse: create xx: the size/],
    [{ type: 'tmpfs', device: 'tmpfs', o: 'size=64g' }, /^403 ecluse: create xx: the size/],
    [{ type: 'tmpfs', device: 'tmpfs', o: 'size=0' }, /^403 ecluse: create xx: the size/],
    [{ TYPE: 'none', o: 'bind', device: '/etc' }, /^400 create xx: invalid option: "TYPE"/],
    [{ foo: 'x' }, /^400 create xx: invalid option: "foo"/],
    [{ type: 'tmpfs' }, /^400 create xx: missing required option: "device"/],
    [{ size: '10m' }, /^400 create xx: quota size requested but no quota support/],
  ])('options of the driver: %j', (options, message) => {
    expect(driven(options)).toMatch(message);
  });

  test('a tmpfs volume keeps its options', () => {
    expect(driven({ type: 'tmpfs', device: 'tmpfs', o: 'size=16m,uid=1000' })).toBe('passed');
  });
});

test('a destination is mounted once', () => {
  expect(ofHost({ Binds: ['aa:/b', 'bb:/b/'] })).toBe('400 Duplicate mount point: /b');
  expect(ofHost({ Binds: ['aa:/b'], Mounts: [{ Type: 'volume', Target: '/x/../b' }] })).toBe('400 Duplicate mount point: /b');
  expect(ofHost({ Binds: ['aa:/b'], Tmpfs: { '/b': '' } })).toBe('400 Duplicate mount point: /b');
});

test.each([
  [{ Tmpfs: { '/': '' } }, "400 invalid specification: destination can't be '/'"],
  [{ Tmpfs: { b: '' } }, "400 invalid mount path: 'b' mount path must be absolute"],
  [{ Tmpfs: { '/b': 'foo' } }, '400 Invalid tmpfs option "foo" of /b'],
  [{ Tmpfs: { '/b': 'size=1m,bind' } }, '400 Invalid tmpfs option "bind" of /b'],
  [{ VolumesFrom: [''] }, '400 volumes-from specification cannot be an empty string'],
  [{ VolumesFrom: ['other:zz'] }, '400 invalid mode: zz'],
  [{ VolumesFrom: ['other:nocopy'] }, '400 invalid mode: nocopy'],
  [{ VolumesFrom: [':ro'] }, '400 invalid name or ID supplied: ""'],
  [{ VolumeDriver: 'foo', Binds: ['vd:/a'] }, '400 create vd: error looking up volume plugin foo: plugin "foo" not found'],
  [{ VolumeDriver: 'local', Binds: ['vd:/a'], Tmpfs: { '/t': 'size=1m,mode=1777,noexec' } }, 'passed'],
])('%j: %s', (host, message) => {
  expect(ofHost(host)).toBe(message);
});

test('Volumes are destinations in the container', () => {
  expect(specOf({ Volumes: { '/data': {}, '/data/': {} } }).mountsAsked.volumes).toEqual(['/data', '/data/']);
  expect(refusal({ Volumes: { data: {} } })).toBe("400 invalid mount path: 'data' mount path must be absolute");
  expect(refusal({ vOLUMES: { '/': {} } })).toBe("400 invalid specification: destination can't be '/'");
});

test('what a specification asked for is read back from the store; one from before volumes has none', () => {
  const spec = specOf({
    HostConfig: { Binds: ['data:/d:ro'], Mounts: [{ Type: 'volume', Target: '/m' }], VolumesFrom: ['other:ro'] },
  });
  expect(parseStoredSpec(JSON.stringify(spec))).toEqual(spec);
  expect(spec.mountsAsked).toMatchObject({
    binds: ['data:/d:ro'],
    mounts: [{ Type: 'volume', Target: '/m' }],
    volumesFrom: ['other:ro'],
  });
  expect(parseStoredSpec(JSON.stringify({ ...spec, mounts: undefined, mountsAsked: undefined })).mounts).toEqual([]);
});

describe('completeMounts()', () => {
  const names = (): (() => string) => {
    let count = 0;
    return () => `anonymous${String((count += 1))}`;
  };
  const none = { donors: [], own: [], declared: [], tmpfs: [] };

  test('own mounts win over donors’, declared volumes come where nothing is', () => {
    const donor = mountsOf({ Binds: ['data:/d', 'logs:/l', '/run/docker.sock:/s'] });
    const mounts = completeMounts(
      {
        donors: [{ mounts: donor, readOnly: true }],
        own: mountsOf({ Binds: ['mine:/l', '/a'] }),
        declared: ['/d/', '/n', '/t'],
        tmpfs: ['/t'],
      },
      names(),
    );
    expect(mounts).toMatchObject([
      { name: 'data', destination: '/d', readOnly: true, noCopy: true, mode: '' },
      { name: 'mine', destination: '/l', readOnly: false },
      { kind: 'endpoint-socket', destination: '/s', readOnly: true },
      { name: 'anonymous1', destination: '/a', anonymous: true },
      { name: 'anonymous2', destination: '/n', anonymous: true },
    ]);
  });

  test('a donor’s read-only mount stays so', () => {
    const mounts = mountsOf({ Binds: ['data:/d:ro'] });
    expect(completeMounts({ ...none, donors: [{ mounts, readOnly: false }] }, names())).toMatchObject([{ readOnly: true }]);
  });

  test('an image that declares the root is refused', () => {
    expect(() => completeMounts({ ...none, declared: ['/x/..'] }, names())).toThrow("destination can't be '/'");
  });
});

describe('hostOfVolumes()', () => {
  const volume = (name: string, host: string, users = 0): PlacedVolume => ({ name, host, users });

  test.each([
    ['nothing is placed', [volume('one', '')], { kind: 'host', hostName: undefined }],
    ['where the only one is', [volume('one', ''), volume('two', 'b')], { kind: 'host', hostName: 'b' }],
    ['where the one in use is', [volume('one', 'a'), volume('two', 'b', 1)], { kind: 'host', hostName: 'b' }],
    ['neither is in use: the first one’s', [volume('one', 'a'), volume('two', 'b')], { kind: 'host', hostName: 'a' }],
    ['both are in use', [volume('one', 'a', 1), volume('two', 'b', 2)], { kind: 'apart', one: 'one', other: 'two' }],
    ['both are in use on one host', [volume('one', 'a', 1), volume('two', 'a', 2)], { kind: 'host', hostName: 'a' }],
  ])('%s', (_case, volumes, expected) => {
    expect(hostOfVolumes(volumes)).toEqual(expected);
  });
});
