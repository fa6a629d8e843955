/** One `ecluse migrate` and its report, whatever of it this version tells. */
import { z } from 'zod';
import type { Scene } from './scene.ts';
import { spreadOf } from './summary.ts';

const PHASE = z.looseObject({ phase: z.string(), tookMs: z.number() });
const REPORT = z.looseObject({
  totalMs: z.number(),
  heldMs: z.number().optional(),
  pausedMs: z.number().optional(),
  memoryBytes: z.number().optional(),
  imageBytes: z.number().optional(),
  bytesPreCopied: z.number().optional(),
  bytesAfterFreeze: z.number().optional(),
  cut: z.number().optional(),
  phases: z.array(PHASE).optional(),
});
export type MoveReport = z.infer<typeof REPORT>;

/** Where the container is now. */
export async function hostNow(scene: Scene, name: string): Promise<string> {
  const listed = await scene.ecluse('ps', '--json');
  const rows = z.array(z.looseObject({ name: z.string(), host: z.string() })).parse(JSON.parse(listed.stdout));
  const row = rows.find((each) => each.name === name || each.name.endsWith(`/${name}`));
  if (row === undefined) throw new Error(`ecluse ps does not list ${name}`);
  return row.host;
}

/** To the other of the two hosts. */
export async function move(scene: Scene, name: string, from: string): Promise<MoveReport> {
  const moved = await scene.ecluse('migrate', name, '--to', from === 'a' ? 'b' : 'a', '--json');
  if (moved.exitCode !== 0) throw new Error(`ecluse migrate ${name}: ${moved.stderr.trim()}`);
  return REPORT.parse(JSON.parse(moved.stdout));
}

/** What the node says about its moves. Fields that this version does not tell are absent. */
export function movesTold(reports: readonly MoveReport[]): object {
  const field = (name: keyof MoveReport): ReturnType<typeof spreadOf> => spreadOf(numbers(reports, name));
  const shares = reports.flatMap(({ bytesAfterFreeze, memoryBytes }) =>
    bytesAfterFreeze === undefined || memoryBytes === undefined ? [] : [bytesAfterFreeze / memoryBytes],
  );
  return {
    heldMs: field('heldMs'),
    pausedMs: field('pausedMs'),
    totalMs: field('totalMs'),
    memoryBytes: field('memoryBytes'),
    imageBytes: field('imageBytes'),
    bytesPreCopied: field('bytesPreCopied'),
    bytesAfterFreeze: field('bytesAfterFreeze'),
    afterFreezeShare: spreadOf(shares),
    cut: field('cut'),
    phasesMs: phasesOf(reports),
  };
}

function numbers(reports: readonly MoveReport[], name: keyof MoveReport): readonly number[] {
  return reports.map((report) => report[name]).filter((value) => typeof value === 'number');
}

function phasesOf(reports: readonly MoveReport[]): object | undefined {
  const phases = reports.flatMap((report) => report.phases ?? []);
  if (phases.length === 0) return undefined;
  const names = [...new Set(phases.map(({ phase }) => phase))];
  return Object.fromEntries(
    names.map((name) => [name, spreadOf(phases.filter(({ phase }) => phase === name).map(({ tookMs }) => tookMs))]),
  );
}
