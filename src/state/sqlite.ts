/**
 * The embedded store: SQLite in one file, WAL, synchronous=FULL, so that what was acknowledged survives a power cut.
 *
 * Every way in which the file can be wrong (not ours, damaged, of a newer version, not writable, disk full) is an EcluseError that
 * says what to do; nothing is ever deleted or rebuilt on its own, because the ledger in it is money.
 */
import { existsSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { EcluseError, reasonOf } from '#errors';
import { SCHEMA_VERSIONS } from './schema.ts';
import type { Sql, SqlRow, SqlValue, SqlWrite, WriteOutcome } from './sql.ts';

/** How long a second opener (a backup tool) may hold the file before a statement gives up. */
const BUSY_TIMEOUT_MS = 5000;
/** Prepared statements kept; the code has fewer distinct ones. */
const STATEMENTS_MAX = 200;

/** SQLite result codes (sqlite.org/rescode.html) by what an operator must do about them. */
const FULL = 13;
const CORRUPT = new Set([11, 26]);
const READ_ONLY_OR_IO = new Set([8, 10, 14, 23]);
const CONSTRAINT = 19;

function primaryCodeOf(thrown: unknown): number | undefined {
  if (typeof thrown !== 'object' || thrown === null || !('errcode' in thrown)) return undefined;
  return typeof thrown.errcode === 'number' ? thrown.errcode & 0xff : undefined;
}

function stateError(file: string, thrown: unknown): EcluseError {
  const code = primaryCodeOf(thrown);
  const fields = { source: 'runtime', cause: thrown, status: 503 } as const;
  if (code === FULL) {
    return new EcluseError({
      ...fields,
      code: 'ECLUSE_STATE_DISK_FULL',
      message: `the state file ${file} cannot grow: the disk is full`,
      mend: 'free space on that file system; nothing was lost, the change was not made',
    });
  }
  if (code !== undefined && CORRUPT.has(code)) {
    return new EcluseError({
      ...fields,
      code: 'ECLUSE_STATE_CORRUPT',
      message: `the state file ${file} is damaged or no SQLite database (${reasonOf(thrown)})`,
      mend: 'move it aside and restore a backup, or try: sqlite3 FILE .recover',
    });
  }
  if (code !== undefined && READ_ONLY_OR_IO.has(code)) {
    return new EcluseError({
      ...fields,
      code: 'ECLUSE_STATE_UNREADABLE',
      message: `the state file ${file} cannot be read or written (${reasonOf(thrown)})`,
      mend: 'check the owner and mode of the file and its directory, and the disk',
    });
  }
  return new EcluseError({
    ...fields,
    code: 'ECLUSE_STATE_FAILED',
    message: `the state file ${file} failed: ${reasonOf(thrown)}`,
  });
}

class SqliteSql implements Sql {
  readonly #database: DatabaseSync;
  readonly #file: string;
  readonly #statements = new Map<string, ReturnType<DatabaseSync['prepare']>>();

  constructor(database: DatabaseSync, file: string) {
    this.#database = database;
    this.#file = file;
  }

  #prepare(sql: string): ReturnType<DatabaseSync['prepare']> {
    const known = this.#statements.get(sql);
    if (known !== undefined) return known;
    if (this.#statements.size >= STATEMENTS_MAX) this.#statements.clear();
    const statement = this.#database.prepare(sql);
    statement.setReadBigInts(true);
    this.#statements.set(sql, statement);
    return statement;
  }

  async read(sql: string, values: readonly SqlValue[]): Promise<readonly SqlRow[]> {
    try {
      return this.#prepare(sql).all(...values);
    } catch (error) {
      throw stateError(this.#file, error);
    }
  }

  async write(writes: readonly SqlWrite[]): Promise<WriteOutcome> {
    let index = 0;
    try {
      this.#database.exec('BEGIN IMMEDIATE');
      for (; index < writes.length; index += 1) {
        const write = writes[index];
        if (write === undefined) break;
        const { changes } = this.#prepare(write.sql).run(...write.values);
        if (write.expectRows !== undefined && Number(changes) !== write.expectRows) {
          this.#database.exec('ROLLBACK');
          return { kind: 'conflict', index };
        }
      }
      this.#database.exec('COMMIT');
      return { kind: 'done' };
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      if (primaryCodeOf(error) === CONSTRAINT) return { kind: 'conflict', index };
      throw stateError(this.#file, error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#statements.clear();
    if (this.#database.isOpen) this.#database.close();
  }
}

function versionOf(database: DatabaseSync): number {
  return Number(database.prepare('PRAGMA user_version').get()?.['user_version'] ?? 0);
}

function migrate(database: DatabaseSync, file: string): void {
  const version = versionOf(database);
  if (version > SCHEMA_VERSIONS.length) {
    throw new EcluseError({
      code: 'ECLUSE_STATE_NEWER',
      source: 'config',
      message: `the state file ${file} was written by a newer ecluse (schema ${String(version)}, this one knows ${String(SCHEMA_VERSIONS.length)})`,
      mend: 'run the newer version, or point --data at another directory; the file was not touched',
    });
  }
  for (let next = version; next < SCHEMA_VERSIONS.length; next += 1) {
    database.exec('BEGIN IMMEDIATE');
    for (const statement of SCHEMA_VERSIONS[next] ?? []) database.exec(statement);
    database.exec(`PRAGMA user_version = ${String(next + 1)}`);
    database.exec('COMMIT');
  }
}

function checkIntegrity(database: DatabaseSync): void {
  const verdict = database.prepare('PRAGMA quick_check(1)').get()?.['quick_check'];
  if (verdict !== 'ok') throw Object.assign(new Error(String(verdict)), { errcode: 11 });
}

/** Opens or creates the store in `file` and brings its schema up to date. Errors: ECLUSE_STATE_*. */
export function openSqlite(file: string): Sql {
  const isNew = !existsSync(file);
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(file, { timeout: BUSY_TIMEOUT_MS });
    // The version is looked at before anything is written: a newer file must stay as it is, WAL mode included.
    if (!isNew && versionOf(database) > SCHEMA_VERSIONS.length) migrate(database, file);
    if (!isNew) checkIntegrity(database);
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON');
    migrate(database, file);
    return new SqliteSql(database, file);
  } catch (error) {
    database?.close();
    throw error instanceof EcluseError ? error : stateError(file, error);
  }
}

/** A second connection that reads what is there, beside the one that `openSqlite` made. */
export function openSqliteReader(file: string): Sql {
  try {
    return new SqliteSql(new DatabaseSync(file, { timeout: BUSY_TIMEOUT_MS, readOnly: true }), file);
  } catch (error) {
    throw stateError(file, error);
  }
}
