/** The volumes of a container in the order that their archives are named by. A container's mounts never change. Pure. */
import type { MountSpec } from '#caas/spec/spec-mounts.ts';

export function volumeNamesOf(mounts: readonly MountSpec[]): readonly string[] {
  return [...new Set(mounts.flatMap((mount) => (mount.kind === 'volume' ? [mount.name] : [])))];
}
