/**
 * What a volume may be: its name, driver, options and labels, and the options of a tmpfs. Pure; refusals are thrown in Docker's words.
 *
 * The driver `local` mounts whatever its options name (`type=none,o=bind,device=/etc`): all that is taken is a tmpfs, and its options are rebuilt.
 */
import * as z from 'zod';
import { foldFields } from '#caas/docker-api/go-json.ts';
import { dockerError } from '#caas/docker-api/docker-error.ts';

type TextMap = Readonly<Record<string, string>>;

const NAME_CHARS_MAX = 255;
const LABELS_MAX = 200;
/** Of a tmpfs volume: it is the host's memory, so it has a limit even where none is asked for. Docker's own default is half of the host's. */
const TMPFS_BYTES_MAX = 1024 ** 3;
const TMPFS_BYTES_DEFAULT = 64 * 1024 ** 2;

const labelsSchema = z.record(z.string().max(1024), z.string().max(16 * 1024)).nullish();
const optionsSchema = z.record(z.string().max(100), z.string().max(4096)).nullish();

/** Throws where `name` is no volume's. */
export function checkVolumeName(name: string): void {
  const shown = name.slice(0, 300);
  if (name.length === 1) {
    throw dockerError(400, `create ${shown}: volume name is too short, names should be at least two alphanumeric characters`);
  }
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/.test(name)) {
    throw dockerError(
      400,
      `create ${shown}: "${shown}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`,
    );
  }
  if (name.length > NAME_CHARS_MAX)
    throw dockerError(400, `create ${shown}: the name is longer than ${String(NAME_CHARS_MAX)} characters`);
}

/** Throws for any driver but `local`; `status` is Docker's where the driver is looked up, 400 where a 404 would make clients pull an image. */
export function checkDriver(driver: unknown, name: string, status: 400 | 404): void {
  if (driver === undefined || driver === null || driver === '' || driver === 'local') return;
  if (typeof driver !== 'string') throw dockerError(400, 'the name of a volume driver must be a text');
  const shown = driver.slice(0, 100);
  throw dockerError(status, `create ${name}: error looking up volume plugin ${shown}: plugin "${shown}" not found`);
}

export function labelsOf(raw: unknown, place: string): TextMap {
  const parsed = labelsSchema.safeParse(raw);
  if (!parsed.success) throw dockerError(400, `${place}: labels are texts by name`);
  const labels = parsed.data ?? {};
  if (Object.keys(labels).length > LABELS_MAX) throw dockerError(400, `ecluse: ${place}: more than ${String(LABELS_MAX)} labels`);
  return labels;
}

/** Options of the driver, as they are kept and shown: none, or those of a tmpfs. */
export function driverOptionsOf(raw: unknown, name: string): TextMap {
  const parsed = optionsSchema.safeParse(raw);
  if (!parsed.success) throw dockerError(400, `create ${name}: options of a driver are texts by name`);
  const given = parsed.data ?? {};
  if (Object.keys(given).length === 0) return {};
  const folded = foldFields(given, 'DriverOpts', ['type', 'device', 'o', 'size']);
  const unknown = Object.keys(given).find((key) => !['type', 'device', 'o', 'size'].includes(key));
  if (unknown !== undefined || folded.kind === 'refused')
    throw dockerError(400, `create ${name}: invalid option: "${unknown ?? ''}"`);
  if (given['size'] !== undefined) throw dockerError(400, `create ${name}: quota size requested but no quota support`);
  if (given['device'] === undefined) throw dockerError(400, `create ${name}: missing required option: "device"`);
  if (given['type'] === undefined) throw dockerError(400, `create ${name}: missing required option: "type"`);
  if (given['type'] !== 'tmpfs' || given['device'] !== 'tmpfs') {
    throw dockerError(
      403,
      `ecluse: create ${name}: only a tmpfs can be mounted as a volume (type=tmpfs, device=tmpfs): anything else would reach outside of the sandbox`,
    );
  }
  engineOptionsOf(given, name);
  return { ...given };
}

/** The options that an engine gets for those that were taken: a tmpfs always has a size. */
export function engineOptionsOf(options: TextMap, name: string): TextMap {
  if (Object.keys(options).length === 0) return {};
  const words = (options['o'] ?? '').split(',').filter((word) => word !== '');
  const rebuilt = words.filter((word) => !word.startsWith('size='));
  for (const word of rebuilt) {
    if (!/^(?:mode=[0-7]{1,4}|[ug]id=\d{1,9}|nr_inodes=\d{1,9}k?|nosuid|nodev|noexec|noatime)$/.test(word)) {
      throw dockerError(403, `ecluse: create ${name}: the option ${word.slice(0, 60)} of a tmpfs is not supported`);
    }
  }
  const sizes = words.filter((word) => word.startsWith('size='));
  const sizeBytes = sizes.length === 0 ? TMPFS_BYTES_DEFAULT : bytesOf(sizes.at(-1)?.slice('size='.length) ?? '');
  if (sizeBytes === undefined || sizeBytes < 1 || sizeBytes > TMPFS_BYTES_MAX) {
    throw dockerError(
      403,
      `ecluse: create ${name}: the size of a tmpfs volume is 1 to ${String(TMPFS_BYTES_MAX)} bytes (size=64m): it is the host's memory`,
    );
  }
  return { type: 'tmpfs', device: 'tmpfs', o: [`size=${String(sizeBytes)}`, ...rebuilt].join(',') };
}

/** The kernel's spelling of sizes; no percentages, which are of the host's memory. */
function bytesOf(text: string): number | undefined {
  const found = /^(\d{1,13})([kmg]?)$/i.exec(text);
  if (found === null) return undefined;
  const power = ['', 'k', 'm', 'g'].indexOf((found[2] ?? '').toLowerCase());
  return Number(found[1]) * 1024 ** power;
}

/** The options of `HostConfig.Tmpfs`, as moby takes them; a mount's own kind and propagation cannot be changed by them. */
export function checkTmpfsOptions(text: string, destination: string): void {
  for (const word of text.split(',').filter((part) => part !== '')) {
    const isFlag =
      /^(?:ro|rw|(?:no)?(?:suid|dev|exec|atime|diratime|mand)|a?sync|dirsync|(?:no)?relatime|strictatime|defaults)$/.test(word);
    const isData = /^(?:size=\d{1,15}[kmg%]?|mode=[0-7]{1,4}|[ug]id=\d{1,10}|nr_(?:inodes|blocks)=\d{1,12}[kmg]?)$/i.test(word);
    if (!isFlag && !isData) throw dockerError(400, `Invalid tmpfs option "${word.slice(0, 60)}" of ${destination.slice(0, 200)}`);
  }
}
