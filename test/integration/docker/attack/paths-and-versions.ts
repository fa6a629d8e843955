/** Attacks through paths, versions and routes. */
import { expect } from 'vitest';
import { allRefused, create, get, indistinct, messageOf, post, remove, succeed, UPGRADE } from './cases.ts';
import type { AttackCase } from './cases.ts';

const versions: readonly AttackCase[] = [
  ...indistinct('wire: versions', 'container', {
    'the oldest version': (name) => get(`/v1.24/containers/${name}/json`),
    'a version in between': (name) => get(`/v1.30/containers/${name}/json`),
    'the newest version': (name) => get(`/v1.44/containers/${name}/json`),
    'a version that is too old': (name) => get(`/v1.23/containers/${name}/json`),
    'a version that is too new': (name) => post(`/v1.99/containers/${name}/stop`),
    'the version twice': (name) => get(`/v1.41/v1.41/containers/${name}/json`),
  }),
  ...allRefused(
    'wire: versions',
    {
      'too old': get('/v1.23/containers/json'),
      'older than Docker': get('/v0.1/containers/json'),
      'too new': get('/v1.45/containers/json'),
      'of more digits than a number has': get(`/v1.${'9'.repeat(400)}/containers/json`),
      'in three parts': get('/v1.41.1/containers/json'),
      'in upper case': get('/V1.41/containers/json'),
      'with a sign': get('/v1.-41/containers/json'),
      'in other digits': get('/v1.%D9%A4%D9%A1/containers/json'),
    },
    { status: [400, 404] },
  ),
];

const errors: readonly AttackCase[] = [
  ...indistinct('wire: errors', 'container', {
    'a route that is not there': (name) => get(`/containers/${name}/nothing`),
    'a method that is not there': (name) => ({ method: 'PUT', path: `/containers/${name}/json` }),
    'a slash at the end': (name) => get(`/containers/${name}/json/`),
    'a slash inside': (name) => get(`/containers/x%2F..%2F${name}/json`),
    'an encoded name': (name) =>
      get(
        `/containers/${name
          .split('')
          .map((letter) => `%${letter.charCodeAt(0).toString(16)}`)
          .join('')}/json`,
      ),
    dots: (name) => get(`/containers/x/../${name}/json`),
    'encoded dots': (name) => get(`/containers/x/%2e%2e/${name}/json`),
    'two slashes': (name) => get(`//containers/${name}/json`),
    'a zero byte': (name) => get(`/containers/${name}%00/json`),
    'a blank': (name) => get(`/containers/%20${name}/json`),
    'a fragment': (name) => get(`/containers/${name}%23/json`),
    'broken encoding': (name) => get(`/containers/${name}%zz/json`),
  }),
  ...allRefused(
    'wire: errors',
    {
      'a method that Node knows': { method: 'PROPFIND', path: '/containers/json' },
      'a connection to elsewhere': { method: 'OPTIONS', path: '/containers/json' },
      'names of JavaScript': get('/constructor'),
      'names of JavaScript as verbs': post('/containers/ownbox/__proto__'),
      'a long path': get(`/containers/${'x'.repeat(5000)}/json`),
    },
    { status: [400, 404, 405, 414, 501] },
  ),
];

function startWithBody(version: string): AttackCase {
  return {
    row: 'API downgrade',
    name: `start takes no HostConfig ${version === '' ? 'without a version' : `at ${version}`}`,
    run: async (world) => {
      await succeed(world, create({}, '?name=plain'));
      for (const HostConfig of [{ Privileged: true }, { Binds: ['/:/host'] }]) {
        const answer = await world.ask(post(`${version}/containers/plain/start`, { HostConfig, ...HostConfig }));
        expect(answer.status, answer.text).toBe(400);
        messageOf(answer);
      }
      expect(JSON.parse(await succeed(world, get('/containers/plain/json')))).toMatchObject({ State: { Status: 'created' } });
      await succeed(world, remove('/containers/plain'));
    },
  };
}

const downgrade: readonly AttackCase[] = [
  ...['/v1.23', '/v1.24', '/v1.41', ''].map(startWithBody),
  ...allRefused(
    'API downgrade',
    {
      'fields that API 1.17 had outside of HostConfig': {
        ...create({ VolumesFrom: 'granite' }),
        path: '/v1.24/containers/create',
      },
      'a MAC at the old place': { ...create({ MacAddress: '02:42:ac:11:00:09' }), path: '/v1.24/containers/create' },
      'an old copy': { ...post('/v1.24/containers/ownbox/copy', { Resource: '../../etc/passwd' }) },
      'an old name of a host field': { ...create({ HostConfig: { Devices: ['/dev/sda'] } }), path: '/v1.24/containers/create' },
    },
    { status: [400, 403, 404] },
  ),
];

const checkpoints: readonly AttackCase[] = [
  ...indistinct('checkpoints', 'container', {
    list: (name) => get(`/containers/${name}/checkpoints`),
    'list elsewhere': (name) => get(`/containers/${name}/checkpoints?dir=/var`),
    make: (name) => post(`/containers/${name}/checkpoints`, { CheckpointID: 'x', CheckpointDir: '/tmp/loot' }),
    remove: (name) => remove(`/containers/${name}/checkpoints/lib?dir=/var`),
    'start from one': (name) => post(`/containers/${name}/start?checkpoint=x&checkpoint-dir=/etc`),
  }),
  ...allRefused(
    'checkpoints',
    {
      'of one’s own container': get('/containers/ownbox/checkpoints'),
      'made in a path of the host': post('/containers/ownbox/checkpoints', { CheckpointID: '../../x', CheckpointDir: '/etc' }),
      'removed in a path of the host': remove('/containers/ownbox/checkpoints/%2e%2e%2fetc?dir=/'),
    },
    { status: [403, 404, 501] },
  ),
];

const notRouted: readonly AttackCase[] = [
  ...allRefused(
    'not routed',
    Object.fromEntries(
      [
        '/debug/pprof/',
        '/debug/vars',
        '/plugins/pull?remote=x',
        '/plugins/create',
        '/admin',
        '/metrics',
        '/v1.41/debug/pprof/heap',
      ].map((path) => [path, path.includes('plugins') ? post(path) : get(path)]),
    ),
    { status: [404, 403, 501] },
  ),
  ...allRefused(
    'not routed',
    {
      'a swarm': post('/swarm/init', { ListenAddr: '0.0.0.0:1' }),
      'joining one': post('/swarm/join', { RemoteAddrs: ['10.0.0.1:2377'], JoinToken: 'x' }),
      services: post('/services/create', { Name: 'x' }),
      secrets: get('/secrets'),
      configs: get('/configs'),
      tasks: get('/tasks'),
      nodes: get('/nodes'),
    },
    { status: [403, 404, 503], says: /swarm/ },
  ),
  ...allRefused(
    'not routed',
    { 'installing a plugin': post('/plugins/x/enable'), 'setting one': post('/plugins/x/set', ['a=b']) },
    { status: [404, 403, 501] },
  ),
];

const buildKit: readonly AttackCase[] = [
  ...allRefused(
    'BuildKit',
    {
      session: post('/session'),
      'a session that is upgraded': {
        ...post('/session'),
        headers: { connection: 'Upgrade', upgrade: 'h2c', 'x-docker-expose-session-uuid': 'x' },
      },
      grpc: { ...post('/grpc'), headers: { connection: 'Upgrade', upgrade: 'h2c' } },
      'an upgrade elsewhere': { ...get('/containers/json'), headers: UPGRADE },
      'a build by BuildKit': {
        ...post('/build?version=2&session=x'),
        body: Buffer.alloc(1024),
        headers: { 'content-type': 'application/x-tar' },
      },
      'cancelling a build': post('/build/cancel?id=x'),
    },
    { status: [400, 403, 404, 501] },
  ),
  {
    row: 'BuildKit',
    name: 'the ping offers the classic builder only',
    run: async ({ ask }) => {
      for (const method of ['GET', 'HEAD']) expect((await ask({ method, path: '/_ping' })).headers['builder-version']).toBe('1');
    },
  },
];

export const pathCases: readonly AttackCase[] = [...versions, ...errors, ...downgrade, ...checkpoints, ...notRouted, ...buildKit];
