/** A scene: origin and peers side by side, measured case by case in interleaved rounds. */
import { get as getPlain } from 'node:http';
import { get as getTls } from 'node:https';
import { reasonOf } from '#errors';
import { quantile } from '../machine.ts';
import { CASES } from './cases.ts';
import type { Case, LoadedCase } from './cases.ts';
import { BENCH_HOST, hostNames } from './configs.ts';
import { note } from './install.ts';
import type { Settings } from './load.ts';
import { measureIdle, measureLoad } from './measure.ts';
import type { Sample } from './measure.ts';
import { startOrigin } from './origin.ts';
import type { Origin } from './origin.ts';
import { makeCertificateFiles, NODE_PEER_NAMES, startPeer } from './peers.ts';
import type { Peer, PeerName } from './peers.ts';
import { profileFor } from './profile.ts';
import type { ProfiledFunction } from './profile.ts';
import { doubtsOf, rowsOf } from './report.ts';
import type { Row, SceneSize } from './report.ts';
import { Stage } from './stage.ts';

export interface SceneSettings extends SceneSize {
  readonly peers: readonly PeerName[];
  readonly cases: readonly Case[];
  readonly rounds: number;
  readonly seconds: number;
  /** Endpoints that the app has; all are the same origin. */
  readonly endpoints: number;
  /** Requests a second of the latency case; undefined: 70 % of what nginx does. */
  readonly rate: number | undefined;
}

interface Scene {
  readonly stage: Stage;
  readonly origin: Origin;
  readonly peers: readonly Peer[];
  readonly settings: SceneSettings;
}

const WARM_SECONDS = 1;
const LATENCY_SHARE = 0.7;

/** Cases that measure memory get peers that have done nothing else. */
export async function runCases(settings: SceneSettings): Promise<Row[]> {
  const rows: Row[] = [];
  const busy = settings.cases.filter(({ kind }) => kind !== 'idle');
  const idle = settings.cases.filter(({ kind }) => kind === 'idle');
  for (const cases of [busy, ...idle.map((one) => [one])]) {
    if (cases.length > 0) rows.push(...(await runScene({ ...settings, cases })));
  }
  return rows;
}

async function runScene(settings: SceneSettings): Promise<Row[]> {
  await using stage = await Stage.open();
  const scene = await openScene(stage, settings, false);
  const rows: Row[] = [];
  for (const what of settings.cases) rows.push(...(await runCase(scene, what)));
  return rows;
}

async function openScene(stage: Stage, settings: SceneSettings, inspect: boolean): Promise<Scene> {
  const origin = await startOrigin(stage);
  const around = {
    ...(await makeCertificateFiles(stage)),
    hosts: hostNames(settings.hosts),
    workers: settings.workers,
    endpointPorts: origin.ports.slice(0, settings.endpoints),
    websocketPort: origin.websocketPort,
    inspect,
  };
  const peers: Peer[] = [];
  for (const name of settings.peers) {
    try {
      const peer = await startPeer(stage, name, around);
      await probe(peer, false);
      if (peer.httpsPort !== 0) await probe(peer, true);
      peers.push(peer);
    } catch (error) {
      note(`!! ${name} is left out: ${reasonOf(error)}`);
    }
  }
  return { stage, origin, peers, settings };
}

/** A proxy that does not carry requests as the others do is not compared. */
async function probe(peer: Peer, tls: boolean): Promise<void> {
  const options = { host: '127.0.0.1', path: '/echo', headers: { host: BENCH_HOST }, agent: false };
  const { status, body } = await new Promise<{ status: number; body: string }>((resolve, reject) => {
    const asked = tls
      ? getTls({ ...options, port: peer.httpsPort, servername: BENCH_HOST, rejectUnauthorized: false })
      : getPlain({ ...options, port: peer.httpPort });
    asked.on('error', reject).on('response', (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (piece: string) => {
        text += piece;
      });
      answer.on('end', () => {
        resolve({ status: answer.statusCode ?? 0, body: text });
      });
    });
  });
  const want = `127.0.0.1|${tls ? 'https' : 'http'}`;
  if (status !== 200 || !body.endsWith(want)) throw new Error(`it answers ${String(status)} "${body}" instead of …${want}`);
}

function canDo(name: PeerName, what: Case): boolean {
  if (NODE_PEER_NAMES.has(name) && (what.tls || what.name === 'rewritten')) return false;
  if (name === 'undici' && what.kind === 'websocket') return false; // By hand it carries requests only.
  return !(name === 'fastify' && what.name === 'connect'); // It answers "keep-alive" and closes: wrk counts each as an error.
}

async function runCase(scene: Scene, what: Case): Promise<Row[]> {
  const { settings } = scene;
  const peers = scene.peers.filter(({ name }) => canDo(name, what));
  const samples = new Map<PeerName, Sample[]>(peers.map(({ name }) => [name, []]));
  const take = (peer: Peer, sample: Sample): void => {
    samples.get(peer.name)?.push(sample);
    tell(what, peer, sample);
  };
  if (what.kind === 'idle') {
    for (const peer of peers) {
      await warm(scene, peer, what.tls ? 'tls-small' : 'small');
      take(peer, await measureIdle(scene.stage, peer, what.tls));
    }
  } else {
    const load = await loadSettings(scene, what);
    if (load === undefined) return [];
    for (const peer of peers) await measureLoad({ ...scene, peer }, what, { ...load, seconds: WARM_SECONDS });
    for (let round = 0; round < settings.rounds; round += 1) {
      for (const peer of peers) take(peer, await measureLoad({ ...scene, peer }, what, load));
    }
  }
  return rowsOf(what, settings, samples);
}

async function warm(scene: Scene, peer: Peer, name: string): Promise<void> {
  const what = CASES.find((one) => one.name === name);
  if (what === undefined || what.kind === 'idle') return;
  await measureLoad({ ...scene, peer }, what, { connections: scene.settings.connections, seconds: WARM_SECONDS, rate: 0 });
}

async function loadSettings(scene: Scene, what: Case): Promise<Settings | undefined> {
  const { connections, seconds, rate } = scene.settings;
  if (what.kind !== 'latency' || rate !== undefined) return { connections, seconds, rate: rate ?? 0 };
  const nginx = scene.peers.find(({ name }) => name === 'nginx');
  const small = CASES.find(({ name }) => name === 'small');
  if (nginx === undefined || small === undefined || small.kind === 'idle') {
    note('!! latency is left out: it needs nginx, or --rate');
    return undefined;
  }
  const peaks: number[] = [];
  for (let round = 0; round < 3; round += 1) {
    const { perSecond } = await measureLoad({ ...scene, peer: nginx }, small, { connections, seconds, rate: 0 });
    peaks.push(perSecond);
  }
  const seventy = Math.round(LATENCY_SHARE * quantile(peaks, 0.5));
  note(
    `latency: at ${String(seventy)} requests a second, ${String(LATENCY_SHARE)} of nginx's ${quantile(peaks, 0.5).toFixed(0)}`,
  );
  return { connections, seconds, rate: seventy };
}

function tell(what: Case, peer: Peer, sample: Sample): void {
  const { value, perSecond, errors } = sample;
  note(
    `${what.name.padEnd(12)} ${peer.name.padEnd(14)} ${value.toFixed(1).padStart(9)} ${what.unit} ${perSecond.toFixed(0).padStart(8)}/s`,
  );
  for (const error of errors) note(`!! ERROR, row invalid: ${what.name} ${peer.name}: ${error} ${peer.said().slice(-500)}`);
  if (what.kind === 'idle') return;
  for (const doubt of doubtsOf(sample)) note(`?  ${what.name} ${peer.name}: ${doubt}`);
}

/** Runs one case against Écluse alone, with the profiler attached. */
export async function runProfile(
  settings: SceneSettings,
  what: LoadedCase,
): Promise<{ readonly sample: Sample; readonly functions: ProfiledFunction[] }> {
  await using stage = await Stage.open();
  const scene = await openScene(stage, { ...settings, peers: what.kind === 'latency' ? ['ecluse', 'nginx'] : ['ecluse'] }, true);
  const peer = scene.peers.find(({ name }) => name === 'ecluse');
  const load = await loadSettings(scene, what);
  if (peer === undefined || load === undefined) throw new Error('there is nothing to profile');
  await measureLoad({ ...scene, peer }, what, load);
  let functions: ProfiledFunction[] = [];
  const sample = await measureLoad({ ...scene, peer }, what, load, async (ms) => {
    functions = await profileFor(peer.said(), ms);
  });
  tell(what, peer, sample);
  return { sample, functions };
}
