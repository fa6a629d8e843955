/**
 * What two engines cannot have in common is replaced by placeholders, numbered in the order of appearance: random ids, addresses, ephemeral
 * ports, the time of day. Everything else stays as it is: a placeholder that hides more would hide a fault. Pure.
 */

export interface NormaliserOptions {
  /** Ids that both engines must give alike, such as those of loaded images. Whole, 64 digits. */
  readonly sameIds?: readonly string[];
  /** The directory in which the commands run. */
  readonly directory?: string;
  readonly nowMs?: () => number;
}

/** Remembers what it has seen: the same id becomes the same placeholder in the next output. */
export type Normaliser = (text: string) => string;

const SHORT_ID_DIGITS = 12;
/** A time that is further away than this is not "now", and is compared: zero times and the epoch are facts. */
const NOW_SLACK_MS = 24 * 3_600_000;

const HEX_ID = /(?<![0-9a-zA-Z])(?:[0-9a-f]{64}|[0-9a-f]{12})(?![0-9a-zA-Z])/g;
const MAC = /\b02:42(?::[0-9a-f]{2}){4}\b/g;
/** 10/8, 172.16/12 and 192.168/16. */
const PRIVATE_IPV4 =
  /(?<![\d.])(?:10(?:\.\d{1,3}){3}|172\.(?:1[6-9]|2\d|3[01])(?:\.\d{1,3}){2}|192\.168(?:\.\d{1,3}){2})(?![\d.]*\d)/g;
/** A port that was chosen by the engine, behind the address that it is published on. */
const EPHEMERAL_PORT =
  /(?<=(?:0\.0\.0\.0|127\.0\.0\.1|\[::\]|::):)(?:3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[4-5]\d{4}|6[0-5]\d{3})\b/g;
const TIMES = [
  /\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)/g,
  /\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \+0000 UTC\b/g,
];
/** How long something has lasted, in seconds and few minutes. Hours would be a fault, and stay. */
const LASTED = /\b(?:Less than a second|About a minute|\d{1,2} seconds?|[1-5] minutes)\b/g;
/** What a client logs when the engine refused before the client was done: whether it gets that far is up to chance. */
const CLIENT_RACE =
  /^time="[^"]*" level=error msg="(?:error (?:waiting for container|getting events from daemon): context canceled|error removing container: Delete [^\n]*: context canceled|Can't (?:add file|close tar writer)[^"]*)"\n/gm;
/** Columns of a table are as wide as what is in them. Not at the start of a line: that is an indentation. */
const COLUMN_GAP = /(?<=\S) {3,}/g;

export function createNormaliser(options: NormaliserOptions = {}): Normaliser {
  const same = new Set(options.sameIds?.map((id) => id.slice(0, SHORT_ID_DIGITS)));
  const ids = numbered('id');
  const macs = numbered('mac');
  const addresses = numbered('ip');
  const ports = numbered('port');
  const now = options.nowMs ?? Date.now;

  const idOf = (id: string): string => {
    const short = id.slice(0, SHORT_ID_DIGITS);
    if (same.has(short)) return id;
    return id.length === SHORT_ID_DIGITS ? `<${ids(short)}:${String(SHORT_ID_DIGITS)}>` : `<${ids(short)}>`;
  };
  const timeOf = (time: string): string => {
    const ms = Date.parse(time.replace(/ \+0000 UTC$/, 'Z').replace(' ', 'T'));
    return Math.abs(ms - now()) < NOW_SLACK_MS ? '<time>' : time;
  };

  return (text) => {
    const own = text.replaceAll(CLIENT_RACE, '');
    let result = options.directory === undefined ? own : own.replaceAll(options.directory, '<directory>');
    for (const pattern of TIMES) result = result.replace(pattern, timeOf);
    return result
      .replace(HEX_ID, idOf)
      .replace(MAC, (mac) => `<${macs(mac)}>`)
      .replace(PRIVATE_IPV4, (address) => `<${addresses(address)}>`)
      .replace(EPHEMERAL_PORT, (port) => `<${ports(port)}>`)
      .replace(LASTED, '<lasted>')
      .replace(COLUMN_GAP, '   ');
  };
}

function numbered(kind: string): (value: string) => string {
  const seen = new Map<string, string>();
  return (value) => {
    const name = seen.get(value) ?? `${kind}${String(seen.size + 1)}`;
    seen.set(value, name);
    return name;
  };
}
