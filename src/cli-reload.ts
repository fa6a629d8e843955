/** `reload`: what a changed configuration changes now, and what it does not. */
import type { AdminClient } from '#admin/client.ts';
import type { ReloadReport } from '#admin/node-control.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { tableText } from './cli-text.ts';

export async function runReload(client: AdminClient, output: Output, options: { readonly json: boolean }): Promise<void> {
  const report = await client.reload();
  if (options.json) writeJson(output, report);
  else output.write(reloadText(report));
}

function reloadText({ file, applied, needsRestart, workers }: ReloadReport): string {
  if (applied.length + needsRestart.length === 0) return `${file} was read again: nothing changed\n`;
  const rows = [
    ...applied.map((key) => [key, 'applied']),
    ...needsRestart.map((key) => [key, 'not applied: it needs a restart, or: ecluse upgrade']),
  ];
  const serving = applied.length === 0 ? '' : `; ${String(workers.length)} workers have what was applied`;
  return `${file} was read again${serving}\n${tableText(['KEY', 'WHAT BECAME OF IT'], rows)}`;
}
