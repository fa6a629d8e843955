/** The processor limit of a container while the node saves or restores it: the real wrapper and a real cgroup, with a program in runsc's place. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { tryCommand } from '#command';
import { detectCgroups } from '#isolation/cgroup.ts';
import { PreparedSave, stageImage } from '#isolation/checkpoint.ts';
import { WRAPPER_FILE } from '#isolation/runtime-settings.ts';

const ID = 'd'.repeat(64);
/** A tenth of a processor. */
const QUOTA_US = 10_000;

describe('a container with a processor limit', { timeout: 20_000 }, () => {
  let folder: string;
  /** Of the kernel. */
  let parent: string;
  let quotaFile: string;
  let cgroup: string;

  beforeEach(async () => {
    folder = await mkdtemp('/tmp/limit-');
    cgroup = `/ecluse-limit-${String(process.pid)}`;
    const isV1 = existsSync('/sys/fs/cgroup/cpu/cpu.cfs_quota_us') || existsSync('/sys/fs/cgroup/cpu/tasks');
    parent = join(isV1 ? '/sys/fs/cgroup/cpu' : '/sys/fs/cgroup', cgroup);
    await mkdir(parent);
    if (!isV1) await writeFile(join(parent, 'cgroup.subtree_control'), '+cpu');
    await mkdir(join(parent, ID));
    quotaFile = join(parent, ID, isV1 ? 'cpu.cfs_quota_us' : 'cpu.max');
    await writeFile(quotaFile, String(QUOTA_US));
    for (const name of ['cgroup', 'staged', 'image', 'images']) await mkdir(join(folder, name));
    await writeFile(join(folder, 'cgroup', ID), cgroup);
    await writeFile(join(folder, 'settings'), `RUNSC='${folder}/runsc'\nCGROUP_PREFIX=${cgroup}\n`);
  });

  afterEach(async () => {
    await rmdir(join(parent, ID));
    await rmdir(parent);
    await rm(folder, { recursive: true, force: true });
  });

  /** What runsc does; it writes down how much of the processors it may have meanwhile. */
  async function runsc(script: string): Promise<void> {
    const text = `#!/bin/sh\ncase " $* " in *' export-metrics '*) echo '# End of metric data.'; exit 0 ;; esac\nflock '${folder}/${ID}_sandbox:${ID}.lock' cat '${quotaFile}' >>'${folder}/seen'\nimage=''
for word in "$@"; do [ "$before" != --image-path ] || image=$word; before=$word; done\n${script}\n`;
    await writeFile(join(folder, 'runsc'), text);
    await chmod(join(folder, 'runsc'), 0o755);
  }

  const seen = async (): Promise<readonly string[]> => [
    ...new Set((await readFile(join(folder, 'seen'), 'utf8')).trim().split('\n')),
  ];
  const quota = async (): Promise<number> => Number((await readFile(quotaFile, 'utf8')).split(' ')[0]);
  const NONE = /^(?:-1|max 100000)$/;

  async function save(): Promise<number> {
    const place = { runtimeDir: folder, runscRoot: folder, engineId: ID, cgroup: `${cgroup}/${ID}` };
    await using prepared = await PreparedSave.open(await detectCgroups(), place, join(folder, 'images', 'one'));
    expect(await quota()).toBe(QUOTA_US);
    return await prepared.go().saved;
  }

  test('is saved without it, and has it again', async () => {
    await runsc('[ "$image" = "" ] || { sleep 0.1; mkdir -p "$image"; printf 123 >"$image/pages.img"; }');
    expect(await save()).toBe(3);
    expect(await seen()).toEqual([expect.stringMatching(NONE)]);
    expect(await quota()).toBe(QUOTA_US);
  });

  test('has it again where the node that asked is killed meanwhile', async () => {
    await runsc('[ "$image" = "" ] || { sleep 0.3; mkdir -p "$image"; printf 123 >"$image/pages.img"; }');
    const words = ['--ecluse-dir', folder, '--root', folder, 'save', '--image-path', join(folder, 'images', 'one'), ID];
    const child = spawn(WRAPPER_FILE, words, { stdio: ['pipe', 'pipe', 'ignore'] });
    const ended = once(child, 'exit');
    child.stdout.destroy(); // Whoever reads is gone before it is told of the pause.
    child.stdin.end('go\n');
    await ended;
    expect(await quota()).toBe(QUOTA_US);
    expect(existsSync(join(folder, 'images', 'one', 'pages.img'))).toBe(true);
  });

  test('has it again where the save fails', async () => {
    await runsc('[ "$image" = "" ] || { echo no save >&2; exit 1; }');
    await expect(save()).rejects.toThrow('no save');
    expect(await quota()).toBe(QUOTA_US);
  });

  test('has it again where the save takes too long and is given up', async () => {
    await runsc('[ "$image" = "" ] || sleep 30');
    const words = ['--ecluse-dir', folder, '--root', folder, 'save', '--image-path', join(folder, 'images', 'one'), ID];
    const child = spawn(WRAPPER_FILE, words, { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
    const ended = once(child, 'close');
    child.stdin.end('go\n');
    await expect.poll(quota, { timeout: 10_000 }).not.toBe(QUOTA_US);
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGTERM');
    await ended;
    expect(await quota()).toBe(QUOTA_US);
  });

  async function restore(): Promise<number> {
    await stageImage({ runtimeDir: folder, engineId: ID }, join(folder, 'image'));
    const { exitCode } = await tryCommand(WRAPPER_FILE, ['--ecluse-dir', folder, '--root', folder, 'start', ID]);
    return exitCode;
  }

  test.each([
    ['true', 0],
    ['exit 3', 3],
  ])('is restored without it, and has it again, whatever becomes of the restore: %s', async (script, exitCode) => {
    await runsc(script);
    expect(await restore()).toBe(exitCode);
    expect(await seen()).toEqual([expect.stringMatching(NONE)]);
    expect(await quota()).toBe(QUOTA_US);
  });
});
