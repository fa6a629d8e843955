/** What the OCI wrapper is told. */
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runCommand } from '#command';
import { runscFlags, WRAPPER_FILE, writeRuntimeSettings } from '#isolation/runtime-settings.ts';
import { RUNSC_2024 } from '../../support/runsc-data.ts';

const RUNSC = { ...RUNSC_2024, path: "/opt/it's here/runsc" };

test('runscFlags() asks for what this build has', () => {
  expect(runscFlags(RUNSC)).toContain('--net-disconnect-ok');
  expect(runscFlags({ ...RUNSC, netDisconnectOk: false })).not.toContain('--net-disconnect-ok');
});

test('the settings are shell that says what was meant, and for nobody else to read', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'ecluse-settings-'));
  try {
    await writeRuntimeSettings(dir, RUNSC, '/ecluse/x');
    const said = await runCommand('sh', [
      '-euc',
      `. ${dir}/settings; printf '%s|%s|%s|%s' "$RUNSC" "$MASK_PROC_SYS_NET" "$HAS_UPDATE" "$CGROUP_PREFIX"`,
    ]);
    expect(said).toBe("/opt/it's here/runsc|1|0|/ecluse/x");
    expect((await stat(join(dir, 'settings'))).mode & 0o077).toBe(0);
    const resolvers = 'nameserver 192.0.2.53\noptions ndots:0 timeout:2 attempts:2\n';
    expect(await readFile(join(dir, 'resolv.conf'), 'utf8')).toBe(resolvers);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});

test('the wrapper is correct shell', async () => {
  expect(await runCommand('sh', ['-n', WRAPPER_FILE])).toBe('');
});
