/** `docker run -p`: real nodes, real sandboxes, plain clients at the host of DOCKER_HOST. */
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import * as z from 'zod';
import { busyboxTar, callApi, credentialsOf } from '../../support/docker-api.ts';
import { eventually } from '../../support/edge.ts';
import { addTenant, freePort, freshDataDir, run, startNode } from '../../support/node.ts';
import type { CommandAnswer, TestNode } from '../../support/node.ts';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { datagramClient, talk } from '../../support/stream-client.ts';
import { containing, matching } from '../../support/matchers.ts';

const TENANT = 'demo';
const TCP = 7000;
const UDP = 7001;

/** Echoes streams (after `die`, ends) and datagrams. */
const ECHO = `
const net = process.getBuiltinModule('node:net');
net.createServer({ allowHalfOpen: true }, (socket) => {
  socket.on('error', () => undefined);
  socket.on('data', (chunk) => { if (chunk.toString() === 'die') process.exit(1); });
  socket.pipe(socket);
}).listen({ port: ${String(TCP)}, backlog: 511 }, () => console.log('listening'));
const udp = process.getBuiltinModule('node:dgram').createSocket('udp4');
udp.on('message', (text, from) => udp.send(text, from.port, from.address));
udp.bind(${String(UDP)});`;

let node: TestNode;
let dataDir: string;

async function ecluse(...args: readonly string[]): Promise<string> {
  const answer = await node.ecluse(...args);
  expect(answer, args.join(' ')).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

async function docker(...args: readonly string[]): Promise<string> {
  const answer = await node.docker(TENANT, args);
  expect(answer, args.join(' ')).toMatchObject({ exitCode: 0 });
  return answer.stdout.trim();
}

/** As a tenant that has an address of its own: at that address. */
async function dockerOf(tenant: string, address: string, args: readonly string[], input?: Buffer): Promise<CommandAnswer> {
  const env = { ...node.dockerEnv(tenant), DOCKER_HOST: `tcp://${address}:${String(node.ports.docker)}` };
  return await run('docker', args, { env, ...(input === undefined ? {} : { input }) });
}

async function startEcho(name: string, ...flags: readonly string[]): Promise<void> {
  await docker('run', '-d', '--name', name, ...flags, 'hello', 'node', '-e', ECHO);
  await eventually(async () => ((await docker('logs', name)).includes('listening') ? true : undefined));
}

async function echoes(port: number, text = 'hello', host = '127.0.0.1'): Promise<boolean> {
  const answer = await talk(port, text, host).catch(() => undefined);
  return answer?.bytes.toString() === text;
}

async function portOf(name: string, containerPort = `${String(TCP)}/tcp`): Promise<number> {
  return Number((await docker('port', name, containerPort)).split(':').at(-1));
}

beforeAll(async () => {
  dataDir = await freshDataDir();
  node = await startNode({ demo: true, dataDir });
});

afterAll(async () => {
  await node.stop();
  await expectNothingLeft(dataDir);
  await rm(dataDir, { recursive: true, force: true });
});

describe('a published port', () => {
  let port: number;
  let udpPort: number;

  beforeAll(async () => {
    [port, udpPort] = [await freePort(), await freePort()];
    await startEcho('echo', '-p', `${String(port)}:${String(TCP)}`, '-p', `${String(udpPort)}:${String(UDP)}/udp`);
  });

  afterAll(async () => {
    await docker('rm', '-f', 'echo');
  });

  test('is shown as Docker shows it', async () => {
    const bindings = { HostIp: '', HostPort: String(port) };
    expect(await docker('port', 'echo')).toBe(
      `${String(TCP)}/tcp -> 0.0.0.0:${String(port)}\n${String(UDP)}/udp -> 0.0.0.0:${String(udpPort)}`,
    );
    const shown = `8080/tcp, 0.0.0.0:${String(port)}->${String(TCP)}/tcp, 0.0.0.0:${String(udpPort)}->${String(UDP)}/udp`;
    expect(await docker('ps', '--filter', 'name=^/echo$', '--format', '{{.Ports}}')).toBe(shown);
    const ports: unknown = JSON.parse(await docker('inspect', '-f', '{{json .NetworkSettings.Ports}}', 'echo'));
    expect(ports).toEqual({
      [`${String(TCP)}/tcp`]: [{ HostIp: '0.0.0.0', HostPort: String(port) }],
      [`${String(UDP)}/udp`]: [{ HostIp: '0.0.0.0', HostPort: String(udpPort) }],
      '8080/tcp': null,
    });
    const given: unknown = JSON.parse(await docker('inspect', '-f', '{{json .HostConfig.PortBindings}}', 'echo'));
    expect(given).toMatchObject({ [`${String(TCP)}/tcp`]: [bindings] });
  });

  test('carries streams, half-closed ones too, and 200 at once', async () => {
    expect(await echoes(port)).toBe(true);
    const answers = await Promise.all(
      Array.from({ length: 200 }, async (_, index) => await echoes(port, `stream ${String(index)}`)),
    );
    expect(answers.every(Boolean)).toBe(true);
  });

  test('carries datagrams', async () => {
    await using client = datagramClient(udpPort);
    for (const text of ['1', '2', '3']) client.send(text);
    await expect.poll(() => client.received, { timeout: 5_000 }).toEqual(['1', '2', '3']);
  });

  test('is taken, in Docker’s words, until its container stops', async () => {
    const flags = ['run', '-d', '--name', 'second', '-p', `${String(port)}:${String(TCP)}`, 'hello', 'node', '-e', ECHO];
    const refused = await node.docker(TENANT, flags);
    expect(refused.exitCode).toBe(125);
    expect(refused.stderr).toMatch(
      /driver failed programming external connectivity on endpoint second \([0-9a-f]{64}\): Bind for 0\.0\.0\.0:\d+ failed: port is already allocated/,
    );
    expect(await docker('inspect', '-f', '{{.State.Status}} {{json .NetworkSettings.Ports}}', 'second')).toBe('created {}');
    await docker('stop', '-t', '0', 'echo');
    expect(await echoes(port)).toBe(false);
    expect(await docker('port', 'echo')).toBe('');
    await docker('start', 'second');
    await expect.poll(async () => await echoes(port), { timeout: 10_000 }).toBe(true);
    const back = await node.docker(TENANT, ['start', 'echo']);
    expect(back.stderr).toContain('port is already allocated');
    await docker('rm', '-f', 'second');
    await docker('start', 'echo');
    await expect.poll(async () => await echoes(port), { timeout: 10_000 }).toBe(true);
  });

  test('is there again after the death of a worker', async () => {
    const { workers } = z
      .object({ workers: z.array(z.object({ pid: z.int() })) })
      .parse(JSON.parse(await ecluse('status', '--json')));
    process.kill(workers[0]?.pid ?? 0, 'SIGKILL');
    await delay(1_500);
    const answers = await Promise.all(Array.from({ length: 20 }, async () => await echoes(port)));
    expect(answers.every(Boolean)).toBe(true);
  });

  test('follows its container to another host, and nobody is refused', { timeout: 60_000 }, async () => {
    const host = async (): Promise<string> =>
      (await ecluse('ps')).split('\n').some((line) => / echo +\S+ +b /.test(line)) ? 'b' : 'a';
    const target = (await host()) === 'a' ? 'b' : 'a';
    const stop = new AbortController();
    const failures: string[] = [];
    let asked = 0;
    const ask = async (text: string): Promise<void> => {
      const answer = await talk(port, text);
      if (answer.bytes.toString() !== text) failures.push(`${text}: ${answer.code ?? ''} ${answer.bytes.toString()}`);
    };
    const load = (async (): Promise<void> => {
      const open: Promise<void>[] = [];
      while (!stop.signal.aborted) {
        const text = `request ${String((asked += 1))}`;
        open.push(ask(text));
        await delay(20);
      }
      await Promise.all(open);
    })();
    await using client = datagramClient(udpPort);
    client.send('before');
    const idle = connect({ host: '127.0.0.1', port });
    idle.on('error', () => undefined);
    await once(idle, 'connect');
    await delay(200);
    const moved = await node.ecluse('migrate', 'demo/echo', '--to', target, '--json');
    client.send('after');
    await delay(300);
    stop.abort();
    await load;
    expect(moved).toMatchObject({ exitCode: 0 });
    expect(failures).toEqual([]);
    expect(asked).toBeGreaterThan(20);
    expect(await host()).toBe(target);
    expect(idle.destroyed).toBe(true);
    await expect.poll(() => client.received, { timeout: 5_000 }).toEqual(['before', 'after']);
    expect(await portOf('echo')).toBe(port);
  });

  test('is metered', async () => {
    const parsed: unknown = JSON.parse(await ecluse('usage', '--json', '--tenant', TENANT));
    expect(JSON.stringify(parsed)).toMatch(/"egressBytes":[1-9]/);
  });
});

describe('which port', () => {
  test('any free one: stable while the container runs, another than others have', async () => {
    await startEcho('any1', '-p', String(TCP));
    await startEcho('any2', '-p', String(TCP));
    const [one, two] = [await portOf('any1'), await portOf('any2')];
    expect(one).toBeGreaterThanOrEqual(32_768);
    expect(one).toBeLessThanOrEqual(60_999);
    expect(two).not.toBe(one);
    expect(await echoes(one)).toBe(true);
    await docker('pause', 'any1');
    await docker('unpause', 'any1');
    expect(await portOf('any1')).toBe(one);
    expect(await echoes(one)).toBe(true);
    await docker('rm', '-f', 'any1', 'any2');
    expect(await echoes(one)).toBe(false);
  });

  test('-P: what the image exposes, at the host of DOCKER_HOST', async () => {
    await docker('run', '-d', '--name', 'all', '-P', 'hello');
    // As testcontainers does: the mapped port, and the host name of DOCKER_HOST.
    const shape = z.object({ '8080/tcp': z.array(z.object({ HostPort: z.string() })) });
    const mapped = shape.parse(JSON.parse(await docker('inspect', '-f', '{{json .NetworkSettings.Ports}}', 'all')));
    const port = Number(mapped['8080/tcp'][0]?.HostPort);
    const { hostname } = new URL(node.dockerEnv(TENANT)['DOCKER_HOST'] ?? '');
    await expect
      .poll(async () => (await talk(port, 'GET /healthz HTTP/1.0\r\n\r\n', hostname).catch(() => undefined))?.bytes.toString(), {
        timeout: 15_000,
      })
      .toMatch(/^HTTP\/1\.1 200/);
    await docker('rm', '-f', 'all');
  });

  test('one of a range, until all are taken', async () => {
    const first = (await freePort()) - 1;
    const flag = `${String(first)}-${String(first + 1)}:${String(TCP)}`;
    await docker('run', '-d', '--name', 'r1', '-p', flag, 'hello', 'node', '-e', ECHO);
    await docker('run', '-d', '--name', 'r2', '-p', flag, 'hello', 'node', '-e', ECHO);
    expect([await portOf('r1'), await portOf('r2')]).toEqual([first, first + 1]);
    const third = await node.docker(TENANT, ['run', '-d', '--name', 'r3', '-p', flag, 'hello', 'node', '-e', ECHO]);
    expect(third.stderr).toContain('all ports are allocated');
    await docker('rm', '-f', 'r1', 'r2', 'r3');
  });

  test('stays over the restarts of a restart policy, and of docker restart', { timeout: 40_000 }, async () => {
    const port = await freePort();
    await startEcho('again', '--restart', 'always', '-p', `${String(port)}:${String(TCP)}`);
    await talk(port, 'die');
    await expect
      .poll(async () => await docker('inspect', '-f', '{{.RestartCount}} {{.State.Running}}', 'again'), { timeout: 15_000 })
      .toBe('1 true');
    await expect.poll(async () => await echoes(port), { timeout: 15_000 }).toBe(true);
    expect(await portOf('again')).toBe(port);
    await docker('restart', '-t', '0', 'again');
    await expect.poll(async () => await echoes(port), { timeout: 15_000 }).toBe(true);
    await docker('rm', '-f', 'again');
  });
});

describe('what is refused', () => {
  test.each([
    ['an address of others', ['-p', `192.0.2.1:1234:${String(TCP)}`], /192\.0\.2\.1 is not an address of yours/],
    ['SCTP', ['-p', `1234:${String(TCP)}/sctp`], /sctp"? cannot be published/],
  ] as const)('%s', async (_name, flags, why) => {
    const refused = await node.docker(TENANT, ['run', '-d', '--name', 'refused', ...flags, 'hello']);
    await node.docker(TENANT, ['rm', '-f', 'refused']);
    expect(refused).toMatchObject({ exitCode: 125, stderr: matching(why) });
  });

  test('the ports of the node itself, and of other programs on the machine', async () => {
    for (const own of [node.ports.docker, node.ports.http, node.ports.https, node.ports.metrics]) {
      const refused = await node.docker(TENANT, ['run', '-d', '--name', 'own', '-p', `${String(own)}:${String(TCP)}`, 'hello']);
      await node.docker(TENANT, ['rm', '-f', 'own']);
      expect(refused.stderr).toContain(`Bind for 0.0.0.0:${String(own)} failed: port is already allocated`);
    }
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const address = other.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    const refused = await node.docker(TENANT, ['run', '-d', '--name', 'own', '-p', `${String(port)}:${String(TCP)}`, 'hello']);
    await node.docker(TENANT, ['rm', '-f', 'own']);
    other.close();
    expect(refused.stderr).toContain(`listen tcp4 0.0.0.0:${String(port)}: bind: address already in use`);
  });

  test('more than the quota, and bad JSON in Docker’s way', async () => {
    await ecluse('tenant', 'set', TENANT, '--ports', '1');
    const two = await node.docker(TENANT, ['run', '-d', '--name', 'many', '-p', '7000', '-p', '7001', 'hello']);
    await node.docker(TENANT, ['rm', '-f', 'many']);
    await ecluse('tenant', 'set', TENANT, '--ports', '100');
    expect(two.stderr).toContain('its quota is 1');
    const credentials = await credentialsOf(node, TENANT);
    const body = { Image: 'hello', HostConfig: { portbindings: { '80/tcp': [{ hostport: '99999' }] } } };
    const answer = await callApi(node, credentials, { method: 'POST', path: '/v1.41/containers/create', body });
    expect(answer).toMatchObject({ status: 400, text: containing('invalid port specification: \\"99999\\"') });
  });
});

describe('tenants with addresses of their own', () => {
  beforeAll(async () => {
    await addTenant(node, 'acme', '--address', '127.0.0.2');
    await addTenant(node, 'globex', '--address', '127.0.0.3');
  });

  test('reach the endpoint there, and have the same port each', { timeout: 60_000 }, async () => {
    expect(await ecluse('tenant', 'env', 'acme')).toContain(`DOCKER_HOST=tcp://127.0.0.2:${String(node.ports.docker)}`);
    const tar = await busyboxTar(dataDir);
    const port = await freePort();
    for (const [tenant, address] of [
      ['acme', '127.0.0.2'],
      ['globex', '127.0.0.3'],
    ] as const) {
      expect(await dockerOf(tenant, address, ['import', '-', 'app'], tar)).toMatchObject({ exitCode: 0 });
      const serve = `mkdir -p /srv && echo ${tenant} >/srv/index.html && exec /bin/busybox httpd -f -p 80 -h /srv`;
      const flags = ['run', '-d', '--name', 'web', '-p', `${String(port)}:80`, 'app', '/bin/busybox', 'sh', '-c', serve];
      expect(await dockerOf(tenant, address, flags)).toMatchObject({ exitCode: 0, stderr: '' });
      await expect
        .poll(async () => (await talk(port, 'GET / HTTP/1.0\r\n\r\n', address).catch(() => undefined))?.bytes.toString(), {
          timeout: 15_000,
        })
        .toMatch(new RegExp(`${tenant}\\n$`));
    }
    expect(await echoes(port)).toBe(false); // Nobody's, at the shared address.
    for (const [tenant, address] of [
      ['acme', '127.0.0.2'],
      ['globex', '127.0.0.3'],
    ] as const)
      expect(await dockerOf(tenant, address, ['rm', '-f', 'web'])).toMatchObject({ exitCode: 0 });
  });

  test('are refused addresses that are not there, or another’s', async () => {
    for (const [address, why] of [
      ['192.0.2.1', 'is no address of this machine'],
      ['127.0.0.2', 'is the address of tenant acme'],
      ['127.0.0.1', 'is the address of the Docker endpoint'],
      ['::1', 'is no address of a tenant'],
      ['nonsense', 'is no address of a tenant'],
    ] as const) {
      const refused = await node.ecluse('tenant', 'add', 'late', '--address', address);
      expect(refused).toMatchObject({ exitCode: 1, stderr: containing(why) });
    }
  });

  test('give them back', async () => {
    await ecluse('tenant', 'set', 'globex', '--no-address');
    expect(await ecluse('tenant', 'env', 'globex')).toContain('DOCKER_HOST=tcp://127.0.0.1:');
    await ecluse('tenant', 'set', 'globex', '--address', '127.0.0.3');
    expect(await dockerOf('globex', '127.0.0.3', ['ps', '-q'])).toMatchObject({ exitCode: 0, stdout: '' });
  });
});

describe('after a crash of the node', () => {
  test('containers that went on have their ports', { timeout: 120_000 }, async () => {
    const port = await freePort();
    await startEcho('lasting', '-p', `${String(port)}:${String(TCP)}`, '-p', String(UDP));
    const random = await portOf('lasting', `${String(UDP)}/tcp`);
    node.process.kill('SIGKILL');
    await once(node.process, 'exit');
    node = await startNode({ demo: true, dataDir, ports: node.ports });
    expect(await portOf('lasting')).toBe(port);
    expect(await portOf('lasting', `${String(UDP)}/tcp`)).toBe(random);
    expect(await echoes(port)).toBe(true);
    await docker('rm', '-f', 'lasting');
    expect(await echoes(port)).toBe(false);
  });
});
