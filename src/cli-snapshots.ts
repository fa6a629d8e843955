/** `snapshot`, `snapshot ls`, `snapshot rm`, `restore`: what is kept of containers, and how they come back. */
import type { AdminClient } from '#admin/client.ts';
import type { SnapshotView } from '#admin/node-control.ts';
import type { RestoreReport } from '#caas/snapshots/restores.ts';
import type { SnapshotReport } from '#caas/snapshots/snapshots.ts';
import { formatBytes, formatDuration } from '#units';
import type { RemoteCommand } from './cli-command.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { plainText, spanText, tableText } from './cli-text.ts';

type SnapshotCommand = Extract<RemoteCommand, { readonly kind: 'snapshot' | 'snapshot-ls' | 'snapshot-rm' | 'restore' }>;

/** Enough to tell a node's snapshots apart. */
const ID_LENGTH = 8;

export async function runSnapshotCommand(command: SnapshotCommand, client: AdminClient, output: Output): Promise<void> {
  const tell = (value: object, text: string): void => {
    if (command.json) writeJson(output, value);
    else output.write(text);
  };
  switch (command.kind) {
    case 'snapshot': {
      const report = await client.snapshot(command.container);
      tell(report, takenText(report));
      return;
    }
    case 'snapshot-ls': {
      const snapshots = await client.snapshots();
      tell(snapshots, snapshotTable(snapshots, Date.now()));
      return;
    }
    case 'snapshot-rm':
      await client.removeSnapshot(command.snapshot);
      tell({ snapshot: command.snapshot, removed: true }, `${plainText(command.snapshot)} is removed\n`);
      return;
    case 'restore': {
      if (output.isNoteScreen) output.note(`restoring ${command.reference}`);
      const report = await client.restore(command.reference, command.to);
      tell(report, restoredText(report, Date.now()));
      return;
    }
  }
}

function linesText(lines: readonly string[]): string {
  return lines.map((line) => `${plainText(line)}\n`).join('');
}

function takenText({ container, snapshot, pausedMs, totalMs, imageBytes, keptBytes, notes }: SnapshotReport): string {
  return linesText([
    `snapshot ${snapshot} of ${container} is kept, in ${spanText(totalMs)}`,
    `paused: ${spanText(pausedMs)}`,
    `memory image: ${formatBytes(imageBytes)}`,
    `on disk, with its files: ${formatBytes(keptBytes)}`,
    ...notes.map((note) => `note: ${note}`),
  ]);
}

function snapshotTable(snapshots: readonly SnapshotView[], nowMs: number): string {
  return tableText(
    ['SNAPSHOT', 'TENANT', 'CONTAINER', 'HOST', 'KIND', 'CREATED', 'MEMORY', 'SIZE'],
    snapshots.map(({ id, tenant, name, host, kind, createdMs, imageBytes, keptBytes }) =>
      [
        id.slice(0, ID_LENGTH),
        tenant,
        name,
        host,
        kind,
        `${formatDuration(nowMs - createdMs)} ago`,
        formatBytes(imageBytes),
        formatBytes(keptBytes),
      ].map(plainText),
    ),
  );
}

function restoredText(report: RestoreReport, nowMs: number): string {
  const { container, snapshot, takenMs, from, to, totalMs, imageBytes, keptBytes, phases, notes } = report;
  return linesText([
    `${container} is back on ${to}${from === to ? '' : ` (it was on ${from})`}, in ${spanText(totalMs)}`,
    `it goes on from ${new Date(takenMs).toISOString()}, ${formatDuration(nowMs - takenMs)} ago (snapshot ${snapshot})`,
    `memory image: ${formatBytes(imageBytes)}; on disk, with its files: ${formatBytes(keptBytes)}`,
    `took: ${phases.map(({ phase, tookMs }) => `${phase} ${spanText(tookMs)}`).join(', ')}`,
    ...notes.map((note) => `note: ${note}`),
  ]);
}
