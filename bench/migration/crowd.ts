/** First requests to a container that sleeps, from a process of their own. */
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { run } from '../../test/support/node.ts';

const FIRST_REQUESTS = z.object({
  requests: z.int(),
  answered: z.int(),
  /** What came instead of 200, and how often. */
  others: z.record(z.string(), z.int()),
  /** From the request, sent over a connection that was open, to the first byte of its answer. */
  firstByteMs: z.object({ p50: z.number(), p99: z.number(), worst: z.number() }).optional(),
});
export type FirstRequests = z.infer<typeof FIRST_REQUESTS>;

const PROGRAM = fileURLToPath(new URL('programs/first-requests.ts', import.meta.url));
const ANSWER_LIMIT_MS = 45_000;

export async function firstRequests(
  place: { readonly port: number; readonly host: string },
  count: number,
): Promise<FirstRequests> {
  const told = JSON.stringify({ ...place, count, limitMs: ANSWER_LIMIT_MS });
  const { exitCode, stdout, stderr } = await run(process.execPath, [PROGRAM, told], { timeoutMs: 2 * ANSWER_LIMIT_MS });
  if (exitCode !== 0) throw new Error(`the first requests failed: ${stderr}`);
  return FIRST_REQUESTS.parse(JSON.parse(stdout));
}
