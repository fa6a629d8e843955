import {
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { diskBytesOf, packTree, unpackTree } from '#caas/snapshots/file-archive.ts';
import { restoreRefusalOf, targetRefusalOf, volumeFateOf } from '#caas/snapshots/restore-check.ts';
import type { LastPlace } from '#caas/snapshots/restore-check.ts';
import {
  isDue,
  roomRefusalOf,
  snapshotProblemOf,
  snapshotRefusalOf,
  snapshotWishOf,
  surplusOf,
} from '#caas/snapshots/snapshot-check.ts';
import { snapshotRowOf } from '#caas/snapshots/snapshot-row.ts';
import { volumeNamesOf } from '#caas/snapshots/volume-order.ts';
import { runCommand } from '#command';
import type { SnapshotKind, SnapshotRow } from '#state/snapshots.ts';
import { inspectOf, rowOf, specOf } from '../../support/caas-data.ts';

function snapshotAt(createdMs: number, kind: SnapshotKind = 'copy'): SnapshotRow {
  return snapshotRowOf(
    rowOf(),
    { name: 'a', runsc: { version: 'release-1' } },
    { id: `${kind}-${String(createdMs)}`, kind, nowMs: createdMs, serves: 'accepts' },
  );
}

describe('the label ecluse.snapshot', () => {
  test('is an interval of a minute or more, or wrong', () => {
    expect(snapshotWishOf({})).toEqual({ kind: 'none' });
    expect(snapshotWishOf({ 'ecluse.snapshot': '10m' })).toEqual({ kind: 'every', intervalMs: 600_000 });
    for (const text of ['', 'often', '-1m', '10', '59s', 'PT10M'])
      expect(snapshotWishOf({ 'ecluse.snapshot': text })).toMatchObject({ kind: 'invalid' });
    expect(snapshotProblemOf(specOf({ Labels: { 'ecluse.snapshot': 'often' } }))).toBe(
      'label ecluse.snapshot: "often" is no interval of 1m or more, such as 10m',
    );
    expect(snapshotProblemOf(specOf({ Labels: { 'ecluse.snapshot': '1h' } }))).toBeUndefined();
  });

  test('is refused beside a Docker socket', () => {
    const spec = specOf({
      Labels: { 'ecluse.snapshot': '10m' },
      HostConfig: { Binds: ['/var/run/docker.sock:/var/run/docker.sock'] },
    });
    expect(snapshotProblemOf(spec)).toContain('mounts a Docker socket');
  });

  test('makes one due after each interval, also where the clock was set back', () => {
    expect(isDue(1000, 60_999, 60_000)).toBe(false);
    expect(isDue(1000, 61_000, 60_000)).toBe(true);
    expect(isDue(1_000_000, 990_000, 60_000)).toBe(false);
    expect(isDue(1_000_000, 900_000, 60_000)).toBe(true);
  });
});

describe('taking a snapshot', () => {
  test('is refused for what sleeps or does not run; --rm and volumes are no hindrance', () => {
    const base = specOf();
    expect(snapshotRefusalOf(rowOf(), base, inspectOf(), true)).toBeUndefined();
    const brief = { ...base, hostConfig: { ...base.hostConfig, AutoRemove: true } };
    expect(snapshotRefusalOf(rowOf(), brief, inspectOf(), true)).toBeUndefined();
    expect(snapshotRefusalOf(rowOf({ snapshot: 'x' }), base, undefined, true)?.why).toBe('container web sleeps');
    expect(snapshotRefusalOf(rowOf({ state: 'exited' }), base, inspectOf(), true)?.why).toBe('container web is exited');
    expect(snapshotRefusalOf(rowOf(), base, inspectOf({}, { ExecIDs: ['x'] }), true)?.why).toContain('open exec sessions');
    expect(snapshotRefusalOf(rowOf(), base, inspectOf(), false)?.why).toContain('cannot save a sandbox');
  });

  test('drops the oldest of its kind: three by hand, two by the label', () => {
    const kept = [5, 1, 4, 3].map((at) => snapshotAt(at)).concat([9, 7, 8].map((at) => snapshotAt(at, 'automatic')));
    expect(surplusOf(kept, 'copy').map(({ id }) => id)).toEqual(['copy-1']);
    expect(surplusOf(kept, 'automatic').map(({ id }) => id)).toEqual(['automatic-7']);
    expect(surplusOf(kept.slice(0, 3), 'copy')).toEqual([]);
  });

  test('needs room on the disk, and in what its tenant may keep', () => {
    const GIB = 1024 ** 3;
    const roomy = { memoryBytes: GIB, treeBytes: GIB, freeBytes: 4 * GIB, tenantBytes: 0, tenantMemoryMax: GIB };
    expect(roomRefusalOf(roomy)).toBeUndefined();
    expect(roomRefusalOf({ ...roomy, freeBytes: 4 * GIB - 1 })?.why).toContain('the data directory has');
    expect(roomRefusalOf({ ...roomy, tenantBytes: 2 * GIB })).toBeUndefined();
    expect(roomRefusalOf({ ...roomy, tenantBytes: 2 * GIB + 1 })?.why).toContain('4 times its memory quota');
  });

  test('names the archives of volumes by their place', () => {
    const { mounts } = specOf({ HostConfig: { Binds: ['two:/2', 'one:/1:ro', 'two:/again'] } });
    expect(volumeNamesOf(mounts)).toEqual(['two', 'one']);
  });
});

describe('restoring', () => {
  const answers = (inspect: LastPlace & { kind: 'answers' }): LastPlace => inspect;

  test('is for what does not run, whatever the reason', () => {
    expect(restoreRefusalOf(rowOf(), { kind: 'unknown-host' }, [])).toBeUndefined();
    expect(restoreRefusalOf(rowOf(), { kind: 'silent' }, [])).toBeUndefined();
    expect(restoreRefusalOf(rowOf(), answers({ kind: 'answers', inspect: undefined }), [])).toBeUndefined();
    const exited = inspectOf({ Status: 'exited', Running: false });
    expect(restoreRefusalOf(rowOf({ state: 'exited' }), answers({ kind: 'answers', inspect: exited }), [])).toBeUndefined();
  });

  test('is refused for what runs, sleeps, or has a process left that nobody answers for', () => {
    expect(restoreRefusalOf(rowOf(), answers({ kind: 'answers', inspect: inspectOf() }), [])).toEqual({
      why: 'container web is running',
      mend: 'remove it or clone it',
    });
    const restarting = inspectOf({ Status: 'restarting', Running: false, Restarting: true });
    expect(restoreRefusalOf(rowOf(), answers({ kind: 'answers', inspect: restarting }), [])?.why).toContain('restarting');
    expect(restoreRefusalOf(rowOf({ snapshot: 'x' }), { kind: 'silent' }, [])?.why).toContain('sleeps');
    expect(restoreRefusalOf(rowOf(), { kind: 'silent' }, [4711])?.why).toContain('does not answer (process 4711)');
    expect(restoreRefusalOf(rowOf(), { kind: 'unknown-host' }, [4711])?.why).toContain('is not one of this node');
  });

  test('needs the runsc that wrote the snapshot', () => {
    const snapshot = snapshotAt(1);
    expect(targetRefusalOf(snapshot, { name: 'b', runscVersion: 'release-1' })).toBeUndefined();
    expect(targetRefusalOf(snapshot, { name: 'b', runscVersion: 'release-2' })?.why).toContain('written by runsc release-1');
  });

  test('sets back a volume that is the container’s own, or whose host is gone', () => {
    expect(volumeFateOf({ host: 'a', isShared: false, answers: true })).toBe('fill');
    expect(volumeFateOf({ host: 'a', isShared: true, answers: false })).toBe('fill');
    expect(volumeFateOf({ host: 'a', isShared: true, answers: true })).toBe('keep');
  });
});

describe('archives of files', () => {
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ecluse-archive-'));
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  test('keep owners, modes, links, holes, whiteouts and the marks of overlay', async () => {
    const from = join(folder, 'from');
    const to = join(folder, 'to');
    await mkdir(join(from, 'dir'), { recursive: true });
    await mkdir(to);
    await writeFile(join(from, 'dir', 'file'), 'text');
    await link(join(from, 'dir', 'file'), join(from, 'hard'));
    await symlink('dir/file', join(from, 'soft'));
    await chown(join(from, 'dir', 'file'), 1234, 5678);
    await chmod(from, 0o1751);
    await writeFile(join(from, 'holes'), 'x');
    await truncate(join(from, 'holes'), 64 * 1024 ** 2);
    await runCommand('mknod', [join(from, 'gone'), 'c', '0', '0']);
    await runCommand('mkfifo', [join(from, 'pipe')]);
    // A directory with overlay's mark for an opaque one, by tar's own words for attributes: machines have no program that sets one.
    const mark = 'SCHILY.xattr.trusted.overlay.opaque';
    await mkdir(join(folder, 'seed', 'opaque'), { recursive: true });
    const seed = join(folder, 'seed.tar');
    await runCommand('tar', ['-C', join(folder, 'seed'), '--format=posix', `--pax-option=${mark}:=y`, '-cf', seed, 'opaque']);
    await unpackTree(seed, from);
    await packTree(from, join(folder, 'files.tar'));
    await unpackTree(join(folder, 'files.tar'), to);
    expect((await readdir(to)).toSorted()).toEqual(['dir', 'gone', 'hard', 'holes', 'opaque', 'pipe', 'soft']);
    expect(await readFile(join(to, 'soft'), 'utf8')).toBe('text');
    expect(await readlink(join(to, 'soft'))).toBe('dir/file');
    const file = await lstat(join(to, 'dir', 'file'));
    expect([file.uid, file.gid, file.nlink, file.ino]).toEqual([1234, 5678, 2, (await lstat(join(to, 'hard'))).ino]);
    expect((await lstat(to)).mode % 0o10_000).toBe(0o1751);
    const gone = await lstat(join(to, 'gone'));
    expect([gone.isCharacterDevice(), gone.rdev]).toEqual([true, 0]);
    expect((await lstat(join(to, 'pipe'))).isFIFO()).toBe(true);
    expect(await diskBytesOf(to)).toBeLessThan(1024 ** 2);
    await packTree(to, join(folder, 'again.tar'));
    expect(await readFile(join(folder, 'again.tar'), 'latin1')).toContain(`${mark}=y`);
  });
});
