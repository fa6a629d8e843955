/** The traffic around a proxy, seen from the benchmark. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import * as z from 'zod';

const portsSchema = z.object({ a: z.int(), b: z.int() });
const outcomeSchema = z.object({
  requests: z.int(),
  failures: z.record(z.string(), z.int()),
  cutWebSockets: z.int(),
  cutEventStreams: z.int(),
});
export type TrafficOutcome = z.infer<typeof outcomeSchema>;

export interface TrafficPlan {
  readonly port: number;
  readonly webSockets: number;
  readonly eventStreams: number;
  readonly ratePerSecond: number;
}

export class Traffic implements AsyncDisposable {
  /** Ports of the two endpoints. */
  readonly ports: { readonly a: number; readonly b: number };
  readonly #child;
  readonly #lines: AsyncIterator<string>;

  private constructor(child: ReturnType<typeof Traffic.spawn>, lines: AsyncIterator<string>, ports: { a: number; b: number }) {
    this.#child = child;
    this.#lines = lines;
    this.ports = ports;
  }

  private static spawn() {
    return spawn(process.execPath, [join(import.meta.dirname, 'programs/traffic.ts')], { stdio: ['pipe', 'pipe', 'inherit'] });
  }

  static async open(): Promise<Traffic> {
    const child = Traffic.spawn();
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    return new Traffic(child, lines, portsSchema.parse(await answerOf(lines)));
  }

  /** Opens the streams and begins to ask. */
  async start(plan: TrafficPlan): Promise<void> {
    this.#child.stdin.write(`${JSON.stringify({ start: plan })}\n`);
    await answerOf(this.#lines);
  }

  async stop(): Promise<TrafficOutcome> {
    this.#child.stdin.write(`${JSON.stringify({ stop: true })}\n`);
    return outcomeSchema.parse(await answerOf(this.#lines));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }
}

async function answerOf(lines: AsyncIterator<string>): Promise<unknown> {
  const line = await lines.next();
  if (line.done === true) throw new Error('the traffic ended by itself');
  return JSON.parse(line.value);
}
