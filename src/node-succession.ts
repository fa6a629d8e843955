/**
 * What the primaries of a node hand on to each other: a number for each, and the workers that serve on between them.
 *
 * An upgrade puts the program that lies on the disk now in the place of this process (`execve`): the supervisor, the terminal and the engines see the
 * same process id, and everything that the old program had open is closed by the kernel. It is a crash that was announced: what a primary does after a
 * kill -9 is all that the next one does.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { tryCommand } from '#command';
import type { NodeConfig } from '#config';
import { EcluseError, reasonOf } from '#errors';
import type { Log } from '#log';
import { Predecessors } from '#proxy/generation/predecessors.ts';
import { readSetting, writeSetting } from '#state/settings.ts';
import type { Sql } from '#state/sql.ts';

export interface UpgradeOrder {
  /** What connections of this generation get to end, from the moment when the next one listens. */
  readonly drainMs: number;
}

const GENERATION_KEY = 'generation';
const CHECK_LIMIT_MS = 30_000;
const COMMAND_FILE = fileURLToPath(new URL('../bin/ecluse', import.meta.url));

export function successorSocketOf(config: Pick<NodeConfig, 'dataDir'>): string {
  return join(config.dataDir, 'workers.sock');
}

/** Hears workers of earlier primaries from here on. The node's lock is held. */
export async function openPredecessors(config: NodeConfig, log: Log): Promise<Predecessors> {
  return await Predecessors.open(log.child({ mod: 'generations' }), successorSocketOf(config));
}

/** The number of this primary: one more than the last one's. */
export async function nextGeneration(sql: Sql): Promise<number> {
  const generation = Number((await readSetting(sql, GENERATION_KEY)) ?? '0') + 1;
  await writeSetting(sql, GENERATION_KEY, String(generation));
  return generation;
}

/** Whether the program on the disk starts with this node's arguments and configuration, as far as that can be seen without starting it. */
export async function checkSuccessor(): Promise<void> {
  const { exitCode, stdout, stderr } = await tryCommand(COMMAND_FILE, [...process.argv.slice(2), '--check'], {
    timeoutMs: CHECK_LIMIT_MS,
  });
  if (exitCode === 0) return;
  const lines = `${stderr}\n${stdout}`.split('\n').filter((line) => line.trim() !== '');
  throw new EcluseError({
    code: 'ECLUSE_UPGRADE_REFUSED',
    source: 'config',
    status: 409,
    message: `the program that would take over does not start: ${lines.slice(0, 5).join('; ')}`,
    mend: 'nothing was changed; mend the configuration or the installation, and try again',
  });
}

/** Tells the next generation that it was told to stop while it came up. */
const STOP_VARIABLE = 'ECLUSE_STOPPED_BY';

/**
 * Puts the program on the disk in the place of this one. `stop`: a signal that came meanwhile; the next generation takes over what there is, and stops in
 * order. Returns only where the kernel refuses.
 */
export function becomeSuccessor(stop: NodeJS.Signals | undefined): void {
  const env = stop === undefined ? process.env : { ...process.env, [STOP_VARIABLE]: stop };
  process.execve?.(COMMAND_FILE, [COMMAND_FILE, ...process.argv.slice(2)], env);
}

/** The signal that the generation before got while it handed over. Once: programs that are started do not inherit it. */
export function signalBefore(): NodeJS.Signals | undefined {
  const signal = process.env[STOP_VARIABLE];
  delete process.env[STOP_VARIABLE];
  return signal === 'SIGTERM' || signal === 'SIGINT' ? signal : undefined;
}

/** Takes the steps of a hand-over, each whatever becomes of the others: the next primary puts right what one left. */
export async function handOver(log: Log, steps: readonly (readonly [string, () => Promise<unknown>])[]): Promise<void> {
  for (const [step, work] of steps) {
    try {
      await work();
    } catch (error) {
      log.error({ step, reason: reasonOf(error) }, 'a step of an upgrade failed, and is left to the next generation');
    }
  }
}
