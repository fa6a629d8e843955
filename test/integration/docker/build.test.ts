/** `docker build` on a real node: the classic builder in a sandbox, each tenant with its own names, cache and leftovers (none). */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { pack } from 'tar-stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { bringFile } from '#caas/build/remote-file.ts';
import { EngineClient } from '#caas/engine/engine-client.ts';
import { scopeOf } from '#caas/host.ts';
import { busyboxTar, callApi, credentialsOf } from '../../support/docker-api.ts';
import type { ApiAnswer } from '../../support/docker-api.ts';
import { imageArchive } from '../../support/image-archive.ts';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { addTenant, run, startNode } from '../../support/node.ts';
import type { CommandAnswer, TestNode } from '../../support/node.ts';

let node: TestNode;
let rootFs: Buffer;
let dataDir: string;

/** A context: its files, and the Dockerfile where it is not among them. */
type Context = Readonly<Record<string, string>>;

async function tarOf(context: Context): Promise<Buffer> {
  const archive = pack();
  for (const [name, content] of Object.entries(context)) archive.entry({ name }, content);
  archive.finalize();
  return await buffer(archive);
}

/** `docker build - <context`, by the classic builder. */
async function build(tenant: string, context: Context | string, ...args: readonly string[]): Promise<CommandAnswer> {
  const input = await tarOf(typeof context === 'string' ? { Dockerfile: context } : context);
  return await run('docker', ['build', ...args, '-'], {
    env: { ...node.dockerEnv(tenant), DOCKER_BUILDKIT: '0' },
    input,
    timeoutMs: 110_000,
  });
}

async function built(tenant: string, context: Context | string, ...args: readonly string[]): Promise<string> {
  const answer = await build(tenant, context, ...args);
  expect(answer, answer.stdout + answer.stderr).toMatchObject({ exitCode: 0 });
  return answer.stdout;
}

async function docker(tenant: string, ...args: readonly string[]): Promise<string> {
  const answer = await node.docker(tenant, args);
  expect(answer, `${args.join(' ')}: ${answer.stderr}`).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

async function post(tenant: string, query: string, body: Buffer | string): Promise<ApiAnswer> {
  const path = `/v1.41/build?${query}`;
  return await callApi(node, await credentialsOf(node, tenant), {
    method: 'POST',
    path,
    body,
    headers: { 'content-type': 'application/x-tar' },
  });
}

const messageOf = (answer: ApiAnswer): readonly [number, string] => {
  const parsed = z.object({ message: z.string() }).safeParse(JSON.parse(answer.text.split('\n')[0] ?? ''));
  return [answer.status, parsed.data?.message ?? answer.text];
};

/** What the engine itself has: what the tenant cannot see. */
async function engine(path: string): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  request({ socketPath: join(dataDir, 'hosts', 'a', 'docker.sock'), path }, resolve)
    .once('error', reject)
    .end();
  const text = (await buffer(await promise)).toString('utf8');
  const parsed: unknown = JSON.parse(text);
  return parsed;
}

const containersSchema = z.array(z.object({ Names: z.array(z.string()) }));
const imagesSchema = z.array(z.object({ Id: z.string(), RepoTags: z.array(z.string()).nullish() }));

/** One line for each thing of a build that is still there. */
async function leftovers(): Promise<readonly string[]> {
  const containers = containersSchema.parse(await engine('/containers/json?all=1')).flatMap(({ Names }) => Names);
  const cgroups = join('/sys/fs/cgroup/pids/ecluse', `${scopeOf(dataDir)}-a`);
  const tenants = await readdir(cgroups, { withFileTypes: true }).catch(() => []);
  const folders = tenants.filter((entry) => entry.isDirectory()).map(async ({ name }) => await readdir(join(cgroups, name)));
  const builds = (await Promise.all(folders)).flat().filter((name) => name.startsWith('build-'));
  const counters = await readdir(join(dataDir, 'hosts', 'a', 'runsc', 'final'));
  const temporary = await readdir(join(dataDir, 'hosts', 'a', 'docker', 'tmp'));
  return [...containers, ...builds, ...counters, ...temporary.filter((name) => name.startsWith('docker-builder'))];
}

/** Images of the engine without a name that no tenant has either. */
async function unheld(): Promise<readonly string[]> {
  const held = [await docker('acme', 'images', '-q', '--no-trunc'), await docker('globex', 'images', '-q', '--no-trunc')].join(
    '\n',
  );
  const listed = imagesSchema.parse(await engine('/images/json'));
  const nameless = listed.filter(({ RepoTags }) => RepoTags?.every((name) => name === '<none>:<none>') ?? true);
  return nameless.map(({ Id }) => Id).filter((id) => !held.includes(id));
}

async function untilNothingIsLeft(): Promise<void> {
  await expect.poll(leftovers, { timeout: 40_000, interval: 300 }).toEqual([]);
}

beforeAll(async () => {
  node = await startNode({ hosts: ['a'] });
  dataDir = node.dataDir;
  rootFs = await busyboxTar(dataDir);
  for (const tenant of ['acme', 'globex']) {
    await addTenant(node, tenant);
    const same = await imageArchive({ repoTags: ['busybox:latest'], rootFs });
    const own = await imageArchive({ repoTags: ['base:latest'], rootFs, config: { Env: [`WHO=${tenant}`, `PART=${tenant}`] } });
    for (const archive of [same, own]) expect(await node.docker(tenant, ['load'], archive)).toMatchObject({ exitCode: 0 });
  }
  const secret = await imageArchive({ repoTags: ['secret:1'], rootFs, config: { Env: ['SECRET=yes'] } });
  expect(await node.docker('acme', ['load'], secret)).toMatchObject({ exitCode: 0 });
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

describe('docker build', () => {
  test('builds in the sandbox, says what Docker says, and leaves the image alone', async () => {
    const context = {
      Dockerfile:
        '# a comment\nFROM busybox\nRUN dmesg | head -n 1\nCOPY greeting \\\n  /greeting\nRUN ls -A / >/list\nCMD ["cat", "/greeting"]\n',
      greeting: 'hello\n',
    };
    const output = await built('acme', context, '-t', 'app:1', '-t', 'registry.example/app');
    expect(output).toMatch(/Step 1\/5 : FROM busybox\n ---> [0-9a-f]{12}\n/);
    expect(output).toMatch(/Step 3\/5 : COPY greeting {2,}\/greeting\n/);
    expect(output).toMatch(/Starting gVisor/);
    expect(output).toMatch(
      /Successfully built [0-9a-f]{12}\nSuccessfully tagged app:1\nSuccessfully tagged registry.example\/app:latest\n$/,
    );
    expect(await docker('acme', 'run', '--rm', 'app:1')).toBe('hello');
    expect(await docker('acme', 'run', '--rm', 'app:1', 'cat', '/list')).not.toContain('ecluse');
    await untilNothingIsLeft();
    expect(await unheld()).toEqual([]);
  });

  test('has stages, arguments, files of images and stages, a target, labels, and no network', async () => {
    const dockerfile = `ARG BASE=nothing
FROM $BASE AS Tools
ARG VERSION=1
RUN echo "$WHO $VERSION" >/who && (grep -q eth0 /proc/net/dev || echo apart) >>/who
FROM busybox AS other
RUN echo other >/other
FROM scratch AS app
COPY --from=tools /who /
COPY --from=1 /other /
COPY --from=secret:1 /bin/busybox /bin/
COPY --chown=5:6 . /context/
FROM nosuchimage`;
    const args = [
      '--build-arg',
      'BASE=base',
      '--build-arg',
      'VERSION=2',
      '--target',
      'APP',
      '--label',
      'a=b',
      '--network',
      'none',
    ];
    const output = await built('acme', { Dockerfile: dockerfile, 'sub/x': 'x' }, '-t', 'stages', ...args);
    expect(output).toContain('Step 2/12 : FROM $BASE AS Tools\n');
    expect(output).toContain('Step 10/12 : COPY --from=secret:1 /bin/busybox /bin/\n');
    const ran = await docker(
      'acme',
      'run',
      '--rm',
      'stages',
      '/bin/busybox',
      'sh',
      '-c',
      '/bin/busybox cat /who /other; /bin/busybox find /context | /bin/busybox sort',
    );
    expect(ran).toBe('acme 2\napart\nother\n/context\n/context/Dockerfile\n/context/sub\n/context/sub/x');
    expect(await docker('acme', 'inspect', '--format', '{{.Config.Labels.a}}', 'stages')).toBe('b');
  });

  test('keeps the Dockerfile as it was written in the image, and what .dockerignore excludes out of it', async () => {
    const Dockerfile = 'FROM busybox\n# kept\nCOPY . /context/\n';
    await built('acme', { Dockerfile, x: '1' }, '-t', 'whole');
    expect(await docker('acme', 'run', '--rm', 'whole', 'sh', '-c', 'ls -A /context; cat /context/Dockerfile')).toBe(
      `Dockerfile\nx\n${Dockerfile.trim()}`,
    );
    await built('acme', { '.dockerignore': '*ockerfile\n.docker*\n', Dockerfile, x: '1' }, '-t', 'whole');
    expect(await docker('acme', 'run', '--rm', 'whole', 'ls', '-A', '/context')).toBe('x');
    await built('acme', { Dockerfile, '.dockerignore': 'y', 'sub/my.df': Dockerfile }, '-t', 'whole', '-f', 'sub/my.df');
    expect(await docker('acme', 'run', '--rm', 'whole', 'find', '/context', '-type', 'f')).not.toContain('ecluse');
  });

  test('a failing step is told with its exit code, and nothing stays of it', async () => {
    const failed = await build('acme', 'FROM busybox\nRUN echo one >/one\nRUN exit 7\n');
    expect(failed).toMatchObject({ exitCode: 7 });
    expect(failed.stderr).toContain("The command '/bin/sh -c exit 7' returned a non-zero code: 7");
    await untilNothingIsLeft();
    expect(await unheld()).toEqual([]);
  });

  test.each([
    [
      'COPY nosuch /\n',
      /COPY failed: file not found in build context or excluded by \.dockerignore: stat nosuch: file does not exist/,
    ],
    ['RUN ["/nosuch"]\n', /no such file or directory/],
    ['RUN --mount=type=bind true\n', /the --mount option requires BuildKit/],
    ['COPY --from=3 a b\n', /invalid from flag value 3: index out of bounds/],
  ])('tells the engine’s refusal of %s without its names', async (instruction, message) => {
    const failed = await build('acme', `FROM busybox\n${instruction}`);
    expect(failed.exitCode).not.toBe(0);
    expect(failed.stderr).toMatch(message);
    expect(failed.stdout + failed.stderr).not.toMatch(/ecluse|\/hosts\//);
  });

  test('--quiet says the id alone, or everything where it fails', async () => {
    const output = await built('acme', 'FROM busybox\nCMD ["true"]\n', '-q', '-t', 'quiet');
    expect(output).toBe(`${await docker('acme', 'inspect', '--format', '{{.Id}}', 'quiet')}\n`);
    const failed = await build('acme', 'FROM busybox\nRUN echo why; exit 3\n', '-q');
    expect(failed.stdout + failed.stderr).toContain('why');
    expect(failed.exitCode).toBe(3);
  });

  test('bills its use', async () => {
    await built('globex', 'FROM busybox\nRUN i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done\n', '--no-cache');
    const usage = await node.ecluse('usage');
    expect(usage.stdout).toMatch(/^.*globex.*\bbuild\b.*$/m);
  });

  test('an image with triggers runs them, and none that would look elsewhere', async () => {
    await built('acme', 'FROM busybox\nONBUILD COPY mark /mark\nONBUILD RUN echo ran >>/mark\n', '-t', 'parent');
    await built('acme', { Dockerfile: 'FROM parent\n', mark: 'mark\n' }, '-t', 'child');
    expect(await docker('acme', 'run', '--rm', 'child', 'cat', '/mark')).toBe('mark\nran');
    await built('acme', 'FROM busybox\nONBUILD COPY --from=base /bin/busybox /x\n', '-t', 'parent');
    const refused = await build('acme', 'FROM parent\n');
    expect(refused.stderr).toContain(
      'line 1: ecluse: parent runs "ONBUILD COPY --from=base /bin/busybox /x", which takes files from an image',
    );
  });
});

describe('two tenants', () => {
  test('have their own images of one name', async () => {
    for (const tenant of ['acme', 'globex']) {
      await built(tenant, 'FROM base\nRUN echo $WHO >/who\n', '-t', 'mine');
      expect(await docker(tenant, 'run', '--rm', 'mine', 'cat', '/who')).toBe(tenant);
    }
  });

  test('cannot use what is the other’s, and hear what they hear of what is not there', async () => {
    const id = await docker('acme', 'inspect', '--format', '{{.Id}}', 'secret:1');
    const engineName = imagesSchema
      .parse(await engine('/images/json'))
      .find((image) => image.Id === id)
      ?.RepoTags?.at(0);
    expect(engineName).toMatch(/^ecluse\//);
    const hex = id.slice('sha256:'.length);
    const random = '5f3c9a'.repeat(11).slice(0, 64);
    const pairs = [
      ['secret:1', 'nosuch:1'],
      [id, `sha256:${random}`],
      [hex, random],
      [hex.slice(0, 12), random.slice(0, 12)],
      [engineName ?? '', engineName?.replace(/[0-9a-f]{12}:/, '000000000000:') ?? ''],
    ] as const;
    for (const form of [
      (name: string) => `FROM ${name}`,
      (name: string) => `FROM busybox\nCOPY --from=${name} /bin/busybox /x`,
    ]) {
      for (const [theirs, nobodys] of pairs) {
        const answer = await build('globex', form(theirs));
        const expected = await build('globex', form(nobodys));
        expect(expected.exitCode).not.toBe(0);
        const bare = (name: string): string => name.replace(/:[^/]*$/, '');
        const same = (text: string, name: string): string => text.replaceAll(name, 'NAME').replaceAll(bare(name), 'NAME');
        expect({ ...answer, stdout: same(answer.stdout, theirs), stderr: same(answer.stderr, theirs) }).toEqual({
          ...expected,
          stdout: same(expected.stdout, nobodys),
          stderr: same(expected.stderr, nobodys),
        });
      }
    }
  });

  test('share no cache, though their base is the same image', async () => {
    const dockerfile = 'FROM busybox\nRUN echo shared >/shared\nRUN echo more >/more\n';
    expect(await built('acme', dockerfile, '-t', 'cached')).not.toContain('Using cache');
    expect(await built('acme', dockerfile, '-t', 'cached')).toMatch(/Using cache[^]*Using cache/);
    expect(await built('globex', dockerfile, '-t', 'cached')).not.toContain('Using cache');
    expect(await built('globex', dockerfile, '-t', 'cached')).toMatch(/Using cache[^]*Using cache/);
    // Naming the other's image as a source does not help either.
    const id = await docker('acme', 'inspect', '--format', '{{.Id}}', 'cached');
    await docker('globex', 'rmi', 'cached');
    expect(await built('globex', dockerfile, '--cache-from', id)).not.toContain('Using cache');
    expect(await built('acme', `${dockerfile}RUN true\n`, '--cache-from', 'cached')).toContain('Using cache');
  });

  test('reuse steps of earlier stages too', async () => {
    const dockerfile = 'FROM busybox AS one\nRUN echo one >/one\nFROM busybox\nCOPY --from=one /one /\n';
    await built('acme', dockerfile, '-t', 'two');
    expect(await built('acme', dockerfile, '-t', 'two')).toMatch(/Using cache[^]*Using cache/);
  });
});

test('a fetched file comes to the engine as an image of its own', async () => {
  const server = createServer((_incoming, response) => {
    response.end('from the web');
  }).listen(0, '127.0.0.1');
  using client = new EngineClient(join(dataDir, 'hosts', 'a', 'docker.sock'));
  try {
    await once(server, 'listening');
    const address = z.object({ port: z.int() }).parse(server.address());
    const url = `http://127.0.0.1:${String(address.port)}/some/file.txt`;
    const file = await bringFile({ client }, url, { signal: AbortSignal.timeout(30_000), mayReach: () => true });
    expect(file).toMatchObject({ path: '/file.txt', isNamed: true });
    const Dockerfile = `FROM scratch\nCOPY --from=${file.imageId.slice('sha256:'.length)} ["/file.txt","/dst/"]\n`;
    const context = Readable.from([await tarOf({ Dockerfile })]);
    const answer = await client.stream({ method: 'POST', path: ['build'], query: { t: 'ecluse/test:1' } }, context);
    expect((await buffer(answer)).toString('utf8')).toContain('Successfully tagged ecluse/test:1');
    const saved = await client.stream({ method: 'GET', path: ['images', 'ecluse/test:1', 'get'] });
    expect((await buffer(saved)).includes('from the web')).toBe(true);
    for (const name of ['ecluse/test:1', file.imageId]) await client.call({ method: 'DELETE', path: ['images', name] });
  } finally {
    server.close();
  }
});

describe('refusals', () => {
  test.each([
    ['http://127.0.0.1:9/x'],
    ['http://localhost/x'],
    ['http://169.254.169.254/latest/meta-data'],
    ['http://10.0.0.1/x'],
    ['$PART//10.0.0.1/x'],
  ])('ADD %s is not fetched', async (url) => {
    const refused = await build('acme', `FROM base\nENV PART=http:\nADD ${url} /x\n`);
    expect(refused.exitCode).not.toBe(0);
    expect(refused.stderr).toMatch(/ADD failed: .*(?:is not fetched from|no such host, or no public one)/);
  });

  test.each([
    ['version=2', 400, /ecluse: BuildKit is not available.*DOCKER_BUILDKIT=0/],
    ['remote=http://10.0.0.1/x', 400, /ecluse: a context is not fetched/],
    ['networkmode=host', 403, /it would reach outside of the sandbox/],
    ['networkmode=container:x', 403, /it would reach outside of the sandbox/],
    ['cgroupparent=/x', 403, /cgroupparent/],
    ['securityopt=seccomp=unconfined', 400, /does not support setting security options on build/],
    ['squash=1', 400, /squash is only supported with experimental mode/],
    ['memory=1099511627776', 403, /memory quota/],
    ['memory=4194304', 400, /Minimum memory limit/],
    ['extrahosts=x:host-gateway', 400, /NAME:ADDRESS/],
    ['buildargs={', 400, /error reading build args/],
    ['outputs=[{"Type":"local"}]', 400, /needs BuildKit/],
    ['t=UPPER', 500, /repository name must be lowercase/],
    ['dockerfile=nosuch', 500, /^Cannot locate specified Dockerfile: nosuch$/],
    ['dockerfile=../x', 400, /not plain/],
    ['target=nosuch', 400, /failed to reach build target nosuch/],
  ])('%s', async (query, status, message) => {
    const answer = messageOf(await post('acme', encodeURI(query), await tarOf({ Dockerfile: 'FROM busybox\nRUN true\n' })));
    expect(answer).toEqual([status, expect.stringMatching(message)]);
  });

  test('a context that is damaged, too large or no archive', async () => {
    const whole = await tarOf({ Dockerfile: 'FROM busybox\n', big: 'x'.repeat(4000) });
    const unexpected = [500, 'unexpected EOF'];
    expect(messageOf(await post('acme', '', whole.subarray(0, 2500)))).toEqual(unexpected);
    expect(messageOf(await post('acme', '', gzipSync(whole).subarray(0, 60)))).toEqual(unexpected);
    expect(messageOf(await post('acme', '', 'FROM busybox\n'))[0]).toBe(500);
    expect(messageOf(await post('acme', '', ''))).toEqual([500, 'Cannot locate specified Dockerfile: Dockerfile']);
    const large = pack();
    large.entry({ name: 'huge', size: 5 * 1024 ** 3 });
    const head = await new Promise<unknown>((resolve) => {
      large.once('data', resolve);
    });
    expect(
      messageOf(await post('acme', '', Buffer.concat([z.instanceof(Buffer).parse(head), Buffer.alloc(1024 * 1024)]))),
    ).toEqual([413, expect.stringMatching(/more than 2147483648 bytes/)]);
    expect((await post('acme', '', gzipSync(whole))).text).toContain('Successfully built');
    await untilNothingIsLeft();
  });

  test('prune answers as where there is nothing to prune', async () => {
    const answer = await callApi(node, await credentialsOf(node, 'acme'), { method: 'POST', path: '/v1.41/build/prune' });
    expect([answer.status, JSON.parse(answer.text)]).toEqual([200, { CachesDeleted: null, SpaceReclaimed: 0 }]);
  });
});

describe('an end before the end', () => {
  const SLOW = 'FROM busybox\nRUN echo first >/first\nRUN echo slow; sleep 100\n';

  async function startSlow(tenant: string): Promise<ReturnType<typeof spawn>> {
    const child = spawn('docker', ['build', '--no-cache', '-'], {
      env: { ...node.dockerEnv(tenant), DOCKER_BUILDKIT: '0' },
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    child.stdin.end(await tarOf({ Dockerfile: SLOW }));
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    await expect.poll(() => output, { timeout: 60_000 }).toContain('slow\n');
    return child;
  }

  test('a client that leaves takes its build along', async () => {
    const before = await unheld();
    const child = await startSlow('acme');
    expect(await leftovers()).not.toEqual([]);
    child.kill('SIGKILL');
    await untilNothingIsLeft();
    expect(await unheld()).toEqual(before);
  });

  test('two builds of a tenant run at a time, and the third is told to wait', async () => {
    const children = [await startSlow('acme'), await startSlow('acme')];
    const answer = messageOf(await post('acme', '', await tarOf({ Dockerfile: 'FROM busybox\n' })));
    expect(answer).toEqual([429, 'ecluse: tenant acme runs 2 builds; wait until one has ended']);
    await built('globex', 'FROM busybox\nCMD ["true"]\n');
    for (const child of children) child.kill('SIGKILL');
    await untilNothingIsLeft();
  });

  test('a node that dies in a build clears it away when it starts again', async () => {
    const child = await startSlow('acme');
    await node.stop('SIGKILL');
    child.kill('SIGKILL');
    const again = await startNode({ dataDir, ports: node.ports });
    try {
      await delay(500);
      expect(await leftovers()).toEqual([]);
      expect(await built('acme', 'FROM busybox\nCMD ["true"]\n')).toContain('Successfully built');
    } finally {
      await again.stop();
    }
  });

  test('a node that is stopped in a build stops in time, and leaves nothing on the machine', async () => {
    const again = await startNode({ dataDir, ports: node.ports });
    const child = await startSlow('acme');
    const { exitCode, tookMs } = await again.stop();
    child.kill('SIGKILL');
    expect(exitCode).toBe(0);
    expect(tookMs).toBeLessThan(15_000);
    await expectNothingLeft(dataDir);
  });
});
