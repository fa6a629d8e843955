/** The thread of digest-thread.ts: sha256 of what lies in shared memory, several files at once, each in its order. */
import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import type { DigestAnswer, DigestJob } from './digest-thread.ts';

/** By file series; a series has one file at a time. */
const running = new Map<number, Hash>();

parentPort?.on('message', (job: DigestJob) => {
  if (job.memory === undefined) {
    running.delete(job.series);
    return;
  }
  const digests: string[] = [];
  for (const { from, to, isLast } of job.spans) {
    const hash = running.get(job.series) ?? createHash('sha256');
    hash.update(new Uint8Array(job.memory, from, to - from));
    if (isLast) {
      digests.push(`sha256:${hash.digest('hex')}`);
      running.delete(job.series);
    } else running.set(job.series, hash);
  }
  const answer: DigestAnswer = { job: job.job, digests };
  parentPort?.postMessage(answer, []);
});
