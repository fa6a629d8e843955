/**
 * What does it cost to know what a container or a volume has on disk, and is it right?
 *
 * Trees of `--files 10,10000,300000` files of 1 KiB, a hundred to a directory. Side by side in one run, rounds alternate: `DiskWalker`, as the node does it, and
 * `du -sx`, as an operator would. Medians of the CPU that the processor time of ended children says (in ticks of 10 ms: small trees are walked many times a
 * round) with the reader's own, the wall time, and both answers in bytes. Files are in the page cache. `--rounds N` (default 5), `--json FILE`.
 */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { DiskWalker } from '#isolation/disk-walk.ts';
import { machine, quantile } from './machine.ts';

const { values } = parseArgs({
  options: {
    files: { type: 'string', default: '10,10000,300000' },
    rounds: { type: 'string', default: '5' },
    json: { type: 'string' },
  },
});
const FILE = Buffer.alloc(1024, 1);
const PER_DIRECTORY = 100;
const TICK_MS = 10;
const TIMEOUT_MS = 600_000;
/** Files that a round looks at, at least, for ticks to say something. */
const FILES_A_ROUND = 10_000;
const WALKS_MAX = 100;
/** Fields of /proc/self/stat, counted behind the name: time of children that ended. */
const CHILDREN_USER = 13;
const CHILDREN_SYSTEM = 14;

const WAYS: Readonly<Record<string, (folder: string, walks: number) => Promise<number>>> = {
  DiskWalker: async (folder, walks) => {
    await using walker = new DiskWalker();
    let bytes = 0;
    for (let count = 0; count < walks; count += 1) {
      const walk = await walker.walk(folder, { timeoutMs: TIMEOUT_MS, signal: new AbortController().signal });
      if (walk?.isWhole !== true) throw new Error('the walk was cut');
      ({ bytes } = walk);
    }
    return bytes;
  },
  'du -sx': async (folder, walks) => {
    let bytes = 0;
    for (let count = 0; count < walks; count += 1) {
      const { stdout } = await promisify(execFile)('du', ['-sx', '--block-size=1', folder]);
      bytes = Number(stdout.split('\t')[0]);
    }
    return bytes;
  },
};

/** Of this process and its ended children. */
function cpuMs(): number {
  const [, fields = ''] = readFileSync('/proc/self/stat', 'latin1').split(') ');
  const parts = fields.split(' ');
  const { user, system } = process.cpuUsage();
  return (Number(parts[CHILDREN_USER]) + Number(parts[CHILDREN_SYSTEM])) * TICK_MS + (user + system) / 1000;
}

async function makeTree(folder: string, files: number): Promise<void> {
  for (let from = 0; from < files; from += PER_DIRECTORY) {
    const directory = join(folder, String(from));
    await mkdir(directory, { recursive: true });
    const names = Array.from({ length: Math.min(PER_DIRECTORY, files - from) }, (_, index) => join(directory, String(index)));
    await Promise.all(names.map(async (name) => await writeFile(name, FILE)));
  }
}

async function measure(folder: string, files: number): Promise<readonly object[]> {
  const walks = Math.min(WALKS_MAX, Math.max(1, Math.round(FILES_A_ROUND / files)));
  const runs = new Map(Object.keys(WAYS).map((name) => [name, { cpu: [] as number[], wall: [] as number[], bytes: 0 }]));
  for (let round = 0; round < Number(values.rounds); round += 1) {
    for (const [name, way] of Object.entries(WAYS)) {
      const run = runs.get(name);
      if (run === undefined) continue;
      const [fromCpuMs, fromMs] = [cpuMs(), performance.now()];
      run.bytes = await way(folder, walks);
      run.cpu.push((cpuMs() - fromCpuMs) / walks);
      run.wall.push((performance.now() - fromMs) / walks);
    }
  }
  return [...runs].map(([way, { cpu, wall, bytes }]) => ({
    files,
    way,
    walks,
    cpuMs: Number(quantile(cpu, 0.5).toFixed(2)),
    wallMs: Number(quantile(wall, 0.5).toFixed(2)),
    bytes,
  }));
}

const results: object[] = [];
for (const files of values.files.split(',').map(Number)) {
  const folder = await mkdtemp(join(tmpdir(), 'ecluse-disk-walk-'));
  try {
    await makeTree(folder, files);
    results.push(...(await measure(folder, files)));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
const report = JSON.stringify({ machine: machine(), rounds: Number(values.rounds), results }, undefined, 2);
process.stdout.write(`${report}\n`);
if (values.json !== undefined) await writeFile(values.json, `${report}\n`);
