/** What must hold when a fault is over and the node has had time: one running copy, one set of books, nothing lost and nothing left. */
import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import * as z from 'zod';
import { sandboxesOn } from './fault-kinds.ts';
import { CPUS, HOSTS, MEMORY_MIB, TENANT, engineSays, imageFolderOf, otherHost, placeOf } from './fault-scene.ts';
import type { FaultScene, HostName, Place } from './fault-scene.ts';

/** A line a violation; empty where all is well. */
export async function violationsOf(scene: FaultScene): Promise<readonly string[]> {
  const place = placeOf(scene);
  const found = await Promise.all([
    runningOf(scene, place),
    enginesOf(scene, place),
    filesOf(scene, place),
    leftOf(scene, place),
    answerOf(scene),
    limitsOf(scene, place),
  ]);
  return [...storeOf(scene, place), ...booksOf(scene, place), ...found.flat()];
}

function storeOf(scene: FaultScene, place: Place): readonly string[] {
  const found: string[] = [];
  if (place.state !== 'running') found.push(`the store says ${place.state}`);
  if (place.snapshot !== '') found.push('the store says that it sleeps');
  const open = scene.query(`SELECT state FROM migration WHERE state IN ('preparing', 'paused', 'committed')`);
  if (open.length > 0) found.push(`a journal is open: ${String(open[0]?.['state'])}`);
  const snapshots = scene.query('SELECT state FROM snapshot');
  if (snapshots.length > 0) found.push(`a snapshot is left: ${String(snapshots[0]?.['state'])}`);
  const [volume] = scene.query('SELECT host FROM volume');
  if (volume?.['host'] !== place.host) found.push(`the volume is on ${String(volume?.['host'])}, the container on ${place.host}`);
  return found;
}

const intervalSchema = z.object({
  incarnation: z.number(),
  seq: z.number(),
  host: z.string(),
  from_ms: z.number(),
  to_ms: z.number(),
});
type Interval = z.infer<typeof intervalSchema>;

/** One incarnation is open, where the container is; intervals follow each other without gap or overlap, incarnations without overlap. */
export function booksOf(scene: FaultScene, place: Place): readonly string[] {
  const found: string[] = [];
  const open = scene.query(
    `SELECT host, incarnation FROM incarnation WHERE closed_ms IS NULL AND container = '${place.id}' ORDER BY incarnation`,
  );
  const said = open.map((row) => `${String(row['host'])}#${String(row['incarnation'])}`).join(', ');
  if (said !== `${place.host}#${String(place.incarnation)}`)
    found.push(`open incarnations: ${said}; the container is ${place.host}#${String(place.incarnation)}`);
  const rows = scene.query(
    `SELECT incarnation, seq, host, from_ms, to_ms FROM ledger WHERE container = '${place.id}' AND kind = 'interval' ORDER BY incarnation, seq`,
  );
  const intervals = z.array(intervalSchema).parse(rows);
  for (const [index, interval] of intervals.entries()) {
    const before = intervals[index - 1];
    if (before !== undefined && !follows(before, interval)) found.push(`the ledger: ${text(before)}, then ${text(interval)}`);
  }
  return found;
}

function follows(before: Interval, next: Interval): boolean {
  if (before.incarnation === next.incarnation) return next.seq === before.seq + 1 && next.from_ms === before.to_ms;
  return next.seq === 1 && next.from_ms >= before.to_ms;
}

function text(interval: Interval): string {
  return `${interval.host}#${String(interval.incarnation)}.${String(interval.seq)} ${String(interval.from_ms)}–${String(interval.to_ms)}`;
}

async function runningOf(scene: FaultScene, place: Place): Promise<readonly string[]> {
  const here = await sandboxesOn(scene, place.host, place.id);
  const there = await sandboxesOn(scene, otherHost(place.host), place.id);
  const found: string[] = [];
  if (here.length !== 1) found.push(`${String(here.length)} sandboxes on ${place.host}, where the container is`);
  if (there.length > 0) found.push(`${String(there.length)} sandboxes on ${otherHost(place.host)}, where it is not`);
  return found;
}

async function enginesOf(scene: FaultScene, place: Place): Promise<readonly string[]> {
  const found: string[] = [];
  for (const host of HOSTS) {
    const listed = await engineSays(scene, host, ['ps', '-a', '--no-trunc', '--format', '{{.ID}} {{.State}}']);
    const wanted = host === place.host ? `${place.engineId} running` : '';
    if (listed !== wanted)
      found.push(`the engine of ${host} has: ${listed?.replaceAll('\n', ', ') ?? 'no answer'}; wanted: ${wanted}`);
  }
  const policy = await engineSays(scene, place.host, ['inspect', '-f', '{{.HostConfig.RestartPolicy.Name}}', place.engineId]);
  if (policy !== 'unless-stopped') found.push(`its restart policy is ${String(policy)}`);
  return found;
}

async function answerOf(scene: FaultScene): Promise<readonly string[]> {
  return (await scene.load.ask()) === undefined ? ['the edge has no good answer'] : [];
}

/** Saves and restores lift them. */
async function limitsOf(scene: FaultScene, place: Place): Promise<readonly string[]> {
  const below = `ecluse/${scene.scope}-${place.host}/${TENANT}/${place.id}/${place.engineId}`;
  const memory = await firstOf([`memory/${below}/memory.limit_in_bytes`, `${below}/memory.max`]);
  const cpu = await firstOf([`cpu/${below}/cpu.cfs_quota_us`, `${below}/cpu.max`]);
  const found: string[] = [];
  if (memory !== String(MEMORY_MIB * 1024 ** 2)) found.push(`its memory limit is ${memory}`);
  if (cpu.split(' ')[0] !== String(CPUS * 100_000)) found.push(`its processor limit is ${cpu}`);
  return found;
}

/** The one of these files of cgroups that there is: of version 1, or of version 2. */
async function firstOf(files: readonly string[]): Promise<string> {
  const read = files.map(async (file) => await readFile(join('/sys/fs/cgroup', file), 'utf8').catch(() => ''));
  return (await Promise.all(read)).join('').trim();
}

/** The numbers that the program wrote: 1..n in both files, and no fewer than before. */
export async function numbersIn(
  scene: FaultScene,
): Promise<{ readonly root: readonly number[]; readonly volume: readonly number[] }> {
  const place = placeOf(scene);
  const format = '{{.GraphDriver.Data.UpperDir}}{{range .Mounts}}{{if eq .Destination "/data"}} {{.Source}}{{end}}{{end}}';
  const said = await engineSays(scene, place.host, ['inspect', '--format', format, place.engineId]);
  const [upper = '', volume = ''] = said?.split(' ') ?? [];
  const read = async (file: string): Promise<readonly number[]> =>
    (await readFile(file, 'utf8').catch(() => '')).split('\n').slice(0, -1).map(Number);
  return { root: await read(join(upper, 'app/numbers')), volume: await read(join(volume, 'numbers')) };
}

async function filesOf(scene: FaultScene, place: Place): Promise<readonly string[]> {
  const found: string[] = [];
  for (const [where, numbers] of Object.entries(await numbersIn(scene))) {
    const wrong = numbers.findIndex((number, index) => number !== index + 1);
    if (numbers.length === 0) found.push(`no numbers in its ${where}`);
    if (wrong >= 0)
      found.push(
        `in its ${where} on ${place.host} line ${String(wrong + 1)} of ${String(numbers.length)} is ${String(numbers[wrong])}`,
      );
  }
  return found;
}

/** Programs that may name the node's directory: its engines, what runs a container, and these looks themselves. */
const AT_HOME = new Set(['docker', 'dockerd', 'containerd', 'containerd-shim-runc-v2', 'runsc-sandbox', 'runsc-gofer', 'node']);

async function leftOf(scene: FaultScene, place: Place): Promise<readonly string[]> {
  const found = await namesIn(imageFolderOf(scene));
  for (const host of HOSTS) {
    for (const folder of ['staged', 'held']) found.push(...(await namesIn(join(scene.dataDir, 'hosts', host, 'runsc', folder))));
    if (host !== place.host) {
      found.push(...(await namesIn(join(scene.dataDir, 'hosts', host, 'runsc', 'final'))));
      const volumes = await engineSays(scene, host, ['volume', 'ls', '--quiet']);
      if (volumes !== '') found.push(`the engine of ${host} has volumes: ${volumes ?? 'no answer'}`);
    }
  }
  return [...found, ...(await processesOf(scene, place))];
}

async function namesIn(folder: string): Promise<string[]> {
  return (await readdir(folder).catch(() => [])).map((name) => `left: ${join(folder, name)}`);
}

async function processesOf(scene: FaultScene, place: Place): Promise<readonly string[]> {
  const found: string[] = [];
  const shims = new Map<HostName, number>();
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
    if (!words.some((word) => word.includes(`${scene.dataDir}/`))) continue;
    const name = basename(words[0] ?? '');
    const host = HOSTS.find((each) => words.some((word) => word.includes(join(scene.dataDir, 'hosts', each))));
    if (name.startsWith('containerd-shim') && host !== undefined) shims.set(host, (shims.get(host) ?? 0) + 1);
    else if (!AT_HOME.has(name)) found.push(`process ${pid}: ${words.join(' ').slice(0, 160)}`);
  }
  for (const host of HOSTS) {
    const count = shims.get(host) ?? 0;
    if (count !== (host === place.host ? 1 : 0)) found.push(`${String(count)} shims on ${host}`);
  }
  return found;
}
