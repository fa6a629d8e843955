/**
 * What `docker ps` shows of containers and only their engines know: command, labels of the image, exit code, health. Asked of an engine in one
 * call for all that is missing, and kept while the store says that the container's life has not changed, so that a list of 1 000 containers costs
 * no engine call. Health changes without the store: who has one is asked again.
 */
import { LRUCache } from 'lru-cache';
import * as z from 'zod';
import { reasonOf } from '#errors';
import { KeyedLock } from '#lifecycle';
import type { Log } from '#log';
import type { ContainerRow } from '#state/containers.ts';
import type { Containers } from '#caas/containers.ts';
import type { EngineClient } from '#caas/engine/engine-client.ts';

export interface EngineSummary {
  readonly command: string;
  /** Those of the request and of the image. */
  readonly labels: Readonly<Record<string, string>>;
  readonly exitCode: number;
  /** `none`, `starting`, `healthy` or `unhealthy`. */
  readonly health: string;
  /** Only where sizes were asked for. */
  readonly sizeRwBytes: number | undefined;
  readonly sizeRootFsBytes: number | undefined;
}

/** Containers of all tenants whose summaries are kept: about 500 bytes each. */
const KEPT_MAX = 20_000;
/** Up to so many are asked for by their ids; beyond, all of the host in one answer is cheaper, and a request line has a limit. */
const IDS_PER_CALL_MAX = 50;

const listSchema = z.array(
  z.object({
    Id: z.string(),
    Command: z.string(),
    Labels: z.record(z.string(), z.string()).nullish(),
    Status: z.string(),
    SizeRw: z.number().optional(),
    SizeRootFs: z.number().optional(),
  }),
);

type ListedContainer = z.infer<typeof listSchema>[number];

/** Reads what moby writes into its STATUS column (`container.State.String`). Pure. */
export function readStatus(status: string): { readonly exitCode: number; readonly health: string } {
  const exitCode = Number(/^(?:Exited|Restarting) \((-?\d+)\)/.exec(status)?.[1] ?? 0);
  const health = /\((?:health: )?(starting|healthy|unhealthy)\)$/.exec(status)?.[1] ?? 'none';
  return { exitCode, health };
}

function summaryOf(listed: ListedContainer): EngineSummary {
  return {
    ...readStatus(listed.Status),
    command: listed.Command,
    labels: listed.Labels ?? {},
    sizeRwBytes: listed.SizeRw,
    sizeRootFsBytes: listed.SizeRootFs,
  };
}

/** What a kept summary depends on. */
function stampOf(row: ContainerRow): string {
  return `${row.state} ${String(row.startedMs)} ${String(row.finishedMs)} ${String(row.restartCount)}`;
}

function isAlive(row: ContainerRow): boolean {
  return row.state === 'running' || row.state === 'paused';
}

export class EngineSummaries {
  readonly #deps: { readonly log: Log; readonly containers: Containers };
  /** By tenant. */
  readonly #measuring = new KeyedLock();
  /** By engine id. */
  readonly #kept = new LRUCache<string, { readonly stamp: string; readonly summary: EngineSummary }>({ max: KEPT_MAX });

  constructor(deps: { readonly log: Log; readonly containers: Containers }) {
    this.#deps = deps;
  }

  /** The summaries of `rows` by virtual id. Those whose host is away, or whose engine does not know them, are missing. */
  async of(rows: readonly ContainerRow[], options: { readonly size: boolean }): Promise<ReadonlyMap<string, EngineSummary>> {
    const found = new Map<string, EngineSummary>();
    const wanted = new Map<string, ContainerRow[]>();
    for (const row of rows) {
      if (row.engineId === '') continue;
      const kept = this.#kept.get(row.engineId);
      if (kept !== undefined) found.set(row.id, kept.summary);
      const isFresh = kept?.stamp === stampOf(row) && (kept.summary.health === 'none' || !isAlive(row));
      if (isFresh && !options.size) continue;
      const ofHost = wanted.get(row.host);
      if (ofHost === undefined) wanted.set(row.host, [row]);
      else ofHost.push(row);
    }
    const ask = async (): Promise<void> => {
      await Promise.all(
        [...wanted.values()].map(async (missing) => {
          await this.#ask(missing, options.size, found);
        }),
      );
    };
    // Sizes are walks of engines through the files: of one tenant one after the other.
    if (options.size) await this.#measuring.run(rows[0]?.tenant ?? '', ask);
    else await ask();
    return found;
  }

  async #ask(rows: readonly ContainerRow[], size: boolean, found: Map<string, EngineSummary>): Promise<void> {
    const [first] = rows;
    if (first === undefined) return;
    try {
      const { client } = this.#deps.containers.hostOf(first);
      const listed = size ? await listInParts(client, rows) : await listOn(client, rows, size);
      const byEngineId = new Map(listed.map((entry) => [entry.Id, entry]));
      for (const row of rows) {
        const entry = byEngineId.get(row.engineId);
        if (entry === undefined) continue;
        const summary = summaryOf(entry);
        found.set(row.id, summary);
        this.#kept.set(row.engineId, { stamp: stampOf(row), summary });
      }
    } catch (error) {
      // A host that is away must not take the tenant's whole list along: the store tells the last known state.
      this.#deps.log.debug({ host: first.host, reason: reasonOf(error) }, 'an engine could not be asked for its containers');
    }
  }
}

/** With sizes, which the engine would take of other tenants' containers as well where it is asked for all. */
async function listInParts(client: EngineClient, rows: readonly ContainerRow[]): Promise<readonly ListedContainer[]> {
  const listed: ListedContainer[] = [];
  for (let at = 0; at < rows.length; at += IDS_PER_CALL_MAX)
    listed.push(...(await listOn(client, rows.slice(at, at + IDS_PER_CALL_MAX), true)));
  return listed;
}

async function listOn(client: EngineClient, rows: readonly ContainerRow[], size: boolean): Promise<readonly ListedContainer[]> {
  const filters = rows.length > IDS_PER_CALL_MAX ? undefined : JSON.stringify({ id: rows.map((row) => row.engineId) });
  const { json } = await client.call({
    method: 'GET',
    path: ['containers', 'json'],
    query: { all: true, size: size ? true : undefined, filters },
  });
  return listSchema.parse(json);
}
