/**
 * Écluse's edge as the endurance benchmarks run it: a primary with one worker that has a probe in it, told by a file and by commands.
 * The probe is loaded by this program's own options of Node, which the workers get as well. It ends with stdin or by SIGTERM.
 */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { z } from 'zod';
import { EDGE_LIMITS } from '#proxy/edge-limits.ts';
import type { EdgeLimits } from '#proxy/edge-limits.ts';
import { changeBetween, edgeOf } from '../../../test/support/edge.ts';
import type { PlainEdge } from '../../../test/support/edge.ts';
import { WorkerPool } from '#proxy/worker-pool.ts';
import { systemClock } from '#clock';
import { createLog } from '#log';
import { answerCommands } from '../dialogue.ts';

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null;
}

const EDGE_CONFIG = z.custom<PlainEdge>(isObject);
const SPEC = z.object({
  accessLogFile: z.string(),
  limits: z.custom<Partial<EdgeLimits>>(isObject),
  initial: EDGE_CONFIG,
});
const COMMAND = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('status') }),
  z.object({ kind: z.literal('metrics') }),
  z.object({ kind: z.literal('reopen-log') }),
  z.object({ kind: z.literal('apply'), edge: EDGE_CONFIG }),
]);

const spec = SPEC.parse(JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')));

let requests = 0;
const pool = await WorkerPool.open(
  { log: createLog('warn'), clock: systemClock },
  {
    workers: 1,
    workerFile: resolve(import.meta.dirname, '../../../src/worker.ts'),
    listen: { http: { host: '127.0.0.1', port: 0 }, https: { host: '127.0.0.1', port: 0 } },
    accessLogFile: spec.accessLogFile,
    logLevel: 'warn',
    limits: { ...EDGE_LIMITS, ...spec.limits },
    initial: edgeOf(spec.initial),
    onTraffic: ({ deltas }) => {
      for (const delta of deltas) requests += delta.requests;
    },
    onWake: () => undefined,
  },
);

let applied = spec.initial;
answerCommands(async (given) => {
  const command = COMMAND.parse(given);
  switch (command.kind) {
    case 'status': {
      const { http, https } = pool.listening;
      return { http: http?.port, https: https?.port, pids: pool.status().map(({ pid }) => pid), requests, version: pool.version };
    }
    case 'metrics':
      return { text: await pool.metrics() };
    case 'reopen-log':
      await pool.reopenAccessLog();
      return {};
    case 'apply':
      await pool.change(changeBetween(applied, command.edge));
      applied = command.edge;
      return {};
  }
});

let ending = false;
async function end(): Promise<void> {
  if (ending) return;
  ending = true;
  await pool[Symbol.asyncDispose]();
  // oxlint-disable-next-line unicorn/no-process-exit -- the program's own end: stdin may stay open
  process.exit(0);
}
process.on('SIGTERM', () => void end());
process.on('SIGINT', () => void end());
process.stdin.on('end', () => void end());
