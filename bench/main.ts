/** `npm run bench -- NAME [options]`: runs one benchmark; without a name, lists them. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

const SHARED = new Set(['main.ts', 'machine.ts']);
const names = readdirSync(import.meta.dirname)
  .filter((name) => name.endsWith('.ts') && !SHARED.has(name))
  .map((name) => name.replace(/\.ts$/, ''));
const [, , name, ...rest] = process.argv;
if (name === undefined || !names.includes(name)) {
  process.stderr.write(`usage: npm run bench -- NAME [options]; benchmarks: ${names.join(', ')}\n`);
  process.exitCode = 2;
} else {
  const { status } = spawnSync(process.execPath, [join(import.meta.dirname, `${name}.ts`), ...rest], { stdio: 'inherit' });
  process.exitCode = status ?? 1;
}
