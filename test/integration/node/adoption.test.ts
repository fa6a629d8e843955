/**
 * A node that is killed, and one that is stopped, while containers with networks, volumes and ports run: what the next start takes over works as
 * before, what ended meanwhile is known, what nobody owns is gone. One story, told in order.
 */
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { scopeOf } from '#caas/host.ts';
import { busyboxTar } from '../../support/docker-api.ts';
import { eventually } from '../../support/edge.ts';
import { expectNothingLeft, forwardingToKeep } from '../../support/leftovers.ts';
import { addTenant, freePort, freePorts, freshDataDir, run, spawnNode, startNode } from '../../support/node.ts';
import type { CommandAnswer, NodePorts, TestNode } from '../../support/node.ts';
import { containing } from '../../support/matchers.ts';
import { talk } from '../../support/stream-client.ts';

const STOP_LIMIT_MS = 10_000;
const HTTP = 'GET / HTTP/1.0\r\n\r\n';

let node: TestNode;
let dataDir: string;
let ports: NodePorts;
let forwarding: string | undefined;
/** Published: of `web`, of a container that dies while no node runs, of one that is started again by itself. */
let webPort: number;
let diedPort: number;
let keptPort: number;

async function start(): Promise<TestNode> {
  return await startNode({ hosts: ['a', 'b'], dataDir, ports });
}

async function tryDocker(...args: readonly string[]): Promise<CommandAnswer> {
  return await node.docker('acme', args);
}

async function docker(...args: readonly string[]): Promise<string> {
  const answer = await tryDocker(...args);
  expect(answer, args.join(' ')).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

/** A server on port 80 with one file, from `folder`. */
function serving(folder: string): readonly string[] {
  return ['bb', 'sh', '-c', `mkdir -p ${folder} && cd ${folder} && exec httpd -f -p 80 -h ${folder}`];
}

async function runDetached(name: string, flags: readonly string[], command: readonly string[] = ['bb', 'sleep', '1000']) {
  await docker('run', '-d', '--name', name, '--memory', '64m', ...flags, ...command);
}

/** What an engine says, asked past the node. */
async function engine(host: string, ...args: readonly string[]): Promise<string> {
  const answer = await run('docker', ['-H', `unix://${join(dataDir, 'hosts', host, 'docker.sock')}`, ...args]);
  expect(answer, args.join(' ')).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

async function hostOf(name: string): Promise<string> {
  const { stdout } = await node.ecluse('explain', 'container', `acme/${name}`);
  return /is on (\w+)$/m.exec(stdout)?.[1] ?? '?';
}

async function addressOf(name: string): Promise<string> {
  return await docker('inspect', '--format', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}', name);
}

/** What a container gets from a server at port 80 of `target`; empty: nothing within two seconds. */
async function ask(from: string, target: string, tenant = 'acme'): Promise<string> {
  const script = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 ${target} 80`;
  const { stdout } = await node.docker(tenant, ['exec', from, 'sh', '-c', script]);
  return stdout.split('\r\n\r\n').at(-1)?.trim() ?? '';
}

/** What the machine gets from a published port. */
async function askPort(port: number): Promise<string> {
  const answer = await talk(port, HTTP).catch(() => undefined);
  return answer?.bytes.toString().split('\r\n\r\n').at(-1)?.trim() ?? '';
}

async function lookup(from: string, name: string): Promise<readonly string[]> {
  const { stdout } = await tryDocker('exec', from, 'nslookup', '-type=a', name);
  return [...stdout.matchAll(/^Address: (\d+\.\d+\.\d+\.\d+)$/gm)].map(([, address = '']) => address);
}

/** Everything that must hold before the crash as after it. */
async function expectAllAtWork(): Promise<void> {
  for (const from of ['near', 'far']) {
    for (const name of ['web', 'www', 'web.shop', 'web.shop.']) {
      expect(await lookup(from, name), `${from}: ${name}`).toEqual([await addressOf('web')]);
    }
    expect(await ask(from, 'www'), from).toBe('first');
  }
  expect(await lookup('alone', 'web')).toEqual([]);
  expect(await ask('alone', await addressOf('web'))).toBe('');
  expect(await ask('theirs', await addressOf('web'), 'globex')).toBe('');
  expect((await tryDocker('exec', 'inner', 'nslookup', '-type=a', 'example.com')).stdout).toContain('SERVFAIL');
  await eventually(async () => ((await askPort(webPort)) === 'first' ? true : undefined));
  expect(await docker('port', 'web')).toBe(`80/tcp -> 0.0.0.0:${String(webPort)}`);
  expect(await docker('exec', 'web', 'cat', '/tmp/data/index.html')).toBe('first');
}

/** Per container: what a tenant must not see change. */
async function lives(): Promise<string> {
  return await docker(
    'inspect',
    '--format',
    '{{.Name}} {{.Id}} {{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}',
    'web',
    'near',
    'far',
  );
}

async function crash(): Promise<void> {
  node.process.kill('SIGKILL');
  if (node.process.exitCode === null && node.process.signalCode === null) await once(node.process, 'exit');
}

beforeAll(async () => {
  forwarding = await forwardingToKeep();
  dataDir = await freshDataDir();
  ports = await freePorts();
  [webPort, diedPort, keptPort] = [await freePort(), await freePort(), await freePort()];
  node = await start();
  await addTenant(node, 'acme');
  await addTenant(node, 'globex');
  const archive = await busyboxTar(dataDir);
  for (const tenant of ['acme', 'globex'])
    expect(await node.docker(tenant, ['import', '-', 'bb'], archive)).toMatchObject({ exitCode: 0 });
  await docker('network', 'create', 'shop');
  await docker('network', 'create', '--internal', 'vault');
  // The volume is mounted below /tmp, which is a mount too.
  const web = ['--network', 'shop', '--network-alias', 'www', '-v', 'data:/tmp/data', '-p', `${String(webPort)}:80`];
  await runDetached('web', web, serving('/tmp/data'));
  await docker('exec', 'web', 'sh', '-c', 'echo first >/tmp/data/index.html');
  await runDetached('far', ['--network', 'shop']);
  await runDetached('near', ['--network', 'shop']);
  if ((await hostOf('near')) === (await hostOf('far'))) {
    // Placement saw both hosts alike, and what was measured decided: the third replica is put where there is one.
    await runDetached('nearer', ['--network', 'shop']);
    await docker('rm', '-f', 'near');
    await docker('rename', 'nearer', 'near');
  }
  await runDetached('alone', []);
  await runDetached('inner', ['--network', 'vault']);
  const globex = ['run', '-d', '--name', 'theirs', '--memory', '64m', 'bb', 'sleep', '1000'];
  expect(await node.docker('globex', globex)).toMatchObject({ exitCode: 0 });
});

afterAll(async () => {
  await node.stop();
  await expectNothingLeft(dataDir, forwarding);
  await rm(dataDir, { recursive: true, force: true });
});

describe('after kill -9', () => {
  let before: string;
  let freed: string;
  let stranger: string;

  beforeAll(async () => {
    expect(new Set([await hostOf('near'), await hostOf('far')])).toEqual(new Set(['a', 'b']));
    await runDetached('died', ['--network', 'shop', '-p', `${String(diedPort)}:80`], serving('/srv'));
    await runDetached('fleeting', ['--rm', '--network', 'shop', '-v', '/scratch']);
    await expectAllAtWork();
    before = await lives();
    freed = await docker('inspect', '--format', '{{(index .Mounts 0).Name}}', 'fleeting');
    const diedOn = await hostOf('died');
    const fleetingOn = await hostOf('fleeting');
    const prefix = `ecluse-${scopeOf(dataDir)}-`;
    const engineName = async (name: string): Promise<string> =>
      prefix + (await docker('inspect', '--format', '{{.Id}}', name)).slice(0, 16);
    const [died, fleeting] = [await engineName('died'), await engineName('fleeting')];
    await crash();

    // While no node runs: containers end, and what no row knows comes to be.
    await engine(diedOn, 'kill', died);
    await engine(fleetingOn, 'kill', fleeting);
    const image = (await engine('a', 'image', 'ls', '-q')).split('\n')[0] ?? '';
    stranger = `${prefix}${'0'.repeat(16)}`;
    await engine('a', 'create', '--name', stranger, image, 'true');
    await engine('a', 'volume', 'create', stranger);
    node = await start();
  });

  test('containers go on where they were, with their networks, names, ports and data', async () => {
    expect(await lives()).toBe(before);
    await expectAllAtWork();
    expect(node.output()).not.toMatch(/"level":[56]0/);
  });

  test('what ended meanwhile is known: its port is free, its name leads nowhere, and what was to be removed is', async () => {
    expect(await docker('inspect', '--format', '{{.State.Status}} {{.State.ExitCode}}', 'died')).toBe('exited 137');
    expect(await lookup('near', 'died')).toEqual([]);
    expect(await docker('ps', '-a', '--format', '{{.Names}}')).not.toContain('fleeting');
    expect(await docker('volume', 'ls', '-q')).not.toContain(freed);
    await runDetached('heir', ['-p', `${String(diedPort)}:80`], serving('/srv'));
    await docker('exec', 'heir', 'sh', '-c', 'echo heir >/srv/index.html');
    await expect.poll(async () => await askPort(diedPort), { timeout: 15_000 }).toBe('heir');
    expect(await tryDocker('start', 'died')).toMatchObject({ exitCode: 1, stderr: containing('port is already allocated') });
    await docker('rm', '-f', 'heir');
    await docker('start', 'died');
    expect(await lookup('near', 'died')).toEqual([await addressOf('died')]);
    await docker('rm', '-f', 'died');
  });

  test('what no row knows is gone, and every engine has what the tenants have', async () => {
    expect(node.output()).toContain('a leftover container is removed');
    expect(node.output()).toContain('a leftover volume is removed');
    for (const host of ['a', 'b']) {
      expect(await engine(host, 'ps', '-a', '--format', '{{.Names}}')).not.toContain(stranger);
      expect(await engine(host, 'volume', 'ls', '-q')).not.toContain(stranger);
    }
    const onEngines = (await Promise.all(['a', 'b'].map(async (host) => await engine(host, 'ps', '-aq')))).join('\n');
    expect(onEngines.split('\n').filter((id) => id !== '').length).toBe((await docker('ps', '-aq')).split('\n').length + 1);
  });

  test('what was taken over is held: a volume in use, a network with members, a port', async () => {
    expect(await tryDocker('volume', 'rm', 'data')).toMatchObject({ exitCode: 1, stderr: containing('volume is in use') });
    expect(await tryDocker('network', 'rm', 'shop')).toMatchObject({ exitCode: 1, stderr: containing('has active endpoints') });
    const second = await tryDocker('run', '-d', '--name', 'second', '-p', `${String(webPort)}:80`, 'bb', 'sleep', '1');
    expect(second).toMatchObject({ exitCode: 125, stderr: containing('port is already allocated') });
    await docker('rm', 'second');
  });

  test('and it changes as before: networks are joined and left, containers move, restart and go', async () => {
    await docker('network', 'connect', 'shop', 'alone');
    await expect.poll(async () => await ask('alone', 'www'), { timeout: 15_000 }).toBe('first');
    await docker('network', 'disconnect', 'shop', 'alone');
    expect(await ask('alone', await addressOf('web'))).toBe('');
    const target = (await hostOf('near')) === 'a' ? 'b' : 'a';
    expect(await node.ecluse('migrate', 'acme/near', '--to', target)).toMatchObject({ exitCode: 0 });
    expect(await ask('near', 'www')).toBe('first');
    await docker('restart', '-t', '0', 'web');
    await expectAllAtWork();
  });
});

test('a node that is killed twice in a row, the second time while it starts, takes over all the same', async () => {
  const before = await lives();
  await crash();
  const early = spawnNode(dataDir, ports, ['--config', join(dataDir, 'ecluse.yaml')]);
  const ended = once(early.process, 'exit');
  await expect.poll(early.output, { timeout: 60_000, interval: 5 }).toContain('taking over containers');
  early.process.kill('SIGKILL');
  await ended;
  expect(early.output()).not.toContain('ready');
  node = await start();
  expect(await lives()).toBe(before);
  await expectAllAtWork();
});

describe('after a clean stop', () => {
  test('which takes at most ten seconds, nothing is left on the machine', async () => {
    const flags = ['--restart', 'always', '--network', 'shop', '-v', 'kept:/data', '-p', `${String(keptPort)}:80`];
    await runDetached('kept', flags, serving('/data'));
    await docker('exec', 'kept', 'sh', '-c', 'echo kept >/data/index.html');
    await expect.poll(async () => await askPort(keptPort), { timeout: 15_000 }).toBe('kept');
    const { exitCode, tookMs } = await node.stop('SIGTERM');
    expect(exitCode).toBe(0);
    expect(tookMs).toBeLessThan(STOP_LIMIT_MS);
    await expectNothingLeft(dataDir, forwarding);
    expect(await askPort(keptPort)).toBe('');
  });

  test('a start brings back what restarts by itself, whole; the rest is as it was left', async () => {
    node = await start();
    expect(await docker('ps', '--format', '{{.Names}}')).toBe('kept');
    await expect.poll(async () => await askPort(keptPort), { timeout: 15_000 }).toBe('kept');
    expect(await askPort(webPort)).toBe('');
    await docker('start', 'near', 'far', 'web', 'alone', 'inner');
    expect(await node.docker('globex', ['start', 'theirs'])).toMatchObject({ exitCode: 0 });
    expect(await lookup('near', 'kept')).toEqual([await addressOf('kept')]);
    expect(await ask('near', 'kept')).toBe('kept');
    await expectAllAtWork();
  });
});
