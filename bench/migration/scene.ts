/** A node with two hosts, a tenant and the app's image: what every part of the benchmark but the peers starts from. */
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { addTenant, ECLUSE, run, startNode } from '../../test/support/node.ts';
import type { CommandAnswer, TestNode } from '../../test/support/node.ts';
import { Stage } from '../proxy/stage.ts';
import { importAppImage, mustDocker, startApp } from './app.ts';
import type { AppSettings } from './app.ts';
import type { Origin } from './clients/origin.ts';

export interface Scene {
  readonly node: TestNode;
  readonly stage: Stage;
  /** `docker ARGS` as the tenant; throws where it fails. */
  readonly docker: (...args: readonly string[]) => Promise<string>;
  readonly ecluse: (...args: readonly string[]) => Promise<CommandAnswer>;
  /** `docker run` of the app, until it answers through the edge; how long that took. */
  readonly runApp: (app: AppSettings) => Promise<number>;
  readonly removeApp: (name: string) => Promise<void>;
  /** The app through the edge, over TLS. */
  readonly origin: (name: string) => Origin;
}

const TENANT = 'bench';
const COMMAND_LIMIT_MS = 300_000;
/** A big app fills its memory first. */
const ANSWER_LIMIT_MS = 120_000;
const STEP_MS = 5;
const TRY_LIMIT_MS = 2_000;

/** Starts it, works with it, and takes all of it away. */
export async function withScene<T>(work: (scene: Scene) => Promise<T>): Promise<T> {
  await using stage = await Stage.open();
  await using node = await startNode({ hosts: ['a', 'b'] });
  await addTenant(node, TENANT, '--memory', '64g', '--containers', '100', '--domain', 'localhost');
  const env = node.dockerEnv(TENANT);
  await importAppImage(env, stage.path('image.tar'));
  return await work({
    node,
    stage,
    docker: async (...args) => await mustDocker(env, args),
    ecluse: async (...args) =>
      await run(ECLUSE, args, { env: { ...process.env, ECLUSE_DATA: node.dataDir }, timeoutMs: COMMAND_LIMIT_MS }),
    runApp: async ({ flags, ...app }) => {
      const startMs = performance.now();
      const labels = { 'ecluse.http.host': hostOf(app.name), 'ecluse.http.health': '/healthz' };
      const words = Object.entries(labels).flatMap(([name, value]) => ['--label', `${name}=${value}`]);
      await startApp(env, { ...app, flags: [...words, ...(flags ?? [])] });
      await untilAnswers({ port: node.ports.http, host: hostOf(app.name) });
      return performance.now() - startMs;
    },
    removeApp: async (name) => {
      await mustDocker(env, ['rm', '--force', name]);
    },
    origin: (name) => ({ port: node.ports.https, host: hostOf(name), caFile: node.caFile }),
  });
}

export function hostOf(name: string): string {
  return `${name}.localhost`;
}

export interface Place {
  readonly port: number;
  readonly host: string;
  /** Where its port is; by default the loopback interface. */
  readonly address?: string;
}

/** Until the app answers its health check. */
export async function untilAnswers(place: Place): Promise<void> {
  const endMs = performance.now() + ANSWER_LIMIT_MS;
  while (!(await answers(place))) {
    if (performance.now() > endMs) throw new Error(`${place.host} did not answer in ${String(ANSWER_LIMIT_MS)} ms`);
    await sleep(STEP_MS);
  }
}

async function answers({ port, host, address = '127.0.0.1' }: Place): Promise<boolean> {
  return await new Promise((resolve) => {
    const options = { host: address, port, path: '/healthz', headers: { host }, agent: false, timeout: TRY_LIMIT_MS };
    const outgoing = request(options, (response) => {
      response.resume();
      response.once('end', () => {
        resolve(response.statusCode === 200);
      });
    });
    outgoing.once('timeout', () => outgoing.destroy(new Error('no answer')));
    outgoing.once('error', () => {
      resolve(false);
    });
    outgoing.end();
  });
}
