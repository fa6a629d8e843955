/** `status`, `host ls` and `events`: the node itself. */
import type { AdminClient } from '#admin/client.ts';
import { exactJson } from '#admin/exact-json.ts';
import type { HostView, NodeStatus } from '#admin/node-control.ts';
import type { Change } from '#state/change-log.ts';
import { formatBytes, formatDuration } from '#units';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { plainText, tableText } from './cli-text.ts';

export async function printStatus(client: AdminClient, output: Output, options: { readonly json: boolean }): Promise<void> {
  const status = await client.status();
  if (options.json) writeJson(output, status);
  else output.write(statusText(status, Date.now()));
}

function statusText(status: NodeStatus, nowMs: number): string {
  const { listen } = status;
  const rows = [
    ['version', status.version],
    ['process', `${String(status.pid)}, up ${formatDuration(nowMs - status.startedMs).toLowerCase()}`],
    ['data', status.dataDir],
    ['http', listen.http ?? 'off'],
    ['https', listen.https ?? 'off'],
    ['docker', listen.docker ?? 'off'],
    ['metrics', listen.metrics ?? 'off'],
    ['config version', String(status.configVersion)],
    ['workers', status.workers.map(({ pid, version }) => `${String(pid)} (version ${String(version)})`).join(', ')],
    ['generation', generationText(status)],
    ['hosts', status.hosts.map(({ name, state }) => `${name} (${state})`).join(', ')],
  ] as const;
  const width = Math.max(...rows.map(([label]) => label.length));
  return rows.map(([label, value]) => `${label.padEnd(width)}   ${value}\n`).join('');
}

function generationText({ generation, retiring }: NodeStatus): string {
  const old = retiring.map((worker) => `${String(worker.pid)} of ${String(worker.generation)}`).join(', ');
  return old === '' ? String(generation) : `${String(generation)}; workers that end: ${old}`;
}

export async function printHosts(client: AdminClient, output: Output, options: { readonly json: boolean }): Promise<void> {
  const { hosts } = await client.status();
  if (options.json) writeJson(output, hosts);
  else output.write(hostTable(hosts));
}

function hostTable(hosts: readonly HostView[]): string {
  return tableText(
    ['NAME', 'STATE', 'ENGINE', 'VERSION', 'CONTAINERS', 'CPUS', 'MEMORY'],
    hosts.map((host) => [
      host.name,
      host.use === 'active' ? host.state : `${host.state}, ${host.use}`,
      host.engine,
      host.state === 'up' ? (host.engineVersion ?? '-') : '-',
      String(host.containers),
      host.state === 'up' ? String(host.cpus) : '-',
      host.state === 'up' ? formatBytes(host.memoryBytes) : '-',
    ]),
  );
}

function changeLine({ seq, atMs, kind, key, data }: Change): string {
  const fields = typeof data === 'object' && data !== null ? Object.entries(data) : [];
  const shown = fields.map(([name, value]) => `${name}=${typeof value === 'string' ? value : exactJson(value)}`).join(' ');
  return plainText(
    `${new Date(atMs).toISOString()} ${String(seq).padStart(6)} ${kind} ${key.slice(0, 64)}${shown === '' ? '' : ` (${shown})`}`,
  );
}

export async function printEvents(
  client: AdminClient,
  output: Output,
  options: { readonly json: boolean; readonly follow: boolean; readonly last: number },
): Promise<void> {
  // One event a line in both forms, so that a reader of a pipe gets each at once.
  const print = (change: Change): void => {
    output.write(`${options.json ? exactJson(change) : changeLine(change)}\n`);
  };
  const past = await pastChanges(client, options.last);
  for (const change of past) print(change);
  if (!options.follow) return;
  for await (const change of client.follow(past.at(-1)?.seq)) print(change);
}

/** The API gives 1000 changes at once. */
const PAGE = 1000;

async function pastChanges(client: AdminClient, count: number): Promise<readonly Change[]> {
  if (count === 0) return [];
  const newest = await client.latestChanges(Math.min(count, PAGE));
  const changes = [...newest];
  const first = newest[0]?.seq;
  if (count <= PAGE || first === undefined) return changes;
  const older: Change[] = [];
  for (let cursor = Math.max(0, first - 1 - (count - newest.length)); ;) {
    const page = (await client.changes(cursor, PAGE)).filter(({ seq }) => seq < first);
    older.push(...page);
    const last = page.at(-1);
    if (last === undefined || last.seq >= first - 1) return [...older, ...changes];
    cursor = last.seq;
  }
}
