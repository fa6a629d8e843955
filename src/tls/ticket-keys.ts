/** The keys that TLS session tickets are sealed with: in a file, so that every worker of every generation has the same, and anew after some hours. */
import { randomBytes } from 'node:crypto';
import { readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TICKET_KEYS_MS } from './policy.ts';

/** As Node's `setTicketKeys` takes them: a name, an HMAC key and an AES key of 16 bytes each. */
const TICKET_KEYS_BYTES = 48;

/** Those of now; made where there are none, where the file is not whole, and where they have served their time. */
export async function currentTicketKeys(folder: string, nowMs: number): Promise<Uint8Array> {
  const file = join(folder, 'ticket-keys');
  const kept = await readFile(file).catch(() => Buffer.alloc(0));
  if (kept.length === TICKET_KEYS_BYTES && nowMs - (await stat(file)).mtimeMs < TICKET_KEYS_MS) return kept;
  const keys = randomBytes(TICKET_KEYS_BYTES);
  await writeFile(`${file}.new`, keys, { mode: 0o600 });
  await rename(`${file}.new`, file);
  return keys;
}
