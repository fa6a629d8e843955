/** What `ecluse doctor` looks at: one check each, that only reads. */
import { readFile, readdir, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { tryCommand } from '#command';
import { errorLine, reasonOf } from '#errors';
import { findProgram } from '#isolation/program-path.ts';
import { probeRunsc } from '#isolation/runsc-probe.ts';
import { formatBytes } from '#units';
import { canInstallPackages } from './doctor-packages.ts';

export type Finding =
  | { readonly state: 'ok'; readonly detail: string }
  | { readonly state: 'warning' | 'bad'; readonly why: string; /** A command, or what to do. */ readonly mend: string };

export interface Check {
  readonly id: string;
  readonly title: string;
  inspect(): Promise<Finding>;
  /** The Debian package that mends it. All of them are installed in one go. */
  readonly debianPackage?: string;
  /** Mends what no package mends. */
  fix?(): Promise<void>;
}

interface Program {
  readonly program: string;
  readonly debianPackage: string;
}

/** docker.io brings containerd and, before Debian 13, the client. */
const PROGRAMS: readonly Program[] = [
  { program: 'dockerd', debianPackage: 'docker.io' },
  { program: 'containerd', debianPackage: 'containerd' },
  { program: 'docker', debianPackage: 'docker-cli' },
  { program: 'ip', debianPackage: 'iproute2' },
  { program: 'nft', debianPackage: 'nftables' },
  { program: 'iptables', debianPackage: 'iptables' },
  { program: 'jq', debianPackage: 'jq' },
  { program: 'nsenter', debianPackage: 'util-linux' },
  { program: 'unshare', debianPackage: 'util-linux' },
  { program: 'mount', debianPackage: 'mount' },
  { program: 'tar', debianPackage: 'tar' },
  { program: 'rsync', debianPackage: 'rsync' },
  { program: 'find', debianPackage: 'findutils' },
];
const PROGRAMS_FOR_TESTS: readonly Program[] = [
  { program: 'openssl', debianPackage: 'openssl' },
  { program: 'curl', debianPackage: 'curl' },
  { program: 'docker-registry', debianPackage: 'docker-registry' },
  { program: 'docker-compose', debianPackage: 'docker-compose' },
  { program: 'testssl', debianPackage: 'testssl.sh' },
  { program: 'pebble', debianPackage: 'pebble' },
  { program: 'named', debianPackage: 'bind9' },
  { program: 'nsupdate', debianPackage: 'bind9-dnsutils' },
  { program: 'strace', debianPackage: 'strace' },
  { program: 'faketime', debianPackage: 'faketime' },
];
/** Debian's own interpreter: another one on the machine does not know Debian's modules. */
const DEBIAN_PYTHON = '/usr/bin/python3';

const NODE_MAJOR_MIN = 26;
const SHM_FOLDER = '/dev/shm';
const SHM_FREE_BYTES_MIN = 512 * 1024 ** 2;
const DISK_FREE_BYTES_MIN = 4 * 1024 ** 3;
/** Magic number of tmpfs in statfs(2). */
const TMPFS_TYPE = 0x01_02_19_94;
const YEAR_MIN = 2026;
/** Unpacking on another machine or file system may round times up. */
const CLOCK_SLACK_MS = 120_000;

/** Where an ELF file says where its program headers are, how long each is and how many; and the type of the loader's. */
const ELF_PHOFF_AT = 0x20;
const ELF_PHENTSIZE_AT = 0x36;
const ELF_PHNUM_AT = 0x38;
const ELF_PT_INTERP = 3;

const ok = (detail: string): Finding => ({ state: 'ok', detail });
const bad = (why: string, mend: string): Finding => ({ state: 'bad', why, mend });
const warning = (why: string, mend: string): Finding => ({ state: 'warning', why, mend });

function programCheck({ program, debianPackage }: Program): Check {
  return {
    id: `program-${program}`,
    title: program,
    debianPackage,
    inspect: async () => {
      const path = findProgram(program);
      return path === undefined
        ? bad('the program is not installed', `apt-get install --no-install-recommends ${debianPackage}`)
        : ok(path);
    },
  };
}

/** True where the machine is one that a node can run on at all; nothing else is looked at or mended otherwise. */
export const groundChecks: readonly Check[] = [
  {
    id: 'linux',
    title: 'Linux',
    inspect: async () =>
      process.platform === 'linux'
        ? ok('linux')
        : bad(`this system is ${process.platform}`, 'run Écluse on Linux, for instance in a virtual machine'),
  },
  {
    id: 'root',
    title: 'root rights',
    inspect: async () =>
      process.getuid?.() === 0
        ? ok('user id 0')
        : bad('containers, networks and ports below 1024 need root, and this user is not root', 'run: sudo npm start'),
  },
  {
    id: 'node',
    title: 'Node.js',
    inspect: async () =>
      Number(process.versions.node.split('.')[0]) >= NODE_MAJOR_MIN
        ? ok(process.versions.node)
        : bad(
            `this is Node ${process.versions.node}, and ${String(NODE_MAJOR_MIN)} is needed`,
            'start it by bin/ecluse, which brings its own Node',
          ),
  },
];

const runscCheck: Check = {
  id: 'runsc',
  title: 'gVisor (runsc)',
  debianPackage: 'runsc',
  inspect: async () => {
    const mend = 'ecluse doctor --fix, or install gVisor of 2024 or later by hand so that runsc is on PATH';
    try {
      const runsc = await probeRunsc();
      return runsc.leaveRunning && runsc.compressionNone
        ? ok(`${runsc.version} at ${runsc.path}`)
        : bad(`${runsc.path} is ${runsc.version}, which cannot write the checkpoints that migration needs`, mend);
    } catch (error) {
      return bad(reasonOf(error), mend);
    }
  },
};

/** The kernel's packet filter, asked by both programs: dockerd speaks through iptables, the tenants' rules through nft. */
const packetFilterCheck: Check = {
  id: 'packet-filter',
  title: 'packet filter',
  inspect: async () => {
    const nft = findProgram('nft');
    const iptables = findProgram('iptables');
    if (nft === undefined || iptables === undefined) return ok('not asked: its programs are missing');
    const answers = await Promise.all([
      tryCommand(nft, ['list', 'tables']),
      tryCommand(iptables, ['-w', '5', '-t', 'nat', '-S', 'POSTROUTING']),
    ]);
    const refused = answers.find((answer) => answer.exitCode !== 0);
    return refused === undefined
      ? ok('nftables and iptables answer')
      : bad(
          `the kernel refuses it: ${refused.stderr.trim().slice(0, 200)}`,
          'load the modules: modprobe -a nf_tables nft_compat nf_nat iptable_nat',
        );
  },
};

/** True where the program at `path` (ELF, 64 bit, little-endian) asks for no dynamic loader. */
async function isStatic(path: string): Promise<boolean> {
  const image = await readFile(path);
  const headersAt = Number(image.readBigUInt64LE(ELF_PHOFF_AT));
  const headerBytes = image.readUInt16LE(ELF_PHENTSIZE_AT);
  const types = Array.from({ length: image.readUInt16LE(ELF_PHNUM_AT) }, (_, index) =>
    image.readUInt32LE(headersAt + index * headerBytes),
  );
  return !types.includes(ELF_PT_INTERP);
}

/** The demo's and the tests' images are this one file: a busybox that needs libraries would not start in them. */
const busyboxCheck: Check = {
  id: 'program-busybox',
  title: 'busybox',
  debianPackage: 'busybox-static',
  inspect: async () => {
    const path = findProgram('busybox');
    const mend = 'apt-get install --no-install-recommends busybox-static';
    if (path === undefined) return bad('the program is not installed', mend);
    return (await isStatic(path)) ? ok(path) : bad(`${path} is dynamically linked, and images are made of it alone`, mend);
  },
};

/** A module has no program to find on PATH. */
const pythonDockerCheck: Check = {
  id: 'python-docker',
  title: 'python3-docker',
  debianPackage: 'python3-docker',
  inspect: async () => {
    const asked = await tryCommand(DEBIAN_PYTHON, ['-c', 'import docker; print(docker.__version__)']);
    return asked.exitCode === 0
      ? ok(asked.stdout.trim())
      : bad(`${DEBIAN_PYTHON} has no module docker`, 'apt-get install --no-install-recommends python3-docker');
  },
};

interface Mount {
  readonly folder: string;
  readonly type: string;
  readonly options: readonly string[];
}

async function mounts(): Promise<readonly Mount[]> {
  return (await readFile('/proc/self/mounts', 'utf8')).split('\n').map((line) => {
    const [, folder = '', type = '', options = ''] = line.split(' ');
    return { folder, type, options: options.split(',') };
  });
}

const cgroupCheck: Check = {
  id: 'cgroups',
  title: 'cgroups',
  inspect: async () => {
    const writable = (await mounts()).filter((mount) => mount.options.includes('rw'));
    const hasV1 = (controller: string): boolean =>
      writable.some((mount) => mount.type === 'cgroup' && mount.options.includes(controller));
    if (hasV1('cpuacct') && hasV1('memory')) return ok('version 1, with cpuacct and memory');
    for (const { folder } of writable.filter((mount) => mount.type === 'cgroup2')) {
      const controllers = (await readFile(join(folder, 'cgroup.controllers'), 'utf8').catch(() => '')).trim().split(' ');
      if (controllers.includes('cpu') && controllers.includes('memory')) return ok(`version 2 at ${folder}, with cpu and memory`);
    }
    return bad(
      'no writable cgroup hierarchy with CPU accounting and memory: containers could be neither limited nor billed',
      "boot with cgroup_enable=memory, mount it (mount -t cgroup2 none /sys/fs/cgroup), or give this container the host's cgroups",
    );
  },
};

const memoryFolderCheck: Check = {
  id: 'shm',
  title: SHM_FOLDER,
  inspect: async () => {
    const mend = `mount -t tmpfs -o remount,size=2g ${SHM_FOLDER}`;
    const found = await statfs(SHM_FOLDER).catch(() => undefined);
    if (found?.type !== TMPFS_TYPE)
      return warning('it is not memory-backed: a migration would pause containers for as long as the disk takes', mend);
    const freeBytes = found.bavail * found.bsize;
    return freeBytes >= SHM_FREE_BYTES_MIN
      ? ok(`${formatBytes(freeBytes)} free`)
      : warning(`only ${formatBytes(freeBytes)} free, and migrations keep a container's memory there`, mend);
  },
};

/** The file system of a folder that may not exist yet: that of its nearest ancestor. */
async function freeBytesAt(folder: string): Promise<number> {
  try {
    const found = await statfs(folder);
    return found.bavail * found.bsize;
  } catch (error) {
    if (dirname(folder) === folder) throw error;
    return await freeBytesAt(dirname(folder));
  }
}

function diskCheck(dataDir: string): Check {
  return {
    id: 'disk',
    title: 'disk',
    inspect: async () => {
      const freeBytes = await freeBytesAt(dataDir);
      return freeBytes >= DISK_FREE_BYTES_MIN
        ? ok(`${formatBytes(freeBytes)} free at ${dataDir}`)
        : warning(
            `only ${formatBytes(freeBytes)} free at ${dataDir}: images and snapshots need more`,
            `free at least ${formatBytes(DISK_FREE_BYTES_MIN)} there, or give --data another folder`,
          );
    },
  };
}

/** When the newest file of the package was written: no correct clock is behind it. */
async function packageNewestMs(): Promise<number> {
  const root = join(import.meta.dirname, '..');
  const sources = (await readdir(import.meta.dirname)).map((name) => join(import.meta.dirname, name));
  const times = await Promise.all([join(root, 'package.json'), ...sources].map(async (path) => (await stat(path)).mtimeMs));
  return Math.max(...times);
}

const clockCheck: Check = {
  id: 'clock',
  title: 'clock',
  inspect: async () => {
    const now = new Date();
    const mend = 'set it, for instance with: timedatectl set-ntp true';
    const why = `it says ${now.toISOString()}, which has passed: certificates and bills would be wrong`;
    const isBehind = now.getFullYear() < YEAR_MIN || now.getTime() + CLOCK_SLACK_MS < (await packageNewestMs());
    return isBehind ? warning(why, mend) : ok(now.toISOString());
  },
};

/** Missing programs on a system without apt: said once, with all names, instead of one apt-get line each. */
function packageToolCheck(checks: readonly Check[]): Check {
  return {
    id: 'apt',
    title: 'package tool',
    inspect: async () => {
      if (canInstallPackages()) return ok('apt-get');
      const findings = await Promise.all(
        checks.map(async (check) => ((await inspectSafely(check)).state === 'bad' ? check.debianPackage : undefined)),
      );
      const missing = [...new Set(findings.filter((name) => name !== undefined))];
      return missing.length === 0
        ? ok('not Debian or a derivative, and nothing is missing')
        : bad(
            'this system is not Debian or a derivative: its programs cannot be installed from here',
            `install by hand what Debian calls ${missing.join(', ')}`,
          );
    },
  };
}

/** An inspection that throws is a finding too. */
export async function inspectSafely(check: Check): Promise<Finding> {
  try {
    return await check.inspect();
  } catch (error) {
    return bad(`the check itself failed: ${errorLine(error)}`, 'report this as a fault of Écluse');
  }
}

/** Everything that a node (and, with `forTests`, its test suite) needs beyond the ground. */
export function machineChecks(options: { readonly dataDir: string; readonly forTests: boolean }): readonly Check[] {
  const programs = [...PROGRAMS, ...(options.forTests ? PROGRAMS_FOR_TESTS : [])].map(programCheck);
  const installable = [...programs, ...(options.forTests ? [pythonDockerCheck] : []), busyboxCheck, runscCheck];
  return [
    packageToolCheck(installable),
    ...installable,
    packetFilterCheck,
    cgroupCheck,
    memoryFolderCheck,
    diskCheck(options.dataDir),
    clockCheck,
  ];
}
