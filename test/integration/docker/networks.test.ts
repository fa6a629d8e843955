/** Tenants' networks with real sandboxes: who reaches whom, by which names, on one host and across hosts, and what is told of it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { busyboxTar } from '../../support/docker-api.ts';
import { addTenant, startNode } from '../../support/node.ts';
import type { CommandAnswer, TestNode } from '../../support/node.ts';
import { containing } from '../../support/matchers.ts';

let node: TestNode;

/** Says `hello` on port 80 to whoever connects, for ever. */
const SERVER = ['sh', '-c', 'while true; do echo hello | nc -l -p 80; done'] as const;

async function docker(...args: readonly string[]): Promise<CommandAnswer> {
  return await node.docker('acme', args);
}

async function out(...args: readonly string[]): Promise<string> {
  const answer = await docker(...args);
  expect(answer, args.join(' ')).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

async function run(name: string, ...args: readonly string[]): Promise<void> {
  await out('run', '-d', '--name', name, '--memory', '64m', ...args);
}

async function hostOf(name: string): Promise<string> {
  const explained = await node.ecluse('explain', 'container', `acme/${name}`);
  return /is on (\w+)$/m.exec(explained.stdout)?.[1] ?? '?';
}

async function addressOf(name: string): Promise<string> {
  return await out('inspect', '--format', '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}', name).then(
    (text) => text.split(' ')[0] ?? '',
  );
}

/** What a container hears from a server; empty: nothing within two seconds. */
async function ask(from: string, target: string): Promise<string> {
  return (await docker('exec', from, 'sh', '-c', `nc -w 2 ${target} 80 </dev/null`)).stdout.trim();
}

async function lookup(from: string, name: string): Promise<readonly string[]> {
  const answer = await docker('exec', from, 'nslookup', '-type=a', name);
  return [...answer.stdout.matchAll(/^Address: (\d+\.\d+\.\d+\.\d+)$/gm)].map(([, address = '']) => address).toSorted();
}

async function clear(): Promise<void> {
  const ids = (await out('ps', '-aq')).split('\n').filter((id) => id !== '');
  if (ids.length > 0) await out('rm', '-f', ...ids);
  await out('network', 'prune', '-f');
}

beforeAll(async () => {
  node = await startNode({ hosts: ['a', 'b'] });
  await addTenant(node, 'acme');
  await addTenant(node, 'rival');
  const archive = await busyboxTar(node.dataDir);
  for (const tenant of ['acme', 'rival'])
    expect(await node.docker(tenant, ['import', '-', 'bb'], archive)).toMatchObject({ exitCode: 0 });
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

describe('containers of one network', () => {
  test('reach each other by name, alias and id on whatever hosts they are; others do not', async () => {
    await out('network', 'create', 'shop');
    await run('server', '--network', 'shop', '--network-alias', 'www', 'bb', ...SERVER);
    await run('near', '--network', 'shop', 'bb', 'sleep', '1000');
    await run('far', '--network', 'shop', 'bb', 'sleep', '1000');
    await run('alone', 'bb', 'sleep', '1000');
    const hosts = await Promise.all(['server', 'near', 'far'].map(hostOf));
    expect(new Set(hosts), hosts.join()).toEqual(new Set(['a', 'b']));
    const address = await addressOf('server');
    const id = (await out('inspect', '--format', '{{.Id}}', 'server')).slice(0, 12);
    for (const from of ['near', 'far']) {
      for (const name of ['server', 'www', id, 'server.shop', address])
        expect(await ask(from, name), `${from} ${name}`).toBe('hello');
    }
    expect(await ask('alone', address)).toBe('');
    expect(await lookup('alone', 'server')).toEqual([]);
    await clear();
  });

  test('share an alias: all their addresses are told', async () => {
    await out('network', 'create', 'pool');
    for (const name of ['one', 'two', 'three'])
      await run(name, '--network', 'pool', '--network-alias', 'workers', 'bb', 'sleep', '1000');
    const addresses = await Promise.all(['one', 'two', 'three'].map(addressOf));
    expect(await lookup('one', 'workers')).toEqual(addresses.toSorted());
    await out('stop', '-t', '0', 'two');
    expect(await lookup('one', 'workers')).toHaveLength(2);
    expect(await lookup('one', 'two')).toEqual([]);
    await clear();
  });

  test('join and leave while they run, and what never reached them before does then', async () => {
    await out('network', 'create', 'late');
    await run('server', '--network', 'late', 'bb', ...SERVER);
    await run('guest', 'bb', 'sleep', '1000');
    const address = await addressOf('server');
    expect(await ask('guest', address)).toBe('');
    await out('network', 'connect', '--alias', 'visitor', 'late', 'guest');
    await expect.poll(async () => await ask('guest', 'server'), { timeout: 15_000 }).toBe('hello');
    expect(await lookup('server', 'visitor')).toEqual([await addressOf('guest')]);
    expect(await docker('network', 'connect', 'late', 'guest')).toMatchObject({
      exitCode: 1,
      stderr: containing('endpoint with name guest already exists in network late'),
    });
    await out('network', 'disconnect', 'late', 'guest');
    expect(await ask('guest', address)).toBe('');
    expect(await docker('network', 'disconnect', 'late', 'guest')).toMatchObject({
      exitCode: 1,
      stderr: containing('is not connected to'),
    });
    await clear();
  });

  test('follow a move: the name leads to where the container is now', async () => {
    await out('network', 'create', 'moving');
    await run('mover', '--network', 'moving', 'bb', ...SERVER);
    await run('client', '--network', 'moving', 'bb', 'sleep', '1000');
    const before = await addressOf('mover');
    const target = (await hostOf('mover')) === 'a' ? 'b' : 'a';
    expect(await node.ecluse('migrate', 'mover', '--to', target)).toMatchObject({ exitCode: 0 });
    const after = await addressOf('mover');
    expect(after).not.toBe(before);
    expect(await lookup('client', 'mover')).toEqual([after]);
    await expect.poll(async () => await ask('client', 'mover'), { timeout: 15_000 }).toBe('hello');
    const told = await out('events', '--since', '10m', '--until', '0s', '--filter', 'container=mover', '--format', '{{.Action}}');
    // The exec sessions are ours: looking names up.
    const life = told.split('\n').filter((action) => !action.startsWith('exec_'));
    expect(life).toEqual(['create', 'start']);
    await clear();
  });
});

describe('kinds of networks', () => {
  test('an internal one has no way out, and its members still reach each other', async () => {
    await out('network', 'create', '--internal', 'vault');
    await run('server', '--network', 'vault', 'bb', ...SERVER);
    await run('client', '--network', 'vault', 'bb', 'sleep', '1000');
    expect(await ask('client', 'server')).toBe('hello');
    expect(await docker('exec', 'client', 'nslookup', '-type=a', 'example.com')).toMatchObject({
      stdout: containing('SERVFAIL'),
    });
    await clear();
  });

  test('on the default one no names resolve, addresses and links do', async () => {
    await run('server', 'bb', ...SERVER);
    await run('plain', 'bb', 'sleep', '1000');
    await run('linked', '--link', 'server:db', 'bb', 'sleep', '1000');
    expect(await lookup('plain', 'server')).toEqual([]);
    expect(await ask('plain', await addressOf('server'))).toBe('hello');
    expect(await ask('linked', 'db')).toBe('hello');
    await clear();
  });

  test('host, container:… and other drivers, addresses and options are refused with the reason', async () => {
    await run('other', 'bb', 'sleep', '1000');
    const cases: readonly (readonly [readonly string[], string])[] = [
      [['run', '--network', 'host', 'bb', 'true'], 'it would reach outside of the sandbox'],
      [['run', '--network', 'container:other', 'bb', 'true'], 'a sandbox, and a network interface, of its own'],
      [['run', '--network', 'nowhere', 'bb', 'true'], 'network nowhere not found'],
      [['network', 'create', '-d', 'macvlan', 'm'], 'the network driver "macvlan" is not available'],
      [['network', 'create', '--subnet', '10.1.0.0/16', 'm'], 'addresses are assigned by the platform'],
      [['network', 'create', '-o', 'com.docker.network.bridge.name=docker0', 'm'], 'a network here has no driver with options'],
      [['network', 'create', '--ipv6', 'm'], 'networks are IPv4 only'],
      [['network', 'create', 'bridge'], 'operation is not permitted on predefined bridge network'],
      [['network', 'rm', 'bridge'], 'bridge is a pre-defined network and cannot be removed'],
    ];
    for (const [args, message] of cases) {
      const answer = await docker(...args);
      expect(answer, args.join(' ')).toMatchObject({ stderr: containing(message) });
      expect(answer.exitCode).not.toBe(0);
    }
    await clear();
  });

  test('are kept while a running container is in them, and their names are free afterwards', async () => {
    const id = await out('network', 'create', '--label', 'a=b', 'kept');
    expect(await docker('network', 'create', 'kept')).toMatchObject({
      exitCode: 1,
      stderr: containing('network with name kept already exists'),
    });
    await run('member', '--network', 'kept', 'bb', 'sleep', '1000');
    expect(await docker('network', 'rm', 'kept')).toMatchObject({ exitCode: 1, stderr: containing('has active endpoints') });
    expect(await out('network', 'inspect', '--format', '{{range .Containers}}{{.Name}}{{end}} {{.Labels}}', id.slice(0, 8))).toBe(
      'member map[a:b]',
    );
    await out('stop', '-t', '0', 'member');
    await out('network', 'rm', 'kept');
    expect(await docker('start', 'member')).toMatchObject({ exitCode: 1, stderr: containing(`network ${id} not found`) });
    await out('network', 'create', 'kept');
    await clear();
  });
});

test('another tenant’s networks and addresses are out of reach', async () => {
  const theirs = (await node.docker('rival', ['network', 'create', 'secret'])).stdout.trim();
  await node.docker('rival', ['run', '-d', '--name', 'server', '--network', 'secret', '--memory', '64m', 'bb', ...SERVER]);
  const address = (
    await node.docker('rival', ['inspect', '--format', '{{.NetworkSettings.Networks.secret.IPAddress}}', 'server'])
  ).stdout.trim();
  await run('mine', 'bb', 'sleep', '1000');
  await run('also', 'bb', 'sleep', '1000');
  for (const from of ['mine', 'also']) expect(await ask(from, address)).toBe('');
  for (const reference of ['secret', theirs, theirs.slice(0, 12)]) {
    expect(await docker('network', 'inspect', reference)).toMatchObject({
      exitCode: 1,
      stderr: containing(`${reference} not found`),
    });
    expect(await docker('network', 'connect', reference, 'mine')).toMatchObject({
      exitCode: 1,
      stderr: containing(`network ${reference} not found`),
    });
    expect(await docker('run', '--rm', '--network', reference, 'bb', 'true')).toMatchObject({
      stderr: containing(`network ${reference} not found`),
    });
  }
  expect((await node.docker('rival', ['network', 'ls', '--format', '{{.Name}}'])).stdout.trim().split('\n')).toContain('secret');
});
