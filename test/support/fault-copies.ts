/** Copies and snapshots that are made while something breaks: what must hold of them, and how they are taken away again. */
import * as z from 'zod';
import { createAdminClient } from '#admin/client.ts';
import { adminSocketOf } from '#node-paths';
import { TENANT, engineSays } from './fault-scene.ts';
import type { FaultScene, HostName } from './fault-scene.ts';

/** A container without a volume, which the one of the scene has: what writes to one has no copies. */
export const TWIN = 'twin';
const TWIN_MEMORY_MIB = 128;
const ASK_LIMIT_MS = 2_000;

const rowSchema = z.object({
  name: z.string(),
  host: z.enum(['a', 'b']),
  engineId: z.string(),
  address: z.string(),
  state: z.string(),
});
type Row = z.infer<typeof rowSchema>;
const answerSchema = z.object({ boot: z.string() });

async function mustDocker(scene: FaultScene, args: readonly string[]): Promise<void> {
  const answer = await scene.node().docker(TENANT, args);
  if (answer.exitCode !== 0) throw new Error(`docker ${args.join(' ')}: ${answer.stderr}`);
}

/** Starts what is to be copied. Returns which start of the program it is. */
export async function runTwin(scene: FaultScene): Promise<string> {
  const limits = ['--restart', 'unless-stopped', '--memory', `${String(TWIN_MEMORY_MIB)}m`, '--user', '0'];
  await mustDocker(scene, ['run', '--detach', '--name', TWIN, ...limits, '--label', 'ecluse.http.health=/healthz', 'faults']);
  const [row] = twinsOf(scene);
  const endMs = performance.now() + 20_000;
  for (;;) {
    const boot = row === undefined ? undefined : await bootOf(row);
    if (boot !== undefined) return boot;
    if (performance.now() > endMs) throw new Error('the container that is to be copied does not answer');
  }
}

function twinsOf(scene: FaultScene): readonly Row[] {
  const rows = scene.query(
    `SELECT name, host, engine_id AS engineId, address, state FROM container WHERE name LIKE '${TWIN}%' ORDER BY created_ms`,
  );
  return z.array(rowSchema).parse(rows);
}

async function bootOf({ address }: Row): Promise<string | undefined> {
  try {
    const response = await fetch(`http://${address}:8080/count`, { signal: AbortSignal.timeout(ASK_LIMIT_MS) });
    return answerSchema.parse(await response.json()).boot;
  } catch {
    return undefined;
  }
}

/** The original and each copy that there is must run and answer, with the original's memory where nothing took it; nothing may be half there. */
export async function twinViolations(scene: FaultScene, boot: string, mayForget: boolean): Promise<readonly string[]> {
  const rows = twinsOf(scene);
  if (!rows.some(({ name }) => name === TWIN)) return [`${TWIN} is gone`];
  const found = rows.map(async (row): Promise<readonly string[]> => {
    if (row.state !== 'running') return [`${row.name} is ${row.state}`];
    const said = await engineSays(scene, row.host, ['inspect', '-f', '{{.State.Status}}', row.engineId]);
    if (said !== 'running') return [`${row.name} is ${said ?? 'unknown'} to its engine`];
    const answer = await bootOf(row);
    if (answer === undefined) return [`${row.name} does not answer`];
    return answer === boot || mayForget ? [] : [`${row.name} began anew`];
  });
  return [...(await Promise.all(found)).flat(), ...(await strangersOf(scene, rows))];
}

/** Engine containers that the store does not have. */
async function strangersOf(scene: FaultScene, rows: readonly Row[]): Promise<readonly string[]> {
  const known = new Set(scene.query('SELECT engine_id FROM container').map((row) => String(row['engine_id'])));
  const hosts: readonly HostName[] = ['a', 'b'];
  const listed = hosts.map(async (host) => (await engineSays(scene, host, ['ps', '-aq', '--no-trunc']))?.split('\n') ?? []);
  return (await Promise.all(listed))
    .flat()
    .filter((engineId) => engineId !== '' && !known.has(engineId))
    .map((engineId) => `an engine has ${engineId.slice(0, 12)}, which is none of ${rows.map(({ name }) => name).join(', ')}`);
}

export async function removeTwins(scene: FaultScene): Promise<void> {
  await mustDocker(scene, ['rm', '--force', ...twinsOf(scene).map(({ name }) => name)]);
}

/** Those that are kept: what is still being made is for the node to take away. */
export async function removeSnapshots(scene: FaultScene): Promise<void> {
  const client = createAdminClient(adminSocketOf(scene.dataDir));
  for (const { id } of await client.snapshots()) await client.removeSnapshot(id);
}
