/**
 * Exec sessions, as the sandbox has them: processes without a parent beside the first one, and whatever holds a stream of the host that is not the
 * container's own. A sandbox with such a stream cannot be restored (decision 017), also when the session itself ended long ago.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { tryCommand } from '#command';
import { EcluseError } from '#errors';
import type { RunscCapabilities } from './runsc-probe.ts';
import { sandboxProcesses } from './sandbox-processes.ts';
import type { SandboxProcess } from './sandbox-processes.ts';

const KILL_TIMEOUT_MS = 20_000;
/** A program that starts others while it is being killed, or takes its time to end, is met again in the next look. */
const LOOKS_MAX = 40;
const LOOK_MS = 100;
const FIRST_PID = 1;
/** The container's own standard streams, whatever its first process has closed of them. */
const OWN_STREAMS = ['host:[1]', 'host:[2]', 'host:[3]'];

const isRoot = ({ pid, ppid }: SandboxProcess): boolean => ppid === 0 && pid !== FIRST_PID;

/**
 * Which processes belong to exec sessions. `isSpared`: sessions of ours that end by themselves (health checks), with what they started.
 * A daemon that a session started and that let go of its streams is left: it can be saved, and lives on where a move goes back. Pure.
 */
export function sessionPids(
  processes: readonly SandboxProcess[],
  isSpared: (process: SandboxProcess) => boolean,
): readonly number[] {
  const own = new Set([...OWN_STREAMS, ...(processes.find(({ pid }) => pid === FIRST_PID)?.hostFiles ?? [])]);
  const spared = descendantsOf(
    processes,
    processes.filter((process) => isRoot(process) && isSpared(process)),
  );
  // Without the list of open files nobody knows what a session's children hold: then all of them go.
  const areFilesKnown = processes.some(({ hostFiles }) => hostFiles.length > 0);
  const below = areFilesKnown ? new Set<number>() : descendantsOf(processes, processes.filter(isRoot));
  return processes
    .filter((process) => !spared.has(process.pid) && process.pid !== FIRST_PID)
    .filter((process) => isRoot(process) || below.has(process.pid) || process.hostFiles.some((file) => !own.has(file)))
    .map(({ pid }) => pid);
}

/** Pids of these and of all that came of them. */
function descendantsOf(processes: readonly SandboxProcess[], roots: readonly SandboxProcess[]): Set<number> {
  const found = new Set(roots.map(({ pid }) => pid));
  for (let before = -1; before !== found.size;) {
    before = found.size;
    for (const { pid, ppid } of processes) if (found.has(ppid)) found.add(pid);
  }
  return found;
}

/** Kills all exec sessions of a sandbox that runs, so that their clients hear of their end. Returns how many processes that were. */
export async function killSessions(
  runsc: RunscCapabilities,
  place: { readonly runscRoot: string; readonly engineId: string },
  isSpared: (process: SandboxProcess) => boolean,
): Promise<number> {
  let ended = 0;
  let last = '';
  for (let look = 0; look < LOOKS_MAX; look += 1) {
    const pids = sessionPids(await sandboxProcesses(runsc, place), isSpared);
    if (pids.length === 0) return ended;
    for (const pid of pids) {
      const args = ['--root', place.runscRoot, 'kill', '--pid', String(pid), place.engineId, 'KILL'];
      const killed = await tryCommand(runsc.path, args, { timeoutMs: KILL_TIMEOUT_MS });
      if (killed.exitCode === 0) ended += 1;
      else last = killed.stderr.trim().slice(-200); // It ended by itself, or the next look finds it again.
    }
    await sleep(LOOK_MS);
  }
  throw new EcluseError({
    code: 'ECLUSE_SESSIONS_NOT_ENDED',
    source: 'runtime',
    message: `exec sessions in the container do not end${last === '' ? '' : `: ${last}`}`,
    mend: 'end them from inside, or restart the container',
  });
}
