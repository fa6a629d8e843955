/**
 * The counters of one cgroup, through files that stay open: for who reads them many times a second.
 *
 * PERF: the kernel answers an open file in 2 µs, and in 8 µs where it has to add up a cgroup's statistics; a counter's file opened anew takes 7 µs, and by way
 * of Node's thread pool 41 (2026-11).
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf } from '#errors';

export interface CgroupUsage {
  /** CPU time since the cgroup was made, children that are gone included. */
  readonly cpuNs: number;
  readonly memoryBytes: number;
}

/** Where a kernel has them, and what stands before the number in files of lines `name value`. */
export interface CounterFiles {
  readonly cpu: { readonly path: string; readonly label: string | undefined; readonly unitNs: number };
  readonly memory: string;
  readonly memoryStat: { readonly path: string; readonly label: string };
}

export function counterFilesOf(version: 1 | 2, mount: string, cgroup: string): CounterFiles {
  if (version === 2) {
    const folder = join(mount, cgroup);
    return {
      cpu: { path: join(folder, 'cpu.stat'), label: 'usage_usec ', unitNs: 1000 },
      memory: join(folder, 'memory.current'),
      memoryStat: { path: join(folder, 'memory.stat'), label: 'inactive_file ' },
    };
  }
  const memory = join(mount, 'memory', cgroup);
  return {
    cpu: { path: join(mount, 'cpuacct', cgroup, 'cpuacct.usage'), label: undefined, unitNs: 1 },
    memory: join(memory, 'memory.usage_in_bytes'),
    memoryStat: { path: join(memory, 'memory.stat'), label: 'total_inactive_file ' },
  };
}

const ZERO = 48;
const NINE = 57;
const NEWLINE = 10;
/** A v2 `memory.stat` has some 1.5 KB. Shared: it is read and looked at in one turn. */
const bytes = Buffer.alloc(16 * 1024);
let lastLength = 0;
const FAULT_BYTES = 40;
/** What a store's integers hold. */
const COUNTER_MAX = 2 ** 63;

export class CgroupReader implements Disposable {
  readonly #files: CounterFiles;
  /** Undefined: the cgroup is not there, or was not looked for yet. */
  #open: { readonly cpu: number; readonly memory: number; readonly memoryStat: number } | undefined;
  #inactiveBytes = 0;
  #openings = 0;
  #fault: string | undefined;

  constructor(files: CounterFiles) {
    this.#files = files;
  }

  /** How often the files were opened: as long as it is the same, it is the same cgroup. The kernel reads no file of one that is gone. */
  get openings(): number {
    return this.#openings;
  }

  /** Why what was looked for last is not known, though it may be there: the beginning of what is no counter, or an error's code. Undefined: it is known, or gone. */
  get fault(): string | undefined {
    return this.#fault;
  }

  /** The working set, with what was not in use as it was at the last `usage`; undefined: the cgroup is not there. */
  memoryBytes(): number | undefined {
    const open = (this.#open ??= this.#opened());
    if (open === undefined) return undefined;
    const total = counterIn(open.memory);
    if (this.#isUsable(total)) return Math.max(0, total - this.#inactiveBytes);
    this[Symbol.dispose]();
    return undefined;
  }

  /** CPU, and the working set as `memoryBytes` has it. */
  glance(): CgroupUsage | undefined {
    const memoryBytes = this.memoryBytes();
    if (memoryBytes === undefined || this.#open === undefined) return undefined;
    const cpuNs = this.#cpuNs(this.#open.cpu);
    return this.#isUsable(cpuNs) ? { cpuNs, memoryBytes } : undefined;
  }

  /** Undefined: the cgroup is not there. One that was removed and made again is found the next time. */
  usage(): CgroupUsage | undefined {
    const open = (this.#open ??= this.#opened());
    if (open === undefined) return undefined;
    const cpuNs = this.#cpuNs(open.cpu);
    if (this.#isUsable(cpuNs)) {
      const inactive = fieldIn(open.memoryStat, this.#files.memoryStat.label);
      if (this.#isUsable(inactive)) {
        this.#inactiveBytes = inactive;
        const memoryBytes = this.memoryBytes();
        if (memoryBytes !== undefined) return { cpuNs, memoryBytes };
      }
    }
    this[Symbol.dispose]();
    return undefined;
  }

  #cpuNs(descriptor: number): number | undefined {
    const { label, unitNs } = this.#files.cpu;
    const used = label === undefined ? counterIn(descriptor) : fieldIn(descriptor, label);
    return used === undefined ? undefined : used * unitNs;
  }

  #isUsable(value: number | undefined): value is number {
    this.#fault =
      value !== undefined && Number.isNaN(value) ? bytes.toString('latin1', 0, Math.min(lastLength, FAULT_BYTES)) : undefined;
    return value !== undefined && this.#fault === undefined;
  }

  #opened(): { readonly cpu: number; readonly memory: number; readonly memoryStat: number } | undefined {
    const { cpu, memory, memoryStat } = this.#files;
    const descriptors: number[] = [];
    this.#fault = undefined;
    try {
      for (const path of [cpu.path, memory, memoryStat.path]) descriptors.push(openSync(path, 'r'));
    } catch (error) {
      if (!isGone(error)) this.#fault = codeOf(error) ?? 'no code';
      for (const descriptor of descriptors) closeSync(descriptor);
      return undefined;
    }
    this.#openings += 1;
    const [, , statistics = -1] = descriptors;
    const inactive = fieldIn(statistics, memoryStat.label);
    this.#inactiveBytes = inactive === undefined || Number.isNaN(inactive) ? 0 : inactive;
    const [ofCpu = -1, ofMemory = -1, ofStat = -1] = descriptors;
    return { cpu: ofCpu, memory: ofMemory, memoryStat: ofStat };
  }

  /** It may be read again: then the files are opened anew. */
  [Symbol.dispose](): void {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined) return;
    for (const descriptor of [open.cpu, open.memory, open.memoryStat]) closeSync(descriptor);
  }
}

function isGone(error: unknown): boolean {
  const code = codeOf(error);
  return code === 'ENOENT' || code === 'ENODEV';
}

/** What the file says; 0: its cgroup is gone. */
function read(descriptor: number): number {
  try {
    lastLength = readSync(descriptor, bytes, 0, bytes.length, 0);
  } catch (error) {
    // Anything else is no number: it is said, and not taken for an end.
    lastLength = isGone(error) ? 0 : bytes.write(codeOf(error) ?? 'no code', 'latin1');
  }
  return lastLength;
}

/** A file of one number. NaN: it says something else; undefined: it is gone. */
function counterIn(descriptor: number): number | undefined {
  const length = read(descriptor);
  return length === 0 ? undefined : numberAt(0, length);
}

/** A file of lines `name value`; `label`: the name and the blank. NaN and undefined as above. */
function fieldIn(descriptor: number, label: string): number | undefined {
  const length = read(descriptor);
  for (let at = bytes.indexOf(label); at !== -1 && at < length; at = bytes.indexOf(label, at + 1)) {
    // Not the end of another name.
    if (at === 0 || bytes[at - 1] === NEWLINE) return numberAt(at + label.length, length);
  }
  return length === 0 ? undefined : Number.NaN;
}

/** Digits up to `end`, or to the end of the line. Above 2^53 (104 days of one processor, in ns) a double is right to a few units, which is as good as exact. */
function numberAt(from: number, end: number): number {
  let value = 0;
  let at = from;
  for (; at < end; at += 1) {
    const byte = bytes[at] ?? 0;
    if (byte < ZERO || byte > NINE) break;
    value = value * 10 + byte - ZERO;
  }
  const isNumber = at > from && (at === end || bytes[at] === NEWLINE);
  return isNumber && value < COUNTER_MAX ? value : Number.NaN;
}
