/** How the command line shows things to people and to shells: tables, short spans, quoting. Pure. */

/** Columns side by side, three spaces apart, as docker prints them. */
export function tableText(headers: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [headers, ...rows];
  const widths = headers.map((_, column) => all.reduce((most, row) => Math.max(most, widthOf(row[column] ?? '')), 0));
  const lineOf = (row: readonly string[]): string =>
    row.map((cell, column) => cell + ' '.repeat((widths[column] ?? 0) - widthOf(cell))).join('   ');
  return all.map((row) => `${lineOf(row).trimEnd()}\n`).join('');
}

const segmenter = new Intl.Segmenter();

/** The number of characters as a reader counts them. */
function widthOf(cell: string): number {
  let width = 0;
  for (const _ of segmenter.segment(cell)) width += 1;
  return width;
}

/** A short span with its unit: `12 ms`, `1.23 s`, `2 min 05 s`. */
export function spanText(ms: number): string {
  if (ms < 1000) return `${String(Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(2)} s`;
  const seconds = Math.round(ms / 1000);
  return `${String(Math.floor(seconds / 60))} min ${String(seconds % 60).padStart(2, '0')} s`;
}

/** A word that a POSIX shell reads back as it is. */
export function shellWord(text: string): string {
  return /^[A-Za-z0-9_/:.,@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** A field of CSV (RFC 4180). */
export function csvField(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Text of foreign origin for a terminal: without control characters, which could rewrite what is on the screen. */
export function plainText(text: string): string {
  // oxlint-disable-next-line no-control-regex -- these are what it is about
  return text.replaceAll(/[\u0000-\u001F\u007F-\u009F]/g, '?');
}
