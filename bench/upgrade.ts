/**
 * Does an upgrade drop anything?
 *
 * A whole node is upgraded again and again (`ecluse upgrade`) while clients keep connections alive, open new ones for each request, resume TLS sessions,
 * and hold WebSockets and event streams open from the first generation to the last. With `--kill` its primary is killed with SIGKILL instead, and
 * started again. JSON at the end.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import * as z from 'zod';
import { freePorts, freshDataDir, startNode } from '../test/support/node.ts';
import type { TestNode } from '../test/support/node.ts';
import { UpgradeLoad, openUpgradeEndpoint } from '../test/support/upgrade-load.ts';
import { machine, quantile, versions } from './machine.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '20' },
    'keep-alive': { type: 'string', default: '40' },
    fresh: { type: 'string', default: '20' },
    resuming: { type: 'string', default: '10' },
    'web-sockets': { type: 'string', default: '50' },
    'event-streams': { type: 'string', default: '50' },
    kill: { type: 'boolean', default: false },
  },
});
const HOST = 'upgraded.test';
const BETWEEN_MS = 1_500;
const DRAIN = '20m';
const doneSchema = z.object({ generation: z.number(), tookMs: z.number(), retiring: z.array(z.object({ pid: z.number() })) });

async function route(node: TestNode, port: number): Promise<void> {
  const file = join(node.dataDir, 'routes.yaml');
  const text = `services: { s: { endpoints: ["http://127.0.0.1:${String(port)}"] } }\nroutes: [{ match: { host: ${HOST} }, service: s }]\n`;
  await writeFile(file, text);
  const applied = await node.ecluse('apply', file);
  if (applied.exitCode !== 0) throw new Error(applied.stderr);
}

async function upgrade(node: TestNode): Promise<z.infer<typeof doneSchema>> {
  const answer = await node.ecluse('upgrade', '--drain', DRAIN, '--json');
  if (answer.exitCode !== 0) throw new Error(answer.stderr);
  return doneSchema.parse(JSON.parse(answer.stdout));
}

const [dataDir, ports] = [await freshDataDir(), await freePorts()];
await using endpoint = await openUpgradeEndpoint();
let node = await startNode({ dataDir, ports, hosts: ['local'] });
try {
  await route(node, endpoint.port);
  const load = await UpgradeLoad.start({
    httpPort: ports.http,
    httpsPort: ports.https,
    host: HOST,
    caFile: node.caFile,
    keepAlive: Number(values['keep-alive']),
    fresh: Number(values.fresh),
    resuming: Number(values.resuming),
    webSockets: Number(values['web-sockets']),
    eventStreams: Number(values['event-streams']),
  });
  const tookMs: number[] = [];
  let retiring = 0;
  for (let round = 1; round <= Number(values.rounds); round += 1) {
    await sleep(BETWEEN_MS);
    if (values.kill) {
      const startMs = performance.now();
      await node.stop('SIGKILL');
      node = await startNode({ dataDir, ports, hosts: ['local'] });
      tookMs.push(performance.now() - startMs);
    } else {
      const done = await upgrade(node);
      tookMs.push(done.tookMs);
      retiring = done.retiring.length;
    }
    process.stderr.write(`round ${String(round)}: ${String(Math.round(tookMs.at(-1) ?? 0))} ms\n`);
  }
  await sleep(BETWEEN_MS);
  const outcome = await load.stop();
  const took = { p50: Math.round(quantile(tookMs, 0.5)), worst: Math.round(Math.max(...tookMs)) };
  const report = {
    bench: 'upgrade',
    argv: process.argv.slice(2),
    machine: machine(),
    versions: versions(),
    rounds: tookMs.length,
    took,
    retiring,
    ...outcome,
  };
  process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`);
} finally {
  await node[Symbol.asyncDispose]();
}
