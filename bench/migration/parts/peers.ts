/**
 * What people have without Écluse, with the same app under the same load, in a plain dockerd: Docker's own checkpoint and start from it, and stop
 * and start; under runc and under gVisor. The container comes back on the same engine: Docker has no move.
 */
import { writeFile } from 'node:fs/promises';
import { tryCommand } from '#command';
import { probeRunsc } from '#isolation/runsc-probe.ts';
import { startPlainDocker } from '../../../test/support/plain-docker.ts';
import type { PlainDocker } from '../../../test/support/plain-docker.ts';
import { Stage } from '../../proxy/stage.ts';
import { APP_PORT, importAppImage, mustDocker, startApp } from '../app.ts';
import type { Seen } from '../clients/seen.ts';
import { startLoad } from '../load.ts';
import type { LoadSettings } from '../load.ts';
import { clientsSeen, spreadOf } from '../summary.ts';

export interface PeerCourse {
  readonly sizesMib: readonly number[];
  readonly rounds: number;
  readonly load: LoadSettings;
  readonly say: (line: string) => void;
}

interface Peer {
  readonly name: string;
  readonly runtime: 'runc' | 'gvisor';
  readonly act: (env: NodeJS.ProcessEnv, round: number) => Promise<Readonly<Record<string, number>>>;
}

const APP = 'peer';
/** A peer whose app never answered in so many rounds on end is not coming back. */
const SILENT_ROUNDS_MAX = 2;

const PEERS: readonly Peer[] = [
  { name: 'stop + start, runc', runtime: 'runc', act: stopAndStart },
  { name: 'stop + start, gVisor', runtime: 'gvisor', act: stopAndStart },
  { name: 'docker checkpoint + start --checkpoint, runc', runtime: 'runc', act: checkpointAndStart },
  { name: 'docker checkpoint + start --checkpoint, gVisor', runtime: 'gvisor', act: checkpointAndStart },
];

export async function peers(course: PeerCourse): Promise<object> {
  await using stage = await Stage.open();
  const runtime = stage.path('runsc-for-docker');
  await writeFile(runtime, await runtimeScript(), { mode: 0o755 });
  await using docker = await startPlainDocker({ experimental: true, runtimes: { gvisor: { path: runtime } } });
  await importAppImage(docker.env, stage.path('image.tar'));
  const criu = await criuFault();
  const rows: object[] = [];
  for (const liveMib of course.sizesMib) {
    for (const peer of PEERS) {
      const about = { peer: peer.name, liveMib };
      if (criu !== undefined && peer.act === checkpointAndStart && peer.runtime === 'runc') {
        rows.push({ ...about, available: false, reason: criu });
        continue;
      }
      rows.push({ ...about, ...(await measured({ stage, docker, peer, liveMib }, course)) });
    }
  }
  return { rows };
}

interface Bout {
  readonly stage: Stage;
  readonly docker: PlainDocker;
  readonly peer: Peer;
  readonly liveMib: number;
}

async function measured({ stage, docker, peer, liveMib }: Bout, course: PeerCourse): Promise<object> {
  const windows: Seen[] = [];
  const steps: Readonly<Record<string, number>>[] = [];
  const flags = ['--runtime', peer.runtime, '--publish', `${String(APP_PORT)}:${String(APP_PORT)}`];
  await startApp(docker.env, { name: APP, liveMib, flags });
  try {
    const beside = ['nsenter', '--target', docker.pid, '--net', '--'];
    await using load = await startLoad(stage, { port: APP_PORT, host: 'peer.localhost' }, course.load, beside);
    let silentRounds = 0;
    for (let round = 0; round < course.rounds && silentRounds < SILENT_ROUNDS_MAX; round += 1) {
      const window = await load.during(async () => {
        steps.push(await peer.act(docker.env, round));
      });
      windows.push(window);
      silentRounds = window.requests.failed === window.requests.requests ? silentRounds + 1 : 0;
      course.say(
        `${peer.name}, ${String(liveMib)} MiB, round ${String(round)}: gap ${String(Math.round(window.requests.gapMs))} ms, ${String(window.requests.failed)} of ${String(window.requests.requests)} failed ${JSON.stringify(steps.at(-1))}`,
      );
    }
  } catch (error) {
    return { available: false, reason: String(error).slice(0, 1000), rounds: windows.length };
  } finally {
    await mustDocker(docker.env, ['rm', '--force', APP]);
  }
  const names = Object.keys(steps[0] ?? {});
  return {
    available: true,
    rounds: windows.length,
    gaveUp: windows.length < course.rounds,
    stepsMs: Object.fromEntries(names.map((name) => [name, spreadOf(steps.map((step) => step[name] ?? Number.NaN))])),
    clients: clientsSeen(windows),
  };
}

async function stopAndStart(env: NodeJS.ProcessEnv): Promise<Readonly<Record<string, number>>> {
  return { stop: await timed(env, ['stop', APP]), start: await timed(env, ['start', APP]) };
}

async function checkpointAndStart(env: NodeJS.ProcessEnv, round: number): Promise<Readonly<Record<string, number>>> {
  const name = `c${String(round)}`;
  const checkpoint = await timed(env, ['checkpoint', 'create', APP, name]);
  await mustDocker(env, ['wait', APP]);
  const start = await timed(env, ['start', '--checkpoint', name, APP]);
  await mustDocker(env, ['checkpoint', 'rm', APP, name]);
  return { checkpoint, start };
}

async function timed(env: NodeJS.ProcessEnv, args: readonly string[]): Promise<number> {
  const startMs = performance.now();
  await mustDocker(env, args);
  return performance.now() - startMs;
}

/** runsc as an engine can call it, with what this machine and this build need. */
async function runtimeScript(): Promise<string> {
  const { path, netDisconnectOk, needsProcSysNetMask } = await probeRunsc();
  const flags = `--platform=systrap --network=sandbox${netDisconnectOk ? ' --net-disconnect-ok' : ''}`;
  const run = `exec ${path} ${flags} "$@"`;
  if (!needsProcSysNetMask) return `#!/bin/sh\n${run}\n`;
  return `#!/bin/sh\nexec unshare -m --propagation slave sh -c 'mount -t tmpfs -o ro none /proc/sys/net && ${run}' runsc "$@"\n`;
}

/** Why runc cannot save a container here; undefined where it can. */
async function criuFault(): Promise<string | undefined> {
  const { exitCode, stdout, stderr } = await tryCommand('criu', ['check']);
  if (exitCode === 0) return undefined;
  return exitCode === 127 ? 'criu is not installed' : `criu check fails: ${`${stdout}${stderr}`.trim().slice(0, 500)}`;
}
