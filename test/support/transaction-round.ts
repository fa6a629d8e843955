/**
 * One round of a change of routes in which the primary or a worker is killed: afterwards store and workers have one version, nothing that was
 * acknowledged is lost, and no request was answered by two versions. Seeded; used by tests and by `npm run bench -- transaction-faults`.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import type { Operation } from '#routing/operator/schema.ts';
import { openSqlite } from '#state/sqlite.ts';
import { listConfigPatches } from '#state/edge-settings.ts';
import { freePort } from './node.ts';
import { startUpstream } from './upstream.ts';
import type { HttpUpstream } from './upstream.ts';

export const STEPS = ['prepare', 'ready', 'stored', 'commit', 'after'] as const;
export const VICTIMS = ['primary', 'worker'] as const;
export interface Blow {
  readonly step: (typeof STEPS)[number];
  readonly victim: (typeof VICTIMS)[number];
}

export interface RoundOutcome {
  readonly blow: Blow;
  /** Changes that were acknowledged before the blow, with it, and after it. */
  readonly changes: number;
  readonly answers: number;
  readonly violations: readonly string[];
}

const stateSchema = z.object({
  port: z.int(),
  version: z.int(),
  stored: z.int(),
  workers: z.array(z.object({ version: z.int(), phase: z.string() })),
  document: z.object({ services: z.record(z.string(), z.object({ endpoints: z.array(z.string()) })) }),
});
type State = z.infer<typeof stateSchema>;
const answerSchema = z.union([z.object({ version: z.int() }), z.object({ error: z.string() })]);
const lineSchema = z.object({
  configVersion: z.int(),
  status: z.int(),
  service: z.string().nullable(),
  endpoint: z.string().nullable(),
});

const SERVICES = ['left', 'right'] as const;
const ANSWER_MS = 20_000;

/** A primary in a process of its own. */
class Primary implements AsyncDisposable {
  readonly #child;
  readonly #lines: AsyncIterator<string>;

  constructor(folder: string, port: number) {
    this.#child = spawn(process.execPath, [join(import.meta.dirname, 'edge-primary.ts'), folder, String(port)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child.stdin.on('error', () => undefined); // It was killed.
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** The next line; undefined: it is dead. */
  async #answer(): Promise<unknown> {
    const line = await Promise.race([this.#lines.next(), sleep(ANSWER_MS, undefined, { ref: false })]);
    if (line === undefined) throw new Error('the primary does not answer');
    return line.done === true ? undefined : JSON.parse(line.value);
  }

  async started(): Promise<State> {
    return stateSchema.parse(await this.#answer());
  }

  async state(): Promise<State> {
    this.#child.stdin.write('state\n');
    return stateSchema.parse(await this.#answer());
  }

  /** Undefined: it died. */
  async change(operations: readonly Operation[], blow: Blow | null): Promise<z.infer<typeof answerSchema> | undefined> {
    this.#child.stdin.write(`${JSON.stringify({ operations, blow })}\n`);
    const answer = await this.#answer();
    return answer === undefined ? undefined : answerSchema.parse(answer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.stdin.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
    await once(this.#child, 'exit');
    clearTimeout(timer);
  }
}

/** Requests on kept connections until it is stopped; those that come while nobody listens are no answers. */
function startAsking(port: number): { readonly stop: () => Promise<number> } {
  const agent = new Agent({ keepAlive: true, maxSockets: 4 });
  const end = new AbortController();
  let answers = 0;
  const ask = async (host: string): Promise<void> => {
    while (!end.signal.aborted) {
      const got = await new Promise<boolean>((resolve) => {
        const outgoing = request({ host: '127.0.0.1', port, agent, headers: { host }, timeout: 5000 }, (response) => {
          response.resume();
          response.once('close', () => {
            resolve(response.complete);
          });
        });
        outgoing.once('error', () => {
          resolve(false);
        });
        outgoing.once('timeout', () => outgoing.destroy());
        outgoing.end();
      });
      if (got) answers += 1;
      else await sleep(10);
    }
  };
  const asking = SERVICES.flatMap((service) => [ask(`${service}.test`), ask(`${service}.test`)]);
  return {
    stop: async () => {
      end.abort();
      await Promise.all(asking);
      agent.destroy();
      return answers;
    },
  };
}

export class TransactionScene implements AsyncDisposable {
  readonly #folder: string;
  readonly #port: number;
  readonly #upstreams: readonly HttpUpstream[];
  #primary: Primary;
  #number = 0;
  #acknowledged = 0;

  private constructor(folder: string, port: number, upstreams: readonly HttpUpstream[]) {
    this.#folder = folder;
    this.#port = port;
    this.#upstreams = upstreams;
    this.#primary = new Primary(folder, port);
  }

  static async open(): Promise<TransactionScene> {
    const folder = await mkdtemp(join(tmpdir(), 'ecl-tx-'));
    const upstreams = await Promise.all(
      ['A', 'B', 'C'].map(async (letter) => await startUpstream((_, response) => response.end(letter))),
    );
    const scene = new TransactionScene(folder, await freePort(), upstreams);
    await scene.#primary.started();
    await scene.#change(null);
    return scene;
  }

  /** `before` changes, the one with the blow, and `after` changes. */
  async round(blow: Blow, before: number, after: number): Promise<RoundOutcome> {
    const violations: string[] = [];
    const asking = startAsking(this.#port);
    const first = this.#number;
    for (let count = 0; count < before; count += 1) await this.#change(null);
    const sent = this.#number + 1;
    const acknowledged = this.#acknowledged;
    if ((await this.#change(blow)) === 'died') {
      this.#primary = new Primary(this.#folder, this.#port);
      await this.#primary.started();
    } else if (blow.victim === 'primary') {
      // Killed after its answer was written.
      await sleep(100);
      this.#primary = new Primary(this.#folder, this.#port);
      await this.#primary.started();
    }
    violations.push(...(await this.#check(acknowledged, sent)));
    for (let count = 0; count < after; count += 1) await this.#change(null);
    violations.push(...(await this.#check(this.#acknowledged, this.#number)));
    const answers = await asking.stop();
    violations.push(...(await this.#checkLog()));
    return { blow, changes: this.#number - first, answers, violations };
  }

  /** Leads both services to the next endpoint, in one transaction. */
  async #change(blow: Blow | null): Promise<'acknowledged' | 'refused' | 'died'> {
    this.#number += 1;
    const endpoint = `http://127.0.0.1:${String(this.#upstreams[this.#number % this.#upstreams.length]?.port)}`;
    const operations = SERVICES.flatMap((name): Operation[] => [
      { op: 'put-service', name, service: { endpoints: [endpoint] } },
      { op: 'put-route', route: { match: { host: `${name}.test`, headers: {} }, service: name } },
    ]);
    const answer = await this.#primary.change(operations, blow);
    if (answer === undefined) return 'died';
    if ('error' in answer) return 'refused';
    this.#acknowledged = this.#number;
    return 'acknowledged';
  }

  /** Store, workers and what is served are one version, that of a change from `least` to `most`. */
  async #check(least: number, most: number): Promise<readonly string[]> {
    let state = await this.#primary.state();
    // A worker that was killed is replaced within a second.
    for (let tries = 0; tries < 500 && state.workers.filter(({ phase }) => phase === 'listening').length < 2; tries += 1) {
      await sleep(20);
      state = await this.#primary.state();
    }
    const found: string[] = [];
    const { version, stored, workers, document } = state;
    if (stored !== version) found.push(`the store is at ${String(stored)}, the primary at ${String(version)}`);
    if (workers.length !== 2 || workers.some((worker) => worker.version !== version))
      found.push(`the workers are at ${JSON.stringify(workers)}, the primary at ${String(version)}`);
    const endpoints = SERVICES.map((name) => document.services[name]?.endpoints[0] ?? 'none');
    if (new Set(endpoints).size !== 1) found.push(`half of a change: ${endpoints.join(', ')}`);
    const allowed = new Set<string>();
    for (let number = least; number <= most; number += 1)
      allowed.add(`http://127.0.0.1:${String(this.#upstreams[number % this.#upstreams.length]?.port)}`);
    if (!allowed.has(endpoints[0] ?? ''))
      found.push(`what was acknowledged is lost: ${endpoints[0] ?? ''} is served, not ${[...allowed].join(' or ')}`);
    return found;
  }

  /** Every answer came from where its version says. */
  async #checkLog(): Promise<readonly string[]> {
    await sleep(1200); // Lines are written each second.
    await using sql = openSqlite(join(this.#folder, 'state.db'));
    const versions = (await listConfigPatches(sql, 0)).map(({ version, patch }) => ({
      version,
      endpoint: /http:\/\/127\.0\.0\.1:\d+/.exec(patch)?.[0] ?? '',
    }));
    const text = await readFile(join(this.#folder, 'access.log'), 'utf8');
    const found: string[] = [];
    for (const line of text.split('\n').slice(0, -1)) {
      const parsed = lineSchema.safeParse(tryParse(line));
      if (!parsed.success) continue; // A worker that was killed had half of it out.
      const { configVersion, status, endpoint } = parsed.data;
      if (status !== 200 || endpoint === null) continue;
      const wanted = versions.find(({ version }) => version <= configVersion)?.endpoint;
      if (wanted !== undefined && !endpoint.endsWith(wanted))
        found.push(`version ${String(configVersion)} leads to ${wanted}, and ${endpoint} answered`);
    }
    return found.slice(0, 5);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#primary[Symbol.asyncDispose]();
    for (const upstream of this.#upstreams) await upstream[Symbol.asyncDispose]();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

function tryParse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
