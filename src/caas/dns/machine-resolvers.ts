/** The resolvers that the machine itself uses, as its resolv.conf names them by now. */
import { readFile, stat } from 'node:fs/promises';
import { isIP } from 'node:net';
import type { Clock } from '#clock';
import { RESOLVER_ADDRESS } from '#isolation/host-addresses.ts';
import { RESOLVERS_FRESH_MS, RESOLVERS_MAX } from './limits.ts';

export interface Resolver {
  readonly address: string;
  readonly port: number;
}

const PORT = 53;

/** Those on loopback count too: the node asks them from the machine's own namespace. Ours does not: it would ask itself. Pure. */
export function parseResolvConf(text: string): readonly Resolver[] {
  const found = text.split('\n').flatMap((line) => {
    const [word, address = ''] = line.trim().split(/\s+/);
    return word === 'nameserver' && isIP(address) !== 0 && address !== RESOLVER_ADDRESS ? [{ address, port: PORT }] : [];
  });
  return found.slice(0, RESOLVERS_MAX);
}

/** Returns a function that tells them; it looks at the file again when that has changed. None where the file is away. */
export function watchResolvers(clock: Clock, file = '/etc/resolv.conf'): () => Promise<readonly Resolver[]> {
  let known: readonly Resolver[] = [];
  let version = '';
  let lookedMs = Number.NEGATIVE_INFINITY;
  return async () => {
    if (clock.monotonicMs() - lookedMs < RESOLVERS_FRESH_MS) return known;
    lookedMs = clock.monotonicMs();
    try {
      const { mtimeMs, size, ino } = await stat(file);
      const current = `${String(mtimeMs)} ${String(size)} ${String(ino)}`;
      if (current !== version) known = parseResolvConf(await readFile(file, 'utf8'));
      version = current;
    } catch {
      known = []; // A machine without it has no resolvers to ask.
      version = '';
    }
    return known;
  };
}
