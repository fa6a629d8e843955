/**
 * Which host takes a container, and why. Pure: facts in, a host and the reasons out; `ecluse explain container` prints them.
 *
 * First what rules a host out (no answer, volumes elsewhere, no memory), then a score: room by what is measured and by what is promised, the image
 * that is there already, and the distance between replicas. Integers in thousandths, so that a decision can be repeated from its record.
 */
import * as z from 'zod';

/** What is known of a host at the moment of a decision. */
export interface HostFacts {
  readonly name: string;
  /** Undefined: it answers. */
  readonly outOfService: string | undefined;
  readonly memoryBytes: number;
  readonly cpus: number;
  /** The sum of the limits of the containers that run on it. */
  readonly promisedMemoryBytes: number;
  /** What its containers use at the moment. */
  readonly usedMemoryBytes: number;
  /** Of its processors, by its containers, in thousandths of one. */
  readonly usedCpuMilli: number;
  readonly hasImage: boolean;
  /** Containers of the same tenant and service (compose project and service, or image). */
  readonly replicas: number;
  readonly containers: number;
}

export interface PlacementWish {
  readonly memoryBytes: number;
  /** Set where the container's volumes are on a host already. */
  readonly volumeHost: string | undefined;
}

/** A host may promise more memory than it has, because containers rarely use their limit; what is really used may not. */
export const PROMISE_FACTOR = 2;
/** Of the memory, kept for the engine, the sandboxes' own kernels and the node. */
const MEMORY_RESERVE_MILLI = 100;

const hostVerdict = z.object({ host: z.string(), score: z.int(), reasons: z.array(z.string()) });
export const placementRecord = z.object({
  host: z.string(),
  decidedMs: z.int(),
  why: z.string(),
  considered: z.array(hostVerdict),
  ruledOut: z.array(z.object({ host: z.string(), reason: z.string() })),
});
export type PlacementRecord = z.infer<typeof placementRecord>;

export type PlacementResult =
  | { readonly kind: 'placed'; readonly record: PlacementRecord }
  | { readonly kind: 'refused'; readonly reasons: readonly string[] };

function percent(milli: number): string {
  return `${String(Math.round(milli / 10))} %`;
}

function milliOf(part: number, whole: number): number {
  return whole <= 0 ? 0 : Math.max(0, Math.min(1000, Math.round((part / whole) * 1000)));
}

/** Why a host cannot take it, or undefined. */
function ruledOutBy(host: HostFacts, wish: PlacementWish): string | undefined {
  if (host.outOfService !== undefined) return host.outOfService;
  if (wish.volumeHost !== undefined && wish.volumeHost !== host.name) return `its volumes are on host ${wish.volumeHost}`;
  if (milliOf(host.usedMemoryBytes, host.memoryBytes) > 1000 - MEMORY_RESERVE_MILLI) {
    return `${percent(milliOf(host.usedMemoryBytes, host.memoryBytes))} of its memory is in use`;
  }
  if (host.promisedMemoryBytes + wish.memoryBytes > host.memoryBytes * PROMISE_FACTOR) {
    return `the limits of its containers would add up to more than ${String(PROMISE_FACTOR)} times its memory`;
  }
  return undefined;
}

interface Verdict {
  readonly host: string;
  readonly score: number;
  readonly reasons: string[];
}

/** The higher the better. Replicas apart weigh most: losing a host must not lose a service. */
function judge(host: HostFacts, wish: PlacementWish): Verdict {
  const promisedFree = 1000 - milliOf(host.promisedMemoryBytes + wish.memoryBytes, host.memoryBytes * PROMISE_FACTOR);
  const usedFree = 1000 - milliOf(host.usedMemoryBytes, host.memoryBytes);
  const cpuFree = 1000 - milliOf(host.usedCpuMilli, host.cpus * 1000);
  const apart = host.replicas === 0 ? 1000 : Math.round(1000 / (1 + 2 * host.replicas));
  const score = 3 * apart + 2 * promisedFree + 2 * usedFree + 2 * cpuFree + (host.hasImage ? 500 : 0);
  return {
    host: host.name,
    score,
    reasons: [
      host.replicas === 0 ? 'no replica of the service on it' : `${String(host.replicas)} of the same service on it`,
      `memory promised: ${percent(1000 - promisedFree)} of ${String(PROMISE_FACTOR)} times its memory, with this container`,
      `memory in use: ${percent(1000 - usedFree)}`,
      `processors in use: ${percent(1000 - cpuFree)}`,
      host.hasImage ? 'it has the image' : 'the image must be brought there',
    ],
  };
}

/** Chooses a host. The order of `hosts` decides where scores are equal, after the number of containers. */
export function place(hosts: readonly HostFacts[], wish: PlacementWish, nowMs: number): PlacementResult {
  const ruledOut: { host: string; reason: string }[] = [];
  const candidates: HostFacts[] = [];
  for (const host of hosts) {
    const reason = ruledOutBy(host, wish);
    if (reason === undefined) candidates.push(host);
    else ruledOut.push({ host: host.name, reason });
  }
  const considered = candidates
    .map((host) => ({ host, verdict: judge(host, wish) }))
    .toSorted((one, other) => other.verdict.score - one.verdict.score || one.host.containers - other.host.containers)
    .map(({ verdict }) => verdict);
  const [best, second] = considered;
  if (best === undefined) return { kind: 'refused', reasons: ruledOut.map(({ host, reason }) => `${host}: ${reason}`) };
  let why = 'it is the only host that can take it';
  if (wish.volumeHost !== undefined) why = 'its volumes are there';
  else if (second !== undefined)
    why =
      best.score === second.score
        ? `no host has a better score than ${String(best.score)}, and ${second.host} has no fewer containers`
        : `it has the best score, ${String(best.score)} before ${String(second.score)} of ${second.host}`;
  return { kind: 'placed', record: { host: best.host, decidedMs: nowMs, why, considered, ruledOut } };
}
