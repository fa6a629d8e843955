/** The processes in a sandbox, as gVisor's own kernel has them; nothing of the host's. */
import * as z from 'zod';
import { tryCommand } from '#command';
import { EcluseError } from '#errors';
import { tryJson } from '#json';
import { goDurationMs } from '#units';
import type { RunscCapabilities } from './runsc-probe.ts';

export interface SandboxProcess {
  readonly uid: number;
  readonly gid: number;
  readonly pid: number;
  readonly ppid: number;
  /** CPU use in percent, as `ps -ef` shows it under C. */
  readonly cpuPercent: number;
  /** `?` without a terminal. */
  readonly tty: string;
  /** `08:13` or `Nov21`. */
  readonly start: string;
  readonly cpuMs: number;
  /** Its name, at most 15 characters. */
  readonly comm: string;
  /** Its whole command line; empty where this runsc does not tell. */
  readonly args: readonly string[];
  readonly vszKiB: number;
  readonly rssKiB: number;
  readonly pgid: number;
  readonly sid: number;
  /** Its open files that are the host's (`host:[12]`): the streams of the container, or of an exec session. Empty where this runsc does not tell. */
  readonly hostFiles: readonly string[];
}

const TIMEOUT_MS = 20_000;
const procSchema = z.object({
  args: z.array(z.string()).nullish(),
  status: z.object({
    pid: z.int(),
    gid: z.object({ effective: z.int() }).optional(),
    vm_size: z.number().optional(),
    vm_rss: z.number().optional(),
  }),
  stat: z.object({ pgid: z.int(), sid: z.int() }).optional(),
  fdlist: z.array(z.object({ path: z.string() })).nullish(),
});
type ProcEntry = z.infer<typeof procSchema>;

/** Lines of JSON, one a process, behind a title. */
function readProcDump(text: string): ReadonlyMap<number, ProcEntry> {
  const found = new Map<number, ProcEntry>();
  for (const line of text.split('\n')) {
    if (!line.startsWith('{')) continue;
    const parsed = procSchema.safeParse(tryJson(line));
    if (parsed.success) found.set(parsed.data.status.pid, parsed.data);
  }
  return found;
}

const TABLE_ROW = /^(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(.*)$/;

type Detail = Pick<SandboxProcess, 'gid' | 'args' | 'vszKiB' | 'rssKiB' | 'pgid' | 'sid' | 'hostFiles'>;

function detailOf(pid: number, entry: ProcEntry | undefined): Detail {
  if (entry === undefined) return { gid: 0, args: [], vszKiB: 0, rssKiB: 0, pgid: pid, sid: pid, hostFiles: [] };
  const { args, status, stat, fdlist } = entry;
  return {
    gid: status.gid?.effective ?? 0,
    args: args ?? [],
    vszKiB: status.vm_size ?? 0,
    rssKiB: status.vm_rss ?? 0,
    pgid: stat?.pgid ?? pid,
    sid: stat?.sid ?? pid,
    hostFiles: (fdlist ?? []).map(({ path }) => path).filter((path) => path.startsWith('host:[')),
  };
}

/** The table of `runsc ps` (UID PID PPID C TTY STIME TIME CMD), with what `runsc trace procfs` adds. Pure. */
export function readProcesses(table: string, procDump: string): readonly SandboxProcess[] {
  const details = readProcDump(procDump);
  const processes: SandboxProcess[] = [];
  for (const line of table.split('\n').slice(1)) {
    const found = TABLE_ROW.exec(line.trim());
    if (found === null) continue;
    const [, uid, pid, ppid, cpu, tty = '?', start = '', time = '', comm = ''] = found;
    processes.push({
      ...detailOf(Number(pid), details.get(Number(pid))),
      uid: Number(uid),
      pid: Number(pid),
      ppid: Number(ppid),
      cpuPercent: Number(cpu),
      tty,
      start,
      cpuMs: Math.floor(goDurationMs(time) ?? 0),
      comm: comm.trim(),
    });
  }
  return processes;
}

/** Asks a sandbox that runs. */
export async function sandboxProcesses(
  runsc: RunscCapabilities,
  place: { readonly runscRoot: string; readonly engineId: string },
): Promise<readonly SandboxProcess[]> {
  const ask = async (...command: readonly string[]) =>
    await tryCommand(runsc.path, ['--root', place.runscRoot, ...command, place.engineId], { timeoutMs: TIMEOUT_MS });
  // Older releases have no `trace procfs`: then there are names without arguments.
  const [table, dump] = await Promise.all([ask('ps', '-format=table'), ask('trace', 'procfs')]);
  if (table.exitCode !== 0) {
    throw new EcluseError({
      code: 'ECLUSE_SANDBOX_PS_FAILED',
      source: 'runtime',
      status: 500,
      message: `the processes of sandbox ${place.engineId} could not be read: ${table.stderr.trim().slice(-300)}`,
    });
  }
  return readProcesses(table.stdout, dump.exitCode === 0 ? dump.stdout : '');
}
