/** `docker exec`: sessions under ids of our own, each known to its tenant only. */
import { randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import * as z from 'zod';
import type { ContainerRow } from '#state/containers.ts';
import type { Containers } from '#caas/containers.ts';
import { dockerError, noSuchExec } from './docker-error.ts';
import { foldFields } from './go-json.ts';

export interface Exec {
  readonly id: string;
  readonly container: string;
  readonly host: string;
  readonly engineExecId: string;
  readonly tty: boolean;
}

/** Engines forget ended sessions after minutes; the oldest of more than this many are certainly over. */
const EXECS_PER_TENANT_MAX = 2000;

const bodySchema = z.object({
  AttachStdin: z.boolean().default(false),
  AttachStdout: z.boolean().default(false),
  AttachStderr: z.boolean().default(false),
  DetachKeys: z.string().max(100).default(''),
  Tty: z.boolean().default(false),
  Env: z.array(z.string()).max(500).nullable().default(null),
  Cmd: z.array(z.string()).max(1000).min(1, 'No exec command specified'),
  User: z.string().max(200).default(''),
  WorkingDir: z.string().max(4096).default(''),
  ConsoleSize: z.tuple([z.int(), z.int()]).nullable().default(null),
});

export class Execs {
  readonly #containers: Containers;
  /** By tenant, so that one that makes many cannot push out another's. */
  readonly #execs = new Map<string, LRUCache<string, Exec>>();

  constructor(containers: Containers) {
    this.#containers = containers;
  }

  /** Makes a session in a running container. */
  async create(row: ContainerRow, body: unknown): Promise<string> {
    const folded = foldFields(body, '', [...Object.keys(bodySchema.shape), 'Detach'], {
      Privileged: 'containers run unprivileged in a sandbox',
    });
    if (folded.kind === 'refused') throw dockerError(403, `ecluse: ${folded.reason}`);
    const parsed = bodySchema.safeParse(folded.fields);
    if (!parsed.success) throw dockerError(400, parsed.error.issues[0]?.message ?? 'invalid exec');
    const { ConsoleSize: _size, ...engineBody } = parsed.data;
    const { json } = await this.#containers.operate(row, {
      method: 'POST',
      verb: ['exec'],
      body: { ...engineBody, Env: engineBody.Env ?? [] },
    });
    const engineExecId = z.object({ Id: z.string() }).parse(json).Id;
    const id = randomBytes(32).toString('hex');
    const own = this.#execs.get(row.tenant) ?? new LRUCache<string, Exec>({ max: EXECS_PER_TENANT_MAX });
    this.#execs.set(row.tenant, own);
    own.set(id, { id, container: row.id, host: row.host, engineExecId, tty: parsed.data.Tty });
    return id;
  }

  /** A session of this tenant; anything else does not exist. */
  find(tenant: string, id: string): Exec {
    const exec = this.#execs.get(tenant)?.get(id);
    if (exec === undefined) throw noSuchExec(id);
    return exec;
  }

  /** The sessions of a container that still run, by what its engine says. */
  idsOf(row: ContainerRow, engineExecIds: readonly string[]): readonly string[] {
    if (engineExecIds.length === 0) return [];
    const own = [...(this.#execs.get(row.tenant)?.values() ?? [])];
    return own.filter((exec) => engineExecIds.includes(exec.engineExecId)).map((exec) => exec.id);
  }
}
