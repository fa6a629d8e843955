/** Whom the responder asks. */
import { mkdtemp, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { systemClock } from '#clock';
import { RESOLVERS_FRESH_MS } from '#caas/dns/limits.ts';
import { parseResolvConf, watchResolvers } from '#caas/dns/machine-resolvers.ts';

test('parseResolvConf() takes the first three addresses, also on loopback, and never its own', () => {
  const text = [
    '# nameserver 192.0.2.1',
    'nameserver 192.0.2.53',
    '  nameserver   127.0.0.53 ',
    'nameserver ::1',
    'nameserver resolver.test',
    'nameserver',
    'search nameserver',
    'nameserver fe80::1%eth0',
    'nameserver 192.0.2.9',
  ].join('\n');
  expect(parseResolvConf(text).map(({ address }) => address)).toEqual(['127.0.0.53', '::1', 'fe80::1%eth0']);
  expect(parseResolvConf('')).toEqual([]);
});

test('watchResolvers() sees that the file changed, once it may look again, and that it is gone', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'ecluse-resolvers-'));
  try {
    const file = join(dir, 'resolv.conf');
    let nowMs = 0;
    const resolvers = watchResolvers({ ...systemClock, monotonicMs: () => nowMs }, file);
    const addresses = async (): Promise<readonly string[]> => (await resolvers()).map(({ address }) => address);
    expect(await addresses()).toEqual([]);
    await writeFile(file, 'nameserver 192.0.2.1\n');
    expect(await addresses()).toEqual([]);
    nowMs += RESOLVERS_FRESH_MS;
    expect(await addresses()).toEqual(['192.0.2.1']);
    await writeFile(file, 'nameserver 192.0.2.22\n');
    nowMs += RESOLVERS_FRESH_MS;
    expect(await addresses()).toEqual(['192.0.2.22']);
    await unlink(file);
    nowMs += RESOLVERS_FRESH_MS;
    expect(await addresses()).toEqual([]);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
