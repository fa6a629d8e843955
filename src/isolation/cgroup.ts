/**
 * The cgroup files of one kernel, v1 or v2: counters for the meter, limits for a checkpoint, clean-up at the end.
 *
 * A cgroup is named by its path below the controllers' mounts (`/ecluse/SCOPE/TENANT/ID`), the same in every v1 tree.
 * Memory is the working set, `usage − inactive_file` (a gVisor application's memory is shmem to the kernel, so RSS is wrong).
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rmdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { codeOf } from '#errors';
import { CgroupReader, counterFilesOf } from './cgroup-reader.ts';
import type { CgroupUsage } from './cgroup-reader.ts';

const MOUNT = '/sys/fs/cgroup';

export class Cgroups {
  /** The roots of the controller trees: one for v2, one a controller for v1. */
  readonly #roots: readonly string[];
  readonly #version: 1 | 2;
  readonly #mount: string;

  constructor(version: 1 | 2, roots: readonly string[], mount: string) {
    this.#version = version;
    this.#roots = roots;
    this.#mount = mount;
  }

  get version(): 1 | 2 {
    return this.#version;
  }

  /**
   * Current usage, or undefined where the cgroup does not exist (its container never started, or all is over). In this very turn: the files are the kernel's
   * and are read in microseconds, while each turn through the thread pool takes milliseconds on a busy machine.
   */
  usageOf(cgroup: string): CgroupUsage | undefined {
    using reader = this.readerOf(cgroup);
    const usage = reader.usage();
    const { fault } = reader;
    if (fault !== undefined) throw new TypeError(`cgroup: ${cgroup}: "${fault.trim()}" is no counter`);
    return usage;
  }

  /** For who reads it often; it need not be there yet. */
  readerOf(cgroup: string): CgroupReader {
    return new CgroupReader(counterFilesOf(this.#version, this.#mount, cgroup));
  }

  /**
   * Which cgroup of this path exists now: a removed and remade one, or one after a reboot, has another identity and counters from zero.
   * Undefined where there is none.
   */
  async identityOf(cgroup: string): Promise<string | undefined> {
    try {
      const { ino } = await stat(this.#version === 1 ? join(this.#mount, 'cpuacct', cgroup) : join(this.#mount, cgroup), {
        bigint: true,
      });
      return `${(await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()}:${String(ino)}`;
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  /**
   * Lifts the memory limit of a cgroup and returns the way back. A checkpoint into tmpfs is charged to the sandbox that writes it, so
   * that without this a container could be killed by its own checkpoint.
   */
  liftMemoryLimit(cgroup: string): () => Promise<void> {
    const folder = this.#version === 1 ? join(this.#mount, 'memory', cgroup) : join(this.#mount, cgroup);
    const names = this.#version === 1 ? ['memory.memsw.limit_in_bytes', 'memory.limit_in_bytes'] : ['memory.max'];
    const files = names.map((name) => join(folder, name)).filter((file) => existsSync(file));
    // In this very turn, as `usageOf`.
    const before = files.map((file) => readFileSync(file, 'utf8').trim());
    for (const file of files) writeFileSync(file, this.#version === 1 ? '-1' : 'max');
    return async () => {
      for (const [index, file] of [...files.entries()].toReversed()) await writeFile(file, before[index] ?? '');
    };
  }

  /**
   * Sets the memory limit of a cgroup again after `liftMemoryLimit`. False where the kernel cannot take it yet, because more is in use;
   * a cgroup that is gone has no limit to set.
   */
  async setMemoryLimit(cgroup: string, bytes: number): Promise<boolean> {
    const folder = this.#version === 1 ? join(this.#mount, 'memory', cgroup) : join(this.#mount, cgroup);
    const names = this.#version === 1 ? ['memory.limit_in_bytes', 'memory.memsw.limit_in_bytes'] : ['memory.max'];
    for (const file of names.map((name) => join(folder, name)).filter((path) => existsSync(path))) {
      try {
        await writeFile(file, String(bytes));
      } catch (error) {
        if (codeOf(error) === 'EBUSY') return false;
        if (codeOf(error) !== 'ENOENT') throw error;
      }
    }
    return true;
  }

  /**
   * Makes a cgroup and bounds the processes in it and below it: for containers whose limit their engine cannot be told. A machine without
   * that controller has no such limit for any container.
   */
  async limitPids(cgroup: string, max: number): Promise<void> {
    const root = this.#version === 1 ? join(this.#mount, 'pids') : this.#mount;
    if (!existsSync(root)) return;
    const folder = join(root, cgroup);
    await mkdir(folder, { recursive: true });
    if (this.#version === 2) {
      // A controller is in a cgroup where its parent, and that one's parent, hand it down; who lacks it refuses to.
      const parts = cgroup.split('/').filter((part) => part !== '');
      for (const depth of parts.keys()) {
        await writeFile(join(root, ...parts.slice(0, depth), 'cgroup.subtree_control'), '+pids').catch(() => undefined);
      }
      if (!existsSync(join(folder, 'pids.max'))) return;
    }
    await writeFile(join(folder, 'pids.max'), String(max));
  }

  /**
   * Makes a cgroup, and gives the first part of its path the weight of so many processors. A machine without that controller shares by processes.
   *
   * All containers of a node are below that part. With the kernel's default it would weigh as much as one busy process of the node itself, on a machine
   * of any size; so it weighs what Kubernetes gives its pods (kubelet, `kubepods`: 1024 shares a processor).
   */
  async weigh(cgroup: string, processors: number): Promise<void> {
    const root = this.#version === 1 ? join(this.#mount, 'cpu') : this.#mount;
    if (!existsSync(root)) return;
    await mkdir(join(root, cgroup), { recursive: true });
    const top = join(root, cgroup.split('/').find((part) => part !== '') ?? '');
    if (this.#version === 2) await writeFile(join(root, 'cgroup.subtree_control'), '+cpu').catch(() => undefined);
    const [file, each, max] =
      this.#version === 1 ? (['cpu.shares', 1024, 262_144] as const) : (['cpu.weight', 100, 10_000] as const);
    if (existsSync(join(top, file))) await writeFile(join(top, file), String(Math.min(max, each * processors)));
  }

  /** The processes in a cgroup and below it. */
  async processesIn(cgroup: string): Promise<readonly number[]> {
    const found = new Set<number>();
    for (const root of this.#roots) {
      for (const folder of await foldersBelow(join(root, cgroup))) {
        const text = await readFile(join(folder, 'cgroup.procs'), 'utf8').catch(() => '');
        for (const line of text.split('\n')) if (line !== '') found.add(Number(line));
      }
    }
    return [...found];
  }

  /** Removes a cgroup that has nothing below it: another node's may be made below it at this moment. */
  async removeEmpty(cgroup: string): Promise<void> {
    // The kernel refuses where something is in it.
    for (const root of this.#roots) await rmdir(join(root, cgroup)).catch(() => undefined);
  }

  /** Removes a cgroup and all below it. False where something still lives in it; that is the caller's to end first. */
  async remove(cgroup: string): Promise<boolean> {
    let gone = true;
    for (const root of this.#roots) {
      const folders = await foldersBelow(join(root, cgroup));
      for (const folder of folders.toReversed()) {
        try {
          await rmdir(folder);
        } catch (error) {
          if (codeOf(error) !== 'ENOENT') gone = false;
        }
      }
    }
    return gone;
  }
}

/** The cgroups of this machine. Hybrid machines (v1 controllers, empty v2 tree) count as v1. */
export async function detectCgroups(mount: string = MOUNT): Promise<Cgroups> {
  if (existsSync(join(mount, 'cgroup.controllers'))) return new Cgroups(2, [mount], mount);
  const entries = await readdir(mount, { withFileTypes: true });
  // Links such as cpu -> cpu,cpuacct name the same tree twice.
  const roots = entries.filter((entry) => entry.isDirectory()).map((entry) => join(mount, entry.name));
  return new Cgroups(1, roots, mount);
}

/** `folder` and everything below it, parents before children; empty where it does not exist. */
async function foldersBelow(folder: string): Promise<readonly string[]> {
  let entries;
  try {
    entries = await readdir(folder, { withFileTypes: true });
  } catch {
    return []; // Gone meanwhile, or never there.
  }
  const below = await Promise.all(
    entries.filter((entry) => entry.isDirectory()).map(async (entry) => await foldersBelow(join(folder, entry.name))),
  );
  return [folder, ...below.flat()];
}
