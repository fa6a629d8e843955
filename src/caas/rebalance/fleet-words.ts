/** Numbers of plans as people read them. */

export function formatPercent(milli: number): string {
  return `${String(Math.round(milli / 10))} %`;
}

export function countOf(count: number, one: string): string {
  return count === 1 ? `1 ${one}` : `${String(count)} ${one}s`;
}
