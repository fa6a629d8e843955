/** Moves of an app under load, there and back: one row of results for each app. */
import type { AppSettings } from '../app.ts';
import type { Seen } from '../clients/seen.ts';
import { startLoad } from '../load.ts';
import type { Audit, LoadSettings } from '../load.ts';
import { hostNow, move, movesTold } from '../move.ts';
import type { MoveReport } from '../move.ts';
import type { Scene } from '../scene.ts';
import { clientsSeen } from '../summary.ts';

export interface Course {
  readonly scene: Scene;
  readonly rounds: number;
  readonly load: LoadSettings;
  readonly say: (line: string) => void;
}

/** Not counted: the image's way to the second host, and the first touch of memory. */
const WARM_UP_MOVES = 2;

export async function movesOf(course: Course, app: AppSettings): Promise<object> {
  const { scene, rounds, say } = course;
  await scene.runApp(app);
  const windows: Seen[] = [];
  const reports: MoveReport[] = [];
  const refusals: string[] = [];
  let audit: Audit | undefined;
  try {
    await using load = await startLoad(scene.stage, scene.origin(app.name), course.load);
    for (let round = -WARM_UP_MOVES; round < rounds; round += 1) {
      const told: MoveReport[] = [];
      const from = await hostNow(scene, app.name);
      const window = await load.during(async () => {
        try {
          told.push(await move(scene, app.name, from));
        } catch (error) {
          refusals.push(String(error));
        }
      });
      say(`${app.name} round ${String(round)}: ${lineOf(window, told[0])}`);
      if (round < 0) continue;
      windows.push(window);
      reports.push(...told);
    }
    audit = await load.audit();
  } finally {
    await scene.removeApp(app.name);
  }
  return {
    liveMib: app.liveMib,
    dirtyMibPerSecond: app.dirtyMibPerSecond ?? 0,
    rounds: windows.length,
    failedMoves: refusals,
    clients: clientsSeen(windows),
    app: audit,
    node: movesTold(reports),
  };
}

/** What grows in the course of a run is seen here: an image, a phase. */
function reportOf({ heldMs, pausedMs, imageBytes = 0, phases = [] }: MoveReport): string {
  const took = (name: string): string => `${name} ${String(phases.find(({ phase }) => phase === name)?.tookMs)}`;
  const parts = ['checkpoint', 'restore'].map(took).join(', ');
  return `held ${String(heldMs)} ms, paused ${String(pausedMs)} ms (image ${String(Math.round(imageBytes / 2 ** 20))} MiB, ${parts})`;
}

function lineOf({ requests, events, webSockets }: Seen, report: MoveReport | undefined): string {
  const whole = Math.round;
  return [
    `gap ${String(whole(requests.gapMs))} ms, slowest ${String(whole(requests.latencyWorstMs))} ms`,
    `${String(requests.failed)} of ${String(requests.requests)} failed ${JSON.stringify(requests.failures)}`,
    `events ${String(whole(events.gapMs))} ms, WebSockets ${String(whole(webSockets.gapMs))} ms`,
    report === undefined ? 'the move failed' : reportOf(report),
    `client late ${String(whole(requests.clientLateMs))} ms`,
  ].join('; ');
}
