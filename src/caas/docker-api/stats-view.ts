/**
 * One line of `docker stats`, rebuilt. The container's own counters pass as its cgroups have them; what tells of the host does not: its CPU clock is
 * replaced by one that runs at the same speed (clients divide the container's use by it) and starts with the container, its memory by the container's
 * limit, its block devices by one without a number. Pure.
 */
import * as z from 'zod';

const count = z.number().default(0);

const cpuSchema = z.object({
  cpu_usage: z
    .object({
      total_usage: count,
      percpu_usage: z.array(z.number()).nullish(),
      usage_in_kernelmode: count,
      usage_in_usermode: count,
    })
    .default({ total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0 }),
  system_cpu_usage: z.number().optional(),
  online_cpus: z.number().optional(),
  throttling_data: z
    .object({ periods: count, throttled_periods: count, throttled_time: count })
    .default({ periods: 0, throttled_periods: 0, throttled_time: 0 }),
});

const blkioList = z.array(z.object({ op: z.string(), value: z.number() })).nullish();
const blkioSchema = z.object({
  io_service_bytes_recursive: blkioList,
  io_serviced_recursive: blkioList,
  io_queue_recursive: blkioList,
  io_service_time_recursive: blkioList,
  io_wait_time_recursive: blkioList,
  io_merged_recursive: blkioList,
  io_time_recursive: blkioList,
  sectors_recursive: blkioList,
});
type BlkioName = keyof typeof blkioSchema.shape;

const networkSchema = z.object({
  rx_bytes: count,
  rx_packets: count,
  rx_errors: count,
  rx_dropped: count,
  tx_bytes: count,
  tx_packets: count,
  tx_errors: count,
  tx_dropped: count,
});

/** Of a cgroup's `memory.stat`: what Docker shows, v1 and v2. */
const MEMORY_STATS =
  /^(?:total_)?(?:active_anon|active_file|anon|anon_thp|cache|dirty|file|file_dirty|file_mapped|file_writeback|hierarchical_memory_limit|hierarchical_memsw_limit|inactive_anon|inactive_file|kernel_stack|mapped_file|pgactivate|pgdeactivate|pgfault|pglazyfree|pglazyfreed|pgmajfault|pgpgin|pgpgout|pgrefill|pgscan|pgsteal|rss|rss_huge|shmem|slab|slab_reclaimable|slab_unreclaimable|sock|swap|thp_collapse_alloc|thp_fault_alloc|unevictable|workingset_activate|workingset_nodereclaim|workingset_refault|writeback)$/;

const memorySchema = z.object({
  usage: z.number().optional(),
  max_usage: z.number().optional(),
  failcnt: z.number().optional(),
  limit: z.number().optional(),
  stats: z.record(z.string(), z.number()).nullish(),
});

export const statsSchema = z.object({
  read: z.string(),
  preread: z.string(),
  pids_stats: z.object({ current: z.number().optional(), limit: z.number().optional() }).default({}),
  blkio_stats: blkioSchema,
  cpu_stats: cpuSchema,
  precpu_stats: cpuSchema,
  memory_stats: memorySchema,
  networks: z.record(z.string(), networkSchema).nullish(),
});
export type EngineStats = z.infer<typeof statsSchema>;

export interface StatsSubject {
  readonly id: string;
  readonly name: string;
  readonly createdMs: number;
  readonly memoryBytes: number;
  /** Processors that the tenant is told of; undefined: those of the host. */
  readonly cpus: number | undefined;
}

/** As much CPU time as all processors had since the container was made. */
function systemUsage(atText: string, cpus: number, createdMs: number): number {
  return Math.max(0, Date.parse(atText) - createdMs) * 1_000_000 * cpus;
}

function cpuView(cpu: z.infer<typeof cpuSchema>, atText: string, subject: StatsSubject): Readonly<Record<string, unknown>> {
  const { percpu_usage, ...usage } = cpu.cpu_usage;
  const cpus = subject.cpus ?? cpu.online_cpus ?? 1;
  const isMeasured = cpu.system_cpu_usage !== undefined;
  return {
    cpu_usage: {
      total_usage: usage.total_usage,
      ...(percpu_usage === undefined || percpu_usage === null ? {} : { percpu_usage: percpu_usage.slice(0, cpus) }),
      usage_in_kernelmode: usage.usage_in_kernelmode,
      usage_in_usermode: usage.usage_in_usermode,
    },
    ...(isMeasured ? { system_cpu_usage: systemUsage(atText, cpus, subject.createdMs), online_cpus: cpus } : {}),
    throttling_data: cpu.throttling_data,
  };
}

function blkioView(blkio: z.infer<typeof blkioSchema>): Readonly<Record<string, unknown>> {
  const names = Object.keys(blkioSchema.shape).filter((name): name is BlkioName => name in blkioSchema.shape);
  return Object.fromEntries(
    names.map((name) => [name, blkio[name]?.map(({ op, value }) => ({ major: 0, minor: 0, op, value })) ?? blkio[name] ?? null]),
  );
}

function memoryView(memory: z.infer<typeof memorySchema>, limitBytes: number): Readonly<Record<string, unknown>> {
  const { usage, max_usage, failcnt, stats } = memory;
  if (usage === undefined) return {};
  const limits = { hierarchical_memory_limit: limitBytes, hierarchical_memsw_limit: limitBytes };
  const shown = Object.entries(stats ?? {}).filter(([key]) => MEMORY_STATS.test(key));
  return {
    usage,
    ...(max_usage === undefined ? {} : { max_usage }),
    ...(failcnt === undefined ? {} : { failcnt }),
    stats: Object.fromEntries(shown.map(([key, value]) => [key, key in limits ? limitBytes : value])),
    limit: limitBytes,
  };
}

export function statsView(stats: EngineStats, subject: StatsSubject): Readonly<Record<string, unknown>> {
  const { networks } = stats;
  return {
    read: stats.read,
    preread: stats.preread,
    pids_stats: stats.pids_stats,
    blkio_stats: blkioView(stats.blkio_stats),
    num_procs: 0,
    storage_stats: {},
    cpu_stats: cpuView(stats.cpu_stats, stats.read, subject),
    precpu_stats: cpuView(stats.precpu_stats, stats.preread, subject),
    memory_stats: memoryView(stats.memory_stats, subject.memoryBytes),
    name: `/${subject.name}`,
    id: subject.id,
    ...(networks === undefined || networks === null ? {} : { networks }),
  };
}
