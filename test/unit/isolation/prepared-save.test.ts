/** Saves that wait for their word. The wrapper is real, with a program in runsc's place that takes the lock on a container's state as runsc does. */
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { detectCgroups } from '#isolation/cgroup.ts';
import { PreparedSave } from '#isolation/checkpoint.ts';
import { containing } from '../../support/matchers.ts';

const ID = 'c'.repeat(64);
/** More than the kernel's clock needs to tell two times apart. */
const A_WHILE = 'sleep 0.2';

describe('PreparedSave', { timeout: 20_000 }, () => {
  let folder: string;
  let imageDir: string;

  beforeEach(async () => {
    folder = await mkdtemp('/tmp/save-');
    imageDir = join(folder, 'images', 'one');
    await mkdir(join(folder, 'cgroup', 'c'), { recursive: true });
    await writeFile(join(folder, 'cgroup', 'cgroup.controllers'), 'memory\n');
    await writeFile(join(folder, 'cgroup', 'c', 'memory.max'), '1000\n');
    await writeFile(join(folder, 'metrics'), '# End of metric data.\n');
    await writeFile(join(folder, 'settings'), `RUNSC='${folder}/runsc'\nCGROUP_PREFIX=/ecluse/test-a\n`);
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  /** What runsc does once it has the lock, as shell; `$image` is where it saves to. */
  async function runsc({ pause, save }: { readonly pause: string; readonly save: string }): Promise<void> {
    const script = `#!/bin/sh
command='' image=''
case " $* " in *' export-metrics '*) exec cat '${folder}/metrics' ;; esac
for word in "$@"; do
  case $word in pause | checkpoint) command=$word ;; esac
  [ "$before" != --image-path ] || image=$word
  before=$word
done
echo "$command begins" >>'${folder}/calls'
flock '${folder}/${ID}_sandbox:${ID}.lock' true
echo "$command goes on" >>'${folder}/calls'
case $command in
  pause) ${pause} ;;
  checkpoint) mkdir -p "$image" && ${save} ;;
esac
`;
    await writeFile(join(folder, 'runsc'), script);
    await chmod(join(folder, 'runsc'), 0o755);
  }

  async function open(): Promise<PreparedSave> {
    const place = { runtimeDir: folder, runscRoot: folder, engineId: ID, cgroup: '/c' };
    const save = await PreparedSave.open(await detectCgroups(join(folder, 'cgroup')), place, imageDir);
    await expect.poll(async () => (await calls()).toSorted(), { timeout: 5_000 }).toEqual(['checkpoint begins', 'pause begins']);
    return save;
  }

  const calls = async (): Promise<readonly string[]> => {
    if (!existsSync(join(folder, 'calls'))) return [];
    return (await readFile(join(folder, 'calls'), 'utf8')).trim().split('\n');
  };
  const limit = async (): Promise<string> => await readFile(join(folder, 'cgroup', 'c', 'memory.max'), 'utf8');

  test('has its programs started, which go on at its word, and tells of the pause before the end', async () => {
    await runsc({ pause: 'true', save: `${A_WHILE} && printf 12345 >"$image/pages.img"` });
    await using save = await open();
    expect([await limit(), existsSync(imageDir)]).toEqual(['1000\n', false]);
    const { paused, saved } = save.go();
    await paused;
    expect(existsSync(join(imageDir, 'pages.img'))).toBe(false);
    expect(await saved).toBe(5);
    expect([(await calls()).length, await limit()]).toEqual([4, 'max']);
  });

  test('that is not told to go does nothing', async () => {
    await runsc({ pause: 'true', save: 'true' });
    const save = await open();
    await save[Symbol.asyncDispose]();
    expect([(await calls()).length, existsSync(imageDir), await limit()]).toEqual([2, false, '1000\n']);
  });

  test('is made again where the pause came after its end: the program had run on in between', async () => {
    await runsc({ pause: A_WHILE, save: `echo x >>'${folder}/saves' && cp '${folder}/saves' "$image/pages.img"` });
    await using save = await open();
    const { saved } = save.go();
    expect(await saved).toBe('x\nx\n'.length);
    expect((await calls()).slice(-2)).toEqual(['checkpoint begins', 'checkpoint goes on']);
  });

  test('is made again where it reset connections', async () => {
    await writeFile(join(folder, 'metrics'), 'runsc_netstack_tcp_current_open 3\n# End of metric data.\n');
    const reset = `printf 'runsc_netstack_tcp_resets_sent 3\\n# End of metric data.\\n' >'${folder}/metrics'`;
    const save = `echo x >>'${folder}/saves' && cp '${folder}/saves' "$image/pages.img" && ${reset} && ${A_WHILE}`;
    await runsc({ pause: 'true', save: `${save} && touch "$image/pages.img"` });
    await using prepared = await open();
    expect(await prepared.go().saved).toBe('x\nx\n'.length);
  });

  test('is made once where connections are open and stay', async () => {
    await writeFile(join(folder, 'metrics'), 'runsc_netstack_tcp_current_open 3\n# End of metric data.\n');
    await runsc({ pause: 'true', save: `${A_WHILE} && printf 1 >"$image/pages.img"` });
    await using prepared = await open();
    expect(await prepared.go().saved).toBe(1);
    expect((await calls()).filter((call) => call === 'checkpoint goes on')).toHaveLength(1);
  });

  test.each([
    ['pause', { pause: 'echo no pause >&2; exit 1', save: `${A_WHILE} && printf 1 >"$image/pages.img"` }, 'no pause', 'rejected'],
    ['save', { pause: 'true', save: '{ echo no save >&2; exit 1; }' }, 'no save', 'fulfilled'],
  ])('whose %s fails says why, and leaves no image and the limit as it was', async (_, script, words, pause) => {
    await runsc(script);
    await using save = await open();
    const { paused, saved } = save.go();
    const [{ status }] = await Promise.all([
      Promise.allSettled([paused]).then(([first]) => first),
      expect(saved).rejects.toMatchObject({ code: 'ECLUSE_CHECKPOINT_FAILED', message: containing(words) }),
    ]);
    expect(status).toBe(pause);
    expect([existsSync(imageDir), await limit(), await readdir(join(folder, 'images'))]).toEqual([false, '1000', []]);
  });
});
