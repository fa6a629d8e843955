/**
 * How a container moves between two hosts, by what their gVisor and their machines can do. Pure: facts in, a strategy and its reasons out.
 *
 * What the builds 20240729 (Debian's) and 20260905 do was measured, see docs/decisions/017-runsc-capabilities.md. In short:
 *
 *                                      20240729                          20260905
 *   exec session at the save           the restore fails, source lives   ended on the target, source's lives
 *   TTY, stdin, attached or not        carried                           carried
 *   unix socket to the host, in use    the save fails, source lives      cut, in the source too
 *   TCP, same address                  reset at the save, source too     carried with --allow-connected-on-save, source's live
 *   TCP, other address                 reset at the save, source too     closed on the target, source's live
 *   another version                    not checked                       refused
 */
import { missingFeatures } from '#isolation/cpu-features.ts';
import type { MachineFacts } from '#isolation/cpu-features.ts';
import type { RunscCapabilities } from '#isolation/runsc-probe.ts';

export interface HostCapabilities {
  readonly name: string;
  readonly runsc: RunscCapabilities;
  readonly machine: MachineFacts;
}

export interface MovingContainer {
  readonly name: string;
  readonly openExecs: number;
  readonly tty: boolean;
  readonly openStdin: boolean;
  /** Its tenant's Docker socket is mounted; whether it holds a connection through it cannot be seen from outside. */
  readonly endpointSocket: boolean;
  readonly memoryBytes: number;
  /**
   * The target gives it the address that it has; the source was started with `--allow-connected-on-save` and is cut off before the save, because a
   * paused sandbox acknowledges what it receives.
   */
  readonly keepsAddress: boolean;
}

export interface Strategy {
  readonly kind: 'strategy';
  /** `restore --background`: it runs before its memory is all there. Its sandbox has the files of the image open. */
  readonly background: boolean;
  /** Established TCP connections live on. */
  readonly carriesTcp: boolean;
  /** What becomes of its process's terminal, input and output (`carry`: whoever attaches to the target goes on), and of its exec sessions (`close`). */
  readonly streams: 'close' | 'carry';
  readonly reasons: readonly string[];
}

export type StrategyResult = Strategy | { readonly kind: 'refused'; readonly why: string; readonly mend: string };

/** Below, loading the pages takes less than the noise of a restore; and a sandbox whose pages fail to load later is killed after the move. */
export const BACKGROUND_BYTES_MIN = 256 * 1024 * 1024;
const REFUSAL_FEATURES_MAX = 5;

type Refusal = Exclude<StrategyResult, Strategy>;

export function strategyOf(source: HostCapabilities, target: HostCapabilities, container: MovingContainer): StrategyResult {
  const refusal = runtimeRefusal(source, target) ?? machineRefusal(source, target) ?? containerRefusal(source, target, container);
  if (refusal !== undefined) return refusal;
  const background = backgroundOf(target, container.memoryBytes);
  const tcp = tcpOf(source, target, container);
  const streams = streamsOf(container);
  const socket = container.endpointSocket ? ['connections through the Docker socket are cut, even if it stays where it is'] : [];
  return {
    kind: 'strategy',
    background: background.yes,
    carriesTcp: tcp.yes,
    streams: streams.kind,
    reasons: [background.reason, tcp.reason, streams.reason, ...socket],
  };
}

function refused(why: string, mend: string): Refusal {
  return { kind: 'refused', why, mend };
}

function runtimeRefusal(source: HostCapabilities, target: HostCapabilities): Refusal | undefined {
  if (!source.runsc.leaveRunning) {
    return refused(
      `runsc ${source.runsc.version} on host ${source.name} cannot save a sandbox and keep it`,
      'install runsc of 2024 or later',
    );
  }
  // New builds refuse any other version; the old one tries, and its state files are of no fixed format.
  if (source.runsc.version !== target.runsc.version) {
    return refused(
      `hosts ${source.name} and ${target.name} have different runsc (${source.runsc.version}, ${target.runsc.version})`,
      'install the same on both',
    );
  }
  return undefined;
}

function machineRefusal(source: HostCapabilities, target: HostCapabilities): Refusal | undefined {
  if (source.machine.pageBytes !== target.machine.pageBytes) {
    return refused(
      `hosts ${source.name} and ${target.name} have pages of different size (${String(source.machine.pageBytes)}, ${String(target.machine.pageBytes)} bytes)`,
      'choose a host with the same kernel',
    );
  }
  const { cpu } = source.machine;
  if (cpu.cacheLineBytes !== target.machine.cpu.cacheLineBytes) {
    return refused(
      `the processors of hosts ${source.name} and ${target.name} have different cache lines (${String(cpu.cacheLineBytes)}, ${String(target.machine.cpu.cacheLineBytes)} bytes)`,
      'choose a host with the same processor',
    );
  }
  const missing = missingFeatures(cpu, target.machine.cpu);
  if (missing.length > 0) {
    const more = missing.length > REFUSAL_FEATURES_MAX ? ` and ${String(missing.length - REFUSAL_FEATURES_MAX)} more` : '';
    return refused(
      `the processor of host ${target.name} lacks what the container may use: ${missing.slice(0, REFUSAL_FEATURES_MAX).join(', ')}${more}`,
      'choose a host with the same processor, or a newer one',
    );
  }
  return undefined;
}

function containerRefusal(
  source: HostCapabilities,
  target: HostCapabilities,
  { name, openExecs, endpointSocket }: MovingContainer,
): Refusal | undefined {
  if (openExecs > 0 && !target.runsc.restoreEndsExecs) {
    return refused(`container ${name} has open exec sessions, which this runsc cannot carry`, 'end them and try again');
  }
  // A build that ends exec sessions also lets go of host sockets at the save; the older one fails in the middle of it.
  if (endpointSocket && !source.runsc.restoreEndsExecs) {
    return refused(
      `container ${name} has its tenant's Docker socket mounted, and a connection through it cannot be saved`,
      'keep it where it is',
    );
  }
  return undefined;
}

export interface Choice {
  readonly yes: boolean;
  readonly reason: string;
}

/** Whether a container of this size runs before its memory is all loaded. */
export function backgroundOf(target: Pick<HostCapabilities, 'runsc'>, memoryBytes: number): Choice {
  if (!target.runsc.restoreBackground) {
    return { yes: false, reason: `runsc ${target.runsc.version} loads all memory before the container runs` };
  }
  if (memoryBytes < BACKGROUND_BYTES_MIN) return { yes: false, reason: 'its memory is small enough to be loaded at once' };
  return { yes: true, reason: 'its memory is loaded while it runs' };
}

function tcpOf(source: HostCapabilities, target: HostCapabilities, { keepsAddress }: MovingContainer): Choice {
  if (!source.runsc.allowConnectedOnSave || !target.runsc.allowConnectedOnSave) {
    return {
      yes: false,
      reason: `runsc ${source.runsc.version} resets its connections at the save, even if it stays where it is`,
    };
  }
  if (!keepsAddress) return { yes: false, reason: 'its connections end, because its address changes' };
  return { yes: true, reason: 'its connections live on' };
}

function streamsOf({ openExecs, tty, openStdin }: MovingContainer): {
  readonly kind: Strategy['streams'];
  readonly reason: string;
} {
  if (openExecs > 0) return { kind: 'close', reason: `${String(openExecs)} exec sessions end` };
  const parts = ['output', ...(openStdin ? ['input'] : []), ...(tty ? ['terminal'] : [])];
  return { kind: 'carry', reason: `${parts.join(', ')} of its process go on` };
}
