/** `suspend`, `wake`, `clone`, `migrate --cancel`: what a container can do beyond Docker. */
import type { AdminClient } from '#admin/client.ts';
import { formatBytes } from '#units';
import type { RemoteCommand } from './cli-command.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { plainText, spanText } from './cli-text.ts';

type LifecycleCommand = Extract<RemoteCommand, { readonly kind: 'migrate-cancel' | 'suspend' | 'wake' | 'clone' }>;

export async function runLifecycleCommand(command: LifecycleCommand, client: AdminClient, output: Output): Promise<void> {
  const tell = (value: object, text: string): void => {
    if (command.json) writeJson(output, value);
    else output.write(`${plainText(text)}\n`);
  };
  switch (command.kind) {
    case 'migrate-cancel':
      await client.cancelMigration(command.container);
      tell({ container: command.container, cancelled: true }, `the move of ${command.container} is called off`);
      return;
    case 'suspend': {
      const report = await client.suspend(command.container);
      tell(
        report,
        `${report.container} sleeps: ${formatBytes(report.imageBytes)} of memory kept, in ${spanText(report.totalMs)}; the next request wakes it`,
      );
      return;
    }
    case 'wake': {
      const report = await client.wake(command.container);
      tell(
        report,
        report.totalMs === 0 ? `${report.container} is awake` : `${report.container} woke in ${spanText(report.totalMs)}`,
      );
      return;
    }
    case 'clone': {
      if (output.isNoteScreen) output.note(`copying ${command.container} ${String(command.count)} times`);
      const report = await client.clone(command.container, command.count);
      tell(
        report,
        `${report.container} was paused for ${spanText(report.pausedMs)}; ready after ${spanText(report.totalMs)}: ${report.clones.join(', ')}`,
      );
      return;
    }
  }
}
