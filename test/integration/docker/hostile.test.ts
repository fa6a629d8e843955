/** Requests that no client sends, by a tenant with a valid certificate: each is refused in Docker's form, and nothing is made. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { pack } from 'tar-stream';
import type { Header } from 'tar-stream';
import { buffer } from 'node:stream/consumers';
import { request as httpRequest } from 'node:http';
import { json } from 'node:stream/consumers';
import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { engineReference } from '#caas/images/image-engines.ts';
import { busyboxTar, callApi, connectTls, credentialsOf } from '../../support/docker-api.ts';
import type { ApiAnswer, ApiCall, Credentials } from '../../support/docker-api.ts';
import { imageArchive } from '../../support/image-archive.ts';
import { addTenant, startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';
import { containing, matching } from '../../support/matchers.ts';

let node: TestNode;
let acme: Credentials;
let rootFs: Buffer;
/** The engine's own containers and images before any attack. */
let before: unknown;

const imagesSchema = z.array(z.object({ Id: z.string(), RepoTags: z.array(z.string()).nullable() }));

/** What the engine itself has, asked behind the node's back. */
async function engineState(): Promise<unknown> {
  const get = async (path: string): Promise<unknown> => {
    const { promise, resolve, reject } = Promise.withResolvers<Readable>();
    httpRequest({ socketPath: join(node.dataDir, 'hosts', 'a', 'docker.sock'), path }, resolve)
      .once('error', reject)
      .end();
    return await json(await promise);
  };
  const images = imagesSchema.parse(await get('/images/json'));
  const tagged = images.map(({ Id, RepoTags }) => ({ Id, RepoTags: (RepoTags ?? []).toSorted() }));
  return {
    containers: await get('/containers/json?all=1'),
    images: tagged.toSorted((one, other) => one.Id.localeCompare(other.Id)),
  };
}

async function call(request: ApiCall): Promise<ApiAnswer> {
  return await callApi(node, acme, request);
}

/** The message of an answer that must be an error in Docker's form. */
function messageOf(answer: ApiAnswer): string {
  expect(answer.headers['content-type'], answer.text).toBe('application/json');
  return z.strictObject({ message: z.string() }).parse(JSON.parse(answer.text)).message;
}

beforeAll(async () => {
  node = await startNode({ hosts: ['a'] });
  await addTenant(node, 'acme');
  await addTenant(node, 'globex');
  acme = await credentialsOf(node, 'acme');
  rootFs = await busyboxTar(node.dataDir);
  for (const tenant of ['acme', 'globex']) await node.docker(tenant, ['import', '-', 'bb'], rootFs);
  before = await engineState();
});

afterEach(async () => {
  expect(await node.docker('acme', ['ps', '-aq']), node.output()).toEqual({ exitCode: 0, stdout: '', stderr: '' });
  expect(await engineState()).toEqual(before);
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

describe('create', () => {
  const refused: readonly (readonly [string, string])[] = [
    ['{"hostconfig":{"privileged":true}}', 'HostConfig.Privileged'],
    ['{"HOSTCONFIG":{"PRIVILEGED":true}}', 'HostConfig.Privileged'],
    ['{"HostConfig":{},"hostConfig":{"Privileged":true}}', 'given twice in different spellings'],
    ['{"HostConfig":{"Binds":[],"binds":["/:/host"]}}', 'given twice in different spellings'],
    ['{"Ho\u017FtConfig":{"Privileged":true}}', 'HostConfig.Privileged'],
    ['{"HostConfig":{"Bind\u017F":["/:/host"]}}', 'HostConfig.Binds'],
    ['{"HostConfig":{"Networ\u212AMode":"host"}}', 'HostConfig.NetworkMode'],
    ['{"HostConfig":{"Network\\u004dode":"host"}}', 'HostConfig.NetworkMode'],
    ['{"HostConfig":{"Binds":["/:/host"]}}', 'HostConfig.Binds'],
    ['{"HostConfig":{"Binds":["/var/run/docker.sock/../../etc:/s"]}}', 'HostConfig.Binds'],
    ['{"HostConfig":{"Binds":["/run/containerd/containerd.sock:/var/run/docker.sock"]}}', 'HostConfig.Binds'],
    ['{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/","Target":"/h"}]}}', 'HostConfig.Mounts'],
    [
      '{"HostConfig":{"Mounts":[{"Type":"volume","Target":"/h","VolumeOptions":{"DriverConfig":{"Options":{"type":"none","o":"bind","device":"/etc"}}}}]}}',
      'only a tmpfs can be mounted',
    ],
    ['{"HostConfig":{"VolumesFrom":["x"]}}', 'No such container: x'],
    ['{"HostConfig":{"VolumeDriver":"vieux/sshfs","Binds":["data:/d"]}}', 'plugin "vieux/sshfs" not found'],
    ['{"Volumes":{"/":{}}}', "destination can't be '/'"],
    ['{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"x"}]}}}', 'HostConfig.PortBindings'],
    ['{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"1","hostport":"2"}]}}}', 'given twice in different spellings'],
    ['{"HostConfig":{"portbinding\u017F":{"80/sctp":[{}]}}}', 'cannot be published'],
    ['{"HostConfig":{"PidMode":"host"}}', 'HostConfig.PidMode'],
    ['{"HostConfig":{"PidMode":"container:x"}}', 'HostConfig.PidMode'],
    ['{"HostConfig":{"IpcMode":"host"}}', 'HostConfig.IpcMode'],
    ['{"HostConfig":{"UTSMode":"host"}}', 'HostConfig.UTSMode'],
    ['{"HostConfig":{"UsernsMode":"host"}}', 'HostConfig.UsernsMode'],
    ['{"HostConfig":{"CgroupnsMode":"host"}}', 'HostConfig.CgroupnsMode'],
    ['{"HostConfig":{"NetworkMode":"container:x"}}', 'HostConfig.NetworkMode'],
    ['{"HostConfig":{"CapAdd":["SYS_ADMIN"]}}', 'HostConfig.CapAdd'],
    ['{"HostConfig":{"CapAdd":["ALL"]}}', 'HostConfig.CapAdd'],
    ['{"HostConfig":{"CapAdd":["net_raw"]}}', 'HostConfig.CapAdd'],
    ['{"HostConfig":{"Devices":[{"PathOnHost":"/dev/sda"}]}}', 'HostConfig.Devices'],
    ['{"HostConfig":{"DeviceCgroupRules":["a *:* rwm"]}}', 'HostConfig.DeviceCgroupRules'],
    ['{"HostConfig":{"Runtime":"runc"}}', 'HostConfig.Runtime'],
    ['{"HostConfig":{"CgroupParent":"/"}}', 'HostConfig.CgroupParent'],
    ['{"HostConfig":{"SecurityOpt":["seccomp=unconfined"]}}', 'HostConfig.SecurityOpt'],
    ['{"HostConfig":{"Sysctls":{"net.ipv4.ip_forward":"1"}}}', 'HostConfig.Sysctls'],
    ['{"HostConfig":{"OomScoreAdj":-1000}}', 'HostConfig.OomScoreAdj'],
    ['{"HostConfig":{"LogConfig":{"type":"syslog"}}}', 'LogConfig'],
    ['{"HostConfig":{"Annotations":{"dev.gvisor.flag.debug":"true"}}}', 'HostConfig.Annotations'],
    ['{"HostConfig":{"ExtraHosts":["x"]}}', 'HostConfig.ExtraHosts'],
    ['{"HostConfig":{"ExtraHosts":["x:host-gateway.example"]}}', 'HostConfig.ExtraHosts'],
    ['{"HostConfig":{"ExtraHosts":["x:10.0.0.1\\n10.0.0.2 y"]}}', 'HostConfig.ExtraHosts'],
    ['{"HostConfig":{"ExtraHosts":["x y:10.0.0.1"]}}', 'HostConfig.ExtraHosts'],
    ['{"HostConfig":{"Tmpfs":{"relative":""}}}', 'mount path must be absolute'],
    ['{"HostConfig":{"Tmpfs":{"/x":"bind"}}}', 'Invalid tmpfs option'],
    ['{"HostConfig":{"RestartPolicy":{"name":"always","Name":"no"}}}', 'given twice in different spellings'],
    ['{"NetworkingConfig":{"EndpointsConfig":{"other":{}}},"MacAddress":"02:00:00:00:00:01"}', 'MacAddress'],
    ['{"NetworkingConfig":{"EndpointsConfig":{"bridge":{"IPAMConfig":{"IPv4Address":"10.0.0.1"}}}}}', 'NetworkingConfig'],
    ['{"SomethingNew":{"a":1}}', 'SomethingNew is not supported'],
    ['{"__proto__":{"HostConfig":{"Privileged":true}}}', '__proto__ is not supported'],
    ['{"Image":7}', 'Image'],
    ['{"Cmd":[7]}', 'Cmd'],
    ['{"Env":"A=b"}', 'Env'],
    ['{"HostConfig":[]}', 'HostConfig must be an object'],
    ['{"HostConfig":"x"}', 'HostConfig must be an object'],
    ['{"HostConfig":{"Memory":1e300}}', 'HostConfig.Memory'],
    ['{"HostConfig":{"Memory":-1}}', 'HostConfig.Memory'],
    ['[]', 'the body must be an object'],
    ['"x"', 'the body must be an object'],
    ['{"Image":"bb"', 'invalid JSON'],
    ['', 'Image'],
    ['null', 'Image'],
    [`{"HostConfig":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, 'HostConfig must be an object'],
    [`{"HostConfig":{"Binds":${'['.repeat(100_000)}${']'.repeat(100_000)}}}`, 'HostConfig.Binds'],
  ];

  test('refuses every way out of the sandbox, in any spelling, and says which field', async () => {
    for (const [body, reason] of refused) {
      const whole = body.startsWith('{"') && !body.includes('"Image"') ? `{"Image":"bb","Cmd":["true"],${body.slice(1)}` : body;
      const answer = await call({
        method: 'POST',
        path: '/v1.41/containers/create',
        body: whole,
        headers: { 'content-type': 'application/json' },
      });
      expect([400, 403], `${body.slice(0, 100)}: ${answer.text}`).toContain(answer.status);
      expect(messageOf(answer), body.slice(0, 100)).toContain(reason);
    }
  });

  test('start takes no HostConfig, at any version', async () => {
    const made = await call({ method: 'POST', path: '/v1.41/containers/create?name=box', body: { Image: 'bb', Cmd: ['true'] } });
    expect(made.status).toBe(201);
    const body = { HostConfig: { Privileged: true, Binds: ['/:/host'] } };
    const old = await call({ method: 'POST', path: '/v1.23/containers/box/start', body });
    expect([old.status, messageOf(old)]).toEqual([400, containing('client version 1.23 is too old')]);
    for (const version of ['/v1.24', '/v1.41', '']) {
      const answer = await call({ method: 'POST', path: `${version}/containers/box/start`, body });
      expect([answer.status, messageOf(answer)]).toEqual([400, containing('non-empty request body')]);
    }
    const checkpoint = await call({ method: 'POST', path: '/v1.41/containers/box/start?checkpoint=../../x&checkpoint-dir=/etc' });
    const signal = await call({ method: 'POST', path: '/v1.41/containers/box/kill?signal=%0aKILL' });
    expect([signal.status, messageOf(signal)]).toEqual([400, 'Invalid signal: KILL']);
    expect([checkpoint.status, messageOf(checkpoint)]).toEqual([400, 'checkpoint is only supported in experimental mode']);
    expect((await call({ method: 'DELETE', path: '/v1.41/containers/box?force=1' })).status).toBe(204);
  });

  test('exec is never privileged', async () => {
    await call({ method: 'POST', path: '/containers/create?name=box', body: { Image: 'bb', Cmd: ['sleep', '100'] } });
    await call({ method: 'POST', path: '/containers/box/start' });
    for (const body of [{ Cmd: ['id'], Privileged: true }, { Cmd: ['id'], privileged: true }, { Cmd: [] }, { Cmd: 'id' }, {}]) {
      const answer = await call({ method: 'POST', path: '/containers/box/exec', body });
      expect([400, 403]).toContain(answer.status);
      messageOf(answer);
    }
    await call({ method: 'DELETE', path: '/containers/box?force=1' });
  });
});

describe('paths and queries', () => {
  test('what another parser could read differently is not found, and what is root’s is not there', async () => {
    const gone = 'page not found';
    const noContainer = 'No such container: x';
    const noSwarm = 'This node is not a swarm manager.';
    const paths: readonly (readonly [string, string, number, string])[] = [
      ['GET', '//containers/json', 404, gone],
      ['GET', '/v1.41//containers/json', 404, gone],
      ['GET', '/containers/%2e%2e/json', 404, gone],
      ['GET', '/containers/../containers/json', 404, gone],
      ['GET', '/containers/%2e%2e%2f%2e%2e%2fimages/json', 404, 'No such container: ../../images'],
      ['DELETE', '/containers/x%2fjson', 404, 'No such container: x/json'],
      ['GET', '/containers/a%00b/json', 404, gone],
      ['GET', '/containers/%zz/json', 400, 'malformed percent-encoding in the path'],
      ['GET', '/v1.41/containers/x/json/', 404, gone],
      ['GET', '/V1.41/containers/json', 404, gone],
      ['GET', '/v9.9/containers/json', 400, 'client version 9.9 is too new'],
      ['GET', '/v1.41.1/containers/json', 404, gone],
      ['GET', '/v1.410/containers/json', 400, 'client version 1.410 is too new'],
      ['DELETE', '/containers/x/checkpoints/lib?dir=/var', 404, gone],
      ['POST', '/containers/x/checkpoints', 404, gone],
      ['GET', '/containers/x/checkpoints', 404, gone],
      ['GET', '/containers/x/top?ps_args=ewww', 404, noContainer],
      ['POST', '/build?remote=http://169.254.169.254/', 400, 'a context is not fetched from elsewhere'],
      ['POST', '/images/create?fromSrc=http://169.254.169.254/', 400, 'only an upload can be imported'],
      ['POST', '/images/create?fromImage=localhost/x', 403, 'the registry localhost is not reached from this node'],
      ['POST', '/images/create?fromImage=UPPER', 400, 'invalid reference format'],
      ['POST', '/swarm/init', 403, 'there is no swarm mode'],
      ['GET', '/services', 503, noSwarm],
      ['GET', '/plugins/x/json', 404, 'plugin "x" not found'],
      ['POST', '/plugins/pull?remote=x', 403, 'plugins run on the host'],
      ['POST', '/session', 404, gone],
      ['POST', '/grpc', 404, gone],
      ['GET', '/debug/pprof/', 404, gone],
      ['GET', '/constructor', 404, gone],
      ['POST', '/containers/x/constructor', 404, gone],
      ['GET', '/containers/json?limit=x', 400, 'strconv.Atoi: parsing "x": invalid syntax'],
      ['GET', '/containers/json?filters=%7B', 400, 'invalid filter'],
      ['GET', '/containers/json?filters=[]', 400, 'invalid filter'],
      ['GET', '/containers/json?filters=7', 400, 'invalid filter'],
      ['GET', '/containers/json?all=1&filters=%7B%22constructor%22%3A%5B%22x%22%5D%7D', 400, "Invalid filter 'constructor'"],
      ['GET', '/images/json?filters=%7B%22nonsense%22%3A%5B%22x%22%5D%7D', 400, "Invalid filter 'nonsense'"],
      ['POST', '/containers/x/kill?signal=%0aKILL', 404, noContainer],
      ['PROPFIND', '/containers/json', 404, gone],
    ];
    const answers: unknown[] = [];
    for (const [method, path] of paths) {
      const answer = await call({ method, path });
      answers.push([method, path, answer.status, answer.status === 200 ? answer.text : messageOf(answer)]);
    }
    expect(answers).toEqual(paths.map(([method, path, status, message]) => [method, path, status, containing(message)]));
    expect(await call({ path: '/plugins' })).toMatchObject({ status: 200, text: '[]\n' });
  });

  test('upgrades to anything but attach and exec are refused', async () => {
    for (const path of ['/session', '/grpc', '/containers/json', '/_ping', '/containers/x/attach/ws']) {
      const answer = await call({ method: 'POST', path, headers: { connection: 'Upgrade', upgrade: 'h2c' } });
      expect([answer.status, messageOf(answer)], path).toEqual([404, 'page not found']);
    }
  });

  test('requests that are too large are refused and the next one is served', async () => {
    const large = await call({
      method: 'POST',
      path: '/containers/create',
      body: `{"Image":"${'x'.repeat(5 * 1024 * 1024)}"}`,
      headers: { 'content-type': 'application/json' },
    });
    expect([large.status, messageOf(large)]).toEqual([413, containing('larger than 4194304 bytes')]);
    const query = await call({ path: `/containers/json?filters=${'x'.repeat(100_000)}` });
    expect([query.status, messageOf(query)]).toEqual([431, containing('too large')]);
    expect((await call({ path: '/_ping' })).text).toBe('OK');
  });
});

describe('connections', () => {
  /** Sends bytes and returns what comes until the other side closes, or `limitMs`. */
  const exchange = async (bytes: string, limitMs: number): Promise<string> => {
    const socket = await connectTls(node, acme);
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    socket.write(bytes);
    await Promise.race([once(socket, 'close'), delay(limitMs)]);
    socket.destroy();
    return text;
  };

  test('bytes that are no HTTP get an error in Docker’s form', async () => {
    for (const bytes of [
      '\x16\x03\x01garbage\r\n\r\n',
      'GET / HTTP/1.1\r\nhost: a\r\nhost : b\r\n\r\n',
      'POST /containers/create HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n',
    ]) {
      expect(await exchange(bytes, 3000)).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n[^]*\r\n\r\n\{"message":"/);
    }
  });

  test('a body that trickles is cut off, others are served meanwhile, and half-open connections do no harm', async () => {
    const slow = exchange(
      'POST /containers/create HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"Image"',
      15_000,
    );
    const silent = await connectTls(node, acme);
    const half = await connectTls(node, acme);
    half.end('GET /_ping HTTP/1.1\r\nhost: a\r\n\r\n');
    const many = await Promise.all(Array.from({ length: 30 }, async () => await connectTls(node, acme)));
    for (const socket of many)
      socket.write(
        'POST /containers/create HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{',
      );
    expect(await node.docker('globex', ['ps', '-aq'])).toMatchObject({ exitCode: 0 });
    for (const socket of [silent, half, ...many]) socket.destroy();
    expect(await slow).toMatch(/^HTTP\/1\.1 408 Request Timeout\r\n[^]*"the request body did not arrive within 10 s"/);
  });

  test('open streams of one tenant keep no other waiting', async () => {
    await call({ method: 'POST', path: '/containers/create?name=box', body: { Image: 'bb', Cmd: ['sleep', '100'] } });
    await call({ method: 'POST', path: '/containers/box/start' });
    const sockets = await Promise.all(Array.from({ length: 20 }, async () => await connectTls(node, acme)));
    for (const socket of sockets) socket.write('GET /containers/box/logs?follow=1&stdout=1 HTTP/1.1\r\nhost: a\r\n\r\n');
    await delay(300);
    expect((await callApi(node, await credentialsOf(node, 'globex'), { path: '/containers/json' })).status).toBe(200);
    for (const socket of sockets) socket.destroy();
    await call({ method: 'DELETE', path: '/containers/box?force=1' });
  });
});

describe('archives', () => {
  type Entry = readonly [Partial<Header> & Pick<Header, 'name'>, string | Buffer];

  const tar = async (...entries: readonly Entry[]): Promise<Buffer> => {
    const packing = pack();
    for (const [header, body] of entries) packing.entry(header, body);
    packing.finalize();
    return await buffer(packing);
  };
  const load = async (body: Buffer | Readable): Promise<ApiAnswer> =>
    await call({ method: 'POST', path: '/v1.41/images/load', body, headers: { 'content-type': 'application/x-tar' } });
  /** What the engine would call an image of globex: whoever may choose engine names owns it. */
  const stolen = (): string => {
    const { repository, tag } = engineReference(`sha256:${'0'.repeat(64)}`);
    return `${repository}:${tag}`;
  };
  const manifest = (tag: string): string => JSON.stringify([{ Config: 'c.json', RepoTags: [tag], Layers: ['l.tar'] }]);
  const config = JSON.stringify({ architecture: 'amd64', os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: [] } });

  test('damaged and forged ones are refused whole', async () => {
    const whole = await imageArchive({ repoTags: ['x:1'], rootFs });
    // What no tar reader can read is told where Docker tells it: in the stream.
    for (const [name, body, fault] of [
      ['truncated', whole.subarray(0, whole.length / 2), 'unexpected EOF'],
      ['no tar', Buffer.from('garbage'.repeat(1000)), 'archive/tar: invalid tar header'],
    ] as const) {
      const answer = await load(body);
      const message = `Error processing tar file(exit status 1): ${fault}`;
      expect([answer.status, JSON.parse(answer.text)], name).toEqual([200, { errorDetail: { message }, error: message }]);
    }
    const cases: readonly (readonly [string, Buffer])[] = [
      ['empty manifest', await tar([{ name: 'manifest.json' }, ''])],
      ['manifest no list', await tar([{ name: 'manifest.json' }, '{}'])],
      ['bad reference', await tar([{ name: 'manifest.json' }, manifest('UPPER:x')])],
      ['by digest', await tar([{ name: 'manifest.json' }, manifest(`x@sha256:${'0'.repeat(64)}`)])],
      ['huge manifest', await tar([{ name: 'manifest.json' }, `[${' '.repeat(5 * 1024 * 1024)}]`])],
      [
        'too many images',
        await tar([{ name: 'manifest.json' }, JSON.stringify(Array.from({ length: 200 }, () => ({ Config: 'c.json' })))]),
      ],
      ['climbing', await tar([{ name: '../../etc/cron.d/x' }, 'x'], [{ name: 'manifest.json' }, '[]'])],
      [
        'second manifest by a path',
        await tar([{ name: 'manifest.json' }, '[]'], [{ name: 'x/../manifest.json' }, manifest(stolen())]),
      ],
      [
        'second manifest by dots',
        await tar([{ name: 'manifest.json' }, '[]'], [{ name: '././manifest.json' }, manifest(stolen())]),
      ],
      [
        'second manifest by slashes',
        await tar([{ name: 'manifest.json' }, '[]'], [{ name: './/manifest.json' }, manifest(stolen())]),
      ],
      ['manifest at the root', await tar([{ name: '/manifest.json' }, manifest(stolen())])],
      [
        'manifest as a link',
        await tar([{ name: 'm' }, manifest(stolen())], [{ name: 'manifest.json', type: 'symlink', linkname: 'm' }, '']),
      ],
      [
        'through a link',
        await tar([{ name: 'd', type: 'symlink', linkname: '.' }, ''], [{ name: 'd/manifest.json' }, manifest(stolen())]),
      ],
      ['hard link', await tar([{ name: 'm' }, manifest(stolen())], [{ name: 'manifest.json', type: 'link', linkname: 'm' }, ''])],
      ['no manifest', await tar([{ name: 'repositories' }, JSON.stringify({ 'ecluse/x': { held: 'abc' } })])],
      ['device', await tar([{ name: 'sda', type: 'block-device', devmajor: 8, devminor: 0 }, ''])],
    ];
    for (const [name, body] of cases) {
      const answer = await load(body);
      expect([answer.status, messageOf(answer)], name).toEqual([
        400,
        matching(/^the archive is no docker save archive or is damaged: /),
      ]);
      expect(answer.text).not.toContain(node.dataDir);
    }
  });

  test('names that only Go reads, from PAX records, do not reach the engine', async () => {
    const pax = {
      'GNU.sparse.major': '1',
      'GNU.sparse.minor': '0',
      'GNU.sparse.name': 'manifest.json',
      'GNU.sparse.realsize': '2',
    };
    const body = await tar(
      [{ name: 'c.json' }, config],
      [{ name: 'harmless', pax }, `1\n0\n2\n${' '.repeat(506)}${manifest(stolen())}`],
    );
    const answer = await load(body);
    expect(answer.text).not.toContain('Loaded');
  });

  test('what the engine finds wrong comes through without its paths', async () => {
    const layer = 'no tar at all';
    const diffIds = [`sha256:${createHash('sha256').update(layer).digest('hex')}`];
    const broken = JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: diffIds } });
    const body = await tar(
      [{ name: 'c.json' }, broken],
      [{ name: 'l.tar' }, layer],
      [{ name: 'manifest.json' }, manifest('x:1')],
    );
    const answer = await load(body);
    expect(answer.text).toContain('unexpected EOF');
    expect(answer.text).not.toContain(node.dataDir);
    expect((await node.docker('acme', ['images', '-q', 'x'])).stdout).toBe('');
  });

  test('a layer that an engine has is not had for its digest', async () => {
    const theirs = await node.docker('globex', ['image', 'inspect', '--format', '{{index .RootFS.Layers 0}}', 'bb']);
    const known = JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: [theirs.stdout.trim()] },
    });
    const answer = await load(
      await tar([{ name: 'c.json' }, known], [{ name: 'l.tar' }, ''], [{ name: 'manifest.json' }, manifest('x:1')]),
    );
    expect([answer.status, messageOf(answer)]).toEqual([400, containing('invalid diffID for layer 0')]);
  });

  test('a name of another tenant’s is the loader’s own, whatever it says', async () => {
    const body = await imageArchive({ repoTags: [stolen(), 'bb:latest'], rootFs, config: { Env: ['X=stolen'] } });
    expect((await load(body)).status).toBe(200);
    const env = await node.docker('globex', ['image', 'inspect', '--format', '{{.Config.Env}}', 'bb']);
    expect(env.stdout).toBe('[]\n');
    await node.docker('acme', ['rmi', stolen(), 'bb']);
    await node.docker('acme', ['import', '-', 'bb'], rootFs);
    before = await engineState();
  });

  test('imports that are damaged make no image', async () => {
    const path = '/v1.41/images/create?fromSrc=-&repo=broken';
    const answer = await call({
      method: 'POST',
      path,
      body: rootFs.subarray(0, rootFs.length / 2),
      headers: { 'content-type': 'application/x-tar' },
    });
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(messageOf(answer)).not.toContain(node.dataDir);
    const name = await call({ method: 'POST', path: '/images/create?fromSrc=-&repo=UPPER', body: rootFs });
    expect([name.status, messageOf(name)]).toEqual([400, 'invalid reference format: repository name must be lowercase']);
    expect((await node.docker('acme', ['images', '-q', 'broken'])).stdout).toBe('');
  });

  test('an upload that stops half-way makes no image and holds nothing up', async () => {
    const archive = await imageArchive({ repoTags: ['half:1'], rootFs });
    const socket = await connectTls(node, acme);
    socket.write(
      `POST /images/load HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-tar\r\ncontent-length: ${String(archive.length)}\r\n\r\n`,
    );
    socket.write(archive.subarray(0, archive.length / 2));
    await delay(300);
    socket.destroy();
    await delay(300);
    const slow = new PassThrough();
    slow.write(archive.subarray(0, 1000));
    const loading = load(slow).catch((error: unknown) => error);
    expect((await node.docker('acme', ['images', '-q', 'half'])).stdout).toBe('');
    slow.end(archive.subarray(1000));
    expect(await loading).toMatchObject({ status: 200, text: containing('Loaded image: half:1') });
    await node.docker('acme', ['rmi', 'half:1']);
  });
});
