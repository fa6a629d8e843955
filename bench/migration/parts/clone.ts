/** Warm copies beside cold starts: 20 copies of an app that had a second of work at its start are to be ready in the time of five such starts. */
import { absenceOf, mustEcluse } from '../lifecycle.ts';
import { APP_PORT } from '../app.ts';
import type { Scene } from '../scene.ts';
import { untilAnswers } from '../scene.ts';
import { spreadOf } from '../summary.ts';

const COPIES = 20;
const COLD_STARTS_OF_GOAL = 5;
const APP = { name: 'model', liveMib: 100, warmUpMs: 1000 };

export interface CloneCourse {
  readonly scene: Scene;
  readonly rounds: number;
  readonly say: (line: string) => void;
}

export async function clones({ scene, rounds, say }: CloneCourse): Promise<object> {
  const cold: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    if (round > 0) await scene.removeApp(APP.name);
    cold.push(await scene.runApp(APP));
  }
  say(`cold start: ${JSON.stringify(spreadOf(cold))}`);
  const coldMs = spreadOf(cold);
  try {
    const absent = await absenceOf(scene, 'clone');
    if (absent !== undefined) return { available: false, reason: absent, coldStartMs: coldMs };
    const warm: number[] = [];
    for (let round = 0; round < rounds; round += 1) warm.push(await cloneAll(scene));
    const warmMs = spreadOf(warm);
    const ratio = (warmMs?.p50 ?? Number.NaN) / (coldMs?.p50 ?? Number.NaN);
    say(`${String(COPIES)} copies: ${JSON.stringify(warmMs)}`);
    return {
      available: true,
      copies: COPIES,
      coldStartMs: coldMs,
      allCopiesReadyMs: warmMs,
      inColdStarts: Number(ratio.toFixed(2)),
      goalColdStarts: COLD_STARTS_OF_GOAL,
    };
  } finally {
    await scene.removeApp(APP.name);
  }
}

/** From the command to the last copy's first answer. */
async function cloneAll(scene: Scene): Promise<number> {
  const before = new Set(await namesOf(scene));
  const startMs = performance.now();
  await mustEcluse(scene, 'clone', APP.name, '--count', String(COPIES));
  const copies = (await namesOf(scene)).filter((name) => !before.has(name));
  if (copies.length !== COPIES) throw new Error(`there are ${String(copies.length)} copies, not ${String(COPIES)}`);
  await Promise.all(copies.map(async (name) => await untilAnswers(await placeOf(scene, name))));
  const tookMs = performance.now() - startMs;
  await scene.docker('rm', '--force', ...copies);
  return tookMs;
}

async function namesOf(scene: Scene): Promise<readonly string[]> {
  return (await scene.docker('ps', '--format', '{{.Names}}')).split('\n').filter((name) => name !== '');
}

async function placeOf(
  scene: Scene,
  name: string,
): Promise<{ readonly port: number; readonly host: string; readonly address: string }> {
  const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}';
  return { port: APP_PORT, host: name, address: await scene.docker('inspect', '--format', format, name) };
}
