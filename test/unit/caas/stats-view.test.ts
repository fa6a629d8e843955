/** A line of `docker stats`. */
import { expect, test } from 'vitest';
import { statsSchema, statsView } from '#caas/docker-api/stats-view.ts';

const CPU = {
  cpu_usage: { total_usage: 90, percpu_usage: [40, 50], usage_in_kernelmode: 1, usage_in_usermode: 2 },
  system_cpu_usage: 49_069_840_000_000,
  online_cpus: 2,
  throttling_data: { periods: 1, throttled_periods: 0, throttled_time: 0 },
};
const LINE = {
  read: '2026-01-01T00:01:00.5Z',
  preread: '2026-01-01T00:00:59.5Z',
  pids_stats: { current: 28, limit: 4096 },
  blkio_stats: { io_service_bytes_recursive: [{ major: 259, minor: 3, op: 'Read', value: 7 }], sectors_recursive: null },
  num_procs: 0,
  storage_stats: { read_count_normalized: 5 },
  cpu_stats: CPU,
  precpu_stats: { ...CPU, cpu_usage: { ...CPU.cpu_usage, total_usage: 40 } },
  memory_stats: {
    usage: 100,
    max_usage: 200,
    stats: { cache: 5, hierarchical_memory_limit: 9e18, host_secret: 1 },
    limit: 24_000_000_000,
  },
  name: '/ecluse-a5fb8d-70d2f27d7f5ef64b',
  id: 'e'.repeat(64),
  networks: { eth0: { rx_bytes: 376, rx_packets: 4, tx_bytes: 0, endpoint_id: 'x' } },
};
const SUBJECT = { id: 'a'.repeat(64), name: 'web', createdMs: Date.UTC(2026, 0, 1), memoryBytes: 64, cpus: undefined };

test('statsView() has the container’s numbers and a CPU clock of its own', () => {
  const view = statsView(statsSchema.parse(LINE), SUBJECT);
  expect(view).toEqual({
    read: LINE.read,
    preread: LINE.preread,
    pids_stats: LINE.pids_stats,
    blkio_stats: {
      io_service_bytes_recursive: [{ major: 0, minor: 0, op: 'Read', value: 7 }],
      io_serviced_recursive: null,
      io_queue_recursive: null,
      io_service_time_recursive: null,
      io_wait_time_recursive: null,
      io_merged_recursive: null,
      io_time_recursive: null,
      sectors_recursive: null,
    },
    num_procs: 0,
    storage_stats: {},
    // The difference of the two clocks is what clients divide by: one second of two processors.
    cpu_stats: { ...CPU, system_cpu_usage: 60.5e9 * 2 },
    precpu_stats: { ...CPU, cpu_usage: { ...CPU.cpu_usage, total_usage: 40 }, system_cpu_usage: 59.5e9 * 2 },
    memory_stats: { usage: 100, max_usage: 200, stats: { cache: 5, hierarchical_memory_limit: 64 }, limit: 64 },
    name: '/web',
    id: 'a'.repeat(64),
    networks: {
      eth0: {
        rx_bytes: 376,
        rx_packets: 4,
        rx_errors: 0,
        rx_dropped: 0,
        tx_bytes: 0,
        tx_packets: 0,
        tx_errors: 0,
        tx_dropped: 0,
      },
    },
  });
});

test('statsView() tells a tenant with a quota of processors of those', () => {
  const view = statsView(statsSchema.parse(LINE), { ...SUBJECT, cpus: 1 });
  expect(view['cpu_stats']).toMatchObject({ online_cpus: 1, system_cpu_usage: 60.5e9, cpu_usage: { percpu_usage: [40] } });
});

test('statsView() has Docker’s zeros for a container that does not run', () => {
  const zero = { cpu_usage: { total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0 } };
  const idle = { ...zero, throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 } };
  const at = '0001-01-01T00:00:00Z';
  const line = { read: at, preread: at, pids_stats: {}, blkio_stats: {}, cpu_stats: idle, precpu_stats: idle, memory_stats: {} };
  expect(statsView(statsSchema.parse(line), SUBJECT)).toMatchObject({
    cpu_stats: idle,
    precpu_stats: idle,
    memory_stats: {},
    pids_stats: {},
    name: '/web',
  });
});
