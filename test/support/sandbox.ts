/** A gVisor sandbox without an engine, through the wrapper as engines call it: a Node process with a heap of random bytes, some of which it changes. */
import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock, waitFor } from '#clock';
import { runCommand, tryCommand } from '#command';
import { detectCgroups } from '#isolation/cgroup.ts';
import type { Cgroups } from '#isolation/cgroup.ts';
import type { SandboxPlace } from '#isolation/checkpoint.ts';
import { probeRunsc } from '#isolation/runsc-probe.ts';
import type { RunscCapabilities } from '#isolation/runsc-probe.ts';
import { WRAPPER_FILE, writeRuntimeSettings } from '#isolation/runtime-settings.ts';
import { programEntries, writeRootFs } from '../../src/demo-root-fs.ts';

const START_LIMIT_MS = 180_000;

export interface HeapSandbox extends AsyncDisposable {
  readonly cgroups: Cgroups;
  readonly runsc: RunscCapabilities;
  readonly place: SandboxPlace;
  pids(): Promise<readonly number[]>;
  pause(): Promise<void>;
  resume(): Promise<void>;
}

/** Half of each page is random, so that no page is like another, and compressing them gains something. */
const HEAP_PROGRAM = `
const { randomFillSync } = require('node:crypto');
const { writeFileSync } = require('node:fs');
const PAGE = 4096;
const CHUNK = 4 * 1024 * 1024;
const chunks = Array.from({ length: Number(process.argv[2]) / 4 }, () => {
  const chunk = Buffer.alloc(CHUNK);
  for (let at = 0; at < CHUNK; at += PAGE) randomFillSync(chunk, at, PAGE / 2);
  return chunk;
});
const perStep = Number(process.argv[3]) / 50;
let owed = 0;
let count = 0;
setInterval(() => {
  for (owed += perStep; owed >= 1; owed -= 1) {
    const chunk = chunks[Math.floor(Math.random() * chunks.length)];
    chunk.writeUInt32LE((count = (count + 1) >>> 0), Math.floor(Math.random() * (CHUNK / PAGE)) * PAGE + 2048);
  }
}, 20);
writeFileSync('/ready/heap', 'yes');
`;

/** `heapMib` is a multiple of 4; `dirtyPagesPerSecond` random pages change. */
export async function startHeapSandbox(options: {
  readonly heapMib: number;
  readonly dirtyPagesPerSecond: number;
}): Promise<HeapSandbox> {
  const [cgroups, runsc] = await Promise.all([detectCgroups(), probeRunsc()]);
  const folder = await mkdtemp('/tmp/ecluse-test-sandbox-');
  const engineId = `ecluse-test-${randomUUID()}`;
  const parent = `/${engineId}`;
  const runtimeDir = join(folder, 'hosts/test/runsc');
  const place: SandboxPlace = { runtimeDir, runscRoot: join(folder, 'root'), engineId, cgroup: `${parent}/${engineId}` };
  const wrapper = ['--ecluse-dir', runtimeDir, '--root', place.runscRoot];
  const sandbox: HeapSandbox = {
    cgroups,
    runsc,
    place,
    pids: async () => await cgroups.processesIn(parent),
    pause: async () => {
      await runCommand(WRAPPER_FILE, [...wrapper, 'pause', engineId]);
    },
    resume: async () => {
      await runCommand(WRAPPER_FILE, [...wrapper, 'resume', engineId]);
    },
    async [Symbol.asyncDispose](): Promise<void> {
      for (const pid of await cgroups.processesIn(parent)) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // It has ended meanwhile.
        }
      }
      await tryCommand(WRAPPER_FILE, [...wrapper, 'delete', '--force', engineId]);
      await waitFor(systemClock, async () => ((await cgroups.remove(parent)) ? true : undefined), {
        limitMs: 10_000,
        stepMs: 50,
      });
      await rm(folder, { recursive: true, force: true });
    },
  };
  try {
    await writeRuntimeSettings(runtimeDir, runsc, parent);
    await mkdir(place.runscRoot, { recursive: true });
    const bundle = join(folder, 'bundle');
    const ready = join(folder, 'ready');
    await Promise.all([mkdir(join(bundle, 'rootfs'), { recursive: true }), mkdir(ready)]);
    await writeRootFs(join(folder, 'root.tar'), [
      ...(await programEntries('/bin/node', process.execPath)),
      { kind: 'text', path: '/heap.js', text: HEAP_PROGRAM },
      ...['/ready', '/proc', '/tmp'].map((path) => ({ kind: 'directory', path, mode: 0o755 }) as const),
    ]);
    await runCommand('tar', ['-xf', join(folder, 'root.tar'), '-C', join(bundle, 'rootfs')]);
    const args = ['/bin/node', '/heap.js', String(options.heapMib), String(options.dirtyPagesPerSecond)];
    await writeFile(join(bundle, 'config.json'), JSON.stringify(bundleConfig({ args, ready, cgroup: place.cgroup })));
    // What `create` starts holds on to its standard output; a file lets the command end.
    const create = [
      '-c',
      'exec "$0" "$@" >/dev/null 2>&1 </dev/null',
      WRAPPER_FILE,
      ...wrapper,
      'create',
      '--bundle',
      bundle,
      engineId,
    ];
    await runCommand('sh', create);
    await runCommand(WRAPPER_FILE, [...wrapper, 'start', engineId]);
    const isReady = async (): Promise<true | undefined> =>
      (await readFile(join(ready, 'heap'), 'utf8').catch(() => '')) === 'yes' ? true : undefined;
    if ((await waitFor(systemClock, isReady, { limitMs: START_LIMIT_MS, stepMs: 50 })) === undefined) {
      throw new Error('the sandbox did not fill its heap in time');
    }
    return sandbox;
  } catch (error) {
    await sandbox[Symbol.asyncDispose]();
    throw error;
  }
}

function bundleConfig(sandbox: { readonly args: readonly string[]; readonly ready: string; readonly cgroup: string }): object {
  return {
    ociVersion: '1.0.0',
    process: { user: { uid: 0, gid: 0 }, args: sandbox.args, env: ['PATH=/bin'], cwd: '/' },
    root: { path: 'rootfs', readonly: true },
    hostname: 'heap',
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/ready', type: 'bind', source: sandbox.ready, options: ['rbind', 'rw'] },
    ],
    linux: { cgroupsPath: sandbox.cgroup, namespaces: ['pid', 'network', 'ipc', 'uts', 'mount'].map((type) => ({ type })) },
  };
}
