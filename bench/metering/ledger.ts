/** What a node's ledger says, read from its store without any of its code. */
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import * as z from 'zod';

const rowSchema = z.object({
  incarnation: z.number(),
  seq: z.number(),
  kind: z.string(),
  host: z.string(),
  from_ms: z.number(),
  to_ms: z.number(),
  cpu_ns: z.number(),
  memory_byte_ms: z.union([z.number(), z.bigint()]).transform(Number),
});
const incarnationSchema = z.object({
  incarnation: z.number(),
  host: z.string(),
  cgroup: z.string(),
  opened_ms: z.number(),
  closed_ms: z.number().nullable(),
  metered_to_ms: z.number(),
});

export type StoredRow = z.infer<typeof rowSchema>;
export type StoredIncarnation = z.infer<typeof incarnationSchema>;

export class StoredLedger implements Disposable {
  readonly #database: DatabaseSync;

  constructor(dataDir: string) {
    this.#database = new DatabaseSync(join(dataDir, 'ecluse.db'), { readOnly: true });
  }

  /** In their order within the container's life. */
  rows(container: string): readonly StoredRow[] {
    return this.#database
      .prepare('SELECT * FROM ledger WHERE container = ? ORDER BY incarnation, seq')
      .all(container)
      .map((row) => rowSchema.parse(row));
  }

  incarnations(container: string): readonly StoredIncarnation[] {
    return this.#database
      .prepare('SELECT * FROM incarnation WHERE container = ? ORDER BY incarnation')
      .all(container)
      .map((row) => incarnationSchema.parse(row));
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}
