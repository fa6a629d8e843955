/** Which volumes a container ends up with, and where it must be for them. Pure. */
import { destinationOf } from '#caas/spec/spec-mounts.ts';
import type { MountSpec } from '#caas/spec/spec-mounts.ts';

/** A container named in `VolumesFrom`. */
export interface Donor {
  readonly mounts: readonly MountSpec[];
  readonly readOnly: boolean;
}

export interface MountWishes {
  readonly donors: readonly Donor[];
  /** Of Binds and Mounts. */
  readonly own: readonly MountSpec[];
  /** Destinations that the request or the image declares as volumes. */
  readonly declared: readonly string[];
  /** Destinations of `HostConfig.Tmpfs`. */
  readonly tmpfs: readonly string[];
}

/** What is taken from a donor: the same thing, with no copy of image files, and read-only where either says so. */
function lent(mount: MountSpec, donor: Donor): MountSpec {
  const readOnly = mount.readOnly || donor.readOnly;
  if (mount.kind === 'volume') return { ...mount, readOnly, noCopy: true, mode: '' };
  return { ...mount, readOnly };
}

/** All mounts of a container: donors' first, its own over them, anonymous volumes where nothing else is (moby, `registerMountPoints`). */
export function completeMounts(wishes: MountWishes, inventName: () => string): readonly MountSpec[] {
  const tmpfs = new Set(wishes.tmpfs.map(destinationOf));
  const byDestination = new Map<string, MountSpec>();
  for (const donor of wishes.donors) {
    for (const mount of donor.mounts) if (!tmpfs.has(mount.destination)) byDestination.set(mount.destination, lent(mount, donor));
  }
  for (const mount of wishes.own) {
    const named = mount.kind === 'volume' && mount.anonymous ? { ...mount, name: inventName() } : mount;
    byDestination.set(mount.destination, named);
  }
  for (const declared of wishes.declared) {
    const destination = destinationOf(declared);
    if (tmpfs.has(destination) || byDestination.has(destination)) continue;
    byDestination.set(destination, {
      kind: 'volume',
      name: inventName(),
      destination,
      readOnly: false,
      noCopy: false,
      anonymous: true,
      labels: {},
      options: {},
      mode: '',
    });
  }
  return [...byDestination.values()];
}

/** A volume that exists, or that a container which is being made will have. */
export interface PlacedVolume {
  readonly name: string;
  /** Empty: nowhere yet. */
  readonly host: string;
  /** Containers, in any state, that would lose it if it moved. */
  readonly users: number;
}

export type VolumesHost =
  | { readonly kind: 'host'; readonly hostName: string | undefined }
  | { readonly kind: 'apart'; readonly one: string; readonly other: string };

/**
 * Where a container with these volumes must be: where those are that cannot move. Data that no container uses follows; even a stopped container holds
 * its volumes, as its engine would start it with what lies there. Undefined: anywhere.
 */
export function hostOfVolumes(volumes: readonly PlacedVolume[]): VolumesHost {
  const placed = volumes.filter(({ host }) => host !== '');
  const [first, ...rest] = placed.filter(({ users }) => users > 0);
  const apart = rest.find(({ host }) => host !== first?.host);
  if (first !== undefined && apart !== undefined) return { kind: 'apart', one: first.name, other: apart.name };
  return { kind: 'host', hostName: (first ?? placed[0])?.host };
}
