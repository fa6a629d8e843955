/**
 * A made-up fleet of containers over some days: who arrives and leaves when, and what each uses in each minute.
 *
 * The shapes follow what studies of public cluster traces agree on: sizes with a heavy tail, most containers nearly idle, memory that varies
 * less than processors, use far below limits, a day that most services share, and jobs that come by night and end soon. The numbers are ours.
 */
import type { Demand, MigrateLabel } from '#caas/rebalance/fleet-facts.ts';
import { noiseAt, openRandom } from './random.ts';
import type { Random } from './random.ts';

export const MIB = 1024 ** 2;
export const GIB = 1024 ** 3;
export const HOST_CPU_MILLI = 4000;
export const HOST_MEMORY_BYTES = 16 * GIB;
const CONTAINERS_PER_HOST = 20;
const DAY_MINUTES = 1440;

export type Shape = 'idle' | 'diurnal' | 'steady' | 'bursty' | 'batch';

export interface TraceContainer {
  readonly id: string;
  readonly tenant: string;
  readonly service: string;
  readonly label: MigrateLabel;
  readonly shape: Shape;
  readonly seed: number;
  readonly arriveMinute: number;
  readonly departMinute: number;
  /** What it uses at most. */
  readonly cpuMilli: number;
  readonly memoryBytes: number;
  readonly limitBytes: number;
  /** When its day begins, against the others'. */
  readonly phaseMinutes: number;
}

export interface TraceOptions {
  readonly seed: number;
  readonly hosts: number;
  readonly days: number;
  /** Of a thousand containers, how many may never move. */
  readonly pinnedMilli: number;
}

const SERVICE_SHAPES: readonly { readonly shape: Shape; readonly share: number }[] = [
  { shape: 'idle', share: 0.42 },
  { shape: 'diurnal', share: 0.36 },
  { shape: 'steady', share: 0.09 },
  { shape: 'bursty', share: 0.13 },
];
const BATCH_SHARE = 0.05;
const BATCH_MEDIAN_MINUTES = 25;
const BATCH_MOST_MINUTES = 720;
/** Of the log-normal above. */
const BATCH_MEAN_MINUTES = 50;
const SERVICE_MEAN_MINUTES = 6 * DAY_MINUTES;

function shapeFrom(random: Random): Shape {
  let left = random.unit();
  for (const { shape, share } of SERVICE_SHAPES) {
    left -= share;
    if (left < 0) return shape;
  }
  return 'idle';
}

function sizeFrom(random: Random, shape: Shape): Pick<TraceContainer, 'cpuMilli' | 'memoryBytes' | 'limitBytes'> {
  const cpuMilli = shape === 'idle' ? random.between(1, 20) : random.pareto(1.1, 60, 2000);
  const median = shape === 'idle' ? 90 : 200;
  const memoryBytes = Math.round(Math.min(4 * GIB, Math.max(16 * MIB, random.logNormal(median * MIB, 0.95))));
  return { cpuMilli: Math.round(cpuMilli), memoryBytes, limitBytes: Math.round(memoryBytes * random.between(1.2, 2.5)) };
}

function replicasFrom(random: Random): number {
  const draw = random.unit();
  if (draw < 0.62) return 1;
  if (draw < 0.9) return 2 + Math.floor(random.unit() * 2);
  return 4 + Math.floor(random.unit() * 9);
}

/** Containers of services: those of one service are alike, and come and go together. */
function addServices(list: TraceContainer[], random: Random, options: TraceOptions): void {
  const count = Math.round(options.hosts * CONTAINERS_PER_HOST * (1 - BATCH_SHARE));
  const endMinute = options.days * DAY_MINUTES;
  const tenants = Math.max(4, options.hosts * 3);
  // Those that are there from the start, and as many new ones as leave.
  const later = Math.round((count * endMinute) / SERVICE_MEAN_MINUTES);
  let service = 0;
  const made = { start: 0, later: 0 };
  while (made.start < count || made.later < later) {
    const isLater = made.start >= count;
    const shape = shapeFrom(random);
    const replicas = replicasFrom(random);
    const size = sizeFrom(random, shape);
    const arriveMinute = isLater ? Math.floor(random.unit() * endMinute) : 0;
    const departMinute = Math.ceil(arriveMinute + 30 + random.exponential(SERVICE_MEAN_MINUTES));
    // Few tenants have much, many have little.
    const tenant = `t${String(Math.floor(tenants * random.unit() ** 2))}`;
    const phaseMinutes = random.unit() < 0.8 ? random.between(-90, 90) : random.between(0, DAY_MINUTES);
    const label = random.unit() * 1000 < options.pinnedMilli ? 'never' : 'any';
    service += 1;
    for (let replica = 0; replica < replicas; replica += 1) {
      const seed = Math.floor(random.unit() * 2 ** 31);
      const id = `s${String(service).padStart(6, '0')}.${String(replica)}`;
      list.push({
        id,
        tenant,
        service: `s${String(service)}`,
        label,
        shape,
        seed,
        arriveMinute,
        departMinute,
        ...size,
        phaseMinutes,
      });
    }
    if (isLater) made.later += replicas;
    else made.start += replicas;
  }
}

function addBatches(list: TraceContainer[], random: Random, options: TraceOptions): void {
  const perMinute = (options.hosts * CONTAINERS_PER_HOST * BATCH_SHARE) / BATCH_MEAN_MINUTES;
  let number = 0;
  for (let minute = 0; minute < options.days * DAY_MINUTES; minute += 1) {
    // Twice as many around two in the morning as around two in the afternoon.
    const rate = perMinute * (1 + Math.cos(((minute - 120) / DAY_MINUTES) * 2 * Math.PI) / 3);
    const count = Math.floor(rate) + (random.unit() < rate % 1 ? 1 : 0);
    for (let one = 0; one < count; one += 1) {
      const minutes = Math.min(BATCH_MOST_MINUTES, Math.max(1, random.logNormal(BATCH_MEDIAN_MINUTES, 1.2)));
      number += 1;
      list.push({
        id: `j${String(number).padStart(7, '0')}`,
        tenant: `t${String(Math.floor(options.hosts * 3 * random.unit() ** 2))}`,
        service: `j${String(number)}`,
        label: 'any',
        shape: 'batch',
        seed: Math.floor(random.unit() * 2 ** 31),
        arriveMinute: minute,
        departMinute: Math.ceil(minute + minutes),
        ...sizeFrom(random, 'batch'),
        phaseMinutes: 0,
      });
    }
  }
}

/** All containers of a trace, in the order in which they arrive. */
export function makeTrace(options: TraceOptions): readonly TraceContainer[] {
  const random = openRandom(options.seed);
  const list: TraceContainer[] = [];
  addServices(list, random, options);
  addBatches(list, random, options);
  return list.toSorted((one, other) => one.arriveMinute - other.arriveMinute || (one.id < other.id ? -1 : 1));
}

/** How far the day has come for a container: 0 at its night, 1 at its height; steep in the morning, slow in the evening. */
function dayAt(minute: number): number {
  const turn = (((minute % DAY_MINUTES) + DAY_MINUTES) % DAY_MINUTES) / DAY_MINUTES;
  const wave = 0.5 - 0.5 * Math.cos(2 * Math.PI * (turn < 0.6 ? turn / 1.2 : 0.5 + (turn - 0.6) / 0.8));
  return wave * wave * (3 - 2 * wave);
}

function activityAt(container: TraceContainer, minute: number): number {
  const { shape, seed, phaseMinutes } = container;
  const noise = noiseAt(seed, minute);
  switch (shape) {
    case 'idle':
      return 0.3 + 0.7 * noise;
    case 'steady':
      return 0.75 + 0.25 * noise;
    case 'batch':
      return 0.85 + 0.15 * noise;
    case 'diurnal':
      return (0.12 + 0.7 * dayAt(minute + phaseMinutes)) * (0.85 + 0.3 * noise);
    case 'bursty':
      // One in twelve spans of ten minutes, and a single minute now and then.
      if (noiseAt(seed + 1, Math.floor(minute / 10)) < 1 / 12 || noise > 0.99) return 0.8 + 0.2 * noise;
      return 0.08 + 0.08 * noise;
  }
}

/** What a container asks for in a minute, whatever it gets. */
export function demandAt(container: TraceContainer, minute: number): Demand {
  const activity = activityAt(container, minute);
  const drift = noiseAt(container.seed + 2, Math.floor(minute / 30));
  return {
    cpuMilli: Math.round(container.cpuMilli * activity),
    memoryBytes: Math.round(container.memoryBytes * (0.72 + 0.18 * Math.min(1, activity) + 0.1 * drift)),
  };
}
