/**
 * Reads certificates for `node-certificate-reader.ts`, in a process of its own: what a hundred thousand of them leave behind on V8's and malloc's heaps goes with it.
 * It opens the store for reading, has the key that opens certificates from its parent, and ends with it.
 */
import { LRUCache } from 'lru-cache';
import { reasonOf } from '#errors';
import { RECENT_MAX } from '#proxy/certificate-delivery.ts';
import { PackServer } from '#proxy/pack-channel.ts';
import type { PackQuestion } from '#proxy/pack-channel.ts';
import { openSqliteReader } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import { CertificatePack } from '#tls/certificate-pack.ts';
import { KeySeal } from '#tls/key-seal.ts';
import { bareCertificates, packCertificates } from './node-certificate-store.ts';
import type { FromReading, ToReading } from './node-certificate-reader.ts';

interface Opened {
  readonly sql: Sql;
  readonly seal: KeySeal;
}

let store: Opened | undefined;
/** What workers asked for last, by the id that the primary gave it: those that boot together ask for the same. */
const recent = new LRUCache<number, Promise<CertificatePack>>({ max: RECENT_MAX });

function say(message: FromReading): void {
  process.send?.(message, undefined, {}, () => undefined); // A parent that is gone shows as `disconnect`.
}

async function answer(message: ToReading): Promise<void> {
  if (message.kind === 'open') {
    const { storeFile, key, socketPath } = message;
    const opened = { sql: openSqliteReader(storeFile), seal: KeySeal.of(key) };
    store = opened;
    await PackServer.open(socketPath, async (question) => await packFor(opened, question));
    say({ kind: 'listening' });
    return;
  }
  if (store === undefined) throw new Error('the store is not open');
  const packs = (await bareCertificates(store)).packsBeside(new Map());
  say({ kind: 'bare', packs: packs.map(({ number, pack }) => ({ number, bytes: pack.bytes })) });
}

function refused(name: string, reason: string): void {
  say({ kind: 'refused', name, reason });
}

async function packFor(opened: Opened, { id, names }: PackQuestion): Promise<CertificatePack> {
  if (names.length === 0) return CertificatePack.empty;
  const known = recent.get(id);
  if (known !== undefined) return await known;
  const reading = packCertificates({ ...opened, refused }, names);
  recent.set(id, reading);
  reading.catch(() => recent.delete(id));
  return await reading;
}

// Ctrl-C reaches the whole process group; what it is to mean is the parent's.
process.on('SIGINT', () => undefined);
process.on('disconnect', () => {
  // oxlint-disable-next-line unicorn/no-process-exit -- this is the program's own end
  process.exit(0);
});
process.on('message', (message: ToReading) => {
  answer(message).catch((error: unknown) => {
    say({ kind: 'failed', reason: reasonOf(error) });
  });
});
