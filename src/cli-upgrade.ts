/** `upgrade`: the program that is installed now takes the place of the one that runs. */
import type { AdminClient } from '#admin/client.ts';
import type { NodeStatus } from '#admin/node-control.ts';
import { systemClock, waitFor } from '#clock';
import { EcluseError, codeOf } from '#errors';
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
  const { pid } = await client.status();
  const before = await client.upgrade({ drainMs: command.drainMs });
  const startMs = systemClock.monotonicMs();
  if (output.isNoteScreen) output.note(`generation ${String(before.generation)} hands over; its workers serve on`);
  const look = async (): Promise<NodeStatus | 'ended' | undefined> => {
    // While nobody listens there the socket refuses: that is what is waited through. The next generation is the same process.
    const status = await client.status().catch(() => undefined);
    if (status !== undefined && status.generation > before.generation) return status;
    return isThere(pid) ? undefined : 'ended';
  };
  const after = await waitFor(systemClock, look, { limitMs: LIMIT_MS, stepMs: LOOK_PERIOD_MS });
  const tookMs = Math.round(systemClock.monotonicMs() - startMs);
  if (after === 'ended')
    throw new EcluseError({
      code: 'ECLUSE_UPGRADE_ENDED',
      source: 'runtime',
      message: 'the node ended before its next generation served',
      mend: 'see its log; if nobody stopped it, start it again',
    });
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

function isThere(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return codeOf(error) !== 'ESRCH'; // It may be somebody else's.
  }
}
