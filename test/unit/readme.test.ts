/** The documents that name what is in the tree, compared with the tree. */
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { fencedBlocks, lastColumnWords, mappedFiles, relativeLinks } from '../support/doc-examples.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

async function sourceFiles(): Promise<readonly string[]> {
  const entries = await readdir(join(ROOT, 'src'), { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name).slice(ROOT.length));
}

test("the README's map names every file of src/, and no other, once", async () => {
  const mapped = mappedFiles(await readFile(join(ROOT, 'README.md'), 'utf8'));
  expect(mapped.toSorted()).toEqual((await sourceFiles()).toSorted());
});

test('every symbol that the lexicon names is in the code', async () => {
  const files = await sourceFiles();
  const code = (await Promise.all(files.map(async (file) => await readFile(join(ROOT, file), 'utf8')))).join('\n');
  const known = new Set(code.match(/[A-Za-z_]\w*/g));
  const symbols = lastColumnWords(await readFile(join(ROOT, 'docs/lexicon.md'), 'utf8'));
  expect(symbols.length).toBeGreaterThan(50);
  expect(symbols.filter((symbol) => !known.has(symbol))).toEqual([]);
});

test('a fenced block has a language, words and its text; what looks like Markdown inside is text', () => {
  const markdown = '# One\n\n```sh as-root-once\n# no heading\n[no](link)\n```\n\n[a](b.md#c) [web](https://x.test)\n';
  expect(fencedBlocks(markdown)).toEqual([
    { line: 3, language: 'sh', words: ['as-root-once'], text: '# no heading\n[no](link)\n' },
  ]);
  expect(relativeLinks(markdown)).toEqual([{ line: 8, target: 'b.md#c' }]);
});

test('a fence that is not closed is an error', () => {
  expect(() => fencedBlocks('text\n```sh\nls\n')).toThrow('line 2: the fence is not closed');
});
