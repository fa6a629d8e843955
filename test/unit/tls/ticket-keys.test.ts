import { mkdtemp, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { TICKET_KEYS_MS } from '#tls/policy.ts';
import { currentTicketKeys } from '#tls/ticket-keys.ts';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-tickets-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function keysAt(nowMs: number): Promise<string> {
  return Buffer.from(await currentTicketKeys(folder, nowMs)).toString('hex');
}

test('they are made once, for their owner only, and kept over starts until their time is over', async () => {
  const file = join(folder, 'ticket-keys');
  const nowMs = Date.now();
  const first = await keysAt(nowMs);
  expect(first).toHaveLength(96);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect(await keysAt(nowMs + TICKET_KEYS_MS - 60_000)).toBe(first);
  const second = await keysAt(nowMs + TICKET_KEYS_MS + 60_000);
  expect(second).not.toBe(first);
  expect((await readFile(file)).toString('hex')).toBe(second);
  expect(await keysAt(nowMs)).toBe(second);
});

test('a file that is not whole is made anew, and one from before as well', async () => {
  const file = join(folder, 'ticket-keys');
  await writeFile(file, 'short');
  const made = await keysAt(Date.now());
  expect(made).toHaveLength(96);
  const dayAgo = new Date(Date.now() - 86_400_000);
  await utimes(file, dayAgo, dayAgo);
  expect(await keysAt(Date.now())).not.toBe(made);
});
