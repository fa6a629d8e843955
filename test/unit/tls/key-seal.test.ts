/** Sealed keys on a real file: what opens, what does not, and what a node says of a key file that is not as it should be. */
import { chmod, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { KeySeal } from '#tls/key-seal.ts';

let folder: string;
const file = (): string => join(folder, 'certificates.key');

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ecluse-seal-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

test('the first start makes a key that only the owner reads; a later one opens what was sealed', async () => {
  const first = await KeySeal.open(folder, []);
  expect((await stat(file())).mode & 0o777).toBe(0o600);
  expect(await readdir(folder)).toEqual(['certificates.key']);
  const sealed = first.seal('the key', 'shop 1');
  expect(Buffer.from(sealed, 'base64').includes('the key')).toBe(false);
  expect(first.seal('the key', 'shop 1')).not.toBe(sealed);
  const second = await KeySeal.open(folder, [first.id]);
  expect(second.id).toBe(first.id);
  expect(second.unseal(sealed, 'shop 1')).toBe('the key');
});

test('what belongs to another row, or was changed, does not open', async () => {
  const seal = await KeySeal.open(folder, []);
  const sealed = seal.seal('the key', 'shop 1');
  const bytes = Buffer.from(sealed, 'base64');
  const flipped = Array.from(bytes, (_, at) => {
    const copy = Buffer.from(bytes);
    copy.writeUInt8(copy.readUInt8(at) ^ 1, at);
    return copy;
  });
  const wrong = [
    [sealed, 'shop 2'],
    [sealed, 'other 1'],
    ['', 'shop 1'],
    ['AAAA', 'shop 1'],
    [bytes.subarray(1).toString('base64'), 'shop 1'],
    ...flipped.map((copy) => [copy.toString('base64'), 'shop 1']),
  ];
  for (const [text = '', belongsTo = ''] of wrong) {
    expect(() => seal.unseal(text, belongsTo)).toThrow(expect.objectContaining({ code: 'ECLUSE_CERTIFICATE_SEAL' }));
  }
});

test.each([
  { what: 'is missing', says: /is missing: there is no .*certificates\.key/, damage: async () => rm(file()) },
  { what: 'can be read by others', says: /mode 0644/, damage: async () => chmod(file(), 0o644) },
  { what: 'is damaged', says: /is damaged/, damage: async () => writeFile(file(), 'nonsense') },
  { what: 'is another one', says: /another one/, damage: async () => writeFile(file(), `${'ab'.repeat(32)}\n`) },
])('a key file that $what is refused with what to do, and stays as it is', async ({ says, damage }) => {
  const { id } = await KeySeal.open(folder, []);
  await damage();
  const before = await readFile(file(), 'utf8').catch(() => undefined);
  await expect(KeySeal.open(folder, [id])).rejects.toMatchObject({
    code: 'ECLUSE_CERTIFICATE_KEY',
    message: says,
    mend: /restore it from a backup|chmod 600/,
  });
  expect(await readFile(file(), 'utf8').catch(() => undefined)).toBe(before);
});
