/**
 * What does the tenants' Docker endpoint cost beside the engine behind it?
 *
 * The same engine in one run, asked through Écluse (TLS, client certificate) and directly on its socket, interleaved; medians and their ratio:
 * `run` (`docker run --rm IMAGE true`), `ps` (`docker ps -a` with N containers), `logs` (a log read at full speed), `load` (an image of N MB).
 * `readers`: what slow readers (`logs -f` that never read) and idle streams (`events`, `logs -f`) cost the daemon's memory.
 *
 * `--parts run,ps,logs,load,readers` `--rounds N` (default 10) `--containers N` (default 1000) `--load-mb N` (default 500) `--streams N` (default 1000).
 */
import { createWriteStream } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { buffer } from 'node:stream/consumers';
import { connect } from 'node:tls';
import type { TLSSocket } from 'node:tls';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { pack } from 'tar-stream';
import { busyboxTar, credentialsOf } from '../test/support/docker-api.ts';
import { addTenant, run, startNode } from '../test/support/node.ts';
import type { CommandAnswer } from '../test/support/node.ts';
import { machine, quantile, versions } from './machine.ts';

const { values } = parseArgs({
  options: {
    parts: { type: 'string', default: 'run,ps,logs,load,readers' },
    rounds: { type: 'string', default: '10' },
    containers: { type: 'string', default: '1000' },
    'load-mb': { type: 'string', default: '500' },
    streams: { type: 'string', default: '1000' },
  },
});
const parts = new Set(values.parts.split(','));
const rounds = Number(values.rounds);
const MIB = 1024 * 1024;

await using node = await startNode({ hosts: ['a'] });
await addTenant(node, 'bench', '--containers', '5000', '--memory', '4000g');
const archive = await busyboxTar(node.dataDir);
const direct = { ...process.env, DOCKER_HOST: `unix://${join(node.dataDir, 'hosts', 'a', 'docker.sock')}` };
const through = node.dockerEnv('bench');

async function must(env: NodeJS.ProcessEnv, args: readonly string[], input?: Buffer): Promise<CommandAnswer> {
  const answer = await run('docker', args, { env, timeoutMs: 600_000, ...(input === undefined ? {} : { input }) });
  if (answer.exitCode !== 0) throw new Error(`docker ${args.join(' ')}: ${answer.stderr}`);
  return answer;
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await work();
  return performance.now() - startMs;
}

/** A tenant has 958 addresses on a host; the rest of a thousand containers have no network. */
const ON_NETWORK_MAX = 900;

async function createAll(names: string[]): Promise<void> {
  for (let name = names.shift(); name !== undefined; name = names.shift())
    await must(through, [
      'create',
      '--name',
      name,
      '--network',
      Number(name.slice(1)) < ON_NETWORK_MAX ? 'bridge' : 'none',
      'bb',
      'sleep',
      '1',
    ]);
}

interface Comparison {
  readonly rounds: number;
  readonly ecluseMsP50: number;
  readonly directMsP50: number;
  readonly ratio: number;
}

/** Both sides in turn, the order changing with each round; the first pair warms up and does not count. */
async function compare(
  sides: { readonly ecluse: () => Promise<unknown>; readonly direct: () => Promise<unknown> },
  count = rounds,
): Promise<Comparison> {
  const times = { ecluse: [] as number[], direct: [] as number[] };
  for (let round = 0; round <= count; round += 1) {
    const order = round % 2 === 0 ? (['ecluse', 'direct'] as const) : (['direct', 'ecluse'] as const);
    for (const side of order) {
      const ms = await timed(sides[side]);
      if (round > 0) times[side].push(ms);
    }
  }
  const ecluseMs = quantile(times.ecluse, 0.5);
  const directMs = quantile(times.direct, 0.5);
  return {
    rounds: count,
    ecluseMsP50: Math.round(ecluseMs),
    directMsP50: Math.round(directMs),
    ratio: Number((ecluseMs / directMs).toFixed(3)),
  };
}

async function memoryMib(): Promise<number> {
  const status = await readFile(`/proc/${String(node.process.pid)}/status`, 'utf8');
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024);
}

const results: Record<string, unknown> = {};
await must(through, ['import', '-', 'bb'], archive);
const imageId = (await must(through, ['images', '-q', '--no-trunc', 'bb'])).stdout.trim();
await must(through, ['run', '--rm', 'bb', 'true']); // The tenant's network is made with its first container.
const network =
  (await must(direct, ['network', 'ls', '--filter', 'driver=bridge', '--format', '{{.Name}}'])).stdout.trim().split('\n')[0] ??
  '';

if (parts.has('run')) {
  results['run'] = await compare({
    ecluse: async () => await must(through, ['run', '--rm', 'bb', 'true']),
    direct: async () => await must(direct, ['run', '--rm', '--network', network, imageId, 'true']),
  });
}

if (parts.has('ps')) {
  const count = Number(values.containers);
  const names = Array.from({ length: count }, (_, index) => `c${String(index)}`);
  const makeMs = await timed(async () => {
    await Promise.all([1, 2, 3, 4].map(async () => await createAll(names)));
  });
  results['ps'] = {
    containers: count,
    makeMs: Math.round(makeMs),
    ...(await compare({
      ecluse: async () => await must(through, ['ps', '-a']),
      direct: async () => await must(direct, ['ps', '-a']),
    })),
  };
  const ids = (await must(through, ['ps', '-aq'])).stdout.trim().split('\n');
  for (let at = 0; at < ids.length; at += 100) await must(through, ['rm', ...ids.slice(at, at + 100)]);
}

if (parts.has('logs') || parts.has('readers')) {
  // Rotation keeps 3 files of 10 MB: this much is there to be read. Lines as programs write them.
  await must(through, [
    'run',
    '-d',
    '--name',
    'talker',
    'bb',
    'sh',
    '-c',
    'yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 16000000; sleep 100000',
  ]);
  await delay(8000);
}
const engineName = (await must(direct, ['ps', '-a', '--format', '{{.Names}}'])).stdout.trim().split('\n')[0] ?? '';

if (parts.has('logs')) {
  const bytes = (await must(through, ['logs', 'talker'])).stdout.length;
  results['logs'] = {
    bytes,
    ...(await compare({
      ecluse: async () => await must(through, ['logs', 'talker']),
      direct: async () => await must(direct, ['logs', engineName]),
    })),
  };
}

/** A `docker save` archive with one layer of random bytes. */
async function writeArchive(file: string, megabytes: number, name: string): Promise<void> {
  const layer = pack();
  const whole = buffer(layer);
  const random = randomBytes(MIB);
  const entry = layer.entry({ name: 'data', size: megabytes * MIB });
  for (let index = 0; index < megabytes; index += 1) {
    random.writeUInt32BE(index, 0);
    entry.write(Buffer.from(random));
  }
  entry.end(Buffer.alloc(0));
  layer.finalize();
  const layerBytes = await whole;
  const diffId = `sha256:${createHash('sha256').update(layerBytes).digest('hex')}`;
  const config = Buffer.from(
    JSON.stringify({ architecture: 'amd64', os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: [diffId] } }),
  );
  const configName = `${createHash('sha256').update(config).digest('hex')}.json`;
  const tar = pack();
  const done = once(tar.pipe(createWriteStream(file)), 'finish');
  tar.entry({ name: configName }, config);
  tar.entry({ name: 'layer/layer.tar' }, layerBytes);
  tar.entry({ name: 'manifest.json' }, JSON.stringify([{ Config: configName, RepoTags: [name], Layers: ['layer/layer.tar'] }]));
  tar.finalize();
  await done;
}

if (parts.has('load')) {
  const megabytes = Number(values['load-mb']);
  // Two archives, because the engine skips layers that it has.
  const files = { ecluse: join(node.dataDir, 'one.tar'), direct: join(node.dataDir, 'two.tar') };
  await writeArchive(files.ecluse, megabytes, 'one:1');
  await writeArchive(files.direct, megabytes, 'two:1');
  const times = { ecluse: [] as number[], direct: [] as number[] };
  const loads = Math.max(3, Math.floor(rounds / 2));
  for (let round = 0; round < loads; round += 1) {
    await must(through, ['rmi', '-f', 'one:1']).catch(() => undefined);
    await must(direct, ['rmi', '-f', 'two:1']).catch(() => undefined);
    const order = round % 2 === 0 ? (['ecluse', 'direct'] as const) : (['direct', 'ecluse'] as const);
    for (const side of order) {
      const env = side === 'ecluse' ? through : direct;
      times[side].push(await timed(async () => await must(env, ['load', '-q', '-i', files[side]])));
    }
  }
  const ecluseMs = quantile(times.ecluse, 0.5);
  const directMs = quantile(times.direct, 0.5);
  results['load'] = {
    megabytes,
    rounds: loads,
    ecluseMsP50: Math.round(ecluseMs),
    directMsP50: Math.round(directMs),
    ratio: Number((ecluseMs / directMs).toFixed(3)),
  };
  for (const file of Object.values(files)) await rm(file);
}

if (parts.has('readers')) {
  const count = Number(values.streams);
  await node.ecluse('tenant', 'set', 'bench', '--containers', '5000');
  const credentials = await credentialsOf(node, 'bench');
  const open = async (path: string, reads: boolean): Promise<TLSSocket> => {
    const socket = connect({ host: '127.0.0.1', port: node.ports.docker, ...credentials });
    socket.on('error', () => undefined);
    await once(socket, 'secureConnect');
    socket.write(`GET /v1.41${path} HTTP/1.1\r\nHost: docker\r\n\r\n`);
    if (reads) socket.resume();
    else socket.pause();
    return socket;
  };
  const measure = async (path: string, reads: boolean): Promise<Readonly<Record<string, number>>> => {
    const before = await memoryMib();
    const sockets: TLSSocket[] = [];
    // A tenant may have 1 000 requests open; a few less leave room for our own.
    for (let index = 0; index < Math.min(count, 990); index += 1) sockets.push(await open(path, reads));
    await delay(5000);
    const during = await memoryMib();
    for (const socket of sockets) socket.destroy();
    await delay(3000);
    return {
      streams: sockets.length,
      beforeMib: before,
      duringMib: during,
      afterMib: await memoryMib(),
      kibEach: Math.round(((during - before) * 1024) / sockets.length),
    };
  };
  results['readers'] = {
    neverReadingLogs: await measure('/containers/talker/logs?stdout=1&follow=1', false),
    idleEvents: await measure('/events', true),
    idleLogs: await measure('/containers/talker/logs?stdout=1&follow=1&tail=0', true),
  };
}

process.stdout.write(
  `${JSON.stringify({ bench: 'docker-endpoint', machine: machine(), versions: versions(), ...results }, undefined, 2)}\n`,
);
