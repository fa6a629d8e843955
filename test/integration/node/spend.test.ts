/** A cap that is reached, on a real node: its tenant's container sleeps with its memory, requests are refused, and who wakes it by hand has it. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ask } from '../../support/http-client.ts';
import { expectNothingLeft } from '../../support/leftovers.ts';
import { startNode } from '../../support/node.ts';
import type { TestNode } from '../../support/node.ts';

const HOST = 'hello.localhost';
let node: TestNode;

beforeAll(async () => {
  node = await startNode({ demo: true });
});

afterAll(async () => {
  await node[Symbol.asyncDispose]();
  await expectNothingLeft(node.dataDir);
});

async function done(...args: readonly string[]): Promise<string> {
  const answer = await node.ecluse(...args);
  expect(answer.stderr).toBe('');
  expect(answer.exitCode).toBe(0);
  return answer.stdout;
}

async function count(): Promise<{ readonly status: number; readonly count: number }> {
  const { status, body } = await ask({ port: node.ports.http, host: HOST, path: '/count' });
  return { status, count: Number(/"count":(\d+)/.exec(body.toString())?.[1]) };
}

test('what has spent its cap sleeps, and is not woken by requests', { timeout: 90_000 }, async () => {
  const before = await count();
  expect(before.status).toBe(200);
  const book = join(node.dataDir, 'book.json');
  const plans = { small: { tenants: ['demo'], cap: '0.000001' } };
  await writeFile(book, JSON.stringify({ currency: 'EUR', from: '2020-01-01T00:00:00Z', prices: { vcpuHour: '100' }, plans }));
  await done('usage'); // Writes down what was used so far.
  await done('prices', 'apply', book);
  await expect.poll(async () => await done('ps'), { timeout: 20_000 }).toContain('(asleep)');
  expect(await done('events', '--last', '100', '--json')).toContain('"spend.reached"');
  expect((await count()).status).toBe(503);
  expect(await done('ps')).toContain('(asleep)');
  // Who may do so wakes it, and it goes on where it was.
  await done('wake', 'hello');
  expect(await count()).toEqual({ status: 200, count: before.count + 1 });
});
