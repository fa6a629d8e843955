/** The soak's load: wrk in all sizes, the actors, slow clients and changes of the config, until it is stopped. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { reasonOf } from '#errors';
import { BENCH_HOST } from '../proxy/configs.ts';
import { CASES } from '../proxy/cases.ts';
import type { LoadedCase } from '../proxy/cases.ts';
import { startLoad } from '../proxy/load.ts';
import type { Peer } from '../proxy/peers.ts';
import { LOAD_CORE } from '../proxy/stage.ts';
import type { Child, Stage } from '../proxy/stage.ts';
import { ask } from './dialogue.ts';
import { SlowCrowd } from './slow-crowd.ts';
import type { Attack } from './slow-crowd.ts';
import type { SoakScene } from './soak-scene.ts';

/** Connections of each case. Each run of wrk makes new ones. */
const WRK_CASES: Readonly<Record<string, number>> = {
  small: 8,
  varied: 8,
  '16k': 4,
  '1m': 2,
  post64k: 4,
  connect: 4,
  'tls-small': 4,
  'tls-16k': 4,
  'tls-1m': 1,
};
const WRK_SECONDS = 20;
const CHANGE_MS = 3_000;
const CROWD_MS = 15_000;
const CROWD_CONNECTIONS = 50;
const CROWDS: readonly Attack[] = [
  { name: 'head', kind: 'head', path: '/planned/slow' },
  { name: 'body', kind: 'body', path: '/planned/post' },
  { name: 'read', kind: 'read', path: '/planned/64m' },
  { name: 'never', kind: 'never', path: '/planned/64m' },
];
/** Its CPU is not looked at. */
function nobody(): readonly number[] {
  return [];
}

const COUNTS = z.object({ done: z.record(z.string(), z.int()), faults: z.record(z.string(), z.int()) });

export class SoakLoad {
  /** What was not to be, by kind. */
  readonly faults: Record<string, number> = {};
  /** What was done, by kind: requests of wrk as they are known, that is at the end of each run. */
  readonly done: Record<string, number> = {};
  /** Versions that were applied. */
  version = 1;
  readonly #stage: Stage;
  readonly #scene: SoakScene;
  readonly #endMs: number;
  readonly #actors: Child;
  readonly #parts: Promise<void>[];

  constructor(stage: Stage, scene: SoakScene, seconds: number) {
    this.#stage = stage;
    this.#scene = scene;
    this.#endMs = performance.now() + seconds * 1000;
    const { httpPort, httpsPort } = scene.edge;
    const program = new URL('programs/soak-clients.ts', import.meta.url).pathname;
    const where = JSON.stringify({ httpPort, httpsPort, host: BENCH_HOST });
    this.#actors = stage.start({ core: LOAD_CORE, argv: [process.execPath, program, where] });
    const cases = CASES.filter((one): one is LoadedCase => one.name in WRK_CASES && one.kind === 'wrk');
    const parts = [...cases.map(async (one) => await this.#wrk(one)), this.#crowds(), this.#changes()];
    this.#parts = parts.map(async (part) => await this.#noted(part));
  }

  isOver(): boolean {
    return performance.now() >= this.#endMs;
  }

  /** What the actors did so far, and what was wrong. */
  async actors(kind: 'count' | 'stop' = 'count'): Promise<z.infer<typeof COUNTS>> {
    return await ask(this.#actors, COUNTS, { kind });
  }

  /** Waits for the end of all; then nobody asks anything. */
  async end(): Promise<void> {
    await Promise.all(this.#parts);
    const { done, faults } = await this.actors('stop');
    Object.assign(this.done, done);
    Object.assign(this.faults, faults);
    await this.#actors.stop();
  }

  fault(what: string, count = 1): void {
    this.faults[what] = (this.faults[what] ?? 0) + count;
  }

  async #noted(part: Promise<void>): Promise<void> {
    try {
      await part;
    } catch (error) {
      this.fault(reasonOf(error).slice(0, 300));
    }
  }

  async #wrk(what: LoadedCase): Promise<void> {
    const { edge, origin } = this.#scene;
    const { httpPort, httpsPort } = edge;
    const peer: Peer = { name: 'ecluse', httpPort, httpsPort, pids: nobody, helpers: nobody, logs: [], said: () => '' };
    while (!this.isOver()) {
      const seconds = Math.max(1, Math.min(WRK_SECONDS, (this.#endMs - performance.now()) / 1000));
      const load = startLoad({ stage: this.#stage, origin, peer }, what, {
        connections: WRK_CASES[what.name] ?? 1,
        seconds,
        rate: 0,
      });
      const { requests, errors } = await load.finish();
      this.done[`wrk ${what.name}`] = (this.done[`wrk ${what.name}`] ?? 0) + requests;
      for (const error of errors) this.fault(`wrk ${what.name}: ${error}`);
    }
  }

  /** Slow clients of one kind after the other; the edge is to cut those of one before they are over. */
  async #crowds(): Promise<void> {
    for (let turn = 0; !this.isOver(); turn += 1) {
      const attack = CROWDS[turn % CROWDS.length];
      if (attack === undefined) return;
      await using crowd = new SlowCrowd(this.#stage, attack, {
        port: this.#scene.edge.httpPort,
        hosts: [BENCH_HOST],
        connections: CROWD_CONNECTIONS,
      });
      await crowd.opened();
      await sleep(Math.min(CROWD_MS, Math.max(0, this.#endMs - performance.now())));
      const { opened } = await crowd.counts();
      this.done[`slow ${attack.name}`] = (this.done[`slow ${attack.name}`] ?? 0) + opened;
    }
  }

  async #changes(): Promise<void> {
    while (!this.isOver()) {
      await sleep(CHANGE_MS);
      await this.#scene.edge.apply(this.#scene.configOf(this.version + 1));
      this.version += 1;
    }
  }
}
