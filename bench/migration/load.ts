/** The load program as the benchmark holds it: started beside the node, asked in windows. */
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { ask } from '../endurance/dialogue.ts';
import type { Stage } from '../proxy/stage.ts';
import type { Origin } from './clients/origin.ts';
import { SEEN } from './clients/seen.ts';
import type { Seen } from './clients/seen.ts';

export interface LoadSettings {
  readonly ratePerSecond: number;
  /** Connections that requests share: what is due while all of them wait, waits in the client, and its latency says so. */
  readonly connectionsMax: number;
  readonly events: number;
  readonly webSockets: number;
}

const AUDIT = z.object({
  boot: z.string(),
  count: z.int(),
  numbers: z.int(),
  duplicated: z.int(),
  examples: z.array(z.int()),
});
/** What the app says about the requests that it carried out. */
export type Audit = z.infer<typeof AUDIT>;

export interface Load extends AsyncDisposable {
  /** What clients see from before `act` until all is as before. */
  readonly during: (act: () => Promise<void>) => Promise<Seen>;
  readonly audit: () => Promise<Audit>;
}

const PROGRAM = fileURLToPath(new URL('programs/load.ts', import.meta.url));
/** Node's start, and the first connections. */
const WARM_UP_MS = 2_500;
const BEFORE_MS = 400;
const AFTER_MS = 1_000;
const ANY_CORE = '0-1023';

/** `prefix`: words before the program, where it has to run elsewhere than here. */
export async function startLoad(
  stage: Stage,
  origin: Origin,
  settings: LoadSettings,
  prefix: readonly string[] = [],
): Promise<Load> {
  const told = JSON.stringify({ origin, ...settings });
  const child = stage.start({ core: ANY_CORE, argv: [...prefix, process.execPath, PROGRAM, told] });
  await sleep(WARM_UP_MS);
  return {
    during: async (act) => {
      await ask(child, z.object({}), { kind: 'begin' });
      await sleep(BEFORE_MS);
      await act();
      await sleep(AFTER_MS);
      return await ask(child, SEEN, { kind: 'end' });
    },
    audit: async () => await ask(child, AUDIT, { kind: 'audit' }),
    [Symbol.asyncDispose]: async () => {
      await child.stop();
    },
  };
}
