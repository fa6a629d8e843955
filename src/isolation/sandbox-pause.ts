/**
 * Holds a running sandbox still, below its engine: no event, and its tenant sees no pause.
 *
 * INVARIANT: whatever becomes of us, the sandbox goes on. A process of its own waits for our end of a pipe to close, and then resumes it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { runCommand } from '#command';
import type { SandboxPlace } from './checkpoint.ts';
import { WRAPPER_FILE } from './runtime-settings.ts';

/** A sandbox stops its tasks within milliseconds. */
const PAUSE_TIMEOUT_MS = 20_000;

/** Runs `work` while nothing in the sandbox runs. */
export async function whilePaused<T>(
  place: Pick<SandboxPlace, 'runtimeDir' | 'runscRoot' | 'engineId'>,
  work: () => Promise<T>,
): Promise<T> {
  const globals = ['--ecluse-dir', place.runtimeDir, '--root', place.runscRoot];
  const waiter = spawn('sh', ['-c', 'cat >/dev/null; exec "$0" "$@"', WRAPPER_FILE, ...globals, 'resume', place.engineId], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true, // A Ctrl-C in our terminal must not reach it.
  });
  const resumed = once(waiter, 'exit');
  try {
    await runCommand(WRAPPER_FILE, [...globals, 'pause', place.engineId], { timeoutMs: PAUSE_TIMEOUT_MS });
    return await work();
  } finally {
    waiter.stdin.end();
    await resumed; // Its exit code says nothing: a sandbox that ended meanwhile cannot be resumed.
  }
}
