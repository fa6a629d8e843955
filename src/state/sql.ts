/**
 * The port to a SQL database: reads, and atomic batches of writes. Statements use `?` and types that SQLite and PostgreSQL share.
 *
 * A write can say how many rows it must touch. If it touches another number the whole batch is undone and `conflict` comes back:
 * that is how compare-and-set (names, fencing, state changes) is written without holding a transaction open across awaits.
 */
export type SqlValue = string | number | bigint | null;
export type SqlRow = Readonly<Record<string, unknown>>;

export interface SqlWrite {
  readonly sql: string;
  readonly values: readonly SqlValue[];
  /** The number of rows that this write must change; absent: any. */
  readonly expectRows?: number;
}

export type WriteOutcome = { readonly kind: 'done' } | { readonly kind: 'conflict'; readonly index: number };

export interface Sql extends AsyncDisposable {
  read(sql: string, values: readonly SqlValue[]): Promise<readonly SqlRow[]>;
  /** All or nothing. A violated unique key is a conflict too. Other faults (disk full, file corrupt) throw an EcluseError. */
  write(writes: readonly SqlWrite[]): Promise<WriteOutcome>;
}

/** A text column of a row; the schema promises it, so anything else is a corrupt store. */
export function textOf(row: SqlRow, column: string): string {
  const value = row[column];
  if (typeof value !== 'string') throw new TypeError(`state: column ${column} holds no text`);
  return value;
}

/** An integer column that fits a double exactly. */
export function integerOf(row: SqlRow, column: string): number {
  const value = row[column];
  const number = typeof value === 'bigint' ? Number(value) : value;
  if (typeof number !== 'number' || !Number.isSafeInteger(number))
    throw new TypeError(`state: column ${column} holds no integer`);
  return number;
}

/** An integer column of any size. */
export function bigintOf(row: SqlRow, column: string): bigint {
  const value = row[column];
  if (typeof value === 'bigint') return value;
  if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value);
  throw new TypeError(`state: column ${column} holds no integer`);
}

/** A text column that may be null. */
export function optionalTextOf(row: SqlRow, column: string): string | undefined {
  return row[column] === null || row[column] === undefined ? undefined : textOf(row, column);
}

/** An integer column that may be null. */
export function optionalIntegerOf(row: SqlRow, column: string): number | undefined {
  return row[column] === null || row[column] === undefined ? undefined : integerOf(row, column);
}
