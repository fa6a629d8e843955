/** Does a series grow? Pure. */

export interface Point {
  readonly atMs: number;
  readonly value: number;
}

export interface Trend {
  readonly name: string;
  readonly first: number;
  readonly last: number;
  readonly mean: number;
  readonly perHour: number;
  /** Half of the 95 % confidence interval of `perHour`. */
  readonly perHourError: number;
  /** What the slope makes of the mean over the span that was looked at. */
  readonly growthShare: number;
  readonly verdict: 'no growth' | 'GROWS' | 'too short';
}

const GROWTH_SHARE_MAX = 0.02;
const POINTS_MIN = 6;
const HOUR_MS = 3_600_000;
/** Student's t for 95 %, by degrees of freedom; from 30 on it hardly falls. */
const STUDENT = [
  12.7, 4.3, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.2, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.1, 2.09, 2.09,
];
const STUDENT_MANY = 2.06;

/** Of the second half: what grows at the start only warms up. */
export function trendOf(name: string, points: readonly Point[]): Trend {
  const half = points.slice(Math.floor(points.length / 2));
  const values = half.map(({ value }) => value);
  const [meanAt, mean] = [meanOf(half.map(({ atMs }) => atMs)), meanOf(values)];
  const spread = sum(half.map(({ atMs }) => (atMs - meanAt) ** 2));
  const slope = sum(half.map(({ atMs, value }) => (atMs - meanAt) * (value - mean))) / spread;
  const left = half.map(({ atMs, value }) => value - mean - slope * (atMs - meanAt));
  const error =
    studentOf(half.length - 2) * Math.sqrt((sum(left.map((one) => one ** 2)) / (half.length - 2) / spread) * inflation(left));
  const spanMs = (half.at(-1)?.atMs ?? 0) - (half[0]?.atMs ?? 0);
  const growthShare = mean === 0 ? 0 : (slope * spanMs) / mean;
  const grows = slope - error > 0 && growthShare > GROWTH_SHARE_MAX;
  return {
    name,
    first: values[0] ?? Number.NaN,
    last: values.at(-1) ?? Number.NaN,
    mean,
    perHour: slope * HOUR_MS,
    perHourError: error * HOUR_MS,
    growthShare,
    verdict: half.length < POINTS_MIN ? 'too short' : grows ? 'GROWS' : 'no growth',
  };
}

/** Samples that follow each other are alike: as much fewer count. */
function inflation(left: readonly number[]): number {
  const all = sum(left.map((one) => one ** 2));
  if (all === 0) return 1;
  const share = sum(left.slice(1).map((one, index) => one * (left[index] ?? 0))) / all;
  const bounded = Math.min(0.9, Math.max(0, share));
  return (1 + bounded) / (1 - bounded);
}

function studentOf(freedom: number): number {
  return STUDENT[freedom - 1] ?? STUDENT_MANY;
}

function meanOf(values: readonly number[]): number {
  return sum(values) / values.length;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
