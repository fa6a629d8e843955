/** `upgrade`: the program that is installed now takes the place of the one that runs. */
import type { AdminClient } from '#admin/client.ts';
import type { NodeStatus } from '#admin/node-control.ts';
import { systemClock, waitFor } from '#clock';
import { EcluseError } from '#errors';
import { formatDuration } from '#units';
import type { RemoteCommand } from './cli-command.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { spanText } from './cli-text.ts';

/** As long as a start with hundreds of containers to take over takes. */
const LIMIT_MS = 120_000;
const LOOK_PERIOD_MS = 50;

export async function runUpgrade(
  command: Extract<RemoteCommand, { readonly kind: 'upgrade' }>,
  client: AdminClient,
  output: Output,
): Promise<void> {
  const before = await client.upgrade({ drainMs: command.drainMs });
  const startMs = systemClock.monotonicMs();
  if (output.isNoteScreen) output.note(`generation ${String(before.generation)} hands over; its workers serve on`);
  const look = async (): Promise<NodeStatus | undefined> => {
    // While nobody listens there the socket refuses: that is what is waited through.
    const status = await client.status().catch(() => undefined);
    return status !== undefined && status.generation > before.generation ? status : undefined;
  };
  const after = await waitFor(systemClock, look, { limitMs: LIMIT_MS, stepMs: LOOK_PERIOD_MS });
  const tookMs = Math.round(systemClock.monotonicMs() - startMs);
  if (after === undefined)
    throw new EcluseError({
      code: 'ECLUSE_UPGRADE_UNSEEN',
      source: 'runtime',
      message: `the next generation was not heard of within ${formatDuration(LIMIT_MS).toLowerCase()}`,
      mend: 'see the log of the daemon; the workers of the old one serve for a while, and containers run on',
    });
  if (command.json) {
    writeJson(output, { generation: after.generation, version: after.version, tookMs, retiring: after.retiring });
    return;
  }
  const retiring = `${String(after.retiring.length)} of its workers end within ${formatDuration(command.drainMs).toLowerCase()}`;
  output.write(
    `generation ${String(after.generation)} (version ${after.version}) serves after ${spanText(tookMs)}; ${retiring}\n`,
  );
}
