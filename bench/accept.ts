/**
 * What does it cost that two workers share a port, and how evenly do they?
 *
 * The ways: connections dealt out by the primary (Node's default), one handle from which both accept, and a socket for each worker (`reusePort`, what
 * Écluse does). A minimal server answers one request per connection. Both workers may use both cores; wrk (64 connections) is on the second. Rounds
 * alternate, medians; CPU is of all processes of the server. `--rounds N` (default 5), `--seconds N` (default 3).
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { machine, quantile } from './machine.ts';
import { LOAD_CORE, PROXY_CORE, Stage, freePorts } from './proxy/stage.ts';
import type { Child } from './proxy/stage.ts';
import { installPrograms } from './proxy/install.ts';
import { treeOf, usageOf } from './proxy/usage.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '5' }, seconds: { type: 'string', default: '3' } },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
const WAYS = ['round-robin', 'shared-handle', 'reuse-port'] as const;
const CONNECTIONS = 64;
const RAMP_MS = 500;
const TAKEN = z.array(z.int());

interface Sample {
  readonly cpuUs: number;
  readonly perSecond: number;
  /** Share of the connections that the busier worker took: 0.5 is even. */
  readonly busierShare: number;
}

async function start(stage: Stage, way: string, port: number): Promise<Child> {
  const program = join(import.meta.dirname, 'proxy', 'programs', 'accept-primary.ts');
  const child = stage.start({ core: `${PROXY_CORE},${LOAD_CORE}`, argv: [process.execPath, program, way, String(port)] });
  while (!child.out().includes('\n')) {
    if (!child.running()) throw new Error(`the server ended: ${child.err()}`);
    await sleep(20);
  }
  return child;
}

async function taken(child: Child): Promise<number[]> {
  const before = child.out().length;
  child.tell('count');
  while (!child.out().slice(before).includes('\n')) {
    if (!child.running()) throw new Error(`the server ended: ${child.err()}`);
    await sleep(1);
  }
  return TAKEN.parse(JSON.parse(child.out().slice(before)));
}

async function measure(stage: Stage, child: Child, port: number): Promise<Sample> {
  const argv = ['wrk', '-t1', `-c${String(CONNECTIONS)}`, `-d${String(seconds + 1)}s`, '-H', 'Connection: close'];
  const load = stage.start({ core: LOAD_CORE, argv: [...argv, `http://127.0.0.1:${String(port)}/`] });
  await sleep(RAMP_MS);
  const [before, beforeUs, startMs] = [await taken(child), usageOf(treeOf(child.pid)).exactUs, performance.now()];
  await sleep(seconds * 1000);
  const [after, afterUs, endMs] = [await taken(child), usageOf(treeOf(child.pid)).exactUs, performance.now()];
  await load.exit;
  if (/Non-2xx|Socket errors/.test(load.out())) process.stderr.write(`!! ERROR: ${load.out()}\n`);
  const counts = after.map((count, index) => count - (before[index] ?? 0));
  const total = counts.reduce((sum, count) => sum + count, 0);
  return {
    cpuUs: (afterUs - beforeUs) / total,
    perSecond: total / ((endMs - startMs) / 1000),
    busierShare: Math.max(...counts) / total,
  };
}

process.once('SIGINT', () => {
  // oxlint-disable-next-line unicorn/no-process-exit -- the stage ends what it started on `exit`
  process.exit(1);
});

await installPrograms(['wrk']);
await using stage = await Stage.open();
const ports = await freePorts(WAYS.length);
const servers: { way: string; port: number; child: Child; samples: Sample[] }[] = [];
for (const [index, way] of WAYS.entries()) {
  const port = ports[index] ?? 0;
  servers.push({ way, port, child: await start(stage, way, port), samples: [] });
}
for (const { child, port } of servers) await measure(stage, child, port);
for (let round = 0; round < rounds; round += 1) {
  for (const { child, port, samples } of servers) samples.push(await measure(stage, child, port));
}
const rows = servers.map(({ way, samples }) => {
  const median = (field: (sample: Sample) => number): number => quantile(samples.map(field), 0.5);
  return {
    way,
    cpuUs: Number(median((one) => one.cpuUs).toFixed(1)),
    perSecond: Math.round(median((one) => one.perSecond)),
    busierShare: Number(median((one) => one.busierShare).toFixed(3)),
    samples,
  };
});
const lines = rows.map(
  ({ way, cpuUs, perSecond, busierShare }) => `| ${way} | ${String(cpuUs)} | ${String(perSecond)} | ${String(busierShare)} |`,
);
process.stdout.write(
  `| way | CPU-µs per connection | per s | share of the busier worker |\n| --- | --- | --- | --- |\n${lines.join('\n')}\n`,
);
process.stdout.write(`${JSON.stringify({ bench: 'accept', rounds, seconds, machine: machine(), rows })}\n`);
