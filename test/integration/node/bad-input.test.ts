/** What is wrong before a node runs, and a disk that fills up while it does: one clear line, and nothing lost or left. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readFile, rm, statfs, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { PassThrough } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openAuthority } from '#tls/authority.ts';
import { systemClock } from '#clock';
import { openSqlite } from '#state/sqlite.ts';
import { writeBusyboxImage } from '../../support/busybox-image.ts';
import { expectNothingLeft, leftoversOf } from '../../support/leftovers.ts';
import { ECLUSE, addTenant, freePort, freePorts, freshDataDir, run, spawnNode, startNode } from '../../support/node.ts';
import type { CommandAnswer, NodePorts } from '../../support/node.ts';

let dataDir: string;
let ports: NodePorts;

beforeEach(async () => {
  dataDir = await freshDataDir();
  ports = await freePorts();
});

afterEach(async () => {
  await expectNothingLeft(dataDir);
  await rm(dataDir, { recursive: true, force: true });
});

interface UpOptions {
  readonly data?: string;
  readonly config?: string;
  readonly ports?: NodePorts;
  readonly through?: readonly string[];
}

/** `ecluse up`, which is expected to end by itself. */
async function up(options: UpOptions = {}): Promise<CommandAnswer> {
  const file = join(await mkdtemp('/tmp/ecl-config-'), 'ecluse.yaml');
  await writeFile(file, options.config ?? 'hosts: [{ name: a, engine: managed }]\n');
  const listen = Object.entries(options.ports ?? ports).flatMap(([name, port]) => [`--${name}`, `127.0.0.1:${String(port)}`]);
  const command = [...(options.through ?? []), ECLUSE, 'up', '--data', options.data ?? dataDir, '--config', file, ...listen];
  await chmod(join(file, '..'), 0o755);
  const answer = await run(command[0] ?? '', command.slice(1), { timeoutMs: 30_000 });
  await rm(join(file, '..'), { recursive: true });
  return answer;
}

/** The one line of ours on stderr; log lines (JSON) may stand before it. Anything else, a stack or another exit code is an error. */
function refusalOf(answer: CommandAnswer | undefined): string {
  const lines = (answer?.stderr ?? '').split('\n').filter((line) => line !== '' && !line.startsWith('{'));
  const [line = ''] = lines;
  const isClear = lines.length === 1 && /^ecluse: (?!unexpected error)/.test(line) && answer?.exitCode === 1;
  if (!isClear) throw new Error(`no clear refusal: ${JSON.stringify(answer)}`);
  return line;
}

/** A text with these parts in this order. */
function saying(...parts: readonly (string | RegExp)[]): RegExp {
  return new RegExp(parts.map((part) => (typeof part === 'string' ? RegExp.escape(part) : `(?:${part.source})`)).join('.*'));
}

describe('a start is refused', () => {
  test.each(['http', 'https', 'docker', 'metrics'] as const)('where the port of --%s is in use', async (name) => {
    const holder = createServer().listen(ports[name], '127.0.0.1');
    await once(holder, 'listening');
    expect(refusalOf(await up())).toMatch(saying(`127.0.0.1:${String(ports[name])}`, `--${name} ADDRESS:PORT`));
    holder.close();
  });

  test('with the right flag where one port is the beginning of another', async () => {
    const port = await freePort();
    const holder = createServer().listen(port, '127.0.0.1');
    await once(holder, 'listening');
    const shorter = Number(String(port).slice(0, 4));
    expect(refusalOf(await up({ ports: { ...ports, http: shorter, metrics: port } }))).toMatch(
      saying(`:${String(port)}:`, '--metrics'),
    );
    holder.close();
  });

  test('where nobody answers at the Docker socket', async () => {
    const answer = await up({ config: 'hosts: [{ name: a, engine: "unix:///tmp/nothing.sock" }]' });
    expect(refusalOf(answer)).toMatch(saying('/tmp/nothing.sock', 'check that dockerd runs'));
  });

  test('where one of two hosts cannot come up, and the other goes again', async () => {
    const answer = await up({ config: 'hosts: [{ name: a, engine: managed }, { name: b, engine: "unix:///tmp/nothing.sock" }]' });
    expect(refusalOf(answer)).toMatch(saying('/tmp/nothing.sock'));
  });

  test('where dockerd does not start', async () => {
    // Its data root is in the way.
    await mkdir(join(dataDir, 'hosts', 'a'), { recursive: true });
    await writeFile(join(dataDir, 'hosts', 'a', 'docker'), '');
    expect(refusalOf(await up())).toMatch(saying('dockerd of host a ended at its start', /dockerd\.log/));
  });

  test('where a Docker engine lacks the runtime', async () => {
    await using engine = await plainEngine();
    const answer = await up({ config: `hosts: [{ name: a, engine: "unix://${engine.socket}" }]` });
    expect(refusalOf(answer)).toMatch(saying(engine.socket, 'ecluse-runsc', /merge \{.*\} into \/etc\/docker\/daemon\.json/));
    expect((await run('docker', ['-H', `unix://${engine.socket}`, 'network', 'ls', '--format', '{{.Name}}'])).stdout).not.toMatch(
      /ecluse/,
    );
  });

  test('where the store is no database', async () => {
    await writeFile(join(dataDir, 'ecluse.db'), 'not a database, but something of value\n'.repeat(200));
    const before = await readFile(join(dataDir, 'ecluse.db'));
    expect(refusalOf(await up())).toMatch(saying('ecluse.db is damaged', 'restore a backup'));
    expect((await readFile(join(dataDir, 'ecluse.db'))).equals(before)).toBe(true);
  });

  test('where the store lost its end', async () => {
    const file = join(dataDir, 'ecluse.db');
    await openSqlite(file)[Symbol.asyncDispose]();
    await truncate(file, 8192);
    expect(refusalOf(await up())).toMatch(saying('ecluse.db is damaged', 'restore a backup'));
  });

  test('where the store is of a newer version, which is left as it is', async () => {
    const file = join(dataDir, 'ecluse.db');
    await openSqlite(file)[Symbol.asyncDispose]();
    const database = new DatabaseSync(file);
    database.exec('PRAGMA user_version = 999');
    database.close();
    const before = await readFile(file);
    expect(refusalOf(await up())).toMatch(saying('written by a newer ecluse', 'schema 999', 'run the newer version'));
    expect((await readFile(file)).equals(before)).toBe(true);
  });

  test.each([
    { what: 'empty', content: '', mode: 0o600, says: /is empty: .*ca\.key/ },
    { what: 'garbage', content: 'garbage\n', mode: 0o600, says: /ca\.key is not a private key/ },
    { what: 'readable by all', content: undefined, mode: 0o644, says: /chmod 600 .*ca\.key/ },
  ])('where the key of the CA is $what', async ({ content, mode, says }) => {
    const key = join(dataDir, 'tls', 'ca.key');
    await openAuthority(join(dataDir, 'tls'), { clock: systemClock });
    if (content !== undefined) await writeFile(key, content);
    await chmod(key, mode);
    const before = await readFile(key);
    expect(refusalOf(await up())).toMatch(saying(says));
    expect((await readFile(key)).equals(before)).toBe(true);
  });

  test('where the configuration has a key that nobody knows', async () => {
    expect(refusalOf(await up({ config: 'workers: 2\nlistn: { http: ":80" }\n' }))).toMatch(
      saying(/ecluse\.yaml:2: listn: unknown key; did you mean listen\?/),
    );
  });

  test('where it is not root', async () => {
    const answer = await up({
      data: '/tmp/ecl-nobody',
      through: ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'],
    });
    expect(refusalOf(answer)).toMatch(saying('must run as root', 'sudo'));
  });

  test('where sockets would not fit below the data directory', async () => {
    expect(refusalOf(await up({ data: `/tmp/${'long/'.repeat(12)}` }))).toMatch(
      saying(/socket of host a has \d+ bytes, and Linux takes 107/, '--data'),
    );
  });

  test('where the data directory is a file', async () => {
    await writeFile(join(dataDir, 'file'), '');
    expect(refusalOf(await up({ data: join(dataDir, 'file') }))).toMatch(saying('cannot be used', '--data'));
  });

  test('where the last part of the start fails, and all before it goes again', async () => {
    await mkdir(join(dataDir, 'admin.sock'));
    expect(refusalOf(await up())).toMatch(saying('admin.sock cannot be opened', 'not a socket'));
  });

  test('where another node runs with the directory, which does not notice', async () => {
    await using node = await startNode({ dataDir });
    const both = [up(), up({ ports: node.ports })];
    for (const answer of await Promise.all(both)) {
      expect(refusalOf(answer)).toMatch(
        saying(`another ecluse (pid ${String(node.process.pid)}) runs with the data directory ${dataDir}`, '--data'),
      );
    }
    expect((await node.ecluse('status')).exitCode).toBe(0);
  });
});

type Started = ReturnType<typeof spawnNode>;
const isReady = ({ output }: Started): boolean => output().includes('ecluse: ready in');
const isOver = ({ process: child }: Started): boolean => child.exitCode !== null;

test('a start that is called off ends in order', async () => {
  const file = join(dataDir, 'ecluse.yaml');
  await writeFile(file, 'hosts: [{ name: a, engine: managed }]\n');
  const { process: child, output } = spawnNode(dataDir, ports, ['--config', file]);
  await expect.poll(output, { timeout: 10_000, interval: 20 }).toContain('starting host a');
  const startMs = performance.now();
  child.kill('SIGTERM');
  await once(child, 'exit');
  expect(child.exitCode).toBe(0);
  expect(performance.now() - startMs).toBeLessThan(10_000);
});

test('of two nodes that start at once with one directory, one runs', async () => {
  const file = join(dataDir, 'ecluse.yaml');
  await writeFile(file, 'hosts: [{ name: a, engine: managed }]\n');
  const started = [spawnNode(dataDir, ports, ['--config', file]), spawnNode(dataDir, await freePorts(), ['--config', file])];
  await expect
    .poll(() => started.filter(isReady).length === 1 && started.filter(isOver).length === 1, { timeout: 20_000 })
    .toBe(true);
  const [loser] = started.filter(isOver);
  expect(loser?.output()).toMatch(/^ecluse: another ecluse/m);
  const [winner] = started.filter(isReady);
  winner?.process.kill('SIGTERM');
  if (winner !== undefined) await once(winner.process, 'exit');
  expect(winner?.process.exitCode).toBe(0);
});

/** A dockerd as distributions set it up, apart from the machine's own. */
async function plainEngine(): Promise<AsyncDisposable & { readonly socket: string }> {
  const folder = await mkdtemp('/tmp/ecl-plain-');
  const socket = join(folder, 'docker.sock');
  const config = {
    'data-root': join(folder, 'docker'),
    'exec-root': join(folder, 'exec'),
    pidfile: join(folder, 'dockerd.pid'),
    hosts: [`unix://${socket}`],
    iptables: false,
    ip6tables: false,
    'ip-forward': false,
    bridge: 'none',
  };
  await writeFile(join(folder, 'daemon.json'), JSON.stringify(config));
  const engine = spawn('dockerd', ['--config-file', join(folder, 'daemon.json')], { stdio: 'ignore' });
  const exited = once(engine, 'exit');
  const answers = async (): Promise<number> => (await run('docker', ['-H', `unix://${socket}`, 'version'])).exitCode;
  await expect.poll(answers, { timeout: 15_000, interval: 200 }).toBe(0);
  return {
    socket,
    async [Symbol.asyncDispose](): Promise<void> {
      engine.kill('SIGTERM');
      await exited;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

interface SmallDisk extends AsyncDisposable {
  /** Takes what is free but for a few blocks that the file system keeps to itself; returns the way back. */
  readonly fill: () => Promise<() => Promise<void>>;
}

/** A file system of its own on `folder`, so small that it can be filled. */
async function smallDisk(folder: string, megabytes: number): Promise<SmallDisk> {
  const image = `${folder}.img`;
  await writeFile(image, '');
  await truncate(image, megabytes * 1024 * 1024);
  for (const [program, ...args] of [
    ['mkfs.ext4', '-q', '-m', '0', image],
    ['mount', '-o', 'loop', image, folder],
  ] as const) {
    const { exitCode, stderr } = await run(program, args);
    expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
  }
  return {
    fill: async () => await fill(folder),
    async [Symbol.asyncDispose](): Promise<void> {
      const { exitCode, stderr } = await run('umount', [folder]);
      expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
      await rm(image);
    },
  };
}

async function fill(folder: string): Promise<() => Promise<void>> {
  const ballast = join(folder, 'ballast');
  await run('dd', ['if=/dev/zero', `of=${ballast}`, 'bs=1024', 'conv=fsync']);
  const { bavail, bsize } = await statfs(folder);
  expect(bavail * bsize).toBeLessThan(16 * 1024);
  return async () => {
    await rm(ballast);
  };
}

test('on a full disk a start is refused, and leaves nothing', async () => {
  await using disk = await smallDisk(dataDir, 24);
  await disk.fill();
  expect(refusalOf(await up())).toMatch(saying(dataDir, /disk is full|no space left/, 'free space on that file system'));
});

test('a disk that fills up while a node runs loses nothing that was acknowledged', async () => {
  await using disk = await smallDisk(dataDir, 64);
  {
    await using node = await startNode({ dataDir, ports });
    await addTenant(node, 'acme');
    const archive = new PassThrough();
    const [image] = await Promise.all([buffer(archive), writeBusyboxImage(archive)]);
    expect(await node.docker('acme', ['import', '-', 'busybox'], image)).toMatchObject({ exitCode: 0 });
    const serve = 'mkdir /tmp/www; echo served > /tmp/www/index.html; exec busybox httpd -f -p 8080 -h /tmp/www';
    const flags = ['--detach', '--name', 'web', '--restart', 'always', '--label', 'ecluse.http.port=8080'];
    expect(await node.docker('acme', ['run', ...flags, 'busybox', '/bin/busybox', 'sh', '-c', serve])).toMatchObject({
      exitCode: 0,
    });
    const served = async (): Promise<string> => {
      const args = ['-s', '--max-time', '5', '-H', 'host: web-acme.localhost', `http://127.0.0.1:${String(ports.http)}/`];
      return (await run('curl', args)).stdout;
    };
    await expect.poll(served).toBe('served\n');

    const free = await disk.fill();
    const acknowledged: string[] = [];
    const refused: CommandAnswer[] = [];
    // The store's journal has room for some more changes.
    for (let number = 1; refused.length === 0 && number < 100; number += 1) {
      const answer = await node.ecluse('tenant', 'add', `tenant-${String(number)}`);
      if (answer.exitCode === 0) acknowledged.push(`tenant-${String(number)}`);
      else refused.push(answer);
    }
    expect(refusalOf(refused[0])).toMatch(saying('the disk is full', 'nothing was lost'));
    expect(await served()).toBe('served\n');
    expect((await node.ecluse('status')).exitCode).toBe(0);
    const names = (await node.ecluse('tenant', 'ls')).stdout;
    for (const name of acknowledged) expect(names).toContain(name);
    expect(names).not.toContain(`tenant-${String(acknowledged.length + 1)}`);

    await node.stop();
    expect(await leftoversOf(dataDir)).toEqual([]);
    await free();
  }
  await using node = await startNode({ dataDir, ports });
  expect((await node.ecluse('tenant', 'add', 'later')).exitCode).toBe(0);
  expect((await node.ecluse('tenant', 'ls')).stdout).toMatch(/acme[^]*later/);
});
