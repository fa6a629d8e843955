/** Écluse's edge under a benchmark: one worker on the proxy's core, its primary on the other. */
import { writeFile } from 'node:fs/promises';
import { createConnection } from 'node:net';
import { z } from 'zod';
import type { EdgeLimits } from '#proxy/edge-limits.ts';
import { runCommand } from '#command';
import type { PlainEdge } from '../../test/support/edge.ts';
import { LOAD_CORE, PROXY_CORE } from '../proxy/stage.ts';
import type { Child, Stage } from '../proxy/stage.ts';
import { ask } from './dialogue.ts';

export interface EdgeSettings {
  readonly name: string;
  readonly initial: PlainEdge;
  /** What differs from the defaults. */
  readonly limits: Partial<EdgeLimits>;
  readonly accessLogFile: string;
}

const SAMPLE = z.object({
  pid: z.int(),
  rss: z.number(),
  heapUsed: z.number(),
  heapTotal: z.number(),
  external: z.number(),
  arrayBuffers: z.number(),
  /** Handles and timers that keep the worker alive, by kind. */
  resources: z.record(z.string(), z.int()),
});
/** What a worker holds. */
export type Holding = z.infer<typeof SAMPLE>;

const STATUS = z.object({ http: z.int(), https: z.int(), pids: z.array(z.int()), requests: z.int(), version: z.int() });
const METRICS = z.object({ text: z.string() });
const NOTHING = z.object({});
const PROBE_MS_MAX = 10_000;

export class EdgeUnderTest {
  readonly httpPort: number;
  readonly httpsPort: number;
  /** Of the worker that was started first: another one means that it died. */
  readonly pid: number;
  readonly #child: Child;
  readonly #probe: string;

  private constructor(child: Child, probe: string, status: z.infer<typeof STATUS>) {
    this.#child = child;
    this.#probe = probe;
    this.httpPort = status.http;
    this.httpsPort = status.https;
    this.pid = status.pids[0] ?? 0;
  }

  static async start(stage: Stage, settings: EdgeSettings): Promise<EdgeUnderTest> {
    const specFile = stage.path(`${settings.name}.json`);
    const probe = stage.path(`${settings.name}.probe`);
    await writeFile(specFile, JSON.stringify(settings));
    const program = new URL('programs/edge.ts', import.meta.url).pathname;
    // The workers get the options of their primary; there the probe does nothing.
    const options = ['--expose-gc', '--import', new URL('programs/probe.ts', import.meta.url).href];
    const env = { ECLUSE_BENCH_PROBE: probe };
    const child = stage.start({ core: LOAD_CORE, argv: [process.execPath, ...options, program, specFile], env });
    const edge = new EdgeUnderTest(child, probe, await ask(child, STATUS, { kind: 'status' }));
    await runCommand('taskset', ['-acp', PROXY_CORE, String(edge.pid)]);
    return edge;
  }

  /** What the worker holds; after a collection of garbage, if that is wanted. */
  async holding(how: 'as-it-is' | 'collected'): Promise<Holding> {
    const text = await new Promise<string>((resolve, reject) => {
      let said = '';
      const socket = createConnection(this.#probe, () => socket.write(how === 'collected' ? 'g' : 's'));
      socket.setTimeout(PROBE_MS_MAX, () => socket.destroy(new Error('the worker does not answer its probe')));
      socket.setEncoding('utf8').on('data', (piece: string) => {
        said += piece;
      });
      socket.on('error', reject);
      socket.on('end', () => {
        resolve(said);
      });
    });
    return SAMPLE.parse(JSON.parse(text));
  }

  async status(): Promise<z.infer<typeof STATUS>> {
    return await ask(this.#child, STATUS, { kind: 'status' });
  }

  async apply(edge: PlainEdge): Promise<void> {
    await ask(this.#child, NOTHING, { kind: 'apply', edge });
  }

  async reopenLog(): Promise<void> {
    await ask(this.#child, NOTHING, { kind: 'reopen-log' });
  }

  /** Values of the metric `name`, by the value of its label `label`. */
  async metric(name: string, label: string): Promise<Record<string, number>> {
    const { text } = await ask(this.#child, METRICS, { kind: 'metrics' });
    const found: Record<string, number> = {};
    for (const line of text.split('\n')) {
      const [, labels = '', value = ''] = new RegExp(`^${name}(?:\\{(.*)\\})? ([0-9.e+-]+)$`).exec(line) ?? [];
      if (value === '') continue;
      const key = new RegExp(`${label}="([^"]*)"`).exec(labels)?.[1] ?? '';
      found[key] = (found[key] ?? 0) + Number(value);
    }
    return found;
  }

  /** What it said on stderr: a healthy one says nothing. */
  said(): string {
    return this.#child.err();
  }

  async stop(): Promise<void> {
    await this.#child.stop();
  }
}
