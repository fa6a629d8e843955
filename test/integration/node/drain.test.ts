/** A host that is emptied while its containers serve, and a service that grows and shrinks with its load. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';
import { startSteadyLoad } from '../../support/steady-load.ts';
import type { LoadSample, SteadyLoad } from '../../support/steady-load.ts';

/** Each request of `/slow` is in flight for a second; others are answered at once. */
const SLOW = `require('node:http').createServer((request, response) => {
  setTimeout(() => response.end('ok'), request.url === '/slow' ? 1000 : 0);
}).listen(8080)`;

/** Has 150 MiB, and 2 MiB more after each request. */
const TAKE = `const kept = [Buffer.alloc(150 << 20, 1)];
require('node:http').createServer((request, response) => {
  kept.push(Buffer.alloc(2 << 20, 1));
  response.end('ok');
}).listen(8080)`;

describe('a fleet of two hosts', () => {
  let node: TestNode;

  beforeAll(async () => {
    node = await startNode({ demo: true });
    await docker('rm', '-f', 'hello'); // The tests say what is there.
  });

  afterAll(async () => {
    await node[Symbol.asyncDispose]();
    await expectNothingLeft(node.dataDir);
  });

  const done = async (...args: readonly string[]): Promise<string> => {
    const answer = await node.ecluse(...args);
    expect(answer.stderr).toBe('');
    expect(answer.exitCode).toBe(0);
    return answer.stdout;
  };
  const docker = async (...args: readonly string[]): Promise<string> => {
    const answer = await node.docker('demo', args);
    expect(answer.stderr).toBe('');
    return answer.stdout.trim();
  };
  const hostOf = async (name: string): Promise<string> => {
    const line = (await done('ps', '-a')).split('\n').find((row) => row.split(/\s{2,}/)[2] === name);
    return line?.split(/\s{2,}/)[4] ?? '';
  };
  const runOn = async (host: string, name: string, ...labels: readonly string[]): Promise<void> => {
    const asLabels = [`ecluse.http.host=${name}.localhost`, ...labels].flatMap((label) => ['--label', label]);
    await docker('run', '-d', '--name', name, ...asLabels, 'hello');
    if ((await hostOf(name)) !== host) await done('migrate', name, '--to', host);
  };
  const load = (name: string, ratePerSecond: number, path = '/count'): SteadyLoad =>
    startSteadyLoad({ port: node.ports.https, host: `${name}.localhost`, path, caFile: node.caFile }, ratePerSecond);
  /** What a failure is to be explained by. */
  const saidByNode = (): string => node.output().slice(-4_000);
  const failed = (samples: readonly LoadSample[]): readonly LoadSample[] => samples.filter(({ status }) => status !== 200);

  test('drains a host without a failed request, and gives it back', { timeout: 240_000 }, async () => {
    for (const name of ['one', 'two', 'three']) await runOn('a', name);
    await done('suspend', 'three');
    const planned = async (): Promise<string> => await done('host', 'drain', 'a', '--dry-run');
    // Until they were measured each is taken to use a processor, and no host has room for three.
    const wanted = ['one', 'two', 'three'].map(
      (name) => expect.stringContaining(`demo/${name} would move from a to b: `) as unknown,
    );
    await expect
      .poll(async () => (await planned()).split('\n'), { timeout: 60_000, interval: 500 })
      .toEqual(expect.arrayContaining([...wanted, 'host a is active; nothing was changed']));
    const loads = [load('one', 10), load('two', 10)];
    const said = await done('host', 'drain', 'a');
    const samples = (await Promise.all(loads.map(async (one) => await one.stop()))).flat();
    expect(said).toContain('host a is drained');
    expect(samples.length).toBeGreaterThan(20);
    expect(failed(samples), saidByNode()).toEqual([]);
    for (const name of ['one', 'two', 'three']) expect(await hostOf(name)).toBe('b');
    expect(await done('ps')).toMatch(/ three .*\(asleep\)/);
    expect(await done('host', 'ls')).toMatch(/^a +up, drained /m);
    await docker('create', '--name', 'four', 'hello');
    expect(await hostOf('four')).toBe('b');
    expect(await done('explain', 'container', 'four')).toContain('a: ruled out: it is drained');
    expect(await done('host', 'undrain', 'a')).toContain('is given containers again');
    await docker('create', '--name', 'five', 'hello');
    expect(await hostOf('five')).toBe('a');
    await docker('rm', '-f', 'one', 'two', 'three', 'four', 'five');
  });

  test('says what must stay, and moves what moves only in a drain', { timeout: 120_000 }, async () => {
    await runOn('a', 'free', 'ecluse.migrate=drain');
    // Alone on b, the first one leaves a to the second.
    if ((await hostOf('free')) === 'a') await docker('run', '-d', '--name', 'fixed', '--label', 'ecluse.migrate=never', 'hello');
    const host = await hostOf('fixed');
    const said = await done('host', 'drain', host);
    expect(said).toContain('demo/fixed keeps the host busy: it has the label ecluse.migrate=never; ask its tenant, or stop it');
    expect(said).toContain(`host ${host} is draining`);
    expect(await done('host', 'ls')).toMatch(new RegExp(`^${host} +up, draining `, 'm'));
    await docker('stop', 'fixed');
    const again = await done('host', 'drain', host);
    expect(again).toContain('demo/fixed is left: it is exited');
    expect(again).toContain(`host ${host} is drained`);
    await done('host', 'undrain', host);
    const other = await hostOf('free');
    expect((await node.ecluse('migrate', 'free', '--to', other === 'a' ? 'b' : 'a')).stderr).toContain(
      'only when its host is drained',
    );
    expect(await done('host', 'drain', other)).toContain(`host ${other} is drained`);
    expect(await hostOf('free')).not.toBe(other);
    await done('host', 'undrain', other);
    expect((await node.ecluse('host', 'drain', 'nowhere')).stderr).toContain('there is no host nowhere; choose one of: a, b');
    await docker('rm', '-f', 'free', 'fixed');
  });

  test('a rebalance of a quiet fleet plans and moves nothing', async () => {
    expect(await done('rebalance', '--dry-run')).toMatch(/nothing is worth a move|host . is (empty|closing|kept)/);
  });

  test('copies come with load and go without it', { timeout: 240_000 }, async () => {
    const refused = await node.docker('demo', ['create', '--label', 'ecluse.scale.max=1', 'hello']);
    expect(refused.stderr).toContain('label ecluse.scale.max: "1" is no number from 2 to 20');
    const labels = ['ecluse.http.host=grow.localhost', 'ecluse.scale.max=3', 'ecluse.scale.requests=2'];
    await docker(
      'run',
      '-d',
      '--name',
      'grow',
      ...labels.flatMap((label) => ['--label', label]),
      'hello',
      '/usr/local/bin/node',
      '-e',
      SLOW,
    );
    const copies = async (): Promise<number> =>
      (await docker('ps', '-q', '--filter', 'label=ecluse.scale.of')).split('\n').filter(Boolean).length;
    // At once: what comes before the program listens waits for it.
    const busy = load('grow', 8, '/slow');
    await expect.poll(copies, { timeout: 90_000, interval: 1000 }).toBe(2);
    const first = await busy.stop();
    expect(failed(first), saidByNode()).toEqual([]);
    const quiet = load('grow', 2);
    await expect.poll(copies, { timeout: 140_000, interval: 1000 }).toBe(0);
    const samples = await quiet.stop();
    expect(failed(samples), saidByNode()).toEqual([]);
    const events = await done('events', '--last', '200');
    expect(events).toMatch(/scale\.up .*name=grow/);
    expect(events).toMatch(/scale\.down .*name=grow-\d/);
    await docker('rm', '-f', 'grow');
  });

  test('a container that comes near its memory limit is given more, while it serves', { timeout: 180_000 }, async () => {
    const refused = await node.docker('demo', ['create', '-m', '64m', '--label', 'ecluse.scale.memory.max=32m', 'hello']);
    expect(refused.stderr).toContain("label ecluse.scale.memory.max: it is below the container's own limit");
    const labels = ['--label', 'ecluse.http.host=take.localhost', '--label', 'ecluse.scale.memory.max=1g'];
    const program = ['/usr/local/bin/node', '-e', TAKE];
    await docker('run', '-d', '--name', 'take', '-m', '256m', '--memory-swap', '256m', ...labels, 'hello', ...program);
    const limit = async (): Promise<number> => Number(await docker('inspect', '-f', '{{.HostConfig.Memory}}', 'take'));
    expect(await limit()).toBe(256 * 1024 ** 2);
    const taking = load('take', 1);
    await expect.poll(limit, { timeout: 120_000, interval: 1000 }).toBe(320 * 1024 ** 2);
    expect(failed(await taking.stop()), saidByNode()).toEqual([]);
    expect(await docker('inspect', '-f', '{{.RestartCount}} {{.State.Running}}', 'take')).toBe('0 true');
    expect(await done('events', '--last', '50')).toMatch(/scale\.memory .*name=take/);
    await docker('rm', '-f', 'take');
  });
});
