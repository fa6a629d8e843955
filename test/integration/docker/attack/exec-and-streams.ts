/** Attacks through exec sessions, process lists, copies, and streams that nobody reads. */
import { readFile, readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';
import type { Header } from 'tar-stream';
import { expect } from 'vitest';
import * as z from 'zod';
import { connectTls } from '../../../support/docker-api.ts';
import type { AttackWorld } from '../../../support/attack.ts';
import { allRefused, get, indistinct, post, succeed, UPGRADE } from './cases.ts';
import type { AttackCase } from './cases.ts';

const sessions: readonly AttackCase[] = [
  ...indistinct('exec', 'exec', {
    inspect: (id) => get(`/exec/${id}/json`),
    start: (id) => post(`/exec/${id}/start`, { Detach: true }),
    'start attached': (id) => post(`/exec/${id}/start`, { Detach: false, Tty: false }),
    'start upgraded': (id) => ({ ...post(`/exec/${id}/start`, {}), headers: { ...UPGRADE, 'content-type': 'application/json' } }),
    resize: (id) => post(`/exec/${id}/resize?h=1&w=1`),
  }),
  ...indistinct('exec', 'container', {
    create: (name) => post(`/containers/${name}/exec`, { Cmd: ['true'] }),
    'create at 1.24': (name) => post(`/v1.24/containers/${name}/exec`, { Cmd: ['true'] }),
  }),
  ...allRefused(
    'exec',
    {
      privileged: post('/containers/ownbox/exec', { Cmd: ['id'], Privileged: true }),
      'privileged in lower case': post('/containers/ownbox/exec', { cmd: ['id'], privileged: true }),
      'privileged twice': {
        ...post('/containers/ownbox/exec', '{"Cmd":["id"],"Privileged":false,"privileged":true}'),
        headers: { 'content-type': 'application/json' },
      },
      nothing: post('/containers/ownbox/exec', {}),
    },
    { status: [400, 403] },
  ),
];

const topSchema = z.object({ Titles: z.array(z.string()), Processes: z.array(z.array(z.string())) });

/** What runs on this machine and in no container of the attacker's. */
async function hostPids(): Promise<ReadonlySet<string>> {
  return new Set((await readdir('/proc')).filter((name) => /^\d+$/.test(name)));
}

const psArgs = [
  '',
  'aux',
  '-ef',
  'ewww',
  '-eo pid,args',
  'auxe',
  '-o pid,cmd -p 1',
  '-A -o args',
  '-e; cat /etc/passwd',
  '--pid 1',
  '-C dockerd',
  '$(id)',
];

const top: readonly AttackCase[] = [
  ...indistinct('top', 'container', {
    top: (name) => get(`/containers/${name}/top`),
    'top with arguments': (name) => get(`/containers/${name}/top?ps_args=ewww`),
  }),
  {
    row: 'top',
    name: 'no arguments show a process of the host',
    run: async (world) => {
      expect((await hostPids()).size).toBeGreaterThan(20);
      for (const args of psArgs) {
        const answer = await world.ask(get(`/containers/ownbox/top?ps_args=${encodeURIComponent(args)}`));
        expect(answer.text, args).not.toMatch(/dockerd|containerd|runsc|vitest|root:x:0:0/);
        if (answer.status !== 200) {
          expect([400, 403, 500], args).toContain(answer.status);
          continue;
        }
        const { Processes } = topSchema.parse(JSON.parse(answer.text));
        expect(Processes.length, args).toBeLessThanOrEqual(3);
      }
    },
  },
  {
    row: 'top',
    name: 'no arguments show an environment',
    run: async (world) => {
      for (const args of ['e', 'ewww', 'auxewww', 'axe', '-ef e', 'axo pid,environ']) {
        const answer = await world.ask(get(`/containers/ownbox/top?ps_args=${encodeURIComponent(args)}`));
        expect(answer.text, args).not.toMatch(/PATH=|ECLUSE|HOME=\/root/);
      }
    },
  },
];

type Entry = Pick<Header, 'name'> & Partial<Header>;

async function tar(...entries: readonly (readonly [Entry, string])[]): Promise<Buffer> {
  const packing = pack();
  for (const [header, text] of entries) packing.entry(header, text);
  packing.finalize();
  return await buffer(packing);
}

const MARK = `ecluse-attack-${String(process.pid)}`;

/** Puts an archive into the attacker's own container; whatever is answered, the host has nothing of it. */
async function putIn(world: AttackWorld, path: string, body: Buffer): Promise<void> {
  const answer = await world.ask({
    method: 'PUT',
    path: `/containers/ownbox/archive?path=${encodeURIComponent(path)}`,
    body,
    headers: { 'content-type': 'application/x-tar' },
  });
  expect([200, 400, 403, 404, 500], answer.text).toContain(answer.status);
  expect(answer.text).not.toContain(world.node.dataDir);
  for (const folder of ['/', '/tmp', '/etc', '/root', world.node.dataDir]) {
    expect(
      (await readdir(folder)).filter((name) => name.includes(MARK)),
      folder,
    ).toEqual([]);
  }
  await succeed(world, post('/containers/ownbox/exec', { Cmd: ['true'] }));
}

/** Runs a command in the attacker's own container. */
async function runInside(world: AttackWorld, command: string): Promise<string> {
  const { Id } = z
    .object({ Id: z.string() })
    .parse(
      JSON.parse(
        await succeed(
          world,
          post('/containers/ownbox/exec', { Cmd: ['sh', '-c', command], AttachStdout: true, AttachStderr: true, Tty: true }),
        ),
      ),
    );
  return await succeed(world, post(`/exec/${Id}/start`, { Detach: false, Tty: true }));
}

const archives: readonly AttackCase[] = [
  ...indistinct('archive', 'container', {
    read: (name) => get(`/containers/${name}/archive?path=/ore`),
    look: (name) => ({ method: 'HEAD', path: `/containers/${name}/archive?path=/ore` }),
    write: (name) => ({
      method: 'PUT',
      path: `/containers/${name}/archive?path=/ore`,
      body: Buffer.alloc(1024),
      headers: { 'content-type': 'application/x-tar' },
    }),
  }),
  {
    row: 'archive',
    name: 'paths that climb end at the container’s root',
    run: async (world) => {
      const machine = (await readFile('/etc/hostname', 'utf8').catch(() => '')).trim();
      for (const path of [
        '/../../../../../../etc/hostname',
        '../../../../../../proc/1/root/etc/hostname',
        '/proc/1/cwd/../../../../etc/machine-id',
      ]) {
        const answer = await world.ask(get(`/containers/ownbox/archive?path=${encodeURIComponent(path)}`));
        if (machine !== '') expect(answer.text, path).not.toContain(`${machine}\n`);
        expect(answer.text).not.toContain(world.node.dataDir);
      }
    },
  },
  {
    row: 'archive',
    name: 'entries that climb write nothing on the host',
    run: async (world) => {
      await putIn(
        world,
        '/tmp',
        await tar([{ name: `../../../../../../tmp/${MARK}` }, 'x'], [{ name: `/tmp/../../../etc/${MARK}` }, 'x']),
      );
      await putIn(world, '/../../../../../../tmp', await tar([{ name: MARK }, 'x']));
    },
  },
  {
    row: 'archive',
    name: 'links to the host are links inside',
    run: async (world) => {
      const links = await tar(
        [{ name: 'way', type: 'symlink', linkname: '/../../../../../../tmp' }, ''],
        [{ name: `way/${MARK}` }, 'x'],
      );
      await runInside(world, 'mkdir -p /mnt');
      await putIn(world, '/mnt', links);
      await putIn(world, '/mnt/way', await tar([{ name: MARK }, 'x']));
      await putIn(
        world,
        '/tmp',
        await tar([{ name: `${MARK}-hard`, type: 'link', linkname: '../../../../../../etc/shadow' }, '']),
      );
    },
  },
  {
    row: 'archive',
    name: 'a link that the container swaps while it is copied leads nowhere else',
    run: async (world) => {
      await runInside(
        world,
        'mkdir -p /srv; (while true; do rm -rf /srv/swap; ln -s / /srv/swap; rm -rf /srv/swap; mkdir /srv/swap; done) >/dev/null 2>&1 & echo $! >/srv/swapper',
      );
      for (let round = 0; round < 10; round++) {
        await putIn(world, '/srv/swap', await tar([{ name: MARK }, 'x']));
        const answer = await world.ask(get('/containers/ownbox/archive?path=/srv/swap'));
        expect(answer.text).not.toContain('lost+found');
        expect(answer.text).not.toContain(world.node.dataDir);
      }
      await runInside(world, 'kill $(cat /srv/swapper); rm -rf /srv');
    },
  },
];

const hostTraces =
  /\/var\/lib\/docker(?!\/volumes\/\w+\/_data)|\/hosts\/a\/|overlay2\/|\/run\/netns|docker\.sock|containerd|\/sys\/fs\/cgroup/;

const answers = [
  '/containers/ownbox/json',
  '/containers/ownbox/json?size=1',
  '/containers/json?all=1&size=1',
  '/images/own:1/json',
  '/images/json?all=1',
  '/networks',
  '/volumes',
  '/info',
  '/version',
  '/system/df',
];

function clean(path: string): AttackCase {
  return {
    row: 'inspect output',
    name: `${path} names nothing of the host and nobody else`,
    run: async (world) => {
      const text = await succeed(world, get(path));
      expect(text).not.toMatch(hostTraces);
      expect(text).not.toContain(world.node.dataDir);
      const ids = Object.values(world.references).map(([id = '']) => id);
      for (const word of ['globex', 'granite', 'basaltnet', 'oredata', 'quartz', ...ids]) expect(text).not.toContain(word);
    },
  };
}

const inspected = answers.map(clean);

/** Bytes of memory that a process has. */
async function residentBytes(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${String(pid)}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

/** Streams that are opened and never read. */
async function neglect(world: AttackWorld, path: string, count: number): Promise<number> {
  const before = await residentBytes(world.node.process.pid);
  const sockets = await Promise.all(Array.from({ length: count }, async () => await connectTls(world.node, world.credentials)));
  try {
    for (const socket of sockets) {
      socket.pause();
      socket.write(`GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`);
    }
    await delay(1500);
    const startMs = performance.now();
    expect((await world.askAsVictim(get('/containers/json'))).status).toBe(200);
    expect(performance.now() - startMs, 'the other tenant waits').toBeLessThan(3000);
    return (await residentBytes(world.node.process.pid)) - before;
  } finally {
    for (const socket of sockets) socket.destroy();
    await delay(200);
  }
}

/** Each of these attacks would gather 400 MB or more. A heap that has not been swept yet grows by some 50. */
const GROWTH_BYTES_MAX = 160 * 1024 * 1024;

const slow: readonly AttackCase[] = [
  {
    row: 'slow readers',
    name: 'logs that nobody reads wait in the engine, not in the gateway',
    run: async (world) => {
      await succeed(
        world,
        post('/containers/create?name=flood', {
          Image: 'own:1',
          Cmd: ['sh', '-c', 'yes flood | head -c 30000000; sleep 3600'],
          HostConfig: { Memory: 128 * 1024 * 1024 },
        }),
      );
      await succeed(world, post('/containers/flood/start'));
      await delay(1000);
      const grown = await neglect(world, '/containers/flood/logs?stdout=1&follow=1', 30);
      expect(grown).toBeLessThan(GROWTH_BYTES_MAX);
      await succeed(world, { method: 'DELETE', path: '/containers/flood?force=1' });
    },
  },
  {
    row: 'slow readers',
    name: 'archives that nobody reads do not gather in memory',
    run: async (world) => {
      await runInside(world, 'mkdir -p /srv; head -c 20000000 /dev/zero >/srv/large');
      expect(await neglect(world, '/containers/ownbox/archive?path=/srv/large', 20)).toBeLessThan(GROWTH_BYTES_MAX);
      await runInside(world, 'rm -rf /srv');
    },
  },
  {
    row: 'slow readers',
    name: 'idle event streams of one tenant are bounded or cheap',
    run: async (world) => {
      expect(await neglect(world, '/events', 100)).toBeLessThan(GROWTH_BYTES_MAX);
      expect((await world.ask(get('/_ping'))).text).toBe('OK');
    },
  },
];

export const execAndStreamCases: readonly AttackCase[] = [...sessions, ...top, ...archives, ...inspected, ...slow];
