import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SnapshotVault } from '#isolation/snapshot-vault.ts';

const ENTRY = { tenant: 'acme', id: 'one' };

describe('SnapshotVault', () => {
  let folder: string;
  let vault: SnapshotVault;
  const files = new Map<string, Buffer>();

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ecluse-vault-'));
    vault = await SnapshotVault.open(join(folder, 'vault'));
    files.clear();
    // Nothing, less than a piece, exactly two pieces, and a bit more than two.
    for (const [name, bytes] of [
      ['empty', 0],
      ['small', 1000],
      ['even', 2 * 1024 ** 2],
      ['pages.img', 2 * 1024 ** 2 + 7],
    ] as const)
      files.set(name, randomBytes(bytes));
    await mkdir(join(folder, 'image'));
    for (const [name, content] of files) await writeFile(join(folder, 'image', name), content);
    await vault.seal(ENTRY, join(folder, 'image'));
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  const sealed = (name: string): string => join(folder, 'vault', ENTRY.id, name);
  const unseal = async (entry = ENTRY): Promise<void> => {
    await vault.unseal(entry, join(folder, 'out'));
  };

  test('gives back what it was given, and keeps none of it readable', async () => {
    await unseal();
    expect((await readdir(join(folder, 'out'))).toSorted()).toEqual([...files.keys()].toSorted());
    for (const [name, content] of files) {
      expect((await readFile(join(folder, 'out', name))).equals(content)).toBe(true);
      expect(
        (await readFile(sealed(name))).includes(
          Buffer.concat([content.subarray(0, 64), Buffer.alloc(content.length === 0 ? 32 : 0)]),
        ),
      ).toBe(false);
    }
  });

  test('reads nothing for another tenant, under another id, or with another key', async () => {
    await expect(unseal({ ...ENTRY, tenant: 'other' })).rejects.toMatchObject({ code: 'ECLUSE_SNAPSHOT_UNREADABLE' });
    await rename(join(folder, 'vault', 'one'), join(folder, 'vault', 'two'));
    await expect(unseal({ ...ENTRY, id: 'two' })).rejects.toMatchObject({ code: 'ECLUSE_SNAPSHOT_UNREADABLE' });
    await rename(join(folder, 'vault', 'two'), join(folder, 'vault', 'one'));
    await writeFile(join(folder, 'vault', 'node.key'), randomBytes(32));
    vault = await SnapshotVault.open(join(folder, 'vault'));
    await expect(unseal()).rejects.toMatchObject({ code: 'ECLUSE_SNAPSHOT_UNREADABLE' });
    expect(await readdir(folder)).not.toContain('out');
  });

  test.each([
    [
      'a flipped bit',
      async (): Promise<void> => {
        const bytes = await readFile(sealed('pages.img'));
        bytes.writeUInt8(bytes.readUInt8(1024 ** 2 + 100) ^ 1, 1024 ** 2 + 100);
        await writeFile(sealed('pages.img'), bytes);
      },
    ],
    [
      'a piece that was cut off',
      async (): Promise<void> => {
        await truncate(sealed('pages.img'), 2 * (1024 ** 2 + 16));
      },
    ],
    [
      'a file of another name',
      async (): Promise<void> => {
        await rename(sealed('even'), sealed('even2'));
      },
    ],
    [
      'two pieces that changed places',
      async (): Promise<void> => {
        const bytes = await readFile(sealed('even'));
        const half = bytes.length / 2;
        await writeFile(sealed('even'), Buffer.concat([bytes.subarray(half), bytes.subarray(0, half)]));
      },
    ],
    [
      'nothing where a file was',
      async (): Promise<void> => {
        await writeFile(sealed('empty'), '');
      },
    ],
  ])('notices %s', async (_, harm) => {
    await harm();
    await expect(unseal()).rejects.toMatchObject({ code: 'ECLUSE_SNAPSHOT_UNREADABLE' });
    expect(await readdir(folder)).not.toContain('out');
  });

  test('refuses a key file that is none', async () => {
    await writeFile(join(folder, 'vault', 'node.key'), 'short');
    await expect(SnapshotVault.open(join(folder, 'vault'))).rejects.toMatchObject({ code: 'ECLUSE_SNAPSHOT_KEY_INVALID' });
  });

  test('removes what nobody has', async () => {
    await mkdir(join(folder, 'vault', 'two.unfinished'));
    expect(await vault.keepOnly(new Set(['one']))).toEqual(['two.unfinished']);
    await unseal();
    await vault.remove('one');
    await expect(unseal()).rejects.toMatchObject({ code: 'ECLUSE_SNAPSHOT_UNREADABLE' });
  });
});
