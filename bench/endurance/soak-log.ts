/** The access log of a soak: taken away every few seconds, and looked through for exchanges that did not end well. */
import { rename, rm } from 'node:fs/promises';
import { z } from 'zod';
import { tryCommand } from '#command';
import { LOAD_CORE } from '../proxy/stage.ts';
import type { EdgeUnderTest } from './edge-under-test.ts';

const LINE = z.object({ errorCode: z.string(), path: z.string().nullable(), status: z.int() });
/** A client may go at any time: wrk does at the end of each run, and what it meets before that it tells itself. */
const PLANNED_CODES = new Set(['client-aborted', 'bad-request', 'unknown-host']);

export interface LogCounts {
  /** By code. */
  readonly planned: Readonly<Record<string, number>>;
  /** By code, status and path. */
  readonly unexpected: Readonly<Record<string, number>>;
}

interface Counting {
  readonly planned: Record<string, number>;
  readonly unexpected: Record<string, number>;
}

/** Takes the log away and counts. */
export async function takeLog(edge: EdgeUnderTest, file: string): Promise<LogCounts> {
  const taken = `${file}.taken`;
  const counts: Counting = { planned: {}, unexpected: {} };
  try {
    await rename(file, taken);
  } catch {
    return counts; // Nothing was written yet.
  }
  await edge.reopenLog();
  const argv = ['-c', LOAD_CORE, 'grep', '-vF', '"errorCode":null', taken];
  const { stdout } = await tryCommand('taskset', argv, { timeoutMs: 60_000 });
  await rm(taken);
  for (const line of stdout.split('\n')) if (line !== '') countLine(line, counts);
  return counts;
}

function countLine(line: string, { planned, unexpected }: Counting): void {
  const { errorCode, path, status } = LINE.parse(JSON.parse(line));
  // A head that never became whole has no path.
  const headless = path === null || path === '';
  if (PLANNED_CODES.has(errorCode) || (headless ? errorCode === 'request-timeout' : path.startsWith('/planned/')))
    count(planned, errorCode);
  else count(unexpected, `${errorCode} ${String(status)} ${path?.replace(/\d+$/, 'N') ?? ''}`);
}

function count(of: Record<string, number>, what: string): void {
  of[what] = (of[what] ?? 0) + 1;
}
