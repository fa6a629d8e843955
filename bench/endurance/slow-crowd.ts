/** A crowd of slow clients, in a process of its own. */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { quantile } from '../machine.ts';
import { LOAD_CORE } from '../proxy/stage.ts';
import type { Child, Stage } from '../proxy/stage.ts';
import { ask } from './dialogue.ts';

export interface Attack {
  readonly name: string;
  readonly kind: 'head' | 'body' | 'read' | 'never';
  readonly path: string;
}

export const ATTACKS: readonly Attack[] = [
  { name: 'head', kind: 'head', path: '/slow' },
  { name: 'body', kind: 'body', path: '/post' },
  { name: 'read-1m', kind: 'read', path: '/1m' },
  { name: 'read-64m', kind: 'read', path: '/64m' },
  { name: 'never-64m', kind: 'never', path: '/64m' },
];

export interface CrowdSettings {
  readonly port: number;
  readonly hosts: readonly string[];
  readonly connections: number;
}

const COUNTS = z.object({
  opened: z.int(),
  open: z.int(),
  cut: z.int(),
  statuses: z.record(z.string(), z.int()),
  faults: z.record(z.string(), z.int()),
  livedMs: z.array(z.number()),
});

export interface CrowdCounts {
  readonly opened: number;
  /** As the clients see it: one that never reads does not notice that it was cut. */
  readonly open: number;
  readonly cut: number;
  readonly statuses: Readonly<Record<string, number>>;
  readonly faults: Readonly<Record<string, number>>;
  /** How long those lived that were cut. */
  readonly livedP50Ms: number;
  readonly livedMaxMs: number;
}

const OPEN_MS_MAX = 20_000;
const STEP_MS = 50;
const PERIOD_MS = 1000;

export class SlowCrowd implements AsyncDisposable {
  readonly #child: Child;
  readonly #size: number;

  constructor(stage: Stage, attack: Attack, settings: CrowdSettings) {
    const program = new URL('programs/slow-clients.ts', import.meta.url).pathname;
    const told = JSON.stringify({ ...settings, ...attack, periodMs: PERIOD_MS });
    this.#size = settings.connections;
    this.#child = stage.start({ core: LOAD_CORE, argv: [process.execPath, program, told] });
  }

  async counts(): Promise<CrowdCounts> {
    const { livedMs, ...others } = await ask(this.#child, COUNTS, {});
    return { ...others, livedP50Ms: quantile(livedMs, 0.5), livedMaxMs: livedMs.reduce((max, one) => Math.max(max, one), 0) };
  }

  /** Waits until all have connected once. */
  async opened(): Promise<void> {
    const endMs = performance.now() + OPEN_MS_MAX;
    while ((await this.counts()).opened < this.#size && performance.now() < endMs) await sleep(STEP_MS);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child.stop();
  }
}
