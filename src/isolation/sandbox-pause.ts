/**
 * Holds a running sandbox still, below its engine: no event, and its tenant sees no pause.
 *
 * INVARIANT: whatever becomes of us, the sandbox goes on. A process of its own waits for our end of a pipe to close, and then resumes it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { runCommand, tryCommand } from '#command';
import { EcluseError } from '#errors';
import type { SandboxPlace } from './checkpoint.ts';
import { WRAPPER_FILE } from './runtime-settings.ts';

/** A sandbox stops its tasks within milliseconds. */
const PAUSE_TIMEOUT_MS = 20_000;
/** runsc's words where there is nothing to resume. */
const NOT_PAUSED = /cannot resume container|does not exist|not paused|loading container/i;

type PausePlace = Pick<SandboxPlace, 'runtimeDir' | 'runscRoot' | 'engineId'>;

function globalsOf(place: PausePlace): readonly string[] {
  return ['--ecluse-dir', place.runtimeDir, '--root', place.runscRoot];
}

/** Stops everything in a sandbox, until `resumeSandbox`: a death of ours leaves it still. */
export async function pauseSandbox(place: PausePlace): Promise<void> {
  await runCommand(WRAPPER_FILE, [...globalsOf(place), 'pause', place.engineId], { timeoutMs: PAUSE_TIMEOUT_MS });
}

/** Lets a sandbox go on; nothing where it is not paused, or gone. */
export async function resumeSandbox(place: PausePlace): Promise<void> {
  const resumed = await tryCommand(WRAPPER_FILE, [...globalsOf(place), 'resume', place.engineId], {
    timeoutMs: PAUSE_TIMEOUT_MS,
  });
  if (resumed.exitCode === 0 || NOT_PAUSED.test(resumed.stderr)) return;
  throw new EcluseError({
    code: 'ECLUSE_SANDBOX_RESUME_FAILED',
    source: 'runtime',
    message: `a paused sandbox did not go on: ${resumed.stderr.trim().slice(-300)}`,
    mend: 'restart the container',
  });
}

/** Runs `work` while nothing in the sandbox runs. */
export async function whilePaused<T>(place: PausePlace, work: () => Promise<T>): Promise<T> {
  const globals = globalsOf(place);
  const waiter = spawn('sh', ['-c', 'cat >/dev/null; exec "$0" "$@"', WRAPPER_FILE, ...globals, 'resume', place.engineId], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true, // A Ctrl-C in our terminal must not reach it.
  });
  const resumed = once(waiter, 'exit');
  try {
    await pauseSandbox(place);
    return await work();
  } finally {
    waiter.stdin.end();
    await resumed; // Its exit code says nothing: a sandbox that ended meanwhile cannot be resumed.
  }
}
