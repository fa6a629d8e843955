/**
 * Reads certificates for `node-certificate-reader.ts`, in a process of its own: what a hundred thousand of them leave behind on V8's and malloc's heaps goes with it.
 * It opens the store for reading, has the key that opens certificates from its parent, and ends with it.
 */
import { reasonOf } from '#errors';
import { openSqliteReader } from '#state/sqlite.ts';
import type { Sql } from '#state/sql.ts';
import { KeySeal } from '#tls/key-seal.ts';
import { bareCertificates, packCertificates } from './node-certificate-store.ts';
import type { FromReading, ToReading } from './node-certificate-reader.ts';

let store: { readonly sql: Sql; readonly seal: KeySeal } | undefined;

function say(message: FromReading): void {
  process.send?.(message, undefined, {}, () => undefined); // A parent that is gone shows as `disconnect`.
}

async function answer(message: ToReading): Promise<void> {
  if (message.kind === 'open') {
    store = { sql: openSqliteReader(message.storeFile), seal: KeySeal.of(message.key) };
    return;
  }
  if (store === undefined) throw new Error('the store is not open');
  if (message.kind === 'bare') {
    const packs = (await bareCertificates(store)).packsBeside(new Map());
    say({ kind: 'packs', id: message.id, packs: packs.map(({ number, pack }) => ({ number, bytes: pack.bytes })) });
    return;
  }
  const refused = (name: string, reason: string): void => {
    say({ kind: 'refused', name, reason });
  };
  const { bytes } = await packCertificates({ ...store, refused }, message.names);
  say({ kind: 'packs', id: message.id, packs: [{ number: 0, bytes }] });
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
