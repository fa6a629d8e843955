/**
 * `docker top`: the columns of `ps`, over the sandbox's own processes. Dockerd would run the host's `ps` with the sandbox's process ids, and show
 * processes of the host; so arguments are read here, as far as procps' meaning can be had. Pure.
 */
import type { SandboxProcess } from '#isolation/sandbox-processes.ts';

export type TopAnswer =
  | { readonly kind: 'list'; readonly titles: readonly string[]; readonly processes: readonly (readonly string[])[] }
  /** `ps` or moby would refuse it, in these words. */
  | { readonly kind: 'refused'; readonly message: string };

type Column = (process: SandboxProcess, facts: TopFacts) => string;

export interface TopFacts {
  /** For `%MEM`. */
  readonly memoryBytes: number;
}

interface Field {
  readonly title: string;
  readonly show: Column;
}

const two = (value: number): string => String(Math.floor(value)).padStart(2, '0');

/** `00:01:02`, with days before. */
function clock(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const days = Math.floor(seconds / 86_400);
  const text = `${two((seconds % 86_400) / 3600)}:${two((seconds % 3600) / 60)}:${two(seconds % 60)}`;
  return days === 0 ? text : `${two(days)}-${text}`;
}

/** `1:02`, as BSD's columns have it. */
function shortClock(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  return `${String(Math.floor(seconds / 60))}:${two(seconds % 60)}`;
}

/** Names of users are in images; the one that every image has is shown as `ps` shows it. */
const user = (id: number): string => (id === 0 ? 'root' : String(id));
const commandLine = ({ args, comm }: SandboxProcess): string => (args.length === 0 ? `[${comm}]` : args.join(' '));
const share = ({ rssKiB }: SandboxProcess, { memoryBytes }: TopFacts): string =>
  (memoryBytes === 0 ? 0 : (rssKiB * 1024 * 100) / memoryBytes).toFixed(1);

const FIELDS: Readonly<Record<string, Field>> = {
  pid: { title: 'PID', show: ({ pid }) => String(pid) },
  ppid: { title: 'PPID', show: ({ ppid }) => String(ppid) },
  pgid: { title: 'PGID', show: ({ pgid }) => String(pgid) },
  sid: { title: 'SID', show: ({ sid }) => String(sid) },
  uid: { title: 'UID', show: ({ uid }) => String(uid) },
  user: { title: 'USER', show: ({ uid }) => user(uid) },
  gid: { title: 'GID', show: ({ gid }) => String(gid) },
  group: { title: 'GROUP', show: ({ gid }) => user(gid) },
  c: { title: 'C', show: ({ cpuPercent }) => String(cpuPercent) },
  pcpu: { title: '%CPU', show: ({ cpuPercent }) => cpuPercent.toFixed(1) },
  pmem: { title: '%MEM', show: share },
  vsz: { title: 'VSZ', show: ({ vszKiB }) => String(vszKiB) },
  rss: { title: 'RSS', show: ({ rssKiB }) => String(rssKiB) },
  tty: { title: 'TT', show: ({ tty }) => tty },
  stime: { title: 'STIME', show: ({ start }) => start },
  start: { title: 'STARTED', show: ({ start }) => start },
  time: { title: 'TIME', show: ({ cpuMs }) => clock(cpuMs) },
  bsdtime: { title: 'TIME', show: ({ cpuMs }) => shortClock(cpuMs) },
  comm: { title: 'COMMAND', show: ({ comm }) => comm },
  args: { title: 'COMMAND', show: commandLine },
  stat: { title: 'STAT', show: () => 'S' },
  s: { title: 'S', show: () => 'S' },
};

const ALIASES: Readonly<Record<string, string>> = {
  euid: 'uid',
  ruid: 'uid',
  euser: 'user',
  ruser: 'user',
  uname: 'user',
  egid: 'gid',
  rgid: 'gid',
  egroup: 'group',
  rgroup: 'group',
  pgrp: 'pgid',
  sess: 'sid',
  session: 'sid',
  tgid: 'pid',
  '%cpu': 'pcpu',
  '%mem': 'pmem',
  vsize: 'vsz',
  rssize: 'rss',
  rsz: 'rss',
  tt: 'tty',
  tname: 'tty',
  start_time: 'stime',
  lstart: 'start',
  bsdstart: 'start',
  cputime: 'time',
  ucmd: 'comm',
  ucomm: 'comm',
  cmd: 'args',
  command: 'args',
  state: 's',
};

/** A column of a fixed format: its title there differs from that of `-o`. */
function titled(name: string, title?: string): Field {
  const field = FIELDS[name];
  if (field === undefined) throw new TypeError(`no column ${name}`);
  return title === undefined ? field : { ...field, title };
}

const FULL = [
  titled('user', 'UID'),
  titled('pid'),
  titled('ppid'),
  titled('c'),
  titled('stime'),
  titled('tty', 'TTY'),
  titled('time'),
  titled('args', 'CMD'),
];
const PLAIN = [titled('pid'), titled('tty', 'TTY'), titled('time'), titled('comm', 'CMD')];
const BSD_USER = [
  titled('user'),
  titled('pid'),
  titled('pcpu'),
  titled('pmem'),
  titled('vsz'),
  titled('rss'),
  titled('tty', 'TTY'),
  titled('stat'),
  titled('start', 'START'),
  titled('bsdtime'),
  titled('args'),
];
const BSD = [titled('pid'), titled('tty', 'TTY'), titled('stat'), titled('bsdtime'), titled('args')];

/** The whole of moby's check of `ps_args` (`validatePSArgs`): no other column may be called PID. */
function pidTitleRefusal(psArgs: string): string | undefined {
  for (const [, key = '', value = ''] of psArgs.matchAll(/\s+([^\s=]*)=\s*(PID\S*)/g)) {
    if (key !== 'pid') return `specifying "${key}=${value}" is not allowed`;
  }
  return undefined;
}

type Chosen =
  | { readonly kind: 'fields'; readonly fields: readonly Field[] }
  | { readonly kind: 'refused'; readonly message: string };

const unknown = (what: string): Chosen => ({ kind: 'refused', message: `ps: error: ${what}` });

/** The columns of `-o pid,comm=NAME,args`. */
function formatFields(list: string): Chosen {
  const fields: Field[] = [];
  const names = list.split(/[,\s]+/).filter((name) => name !== '');
  if (names.length === 0) return unknown('format specification must follow -o');
  for (const name of names) {
    const at = name.indexOf('=');
    const key = (at === -1 ? name : name.slice(0, at)).toLowerCase();
    const field = FIELDS[ALIASES[key] ?? key];
    if (field === undefined || !(Object.hasOwn(FIELDS, key) || Object.hasOwn(ALIASES, key))) {
      return unknown(`unknown user-defined format specifier "${key.slice(0, 40)}"`);
    }
    fields.push(at === -1 ? field : { ...field, title: name.slice(at + 1) });
  }
  return { kind: 'fields', fields };
}

/** UNIX options in one word: which processes (`e`, `A`, `a`, `x`) makes no difference in a sandbox. */
function unixFields(letters: string): Chosen | undefined {
  if (/^[eAaxNdw]*$/.test(letters)) return undefined;
  if (/^[eAaxNdwfF]*$/.test(letters)) return { kind: 'fields', fields: FULL };
  return unknown('unsupported SysV option');
}

function bsdFields(letters: string): Chosen | undefined {
  if (!/^[axgruwehf]*$/.test(letters)) return unknown('unsupported option (BSD syntax)');
  return { kind: 'fields', fields: letters.includes('u') ? BSD_USER : BSD };
}

function optionFields(word: string): Chosen | undefined {
  const option = /^-([A-Za-z]+)$/.exec(word)?.[1];
  if (option !== undefined) return unixFields(option);
  return /^[A-Za-z]+$/.test(word) ? bsdFields(word) : unknown('garbage option');
}

/** What arguments of `ps` ask for. */
function chosenFields(psArgs: string): Chosen {
  const words = psArgs.trim().split(/\s+/);
  const formats: string[] = [];
  let chosen: readonly Field[] | undefined;
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? '';
    const format = /^(?:-[eAaxf]*o|o|--format=?)(.*)$/.exec(word);
    if (format !== null) {
      const attached = format[1] ?? '';
      if (attached === '') at += 1;
      formats.push(attached === '' ? (words[at] ?? '') : attached);
      continue;
    }
    const next = optionFields(word);
    if (next?.kind === 'refused') return next;
    if (next !== undefined) chosen = next.fields;
  }
  return formats.length > 0 ? formatFields(formats.join(',')) : { kind: 'fields', fields: chosen ?? PLAIN };
}

/** Moby's answer for `ps_args`. */
export function topView(psArgs: string, processes: readonly SandboxProcess[], facts: TopFacts): TopAnswer {
  const refusal = pidTitleRefusal(` ${psArgs}`);
  if (refusal !== undefined) return { kind: 'refused', message: refusal };
  const chosen = chosenFields(psArgs.trim() === '' ? '-ef' : psArgs);
  if (chosen.kind === 'refused') return chosen;
  const titles = chosen.fields.map(({ title }) => title);
  if (!titles.includes('PID')) return { kind: 'refused', message: "Couldn't find PID field in ps output" };
  const rows = processes.map((process) => chosen.fields.map(({ show }) => show(process, facts)));
  return { kind: 'list', titles, processes: rows };
}
