/** What builds of gVisor can do, as asked on a Debian 12 machine, and hosts that have them. */
import type { HostCapabilities } from '#caas/migration/strategy.ts';
import type { RunscCapabilities } from '#isolation/runsc-probe.ts';

/** Debian's. */
export const RUNSC_2024: RunscCapabilities = {
  path: '/usr/bin/runsc',
  version: '0.0~20240729.0',
  dateYmd: 20_240_729,
  leaveRunning: true,
  compressionNone: true,
  checkpointDirect: true,
  netDisconnectOk: true,
  saveRestoreNetstack: false,
  allowLiveTcpMigration: false,
  allowConnectedOnSave: false,
  hostUdsOpen: true,
  restoreBackground: false,
  restoreEndsExecs: false,
  restoreDetach: true,
  update: false,
  needsProcSysNetMask: true,
};

/** As bench/programs/build-runsc.sh makes it. */
export const RUNSC_2026: RunscCapabilities = {
  ...RUNSC_2024,
  path: '/usr/local/bin/runsc',
  version: 'release-20260905.0',
  dateYmd: 20_260_905,
  saveRestoreNetstack: true,
  allowLiveTcpMigration: true,
  allowConnectedOnSave: true,
  restoreBackground: true,
  restoreEndsExecs: true,
  update: true,
  needsProcSysNetMask: false,
};

export function hostWith(
  name: string,
  runsc: RunscCapabilities,
  features: readonly string[] = ['sse2', 'avx2'],
): HostCapabilities {
  return { name, runsc, machine: { cpu: { features: new Set(features), cacheLineBytes: 64 }, pageBytes: 4096 } };
}
