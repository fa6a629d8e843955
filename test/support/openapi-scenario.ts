/** A tenant's day in requests that touch every endpoint, the same for every Docker endpoint and API version. */
import { readFile } from 'node:fs/promises';
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';
import * as z from 'zod';
import type { ApiAnswer, ApiCall } from './docker-api.ts';
import { imageArchive } from './image-archive.ts';

export type Speak = (call: ApiCall) => Promise<ApiAnswer>;

export interface Step {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';
  /** Without version, with query. */
  readonly path: string;
  /** The statuses that are right; one that is wrong is no schema's matter. */
  readonly status: number | readonly number[];
  readonly body?: unknown;
  readonly headers?: ApiCall['headers'];
  /** The answer is one JSON value a line. With a name: of this definition, where the operation has no schema. */
  readonly lines?: true | string;
  /** Takes half a second or more: not done at every version. */
  readonly isSlow?: true;
  /** Looks at the answer, for what later steps need. */
  readonly look?: (answer: ApiAnswer) => void;
}

const idSchema = z.object({ Id: z.string() });

export function idOf(answer: ApiAnswer): string {
  return idSchema.parse(JSON.parse(answer.text)).Id;
}

const SLEEP = ['sleep', '3600'];
const TAR = { 'content-type': 'application/x-tar' };

async function tarOf(files: Readonly<Record<string, string>>): Promise<Buffer> {
  const packing = pack();
  for (const [name, text] of Object.entries(files)) packing.entry({ name }, text);
  packing.finalize();
  return await buffer(packing);
}

function filters(of: Readonly<Record<string, readonly string[]>>): string {
  return `filters=${encodeURIComponent(JSON.stringify(of))}`;
}

export interface Scene {
  /** Makes what the later steps look at: at the newest version, once. */
  readonly setUp: readonly Step[];
  /** What is asked at each version; `at` makes names of things that are made. */
  readonly everyVersion: (at: string) => readonly Step[];
  /** Starts and stops, which take time: once. */
  readonly once: readonly Step[];
}

/** `rootFsFile`: busybox as a tar. */
export async function sceneOf(rootFsFile: string): Promise<Scene> {
  const config = {
    Env: ['A=b'],
    Cmd: SLEEP,
    Labels: { 'org.example.of': 'the image' },
    ExposedPorts: { '80/tcp': {} },
    WorkingDir: '/tmp',
  };
  const image = await imageArchive({ repoTags: ['scene:1', 'scene:2'], rootFs: await readFile(rootFsFile), config });
  const files = await tarOf({ 'greeting.txt': 'hello\n' });
  const buildContext = await tarOf({ Dockerfile: 'FROM scene:1\nLABEL built=yes\nCMD ["true"]\n' });
  const brokenContext = await tarOf({ Dockerfile: 'FROM scene:1\nNONSENSE\n' });
  const ids = { exec: '', execDone: '', made: '' };
  return {
    setUp: [...imageSteps(image), ...worldSteps(ids)],
    everyVersion: (at) => [
      ...readSteps(ids),
      ...containerSteps(at),
      ...sessionSteps(ids),
      ...registrySteps(),
      ...networkSteps(at),
      ...volumeSteps(at),
      ...makeImageSteps(at, { files, buildContext, brokenContext }),
      ...refusedSteps(),
    ],
    once: onceSteps(),
  };
}

function imageSteps(image: Buffer): readonly Step[] {
  return [{ method: 'POST', path: '/images/load', status: 200, body: image, headers: TAR, lines: true }];
}

function worldSteps(ids: { exec: string; execDone: string }): readonly Step[] {
  const create = (name: string, body: object): Step => ({
    method: 'POST',
    path: `/containers/create?name=${name}`,
    status: 201,
    body: { Image: 'scene:1', Cmd: SLEEP, ...body },
  });
  const post = (path: string, status: number, body?: unknown): Step => ({
    method: 'POST',
    path,
    status,
    ...(body === undefined ? {} : { body }),
  });
  const health = { Test: ['CMD', 'true'], Interval: 1_000_000_000, Timeout: 5_000_000_000, Retries: 2 };
  return [
    post('/networks/create', 201, {
      Name: 'back',
      Labels: { of: 'scene' },
      CheckDuplicate: true,
      IPAM: { Driver: 'default', Options: {}, Config: [] },
    }),
    post('/networks/create', 201, { Name: 'inner', Internal: true }),
    post('/volumes/create', 201, { Name: 'data', Labels: { of: 'scene' } }),
    create('up', {
      Labels: { of: 'scene' },
      Healthcheck: health,
      HostConfig: {
        NetworkMode: 'back',
        Binds: ['data:/data'],
        PortBindings: { '80/tcp': [{ HostPort: '' }] },
        Memory: 128 * 1024 * 1024,
      },
    }),
    post('/containers/up/start', 204),
    create('terminal', { Tty: true, OpenStdin: true }),
    post('/containers/terminal/start', 204),
    create('halted', {}),
    post('/containers/halted/start', 204),
    post('/containers/halted/pause', 204),
    create('done', { Cmd: ['sh', '-c', 'echo out; echo err >&2; exit 3'] }),
    post('/containers/done/start', 204),
    post('/containers/done/wait', 200),
    create('fresh', {}),
    {
      ...post('/containers/up/exec', 201, { Cmd: SLEEP, AttachStdout: true, Tty: true }),
      look: (answer) => (ids.exec = idOf(answer)),
    },
    { ...post('/containers/up/exec', 201, { Cmd: ['true'] }), look: (answer) => (ids.execDone = idOf(answer)) },
    {
      method: 'POST',
      get path() {
        return `/exec/${ids.exec}/start`;
      },
      status: 200,
      body: { Detach: true, Tty: true },
    },
  ];
}

function readSteps(ids: { readonly exec: string; readonly execDone: string }): readonly Step[] {
  const get = (path: string, status = 200): Step => ({ method: 'GET', path, status });
  return [
    { method: 'HEAD', path: '/_ping', status: 200 },
    get('/_ping'),
    get('/version'),
    get('/info'),
    get('/system/df'),
    { ...get('/events?since=0&until=1'), lines: true },
    { ...get(`/events?since=0&until=${String(Math.floor(Date.now() / 1000))}`), lines: true },
    get('/containers/json'),
    get('/containers/json?all=1&size=1'),
    get(`/containers/json?${filters({ name: ['up'], status: ['running'] })}`),
    ...['up', 'terminal', 'halted', 'done', 'fresh'].map((name) => get(`/containers/${name}/json`)),
    get('/containers/up/json?size=1'),
    get('/containers/up/top'),
    get('/containers/up/changes'),
    get('/containers/fresh/changes'),
    { ...get('/containers/up/stats?stream=false&one-shot=1'), isSlow: true },
    get('/containers/done/stats?stream=false'),
    get('/containers/done/logs?stdout=1&stderr=1'),
    get('/containers/terminal/logs?stdout=1'),
    { method: 'HEAD', path: '/containers/up/archive?path=/tmp', status: 200 },
    get('/containers/up/archive?path=/tmp'),
    get(`/exec/${ids.exec}/json`),
    get(`/exec/${ids.execDone}/json`),
    get('/images/json'),
    get('/images/json?all=1&digests=1'),
    get('/images/scene:1/json'),
    get('/images/scene:1/history'),
    get('/networks'),
    ...['back', 'inner', 'bridge', 'none'].map((name) => get(`/networks/${name}`)),
    get('/volumes'),
    get('/volumes/data'),
  ];
}

function containerSteps(at: string): readonly Step[] {
  const name = `c${at}`;
  const on = (verb: string, status: number | readonly number[], body?: unknown): Step => ({
    method: 'POST',
    path: `/containers/${verb}`,
    status,
    ...(body === undefined ? {} : { body }),
  });
  return [
    on(`create?name=${name}`, 201, { Image: 'scene:1', HostConfig: { Memory: 128 * 1024 * 1024 } }),
    on(`create?name=${name}`, 409, { Image: 'scene:1' }),
    on('create', 404, { Image: 'nowhere:1' }),
    on('create', 400, { Image: 'scene:1', HostConfig: { Memory: 1 } }),
    on(`${name}/rename?name=${name}r`, 204),
    on(`${name}r/rename?name=up`, 409),
    on(`${name}r/update`, 200, { Memory: 256 * 1024 * 1024, MemorySwap: 512 * 1024 * 1024 }),
    on('up/start', 304),
    on('done/stop', 304),
    on('fresh/kill', 409),
    on('up/kill?signal=CONT', 204),
    on('up/pause', 204),
    on('up/pause', 409),
    on('up/unpause', 204),
    on('done/unpause', [409, 500]),
    on('terminal/resize?h=20&w=30', 200),
    on('done/wait', 200),
    on('done/attach?logs=1&stdout=1&stderr=1', 200),
    on('up/exec', 400, { Cmd: [] }),
    on('done/exec', 409, { Cmd: ['true'] }),
    { method: 'DELETE', path: `/containers/${name}r?v=1`, status: 204 },
    { method: 'DELETE', path: '/containers/up', status: 409 },
    on(`prune?${filters({ label: ['of=nothing'] })}`, 200),
  ];
}

function networkSteps(at: string): readonly Step[] {
  const name = `n${at}`;
  const post = (path: string, status: number, body?: unknown): Step => ({
    method: 'POST',
    path,
    status,
    ...(body === undefined ? {} : { body }),
  });
  return [
    post('/networks/create', 201, { Name: name, CheckDuplicate: true }),
    post('/networks/create', 409, { Name: name, CheckDuplicate: true }),
    post(`/networks/${name}/connect`, 200, { Container: 'fresh', EndpointConfig: { Aliases: ['other'] } }),
    { method: 'GET', path: `/networks/${name}`, status: 200 },
    { method: 'GET', path: '/containers/fresh/json', status: 200 },
    post(`/networks/${name}/disconnect`, 200, { Container: 'fresh' }),
    { method: 'DELETE', path: `/networks/${name}`, status: 204 },
    { method: 'DELETE', path: '/networks/bridge', status: 403 },
    post(`/networks/prune?${filters({ label: ['of=nothing'] })}`, 200),
  ];
}

function volumeSteps(at: string): readonly Step[] {
  const name = `v${at}`;
  return [
    { method: 'POST', path: '/volumes/create', status: 201, body: { Name: name } },
    { method: 'DELETE', path: `/volumes/${name}`, status: 204 },
    { method: 'DELETE', path: '/volumes/data', status: 409 },
    { method: 'POST', path: `/volumes/prune?${filters({ label: ['of=nothing'] })}`, status: 200 },
  ];
}

/** A session from its making to its end, attached. */
function sessionSteps(ids: { readonly exec: string; made: string }): readonly Step[] {
  const ofMade = (method: 'GET' | 'POST', verb: string, body?: unknown): Step => ({
    method,
    get path() {
      return `/exec/${ids.made}/${verb}`;
    },
    status: 200,
    ...(body === undefined ? {} : { body }),
    isSlow: true,
  });
  return [
    {
      method: 'POST',
      path: '/containers/up/exec',
      status: 201,
      body: { Cmd: ['echo', 'x'], AttachStdout: true },
      look: (answer) => (ids.made = idOf(answer)),
    },
    ofMade('POST', 'start', { Detach: false, Tty: false }),
    ofMade('GET', 'json'),
    { method: 'POST', path: `/exec/${ids.exec}/resize?h=10&w=20`, status: 200 },
  ];
}

/** What needs a registry, where none listens. */
function registrySteps(): readonly Step[] {
  const status = [200, 400, 401, 403, 404, 500];
  return [
    { method: 'POST', path: '/images/create?fromImage=127.0.0.1:1/none&tag=1', status, lines: 'CreateImageInfo', isSlow: true },
    {
      method: 'POST',
      path: '/images/127.0.0.1:1/none/push?tag=1',
      status,
      headers: { 'x-registry-auth': 'e30=' },
      lines: 'PushImageInfo',
      isSlow: true,
    },
    { method: 'POST', path: '/auth', status, body: { username: 'x', password: 'y', serveraddress: '127.0.0.1:1' }, isSlow: true },
    { method: 'GET', path: '/distribution/127.0.0.1:1/none:1/json', status, isSlow: true },
    { method: 'GET', path: '/images/search?term=127.0.0.1:1/none', status, isSlow: true },
    { method: 'GET', path: '/containers/up/attach/ws?stream=1', status },
    { method: 'POST', path: '/build/prune', status: [200, 404] },
  ];
}

interface Archives {
  readonly files: Buffer;
  readonly buildContext: Buffer;
  readonly brokenContext: Buffer;
}

function makeImageSteps(at: string, archives: Archives): readonly Step[] {
  const name = `i${at}`;
  return [
    { method: 'POST', path: `/images/scene:1/tag?repo=${name}&tag=t`, status: 201 },
    { method: 'DELETE', path: `/images/${name}:t`, status: 200 },
    { method: 'POST', path: `/commit?container=fresh&repo=${name}&tag=c`, status: 201, body: {}, isSlow: true },
    { method: 'DELETE', path: `/images/${name}:c`, status: 200, isSlow: true },
    {
      method: 'POST',
      path: `/images/create?fromSrc=-&repo=${name}`,
      status: 200,
      body: archives.files,
      headers: TAR,
      lines: 'CreateImageInfo',
    },
    { method: 'DELETE', path: `/images/${name}`, status: 200 },
    {
      method: 'POST',
      path: `/build?t=${name}:b`,
      status: 200,
      body: archives.buildContext,
      headers: TAR,
      lines: 'BuildInfo',
      isSlow: true,
    },
    { method: 'DELETE', path: `/images/${name}:b`, status: 200, isSlow: true },
    {
      method: 'POST',
      path: '/build',
      status: [200, 400],
      body: archives.brokenContext,
      headers: TAR,
      lines: 'BuildInfo',
      isSlow: true,
    },
    { method: 'POST', path: `/images/prune?${filters({ label: ['of=nothing'] })}`, status: 200 },
    { method: 'PUT', path: '/containers/fresh/archive?path=/tmp', status: 200, body: archives.files, headers: TAR },
  ];
}

/** What is not there, or not as it should be. */
function refusedSteps(): readonly Step[] {
  const step = (method: Step['method'], path: string, status: Step['status'], body?: unknown): Step => ({
    method,
    path,
    status,
    ...(body === undefined ? {} : { body }),
  });
  const none = '0123456789abcdef'.repeat(4);
  return [
    ...['json', 'top', 'logs?stdout=1', 'changes', 'export', 'stats?stream=false', 'archive?path=/'].map((verb) =>
      step('GET', `/containers/${none}/${verb}`, 404),
    ),
    ...['start', 'stop', 'restart', 'kill', 'pause', 'unpause', 'wait', 'rename?name=x', 'resize?h=1&w=1', 'attach'].map((verb) =>
      step('POST', `/containers/${none}/${verb}`, 404),
    ),
    step('POST', `/containers/${none}/update`, 404, {}),
    step('POST', `/containers/${none}/exec`, 404, { Cmd: ['true'] }),
    step('DELETE', `/containers/${none}`, 404),
    step('POST', `/exec/${none}/start`, 404, {}),
    step('GET', `/exec/${none}/json`, 404),
    step('POST', `/exec/${none}/resize?h=1&w=1`, 404),
    step('GET', `/images/${none}/json`, 404),
    step('GET', `/images/${none}/history`, 404),
    step('POST', `/images/${none}/tag?repo=x`, 404),
    step('DELETE', `/images/${none}`, 404),
    step('GET', `/networks/${none}`, 404),
    step('DELETE', `/networks/${none}`, 404),
    step('POST', `/networks/${none}/connect`, 404, { Container: 'up' }),
    step('GET', `/volumes/${none}`, 404),
    step('DELETE', `/volumes/${none}`, 404),
    step('GET', '/containers/json?filters=%7B', [400, 500]),
    step('GET', '/containers/json?limit=x', [400, 500]),
    step('POST', '/commit?container=nowhere', 404, {}),
    step('GET', '/nodes', 503),
    step('GET', '/services', 503),
    step('GET', '/tasks', 503),
    step('GET', '/secrets', 503),
    step('GET', '/configs', 503),
    step('GET', '/swarm', 503),
  ];
}

function onceSteps(): readonly Step[] {
  const post = (path: string, status: Step['status'], body?: unknown): Step => ({
    method: 'POST',
    path,
    status,
    ...(body === undefined ? {} : { body }),
  });
  return [
    post('/containers/fresh/start', 204),
    post('/containers/fresh/restart?t=0', 204),
    post('/containers/fresh/stop?t=0', 204),
    post('/containers/terminal/kill', 204),
    post('/containers/halted/unpause', 204),
    { method: 'GET', path: '/containers/fresh/export', status: 200 },
    { method: 'GET', path: '/images/scene:1/get', status: 200 },
    { method: 'GET', path: '/images/get?names=scene:1&names=scene:2', status: 200 },
    { method: 'DELETE', path: '/containers/halted?force=1', status: 204 },
    { method: 'DELETE', path: '/containers/up?force=1', status: 204 },
    post('/containers/prune', 200),
    post('/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D', [200, 400]),
    post('/networks/prune', 200),
    post('/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D', 200),
    { method: 'GET', path: '/containers/json', status: 200 },
    { method: 'GET', path: '/images/json', status: 200 },
    { method: 'GET', path: '/volumes', status: 200 },
    { method: 'GET', path: '/system/df', status: 200 },
  ];
}
