/**
 * What a machine's processor offers to programs, as far as a saved sandbox depends on it.
 *
 * gVisor saves the feature set of the processor that a sandbox started on, and refuses a restore on one that lacks any of it or has cache lines
 * of another size (`FeatureSet.CheckHostCompatible`; the same in the builds 20240729 and 20260905). It asks the processor; we read what the kernel
 * says of it. Words of the kernel's own are left out, or hosts with other kernels on the same processor would look different; words that gVisor does
 * not know (avx_vnni, avx512_bf16) stay, because a program that has started to use an instruction goes on with it.
 */
import { readFile } from 'node:fs/promises';
import { tryCommand } from '#command';
import { EcluseError } from '#errors';

export interface CpuFeatures {
  /** Those that all its processors have. */
  readonly features: ReadonlySet<string>;
  readonly cacheLineBytes: number;
}

/** What a snapshot depends on but for runsc itself. */
export interface MachineFacts {
  readonly cpu: CpuFeatures;
  /** Of the kernel: pages are what a snapshot is made of. */
  readonly pageBytes: number;
}

/** A line of flags has about 2,000 characters on today's largest processors. */
const LINE_CHARACTERS_MAX = 16_384;
/** Enough for 1,024 processors; what is longer is cut, and what it says of the rest is not known. */
const TEXT_CHARACTERS_MAX = 8 * 1024 * 1024;
const GETCONF_TIMEOUT_MS = 5_000;

/** Flags that Linux made up: facts of its own, mitigations, and what belongs to hypervisors. No program in a sandbox meets them. */
const KERNEL_WORDS =
  /^(?:constant_tsc|nonstop_tsc\w*|tsc_known_freq|tsc_reliable|rep_good|nopl|xtopology|cpuid\w*|arch_perfmon|aperfmperf|amd_\w+|extd_apicid|acc_power|rapl|pebs|bts|up|art|arat|pln|pts|dtherm|ida|hwp\w*|epb|cpb|hw_pstate|proc_feedback|ring3mwait|cat_l\d|cdp_l\d|mba|cqm_\w+|pti|ssbd|ibrs\w*|ibpb\w*|stibp\w*|virt_ssbd|vmmcall|tpr_shadow|vnmi|flexpriority|ept\w*|vpid|npt|lbrv|svm_lock|sev\w*|vgif|split_lock_detect|bus_lock_detect|user_shstk|retpoline\w*)$/;

/** Reads the text of /proc/cpuinfo; undefined where it says nothing that can be used. Takes any text. */
export function parseCpuInfo(text: string): CpuFeatures | undefined {
  let features: ReadonlySet<string> | undefined;
  let cacheLineBytes: number | undefined;
  for (const line of text.slice(0, TEXT_CHARACTERS_MAX).split('\n')) {
    const colon = line.indexOf(':');
    if (colon === -1 || line.length > LINE_CHARACTERS_MAX) continue;
    const key = line.slice(0, colon).trim();
    const value = line.slice(colon + 1).trim();
    if (key === 'flags' || key === 'Features') {
      const words = new Set(value.split(/\s+/).filter((word) => /^[a-z\d_.]{1,32}$/.test(word) && !KERNEL_WORDS.test(word)));
      features = features === undefined ? words : features.intersection(words);
    } else if (key === 'clflush size' && /^\d{1,4}$/.test(value)) {
      cacheLineBytes = Math.max(cacheLineBytes ?? 0, Number(value));
    }
  }
  if (features === undefined || features.size === 0) return undefined;
  // Arm says nothing of cache lines; then all machines look alike in this.
  return { features, cacheLineBytes: cacheLineBytes ?? 0 };
}

/** What `source` has and `target` lacks, in order. */
export function missingFeatures(source: CpuFeatures, target: CpuFeatures): readonly string[] {
  return [...source.features.difference(target.features)].toSorted();
}

/** Asks this machine. */
export async function readMachine(): Promise<MachineFacts> {
  const [text, said] = await Promise.all([
    readFile('/proc/cpuinfo', 'utf8').catch(() => ''),
    tryCommand('getconf', ['PAGESIZE'], { timeoutMs: GETCONF_TIMEOUT_MS }),
  ]);
  const cpu = parseCpuInfo(text);
  const pageBytes = Number(said.stdout.trim());
  if (cpu === undefined || !Number.isInteger(pageBytes) || pageBytes < 4096) {
    throw new EcluseError({
      code: 'ECLUSE_MACHINE_UNKNOWN',
      source: 'runtime',
      message: cpu === undefined ? '/proc/cpuinfo does not say what the processor can do' : 'getconf PAGESIZE says no size',
      mend: 'run the node where /proc is mounted and getconf (of libc-bin) is installed',
    });
  }
  return { cpu, pageBytes };
}
