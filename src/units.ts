/** Sizes and durations: strings with units in files and on screens, integers inside. */
import { EcluseError } from '#errors';

const SIZE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1024,
  kb: 1024,
  kib: 1024,
  m: 1024 ** 2,
  mb: 1024 ** 2,
  mib: 1024 ** 2,
  g: 1024 ** 3,
  gb: 1024 ** 3,
  gib: 1024 ** 3,
};

const DURATION_UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

const GO_UNITS_MS: Readonly<Record<string, number>> = {
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
  us: 0.001,
  µs: 0.001,
  ns: 0.000_001,
};

function parseWithUnits(text: string, units: Readonly<Record<string, number>>, example: string): number {
  const found = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const factor = found === null ? undefined : units[(found[2] ?? '').toLowerCase()];
  if (found === null || factor === undefined) {
    throw new EcluseError({
      code: 'ECLUSE_UNIT_INVALID',
      source: 'config',
      message: `"${text}" is not a value with a unit`,
      mend: `write it like ${example}`,
      status: 400,
    });
  }
  return Math.round(Number(found[1]) * factor);
}

/** `16MiB`, `1g`, `512k` (powers of 1024, as Docker reads them) to bytes. */
export function parseSizeBytes(text: string): number {
  return parseWithUnits(text, SIZE_UNITS, '16MiB or 2g');
}

/** `500ms`, `30s`, `10m`, `1h` to milliseconds. A bare number is refused: its unit would be a guess. */
export function parseDurationMs(text: string): number {
  return parseWithUnits(text, DURATION_UNITS_MS, '500ms, 30s or 10m');
}

/** `10m`, `1h30m`, `3.5s`: Go's durations, in milliseconds; undefined where it is none. */
export function goDurationMs(text: string): number | undefined {
  if (!/^(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|µs|ns))+$/.test(text)) return undefined;
  let sum = 0;
  for (const [, number = '0', unit = 's'] of text.matchAll(/(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)/g))
    sum += Number(number) * (GO_UNITS_MS[unit] ?? 0);
  return sum;
}

/** Bytes for a person: `1.5 MiB`. */
export function formatBytes(bytes: number): string {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let index = 0;
  while (value >= 1024 && index < names.length - 1) {
    value /= 1024;
    index += 1;
  }
  return `${index === 0 ? String(value) : value.toFixed(value < 10 ? 2 : 1)} ${names[index] ?? ''}`;
}

/** A span in words, exactly as Docker prints it (docker/go-units `HumanDuration`): `5 minutes`, `About an hour`. */
export function formatDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60 + 0.5);
  if (seconds < 1) return 'Less than a second';
  if (seconds === 1) return '1 second';
  if (seconds < 60) return `${String(seconds)} seconds`;
  if (minutes === 1) return 'About a minute';
  if (minutes < 60) return `${String(minutes)} minutes`;
  if (hours === 1) return 'About an hour';
  if (hours < 48) return `${String(hours)} hours`;
  if (hours < 24 * 7 * 2) return `${String(Math.floor(hours / 24))} days`;
  if (hours < 24 * 30 * 2) return `${String(Math.floor(hours / 24 / 7))} weeks`;
  if (hours < 24 * 365 * 2) return `${String(Math.floor(hours / 24 / 30))} months`;
  return `${String(Math.floor(hours / 24 / 365))} years`;
}
