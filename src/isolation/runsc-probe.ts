/**
 * What the machine's `runsc` can do. Releases differ a lot (flags come and go, Debian's is two years behind), so nothing is
 * concluded from a version where the program itself can be asked.
 */
import { tryCommand } from '#command';
import { EcluseError } from '#errors';
import { findProgram } from './program-path.ts';

export interface RunscCapabilities {
  readonly path: string;
  /** As it calls itself: `release-20240729.0` or Debian's `0.0~20240729.0`. */
  readonly version: string;
  /** The release's day as a number (20240729); undefined for a build that does not say. */
  readonly dateYmd: number | undefined;
  /** `checkpoint --leave-running`. */
  readonly leaveRunning: boolean;
  /** `checkpoint --compression=none`. */
  readonly compressionNone: boolean;
  /** `checkpoint --direct`: O_DIRECT writes of the pages file. */
  readonly checkpointDirect: boolean;
  /** Global `--net-disconnect-ok`: a save cuts established external connections instead of failing. */
  readonly netDisconnectOk: boolean;
  /** Global `--save-restore-netstack`: the network stack is part of the checkpoint. */
  readonly saveRestoreNetstack: boolean;
  /** Global `--allow-live-tcp-migration`: established connections can survive a restore, but not of a save with `--leave-running`. */
  readonly allowLiveTcpMigration: boolean;
  /** Global `--allow-connected-on-save`: established connections survive a restore, `--leave-running` or not. */
  readonly allowConnectedOnSave: boolean;
  /** Global `--host-uds=open`: a sandbox may connect to sockets that are mounted into it. */
  readonly hostUdsOpen: boolean;
  /** `restore --background`: pages load while the restored container runs. */
  readonly restoreBackground: boolean;
  /**
   * A restore ends exec sessions instead of failing on them. No flag says so; the fix is of March 2025, and `checkpoint
   * --save-restore-exec-argv`, by which it is told, of May 2025.
   */
  readonly restoreEndsExecs: boolean;
  /** `restore --detach`. */
  readonly restoreDetach: boolean;
  /** The `update` command (`docker update`). */
  readonly update: boolean;
  /**
   * True where runsc takes every network namespace for the root one and refuses to run: the wrapper then has to hide
   * /proc/sys/net from it.
   */
  readonly needsProcSysNetMask: boolean;
}

/** The last release that tells the root network namespace by the file rmem_default; later ones look at dev_weight. */
const RMEM_DEFAULT_RELEASE_LAST_YMD = 20240729;
const RMEM_DEFAULT = '/proc/sys/net/core/rmem_default';
const PROBE_TIMEOUT_MS = 20_000;

/** The day in a version text (`release-20240729.0`, `0.0~20240729.0+ds-1`), or undefined. */
export function runscDateYmd(version: string): number | undefined {
  const found = /(?<!\d)(20[1-9]\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))(?!\d)/.exec(version);
  return found === null ? undefined : Number(found[1]);
}

/** True where `help` (of a Go program) describes the flag `name`. */
function describesFlag(help: string, name: string): boolean {
  return new RegExp(`^\\s+--?${name}(?:[=\\s]|$)`, 'm').test(help);
}

async function ask(path: string, args: readonly string[]): Promise<string> {
  const result = await tryCommand(path, args, { timeoutMs: PROBE_TIMEOUT_MS });
  return `${result.stdout}\n${result.stderr}`; // Go's flag package prints help on stderr in some releases.
}

/** True where a network namespace that is not the root one shows rmem_default, as kernels since 6.14 or so do. */
async function rmemDefaultShowsEverywhere(): Promise<boolean> {
  const result = await tryCommand('unshare', ['--net', 'test', '-e', RMEM_DEFAULT], { timeoutMs: PROBE_TIMEOUT_MS });
  return result.exitCode === 0;
}

/** Asks the machine's runsc. Throws ECLUSE_RUNSC_MISSING where there is none, ECLUSE_RUNSC_BROKEN where it does not run. */
export async function probeRunsc(): Promise<RunscCapabilities> {
  const path = findProgram('runsc');
  if (path === undefined) {
    throw new EcluseError({
      code: 'ECLUSE_RUNSC_MISSING',
      source: 'runtime',
      message: 'gVisor is not installed: there is no program runsc',
      mend: 'run: ecluse doctor --fix',
    });
  }
  const [said, flags, checkpoint, restore, commands, rmemEverywhere] = await Promise.all([
    tryCommand(path, ['--version'], { timeoutMs: PROBE_TIMEOUT_MS }),
    ask(path, ['flags']),
    ask(path, ['help', 'checkpoint']),
    ask(path, ['help', 'restore']),
    ask(path, ['help']),
    rmemDefaultShowsEverywhere(),
  ]);
  const version = /version\s+(\S+)/.exec(said.stdout)?.[1];
  if (said.exitCode !== 0 || version === undefined) {
    throw new EcluseError({
      code: 'ECLUSE_RUNSC_BROKEN',
      source: 'runtime',
      message: `${path} --version failed: ${said.stderr.trim().slice(0, 200)}`,
      mend: 'install gVisor again: apt-get install --reinstall runsc',
    });
  }
  const dateYmd = runscDateYmd(version);
  return {
    path,
    version,
    dateYmd,
    leaveRunning: describesFlag(checkpoint, 'leave-running'),
    compressionNone: describesFlag(checkpoint, 'compression'),
    checkpointDirect: describesFlag(checkpoint, 'direct'),
    netDisconnectOk: describesFlag(flags, 'net-disconnect-ok'),
    saveRestoreNetstack: describesFlag(flags, 'save-restore-netstack'),
    allowLiveTcpMigration: describesFlag(flags, 'allow-live-tcp-migration'),
    allowConnectedOnSave: describesFlag(flags, 'allow-connected-on-save'),
    hostUdsOpen: describesFlag(flags, 'host-uds'),
    restoreBackground: describesFlag(restore, 'background'),
    restoreEndsExecs: describesFlag(checkpoint, 'save-restore-exec-argv'),
    restoreDetach: describesFlag(restore, 'detach'),
    update: /^\s+update\s/m.test(commands),
    needsProcSysNetMask: rmemEverywhere && dateYmd !== undefined && dateYmd <= RMEM_DEFAULT_RELEASE_LAST_YMD,
  };
}
