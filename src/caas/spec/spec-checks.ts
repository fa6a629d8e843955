/** Combinations and values of a create request that no engine takes, or that would reach outside of a sandbox. Pure. */
import { OUTSIDE } from './spec-refusal.ts';
import type { SpecRefusal } from './spec-refusal.ts';

const LABELS_MAX = 200;
/** Below it the sandbox's own kernel does not start. */
const MEMORY_BYTES_MIN = 64 * 1024 * 1024;

/** Capabilities that a tenant may add: what Docker gives by default, without raw sockets. Inside gVisor they act on the sentry only. */
const CAPABILITIES_ALLOWED = new Set(
  'CHOWN DAC_OVERRIDE FSETID FOWNER SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE SYS_PTRACE SYS_NICE'.split(
    ' ',
  ),
);
/** The rest of those that Linux has: what is in neither list is a typing error, and answered like one. */
const CAPABILITIES_REFUSED = new Set(
  'ALL AUDIT_CONTROL AUDIT_READ BLOCK_SUSPEND BPF CHECKPOINT_RESTORE DAC_READ_SEARCH IPC_LOCK IPC_OWNER LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BROADCAST NET_RAW PERFMON SYS_ADMIN SYS_BOOT SYS_MODULE SYS_PACCT SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG SYSLOG WAKE_ALARM'.split(
    ' ',
  ),
);

function ours(status: 400 | 403, reason: string): SpecRefusal {
  return { kind: 'refused', status, reason };
}

function docker(reason: string): SpecRefusal {
  return { kind: 'refused', status: 400, reason, isWhole: true };
}

/** What of a specification is looked at. */
interface Checked {
  readonly config: { readonly Labels: Readonly<Record<string, string>> | null };
  readonly hostConfig: {
    readonly Memory: number;
    readonly MemorySwap: number;
    readonly AutoRemove: boolean;
    readonly RestartPolicy: { readonly Name: string } | null;
    readonly CapAdd: readonly string[] | null;
    readonly CapDrop: readonly string[] | null;
    readonly SecurityOpt: readonly string[] | null;
  };
}

function checkMemory({ hostConfig: { Memory, MemorySwap } }: Checked): SpecRefusal | undefined {
  if (Memory !== 0 && Memory < MEMORY_BYTES_MIN) {
    const least = String(MEMORY_BYTES_MIN / 1024 / 1024);
    return ours(400, `Minimum memory limit allowed is ${least}MB: a sandbox needs room for its own kernel`);
  }
  if (Memory > 0 && MemorySwap > 0 && MemorySwap < Memory) {
    return docker('Minimum memoryswap limit should be larger than memory limit, see usage');
  }
  if (Memory === 0 && MemorySwap > 0)
    return docker('You should always set the Memory limit when using Memoryswap limit, see usage');
  return undefined;
}

function checkCapabilities(given: readonly string[], field: 'CapAdd' | 'CapDrop'): SpecRefusal | undefined {
  for (const capability of given) {
    const name = capability.toUpperCase().replace(/^CAP_/, '');
    const isKnown = CAPABILITIES_ALLOWED.has(name) || CAPABILITIES_REFUSED.has(name);
    if (!isKnown) return docker(`invalid ${field}: unknown capability: "CAP_${name}"`);
    if (field === 'CapAdd' && !CAPABILITIES_ALLOWED.has(name))
      return ours(403, `HostConfig.CapAdd: ${capability} is not allowed: ${OUTSIDE}`);
  }
  return undefined;
}

/** The first fault of a request whose fields are right by themselves. */
export function checkCombination(spec: Checked): SpecRefusal | undefined {
  const { config, hostConfig } = spec;
  const fault =
    checkMemory(spec) ??
    checkCapabilities(hostConfig.CapAdd ?? [], 'CapAdd') ??
    checkCapabilities(hostConfig.CapDrop ?? [], 'CapDrop');
  if (fault !== undefined) return fault;
  if (hostConfig.AutoRemove && !['', 'no'].includes(hostConfig.RestartPolicy?.Name ?? '')) {
    return docker("can't create 'AutoRemove' container with restart policy");
  }
  const option = (hostConfig.SecurityOpt ?? []).find((text) => !/^no-new-privileges(?:[:=]true)?$/.test(text));
  if (option !== undefined) return ours(403, `HostConfig.SecurityOpt: ${option.slice(0, 60)} is not allowed: ${OUTSIDE}`);
  if (Object.keys(config.Labels ?? {}).length > LABELS_MAX) return ours(400, `more than ${String(LABELS_MAX)} labels`);
  return undefined;
}
