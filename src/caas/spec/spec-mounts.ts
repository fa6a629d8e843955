/**
 * What a create request mounts: `HostConfig.Binds`, `.Mounts`, `.Tmpfs`, `.VolumesFrom`, `.VolumeDriver` and `Volumes`. Pure.
 *
 * Nothing of a host's files can be mounted. The one exception in name only is Docker's socket: the container gets a socket to its own tenant's
 * endpoint. No path of a client's reaches an engine; what an engine mounts is named by us.
 */
import { posix } from 'node:path';
import * as z from 'zod';
import { EcluseError } from '#errors';
import { dockerError } from '#caas/docker-api/docker-error.ts';
import { foldFields, isZero } from '#caas/docker-api/go-json.ts';
import type { Fields } from '#caas/docker-api/go-json.ts';
import { checkDriver, checkTmpfsOptions, checkVolumeName, driverOptionsOf, labelsOf } from './volume-options.ts';

const textMap = z.record(z.string(), z.string());

const volumeMount = z.object({
  kind: z.literal('volume'),
  /** Empty for an anonymous one until `Volumes.plan` names it. */
  name: z.string(),
  destination: z.string(),
  readOnly: z.boolean(),
  /** What the image has at the destination is not copied into an empty volume. */
  noCopy: z.boolean(),
  anonymous: z.boolean(),
  /** For the volume, where this mount makes it. */
  labels: textMap,
  options: textMap,
  /** As inspect shows it: `ro`, `z`, … */
  mode: z.string(),
});
const tmpfsMount = z.object({
  kind: z.literal('tmpfs'),
  destination: z.string(),
  readOnly: z.boolean(),
  /** 0: as large as the container's memory limit lets it be, as its pages are the sandbox's. */
  sizeBytes: z.int(),
  fileMode: z.int(),
});
const socketMount = z.object({
  kind: z.literal('endpoint-socket'),
  /** As asked for, to be shown only. */
  source: z.string(),
  destination: z.string(),
  readOnly: z.boolean(),
  mode: z.string(),
});

export const mountSchema = z.discriminatedUnion('kind', [volumeMount, tmpfsMount, socketMount]);
export type MountSpec = z.infer<typeof mountSchema>;
export type VolumeMount = z.infer<typeof volumeMount>;

/** What inspect shows of the request, rebuilt. */
export const mountsAskedSchema = z.object({
  binds: z.array(z.string()),
  mounts: z.array(z.record(z.string(), z.unknown())),
  volumesFrom: z.array(z.string()),
  volumeDriver: z.string(),
  /** Keys of `Volumes`. */
  volumes: z.array(z.string()),
});
export type MountsAsked = z.infer<typeof mountsAskedSchema>;

export const NO_MOUNTS_ASKED: MountsAsked = { binds: [], mounts: [], volumesFrom: [], volumeDriver: '', volumes: [] };

export type MountsResult =
  | {
      readonly kind: 'mounts';
      /** Of Binds and Mounts; destinations are clean and differ. What `asked` names beside (VolumesFrom, Volumes) is `Volumes.plan`'s to add. */
      readonly mounts: readonly MountSpec[];
      readonly asked: MountsAsked;
    }
  /** `reason` is the whole message: Docker's words, or the platform's behind `ecluse: `. */
  | { readonly kind: 'refused'; readonly status: 400 | 403; readonly reason: string };

/** The fields of `HostConfig` that are taken from it here; `Tmpfs` is read and stays. */
export const MOUNT_FIELDS: readonly string[] = ['Binds', 'Mounts', 'VolumesFrom', 'VolumeDriver'];

/** Of one container: each is a connection between its sandbox and its file server. */
const MOUNTS_MAX = 100;
const PATH_CHARS_MAX = 4096;
/** A sandbox connects to a socket by its path in the container, and a socket's address has 107 characters. */
const SOCKET_DESTINATION_CHARS_MAX = 90;
const SOCKET_SOURCES = new Set(['/var/run/docker.sock', '/run/docker.sock']);
const PROPAGATIONS = ['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave'];

const path = z.string().max(PATH_CHARS_MAX);
const hostSchema = z.object({
  Binds: z.array(path).max(MOUNTS_MAX).nullish(),
  Mounts: z.array(z.unknown()).max(MOUNTS_MAX).nullish(),
  VolumesFrom: z.array(path).max(MOUNTS_MAX).nullish(),
  VolumeDriver: z.string().nullish(),
  Tmpfs: z.record(path, path).nullish(),
});
const volumesSchema = z.record(path, z.unknown()).nullish();

/** Go's `path.Clean`, with a path's end as Docker keeps it. */
function clean(raw: string): string {
  const normal = posix.normalize(raw);
  return normal.length > 1 && normal.endsWith('/') ? normal.slice(0, -1) : normal;
}

/** A destination in the container, clean; throws moby's words. */
export function destinationOf(raw: string): string {
  const cleaned = clean(raw);
  if (cleaned === '/' || clean(raw.replaceAll('\\', '/')) === '/')
    throw dockerError(400, "invalid specification: destination can't be '/'");
  if (!raw.startsWith('/')) throw dockerError(400, `invalid mount path: '${raw.slice(0, 300)}' mount path must be absolute`);
  // oxlint-disable-next-line no-control-regex -- They are what is looked for.
  if (/[\u0000-\u001F\u007F]/.test(raw)) throw dockerError(400, 'ecluse: a mount path has no control characters');
  return cleaned;
}

/** Says behind `prefix` what is wrong, where `work` finds something. */
function under<T>(prefix: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    // What is wrong with a volume itself (`create NAME: …`), and what the platform refuses, stands alone.
    if (!(error instanceof EcluseError) || /^(?:ecluse: |create )/.test(error.message)) throw error;
    throw dockerError(error.status, `${prefix}: ${error.message}`);
  }
}

function socketMountOf(mount: Omit<Extract<MountSpec, { kind: 'endpoint-socket' }>, 'kind'>, place: string): MountSpec {
  const source = clean(mount.source);
  if (!SOCKET_SOURCES.has(source)) {
    throw dockerError(
      403,
      `ecluse: host paths cannot be mounted: ${place}: ${mount.source.slice(0, 300)}: a sandbox sees nothing of its host; use a volume and docker cp. Only /var/run/docker.sock is possible, as a socket to your own endpoint`,
    );
  }
  if (mount.destination.length > SOCKET_DESTINATION_CHARS_MAX) {
    throw dockerError(
      400,
      `ecluse: ${place}: the path of a socket has at most ${String(SOCKET_DESTINATION_CHARS_MAX)} characters`,
    );
  }
  return { kind: 'endpoint-socket', ...mount, source };
}

interface BindMode {
  readonly readOnly: boolean;
  readonly noCopy: boolean;
  readonly propagation: string | undefined;
}

/** The third part of a bind; at most one word of each sort, as in moby. Undefined: it is none. */
function modeOf(mode: string): BindMode | undefined {
  if (mode === '') return { readOnly: false, noCopy: false, propagation: undefined };
  const words = mode.split(',');
  const sorts = [['ro', 'rw'], ['z', 'Z'], PROPAGATIONS, ['nocopy'], ['consistent', 'cached', 'delegated']];
  const counts = sorts.map((sort) => words.filter((word) => sort.includes(word)).length);
  const isKnown = counts.reduce((sum, count) => sum + count, 0) === words.length;
  if (!isKnown || counts.some((count) => count > 1)) return undefined;
  return {
    readOnly: words.includes('ro'),
    noCopy: words.includes('nocopy'),
    propagation: words.find((word) => PROPAGATIONS.includes(word)),
  };
}

const extraField = (field: string): EcluseError => dockerError(400, `field ${field} must not be specified`);

/** `name:/destination[:mode]`, `/destination`, or the one host path that stands for something else. */
function bindOf(raw: string): MountSpec {
  const invalid = `invalid volume specification: '${raw.slice(0, 500)}'`;
  const parts = raw.split(':');
  const [source = '', target = '', mode = ''] = parts.length === 1 ? ['', raw, ''] : parts;
  const isModeInstead = parts.length === 2 && modeOf(target) !== undefined;
  if (parts.length > 3 || parts[0] === '' || isModeInstead) throw dockerError(400, invalid);
  const parsed = modeOf(mode);
  if (parsed === undefined) throw dockerError(400, `invalid mode: ${mode.slice(0, 100)}`);
  return source.startsWith('/')
    ? hostBind({ source, target, mode }, parsed, invalid)
    : volumeBind({ source, target, mode }, parsed, invalid);
}

interface BindParts {
  readonly source: string;
  readonly target: string;
  readonly mode: string;
}

function hostBind({ source, target, mode }: BindParts, { readOnly, noCopy, propagation }: BindMode, invalid: string): MountSpec {
  const destination = under(`${invalid}: invalid mount config for type "bind"`, () => {
    if (noCopy) throw extraField('VolumeOptions');
    return destinationOf(target);
  });
  checkPropagation(propagation ?? '', 'HostConfig.Binds');
  return socketMountOf({ source, destination, readOnly, mode }, 'HostConfig.Binds');
}

function volumeBind(
  { source, target, mode }: BindParts,
  { readOnly, noCopy, propagation }: BindMode,
  invalid: string,
): MountSpec {
  const destination = under(`${invalid}: invalid mount config for type "volume"`, () => {
    if (propagation !== undefined) throw extraField('BindOptions');
    return destinationOf(target);
  });
  if (source !== '') checkVolumeName(source);
  const shown = mode === '' && source !== '' ? 'z' : mode; // As Docker marks a volume that others may share.
  const anonymous = source === '';
  return { kind: 'volume', name: source, destination, readOnly, noCopy, anonymous, labels: {}, options: {}, mode: shown };
}

function checkPropagation(propagation: string, place: string): void {
  if (propagation === '' || propagation === 'rprivate') return;
  throw dockerError(403, `ecluse: ${place}: mounts do not propagate between a sandbox and its host (${propagation})`);
}

/** One entry of `Mounts`, folded, with what its type takes. */
interface MountEntry {
  readonly type: string;
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
  readonly fields: Fields;
  readonly place: string;
}

const entrySchema = z.object({
  Type: z.string().max(100).nullish(),
  Source: path.nullish(),
  Target: path.nullish(),
  ReadOnly: z.boolean().nullish(),
  Consistency: z.string().max(100).nullish(),
});

function foldOrRefuse(raw: unknown, place: string, known: readonly string[]): Fields {
  const folded = foldFields(raw, place, known);
  if (folded.kind === 'refused') throw dockerError(403, `ecluse: ${folded.reason}`);
  return folded.fields;
}

/** True for a field that is there at all: Docker refuses an empty `BindOptions` too. */
function isGiven(entry: MountEntry, field: string): boolean {
  return entry.fields[field] !== undefined && entry.fields[field] !== null;
}

function entryOf(raw: unknown): MountEntry {
  const place = 'HostConfig.Mounts';
  const options = ['BindOptions', 'VolumeOptions', 'TmpfsOptions'];
  const fields = foldOrRefuse(raw, place, [...Object.keys(entrySchema.shape), ...options]);
  const parsed = entrySchema.safeParse(fields);
  if (!parsed.success)
    throw dockerError(
      400,
      `${place}: ${String(parsed.error.issues[0]?.path[0] ?? '')}: ${parsed.error.issues[0]?.message ?? 'invalid'}`,
    );
  const { Type, Source, Target, ReadOnly } = parsed.data;
  return { type: Type ?? '', source: Source ?? '', target: Target ?? '', readOnly: ReadOnly ?? false, fields, place };
}

function volumeEntry(entry: MountEntry, destination: string): MountSpec {
  if (isGiven(entry, 'BindOptions')) throw extraField('BindOptions');
  const anonymous = entry.source === '';
  if (anonymous && entry.readOnly) throw dockerError(400, 'must not set ReadOnly mode when using anonymous volumes');
  const options = foldOrRefuse(entry.fields['VolumeOptions'], `${entry.place}.VolumeOptions`, [
    'NoCopy',
    'Labels',
    'DriverConfig',
  ]);
  const driver = foldOrRefuse(options['DriverConfig'], `${entry.place}.VolumeOptions.DriverConfig`, ['Name', 'Options']);
  const noCopy = z.boolean().nullish().safeParse(options['NoCopy']);
  if (!anonymous) checkVolumeName(entry.source);
  checkDriver(driver['Name'], entry.source, 400);
  if (!noCopy.success) throw dockerError(400, 'VolumeOptions.NoCopy must be true or false');
  return {
    kind: 'volume',
    name: entry.source,
    destination,
    readOnly: entry.readOnly,
    noCopy: noCopy.data ?? false,
    anonymous,
    labels: labelsOf(options['Labels'], `${entry.place}.VolumeOptions`),
    options: driverOptionsOf(driver['Options'], entry.source),
    mode: 'z',
  };
}

function tmpfsEntry(entry: MountEntry, destination: string): MountSpec {
  if (isGiven(entry, 'BindOptions')) throw extraField('BindOptions');
  if (entry.source !== '') throw extraField('Source');
  const options = foldOrRefuse(entry.fields['TmpfsOptions'], `${entry.place}.TmpfsOptions`, ['SizeBytes', 'Mode']);
  const numbers = z
    .object({
      SizeBytes: z
        .int()
        .min(0)
        .max(2 ** 50)
        .nullish(),
      Mode: z.int().min(0).max(0o7777).nullish(),
    })
    .safeParse(options);
  if (!numbers.success) throw dockerError(400, 'TmpfsOptions: SizeBytes and Mode are numbers, not negative');
  const { SizeBytes, Mode } = numbers.data;
  return { kind: 'tmpfs', destination, readOnly: entry.readOnly, sizeBytes: SizeBytes ?? 0, fileMode: Mode ?? 0 };
}

function bindEntry(entry: MountEntry, destination: string): MountSpec {
  if (entry.source === '') throw dockerError(400, 'field Source must not be empty');
  const options = foldOrRefuse(entry.fields['BindOptions'], `${entry.place}.BindOptions`, [
    'Propagation',
    'NonRecursive',
    'CreateMountpoint',
  ]);
  const propagation = z.string().max(60).nullish().safeParse(options['Propagation']).data ?? '';
  if (!isZero(options['Propagation']) && !PROPAGATIONS.includes(propagation))
    throw dockerError(400, `invalid propagation mode: ${propagation}`);
  checkPropagation(propagation, entry.place);
  if (isGiven(entry, 'VolumeOptions')) throw extraField('VolumeOptions');
  if (!entry.source.startsWith('/')) {
    throw dockerError(400, `invalid mount path: '${entry.source.slice(0, 300)}' mount path must be absolute`);
  }
  return socketMountOf({ source: entry.source, destination, readOnly: entry.readOnly, mode: '' }, entry.place);
}

/** What inspect shows of an entry: its own fields again. */
function shownEntry(entry: MountEntry, mount: MountSpec): Record<string, unknown> {
  const shown = {
    Type: entry.type,
    ...(entry.source === '' ? {} : { Source: entry.source }),
    Target: entry.target,
    ...(entry.readOnly ? { ReadOnly: true } : {}),
  };
  if (mount.kind === 'tmpfs') {
    const sizes = mount.sizeBytes === 0 ? {} : { SizeBytes: mount.sizeBytes };
    return isGiven(entry, 'TmpfsOptions')
      ? { ...shown, TmpfsOptions: { ...sizes, ...(mount.fileMode === 0 ? {} : { Mode: mount.fileMode }) } }
      : shown;
  }
  if (mount.kind !== 'volume' || !isGiven(entry, 'VolumeOptions')) return shown;
  const { noCopy, labels, options } = mount;
  const driver = Object.keys(options).length === 0 ? {} : { Name: 'local', Options: options };
  return {
    ...shown,
    VolumeOptions: {
      ...(noCopy ? { NoCopy: true } : {}),
      ...(Object.keys(labels).length === 0 ? {} : { Labels: labels }),
      DriverConfig: driver,
    },
  };
}

function mountOf(entry: MountEntry): MountSpec {
  return under(`invalid mount config for type "${entry.type.slice(0, 60)}"`, () => {
    if (entry.target === '') throw dockerError(400, 'field Target must not be empty');
    const destination = destinationOf(entry.target);
    if (entry.type === 'volume') return volumeEntry(entry, destination);
    if (entry.type === 'tmpfs') return tmpfsEntry(entry, destination);
    if (entry.type === 'bind') return bindEntry(entry, destination);
    throw dockerError(400, 'mount type unknown');
  });
}

/** Takes `container[:ro|rw]` apart; throws where it is none. */
export function parseVolumesFrom(raw: string): { readonly container: string; readonly readOnly: boolean } {
  if (raw === '') throw dockerError(400, 'volumes-from specification cannot be an empty string');
  const at = raw.indexOf(':');
  const container = at === -1 ? raw : raw.slice(0, at);
  const mode = at === -1 ? '' : raw.slice(at + 1);
  const parsed = modeOf(mode);
  if (parsed === undefined || parsed.noCopy || parsed.propagation !== undefined)
    throw dockerError(400, `invalid mode: ${mode.slice(0, 100)}`);
  if (container === '') throw dockerError(400, 'invalid name or ID supplied: ""');
  return { container, readOnly: parsed.readOnly };
}

type HostMounts = z.infer<typeof hostSchema>;

/** The shapes of the fields, before what they say is looked at. */
function shapesOf(hostFields: Fields, volumesField: unknown): { readonly host: HostMounts; readonly volumes: readonly string[] } {
  const host = hostSchema.safeParse(hostFields);
  if (!host.success) {
    const issue = host.error.issues[0];
    throw dockerError(
      400,
      `ecluse: ${['HostConfig', ...(issue?.path ?? []).map(String)].join('.')}: ${issue?.message ?? 'invalid'}`,
    );
  }
  const volumes = volumesSchema.safeParse(volumesField);
  if (!volumes.success) throw dockerError(400, `ecluse: Volumes: ${volumes.error.issues[0]?.message ?? 'invalid'}`);
  return { host: host.data, volumes: Object.keys(volumes.data ?? {}) };
}

function checkDistinct(tmpfs: readonly string[], mounts: readonly MountSpec[]): void {
  const taken = new Set(tmpfs);
  for (const { destination } of mounts) {
    if (taken.has(destination)) throw dockerError(400, `Duplicate mount point: ${destination}`);
    taken.add(destination);
  }
}

function parseAll(hostFields: Fields, volumesField: unknown): MountsResult {
  const { host, volumes } = shapesOf(hostFields, volumesField);
  const tmpfs = Object.entries(host.Tmpfs ?? {}).map(([destination, options]) => {
    checkTmpfsOptions(options, destination);
    return destinationOf(destination);
  });
  const binds = (host.Binds ?? []).map(bindOf);
  const entries = (host.Mounts ?? []).map(entryOf).map((entry) => ({ entry, mount: mountOf(entry) }));
  const mounts = [...binds, ...entries.map(({ mount }) => mount)];
  checkDriver(host.VolumeDriver, mounts.find((mount) => mount.kind === 'volume')?.name ?? '', 400);
  checkDistinct(tmpfs, mounts);
  const asked: MountsAsked = {
    binds: host.Binds ?? [],
    mounts: entries.map(({ entry, mount }) => shownEntry(entry, mount)),
    volumesFrom: host.VolumesFrom ?? [],
    volumeDriver: host.VolumeDriver ?? '',
    volumes: [...volumes],
  };
  asked.volumesFrom.forEach(parseVolumesFrom);
  asked.volumes.forEach(destinationOf);
  if (tmpfs.length + mounts.length + volumes.length > MOUNTS_MAX)
    throw dockerError(400, `ecluse: more than ${String(MOUNTS_MAX)} mounts`);
  return { kind: 'mounts', mounts, asked };
}

/** `hostFields`: `HostConfig`, folded; `volumesField`: the config's `Volumes`. */
export function parseMounts(hostFields: Fields, volumesField: unknown): MountsResult {
  try {
    return parseAll(hostFields, volumesField);
  } catch (error) {
    if (!(error instanceof EcluseError)) throw error;
    return { kind: 'refused', status: error.status === 403 ? 403 : 400, reason: error.message };
  }
}
