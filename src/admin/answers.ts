/**
 * What the admin API answers about the node, its tenants and its containers: the schemas of the OpenAPI document. Handlers have to return what they say
 * (the compiler looks), and a test compares what a running API answers.
 */
import * as z from 'zod';
import { placementRecord } from '#caas/placement.ts';
import { mapQuantities } from '#metering/ledger-chain.ts';

const instantMs = z.int().min(0).describe('Milliseconds since 1970.');
const spanMs = z.number().min(0).describe('Milliseconds.');
const bytes = z.int().min(0).describe('Bytes.');
const count = z.int().min(0);
/** Integers that a double may not hold. */
const exact = z.bigint().describe('An integer of any size.');
const reference = z.string().describe('TENANT/NAME.');
const hostUse = z.enum(['active', 'draining', 'drained']).describe('Whether it is given containers: only while it is active.');
const listenAddress = z.string().optional().describe('HOST:PORT. Absent: closed.');

const hostView = z.object({
  name: z.string(),
  engine: z.string().describe('"managed", or "unix:///path".'),
  state: z.enum(['up', 'down']),
  use: hostUse,
  engineVersion: z.string().optional().describe('Absent or empty while the engine does not answer.'),
  containers: count,
  memoryBytes: bytes,
  cpus: z.number().min(0),
});

const workerVersion = z.object({ pid: z.int(), version: z.int().describe('The config version that it serves.') });

const quota = z.object({
  containersMax: count,
  memoryBytesMax: bytes.describe('The sum of the memory limits of its containers.'),
  imagesMax: count,
  networksMax: count,
  volumesMax: count,
  portsMax: count.describe('Ports published at one time.'),
  cpuMilliMax: count.describe('The sum of the processors of its containers, in thousandths; 0: no limit.'),
});

const tenant = z.object({
  name: z.string(),
  createdMs: instantMs,
  state: z.enum(['active', 'suspended']),
  quota,
  domains: z.array(z.string()).describe('Host suffixes that its routes may use beside NAME-TENANT.DOMAIN.'),
  address: z.string().describe('Where its published ports are; empty: the address of the Docker endpoint.'),
});
const tenantView = tenant.extend({ containers: count.describe('How many it has.') });

const containerView = z.object({
  id: z.string(),
  tenant: z.string(),
  name: z.string(),
  image: z.string(),
  host: z.string(),
  state: z.enum(['creating', 'created', 'running', 'paused', 'restarting', 'exited', 'dead', 'lost']),
  status: z.string().describe('As Docker says it: "Up 5 minutes".'),
  createdMs: instantMs,
  startedMs: instantMs.optional(),
  address: z.string(),
  routes: z.array(z.string()).describe('https:// addresses that lead to it.'),
  incarnation: count.describe('Lives of its cgroup on its host.'),
  memoryLimitBytes: bytes,
});

const phaseTime = z.object({ phase: z.string(), tookMs: spanMs });

const moveOutcome = z.object({
  container: reference,
  from: z.string(),
  to: z.string(),
  why: z.string(),
  outcome: z.enum(['planned', 'moved', 'failed']),
  reason: z.string().exactOptional().describe('Of one that failed.'),
  pausedMs: spanMs.exactOptional(),
  heldMs: spanMs.exactOptional(),
});

const snapshotView = z.object({
  id: z.string(),
  tenant: z.string(),
  name: z.string().describe("The container's name when it was made."),
  container: z.string(),
  host: z.string().describe('Where the container was then.'),
  kind: z.enum(['manual', 'automatic']),
  createdMs: instantMs,
  imageBytes: bytes,
  keptBytes: bytes.describe('On disk: memory and files, sealed.'),
  runtime: z.string().describe('The runsc that wrote it, and can read it.'),
});

const reading = z.object({
  id: z.string(),
  tenant: z.string(),
  name: z.string(),
  host: z.string(),
  cpuNs: z.int().min(0).describe('Nanoseconds of processor time since the container was made.'),
  memoryBytes: bytes,
  sampledMs: z.number().min(0).describe('By a clock that only goes on; for differences.'),
});

const usageTotal = z.object({
  key: z.string(),
  tenant: z.string(),
  name: z.string(),
  fromMs: instantMs,
  toMs: instantMs,
  ...mapQuantities(() => exact),
});

const change = z.object({
  seq: z.int().min(1).describe('The cursor for what comes after it.'),
  atMs: instantMs,
  kind: z.string(),
  key: z.string(),
  data: z.unknown(),
});

const stay = z.object({
  container: z.string(),
  name: z.string(),
  tenant: z.string(),
  host: z.string(),
  rule: z.enum([
    'label',
    'stuck',
    'migrating',
    'unmeasured',
    'residence',
    'blackout',
    'no-room',
    'replicas',
    'budget',
    'not-worth',
  ]),
  text: z.string(),
});

/** By the names that they have in the document. */
export const ANSWERS = {
  Status: z.object({
    version: z.string(),
    pid: z.int(),
    startedMs: instantMs,
    dataDir: z.string(),
    listen: z.object({ http: listenAddress, https: listenAddress, docker: listenAddress, metrics: listenAddress }),
    configVersion: count,
    workers: z.array(workerVersion),
    generation: count.describe('Counts the primaries of this node, from 1.'),
    retiring: z
      .array(z.object({ pid: z.int(), generation: count }))
      .describe('Workers of earlier ones, which end when their connections have.'),
    hosts: z.array(hostView),
  }),
  UpgradeBegun: z.object({ generation: count.describe('The one that goes.'), pid: z.int() }),
  Reload: z.object({
    file: z.string(),
    applied: z.array(z.string()).describe('Keys that changed, and take effect from now on.'),
    needsRestart: z
      .array(z.string())
      .describe('Keys that changed in the file, and take effect with an upgrade or a restart only.'),
    unchanged: z.array(z.string()).describe('Keys that are as they were.'),
    workers: z.array(z.int()).describe('Processes of the workers that have what was applied.'),
  }),
  HostList: z.object({ hosts: z.array(hostView) }),
  Host: z.object({ name: z.string(), engine: z.string().describe('"managed", or "unix:///path".'), use: hostUse }),
  HostUndrained: z.object({ host: z.string(), state: hostUse }),
  FleetProgress: z.object({ text: z.string() }),
  Drain: z.object({
    host: z.string(),
    state: hostUse,
    moves: z.array(moveOutcome),
    left: z
      .array(
        z.object({
          container: reference,
          why: z.string(),
          mend: z.string(),
          runs: z.boolean().describe('Whether it keeps the host from being drained.'),
        }),
      )
      .describe('What is still on the host.'),
  }),
  Rebalance: z.object({
    moves: z.array(moveOutcome),
    stays: z.array(stay),
    hosts: z.array(
      z.object({
        host: z.string(),
        verdict: z.enum(['relieved', 'hot', 'emptying', 'closing', 'kept', 'empty']),
        text: z.string(),
      }),
    ),
    hostsWanted: count.describe('How many hosts are lacking.'),
  }),
  TenantList: z.object({ tenants: z.array(tenantView) }),
  Tenant: tenant,
  TenantView: tenantView,
  TenantEnv: z.object({
    dockerHost: z.string(),
    certPath: z.string().describe('A directory with ca.pem, cert.pem and key.pem.'),
  }),
  ContainerList: z.object({ containers: z.array(containerView) }),
  Container: containerView,
  Placement: z.object({
    id: z.string(),
    tenant: z.string(),
    name: z.string(),
    host: z.string().describe("Where it is now: another host than the placement's where it was moved."),
    placement: placementRecord.optional().describe('Absent for one that was made before decisions were kept.'),
  }),
  MigrationProgress: z.object({ phase: z.string(), detail: z.string(), elapsedMs: spanMs }),
  Migration: z.object({
    container: reference,
    from: z.string(),
    to: z.string(),
    totalMs: spanMs,
    heldMs: spanMs.describe('From the moment requests were held to the moment they were released.'),
    pausedMs: spanMs.describe('How long the program itself stood still.'),
    memoryBytes: bytes,
    imageBytes: bytes,
    bytesPreCopied: bytes.describe('Sent while the program ran; 0 where both hosts share the image.'),
    bytesAfterFreeze: bytes,
    cut: count.describe('Requests and streams that did not end by themselves in time.'),
    closedWebSockets: count,
    endedEventStreams: count,
    replayed: count.describe('Requests that were sent again to the target because that was safe.'),
    phases: z.array(phaseTime),
  }),
  Sleep: z.object({ container: reference, imageBytes: bytes, totalMs: spanMs }),
  Wake: z.object({ container: reference, totalMs: spanMs }),
  Clones: z.object({
    container: reference,
    clones: z.array(z.string()).describe('Names of the copies, in the order in which they were ready.'),
    pausedMs: spanMs,
    totalMs: spanMs,
    imageBytes: bytes,
  }),
  SnapshotTaken: z.object({
    snapshot: z.string(),
    container: reference,
    pausedMs: spanMs,
    totalMs: spanMs,
    imageBytes: bytes,
    keptBytes: bytes,
    notes: z.array(z.string()).describe('What is not in it, or what its restore would lack.'),
  }),
  SnapshotList: z.object({ snapshots: z.array(snapshotView) }),
  Snapshot: snapshotView,
  Restore: z.object({
    container: reference,
    snapshot: z.string(),
    takenMs: instantMs.describe('The moment that it goes on from.'),
    from: z.string(),
    to: z.string(),
    totalMs: spanMs,
    imageBytes: bytes,
    keptBytes: bytes,
    phases: z.array(phaseTime),
    notes: z.array(z.string()).describe('What is not of that moment.'),
  }),
  ReadingList: z.object({ readings: z.array(reading) }),
  UsageList: z.object({ usage: z.array(usageTotal) }),
  ChangeList: z.object({ changes: z.array(change) }),
  OpenApi: z.record(z.string(), z.unknown()).describe('An OpenAPI 3.1 document.'),
} as const;
