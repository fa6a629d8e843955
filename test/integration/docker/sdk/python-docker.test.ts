/** Debian's python3-docker, unmodified: the program beside this file says what it saw as JSON. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import * as z from 'zod';
import { busyboxTar } from '../../../support/docker-api.ts';
import { containing, matching } from '../../../support/matchers.ts';
import { addTenant, run, startNode } from '../../../support/node.ts';
import type { TestNode } from '../../../support/node.ts';

/** Debian's interpreter: another Python on the machine does not know Debian's packages. */
const PYTHON = '/usr/bin/python3';
const PROGRAM = join(import.meta.dirname, 'programs', 'python-docker.py');

let node: TestNode;
let report: Readonly<Record<string, unknown>>;

beforeAll(async () => {
  node = await startNode({ hosts: ['a', 'b'] });
  await addTenant(node, 'acme');
  const imported = await node.docker('acme', ['import', '-', 'bb'], await busyboxTar(node.dataDir));
  expect(imported).toMatchObject({ exitCode: 0 });
  const ran = await run(PYTHON, [PROGRAM], { env: node.dockerEnv('acme'), timeoutMs: 150_000 });
  expect(ran).toMatchObject({ exitCode: 0, stderr: '' });
  report = z.record(z.string(), z.unknown()).parse(JSON.parse(ran.stdout));
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

test('from_env finds the endpoint and agrees on a version', () => {
  expect(report['system']).toEqual({
    ping: true,
    api: '1.44',
    os: 'linux',
    info: { OSType: 'linux', Driver: 'overlay2', IndexServerAddress: containing('https://') },
    df: ['BuildCache', 'BuilderSize', 'Containers', 'Images', 'LayersSize', 'Volumes'],
    bases: [['bb:latest']],
  });
});

test('containers.run returns the output, raises ContainerError, and removes', () => {
  expect(report['run']).toEqual({
    said: ['error', 'said'],
    streamed: ['1\n', '2\n', '3\n'],
    failed: { status: 9, stderr: 'why\n' },
    gone: { type: 'NotFound', status: 404, text: containing('No such container: ') },
    tty: 'terminal\r\n',
    left: [],
  });
});

test('options of a container mean what they say', () => {
  expect(report['options']).toEqual({
    reached: 'reached\n',
    status: 'running',
    labels: { one: '', two: '' },
    image: ['bb:latest'],
    hostname: 'named',
    env: ['A=1', 'B'],
    memory: 64 * 1024 ** 2,
    cpus: 500_000_000,
    networks: ['options'],
    members: ['options'],
    mounts: [
      ['tmpfs', '/scratch'],
      ['volume', '/data'],
    ],
    limits: ['100', '/tmp', 'named'],
  });
});

test('attach and logs stream', () => {
  expect(report['streams']).toEqual({
    echoed: 'through attach\n',
    header: [1, 0, 0, 0, 0, 0, 0, 'through attach\n'.length],
    demuxed: [
      ['out\n', null],
      [null, 'error\n'],
    ],
    followed: ['1\n', '2\n', '3\n'],
    status: 0,
    tail: '3\n',
    stamped: matching(/^\d{4}-\d\d-\d\dT[\d:.]+Z 3\n$/),
  });
});

test('exec_run demuxes, streams, detaches and gives its socket', () => {
  expect(report['execs']).toEqual({
    plain: [4, 'out\n', 'error\n'],
    lines: '1\n2\n3\n',
    chunks: 3,
    tty: 'terminal\r\n',
    detached: [null, ''],
    echoed: 'through exec\n',
    user: ['7', 'said', '/tmp'],
    missing: 126,
  });
});

test('archives, diff, export and commit see the same files', () => {
  expect(report['files']).toEqual({
    put: true,
    got: 'put\n',
    stat: ['file', 4, ''],
    diff: ['/tmp', '/tmp/dir', '/tmp/dir/file'],
    exported: true,
    missing: { type: 'NotFound', status: 404, text: containing('Could not find the file /none in container') },
    committed: [['committed:v1'], { a: 'b' }, 'from python', 'me'],
  });
});

test('a container goes through its states', () => {
  expect(report['states']).toEqual({
    seen: ['created', 'running', 'paused', 'running', 'running', 'exited', 'exited'],
    name: 'after',
    stats: ['/after', 512 * 1024 ** 2, true],
    top: 'sleep 1000',
    titles: ['UID', 'PID', 'PPID', 'C', 'STIME', 'TTY', 'TIME', 'CMD'],
    updated: { Warnings: null },
    memory: 96 * 1024 ** 2,
    code: 137,
    stopped: null,
    filtered: ['after'],
    network: [true, ''],
    pruned: true,
  });
});

test('images are built, tagged, saved, loaded and removed', () => {
  expect(report['images']).toEqual({
    steps: 6,
    ran: 'copied\nargued\n',
    failed: containing('returned a non-zero code: 3'),
    tagged: true,
    tags: ['acme/other:v2', 'built:v1'],
    history: containing('CMD ["/bin/sh" "-c" "cat /said"]'),
    loaded: [['built:v1']],
    same: true,
    labels: { by: 'python' },
    listed: [['built:v1']],
    pruned: ['ImagesDeleted', 'SpaceReclaimed'],
  });
});

test('networks resolve names and are refused while in use', () => {
  expect(report['networks']).toEqual({
    members: ['member'],
    resolved: true,
    busy: { type: 'APIError', status: 403, text: containing('has active endpoints') },
    listed: ['back'],
    internal: true,
    predefined: ['bridge', 'host', 'none'],
    pruned: { NetworksDeleted: ['back'] },
    gone: { type: 'NotFound', status: 404, text: matching(/^network [0-9a-f]{64} not found$/) },
  });
});

test('volumes outlive containers, and host paths are refused', () => {
  expect(report['volumes']).toEqual({
    read: 'kept\n',
    attrs: ['tardis', 'local', { of: 'sdk' }],
    listed: ['tardis'],
    host: { type: 'APIError', status: 403, text: containing('ecluse: host paths cannot be mounted') },
    pruned: ['tardis'],
    gone: { type: 'NotFound', status: 404, text: containing('tardis') },
  });
});

test('events are decoded as they come, and from the past', () => {
  expect(report['events']).toEqual({ seen: ['create', 'start', 'die', 'destroy'], past: [['die', '0']] });
});

test('errors become the exceptions that docker-py derives from codes and words', () => {
  const apiError = (status: number, text: string): unknown => ({ type: 'APIError', status, text: containing(text) });
  expect(report['errors']).toEqual({
    container: { type: 'NotFound', status: 404, text: 'No such container: never' },
    image: { type: 'ImageNotFound', status: 404, text: containing('No such image: never') },
    create: { type: 'ImageNotFound', status: 404, text: containing('No such image: never') },
    conflict: apiError(409, 'The container name "/taken" is already in use by container'),
    running: apiError(409, 'is not running'),
    exec: apiError(409, 'is not running'),
    network: { type: 'NotFound', status: 404, text: 'network never not found' },
    volume: { type: 'NotFound', status: 404, text: 'get never: no such volume' },
    pull: apiError(500, 'registry.invalid'),
    login: apiError(500, 'registry.invalid'),
    privileged: apiError(403, 'ecluse: HostConfig.Privileged is not supported'),
    swarm: apiError(503, 'This node is not a swarm manager.'),
  });
});

test('nothing is left over', () => {
  expect(report['left']).toEqual([]);
});
