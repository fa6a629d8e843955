/** `docker exec`: sessions under ids of our own, each known to its tenant only. */
import { randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import * as z from 'zod';
import type { Log } from '#log';
import type { ContainerRow } from '#state/containers.ts';
import type { Containers } from '#caas/containers.ts';
import { dockerError, noSuchExec } from './docker-error.ts';
import { ExecEnds } from './exec-ends.ts';
import { foldFields } from './go-json.ts';

export interface Exec {
  readonly id: string;
  readonly container: string;
  readonly host: string;
  /** The engine's container: a migrated container has no sessions of before. */
  readonly engineId: string;
  readonly engineExecId: string;
  readonly tty: boolean;
  readonly stdin: boolean;
  /** Command and arguments, as events show them. */
  readonly command: string;
  phase: 'created' | 'running' | 'ended';
}

/** Sessions of one tenant that have not ended: each is a process, or memory of an engine while its container runs. */
const LIVE_PER_TENANT_MAX = 1000;
/** Clients ask for the exit code right after the end; engines forget ended sessions after minutes. */
const ENDED_PER_TENANT_MAX = 1000;

/** As Linux takes a word of a command line (MAX_ARG_STRLEN). */
const WORD_CHARS_MAX = 128 * 1024;
/** Kept with each session, and told with its events. */
const COMMAND_CHARS_MAX = 4096;

const bodySchema = z.object({
  AttachStdin: z.boolean().default(false),
  AttachStdout: z.boolean().default(false),
  AttachStderr: z.boolean().default(false),
  DetachKeys: z.string().max(200).default(''),
  Tty: z.boolean().default(false),
  Env: z.array(z.string().max(WORD_CHARS_MAX)).max(500).nullable().default(null),
  Cmd: z.array(z.string().max(WORD_CHARS_MAX), 'No exec command specified').max(1000).min(1, 'No exec command specified'),
  User: z.string().max(200).default(''),
  WorkingDir: z.string().max(4096).default(''),
  ConsoleSize: z.tuple([z.int(), z.int()]).nullable().default(null),
});

interface OwnExecs {
  readonly live: Map<string, Exec>;
  readonly ended: LRUCache<string, Exec>;
}

/** Moby's words where nothing can be executed in a container (`daemon/exec.go`). `shown`: how the client named it. */
export function checkExecutable(row: ContainerRow, shown: string): void {
  if (row.state === 'paused') throw dockerError(409, `Container ${shown} is paused, unpause the container before exec`);
  if (row.state === 'restarting') {
    throw dockerError(409, `Container ${row.id} is restarting, wait until the container is running`);
  }
  if (row.state !== 'running') throw dockerError(409, `Container ${row.id} is not running`);
}

export class Execs {
  readonly #containers: Containers;
  readonly #ends: ExecEnds;
  /** By tenant, so that one that makes many cannot push out another's. */
  readonly #execs = new Map<string, OwnExecs>();

  constructor(deps: { readonly log: Log; readonly containers: Containers }) {
    this.#containers = deps.containers;
    this.#ends = new ExecEnds(deps);
  }

  #of(tenant: string): OwnExecs {
    const known = this.#execs.get(tenant);
    if (known !== undefined) return known;
    const own = { live: new Map<string, Exec>(), ended: new LRUCache<string, Exec>({ max: ENDED_PER_TENANT_MAX }) };
    this.#execs.set(tenant, own);
    return own;
  }

  /** Makes a session in a running container. `shown`: how the client named it. */
  async create(row: ContainerRow, shown: string, body: unknown): Promise<string> {
    if (body === undefined) throw dockerError(400, 'got EOF while reading request body');
    // docker-py names the container in the body once more; the path decides.
    const folded = foldFields(body, '', [...Object.keys(bodySchema.shape), 'Detach', 'Container'], {
      Privileged: 'containers run unprivileged in a sandbox',
    });
    if (folded.kind === 'refused') throw dockerError(403, `ecluse: ${folded.reason}`);
    const parsed = bodySchema.safeParse(folded.fields);
    if (!parsed.success) throw dockerError(400, parsed.error.issues[0]?.message ?? 'invalid exec');
    checkExecutable(row, shown);
    const own = this.#of(row.tenant);
    await this.#checkLimit(row.tenant, own);
    const { ConsoleSize: _size, ...engineBody } = parsed.data;
    const { json } = await this.#containers.operate(row, {
      method: 'POST',
      verb: ['exec'],
      body: { ...engineBody, Env: engineBody.Env ?? [] },
    });
    const engineExecId = z.object({ Id: z.string() }).parse(json).Id;
    const id = randomBytes(32).toString('hex');
    const { Cmd, Tty: tty, AttachStdin: stdin } = parsed.data;
    const { id: container, host, engineId } = row;
    const [program = '', ...args] = Cmd;
    const command = `${program} ${args.join(' ')}`.slice(0, COMMAND_CHARS_MAX); // As moby writes it: a blank stands behind a lone program, too.
    own.live.set(id, { id, container, host, engineId, engineExecId, tty, stdin, command, phase: 'created' });
    this.#containers.events.publish(row, `exec_create: ${command}`, { execID: id });
    return id;
  }

  /** Sessions of containers that stopped are over: only those that could still run count. */
  async #checkLimit(tenant: string, own: OwnExecs): Promise<void> {
    if (own.live.size < LIVE_PER_TENANT_MAX) return;
    const rows = new Map((await this.#containers.listOf(tenant)).map((row) => [row.id, row]));
    for (const exec of own.live.values()) {
      const row = rows.get(exec.container);
      const canRun = row?.engineId === exec.engineId && ['running', 'paused'].includes(row.state);
      if (!canRun) this.#end(tenant, exec);
    }
    if (own.live.size < LIVE_PER_TENANT_MAX) return;
    throw dockerError(
      429,
      `ecluse: tenant ${tenant} has ${String(own.live.size)} exec sessions that have not ended; end some, or restart their containers`,
    );
  }

  #end(tenant: string, exec: Exec): void {
    const own = this.#of(tenant);
    exec.phase = 'ended';
    if (own.live.delete(exec.id)) own.ended.set(exec.id, exec);
  }

  /** Marks a session as started, and says so. Call before the engine starts it. */
  async started(row: ContainerRow, exec: Exec): Promise<void> {
    if (exec.phase !== 'created') {
      const how = exec.phase === 'running' ? 'is already running' : 'has already run';
      throw dockerError(409, `Error: Exec command ${exec.id} ${how}`);
    }
    exec.phase = 'running';
    await this.#ends.expect(this.#containers.hostOf(row), exec.engineExecId, (exitCode) => {
      this.#end(row.tenant, exec);
      if (exitCode === undefined) return;
      this.#containers.events.publish(row, 'exec_die', { execID: exec.id, exitCode: String(exitCode) });
    });
    this.#containers.events.publish(row, `exec_start: ${exec.command}`, { execID: exec.id });
  }

  /** The engine did not start it. */
  failed(row: ContainerRow, exec: Exec): void {
    this.#ends.cancel(this.#containers.hostOf(row), exec.engineExecId);
  }

  /** A session of this tenant; anything else does not exist. */
  find(tenant: string, id: string): Exec {
    const own = this.#execs.get(tenant);
    const exec = own?.live.get(id) ?? own?.ended.get(id);
    if (exec === undefined) throw noSuchExec(id);
    return exec;
  }

  /** The sessions of a container that still run, by what its engine says. */
  idsOf(row: ContainerRow, engineExecIds: readonly string[]): readonly string[] {
    if (engineExecIds.length === 0) return [];
    const own = [...(this.#execs.get(row.tenant)?.live.values() ?? [])];
    return own.filter((exec) => engineExecIds.includes(exec.engineExecId)).map((exec) => exec.id);
  }
}
