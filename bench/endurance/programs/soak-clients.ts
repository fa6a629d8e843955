/**
 * All of the soak's clients but those of wrk: each actor does its thing again and again, and knows what must come of it.
 * argv: JSON of `WHERE`. Commands: `count` says what was done and what was wrong; `stop` ends the actors first.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { reasonOf } from '#errors';
import type { Actor, Fault, Where } from '../actors/outcome.ts';
import { REQUEST_ACTORS } from '../actors/requests.ts';
import { SOCKET_ACTORS } from '../actors/sockets.ts';
import { answerCommands, endWithStdin } from '../dialogue.ts';

const WHERE = z.object({ httpPort: z.int(), httpsPort: z.int(), host: z.string() });
const COMMAND = z.object({ kind: z.enum(['count', 'stop']) });
/** Different texts of faults that are kept. */
const FAULTS_MAX = 50;

const where: Where = WHERE.parse(JSON.parse(process.argv[2] ?? ''));
const done: Record<string, number> = {};
const faults: Record<string, number> = {};
const state = { stopped: false };

function note(name: string, fault: Fault): void {
  done[name] = (done[name] ?? 0) + 1;
  if (fault === undefined) return;
  const text = `${name}: ${fault}`;
  const key = text in faults || Object.keys(faults).length < FAULTS_MAX ? text : 'others';
  faults[key] = (faults[key] ?? 0) + 1;
}

async function play(actor: Actor): Promise<void> {
  while (!state.stopped) {
    try {
      note(actor.name, await actor.act(where));
    } catch (error) {
      note(actor.name, reasonOf(error));
    }
    await sleep(actor.pauseMs);
  }
}

const playing = [...REQUEST_ACTORS, ...SOCKET_ACTORS].flatMap((actor) =>
  Array.from({ length: actor.count }, async () => {
    await play(actor);
  }),
);
answerCommands(async (given) => {
  if (COMMAND.parse(given).kind === 'stop') {
    state.stopped = true;
    await Promise.all(playing);
  }
  return { done, faults };
});
endWithStdin();
