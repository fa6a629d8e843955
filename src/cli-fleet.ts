/** `host drain`, `host undrain` and `rebalance`: containers that move because of their host. */
import type { AdminClient } from '#admin/client.ts';
import type { DrainReport } from '#caas/rebalance/drain.ts';
import type { MoveOutcome } from '#caas/rebalance/plan-execution.ts';
import type { RebalanceReport } from '#caas/rebalance/rebalancer.ts';
import type { RemoteCommand } from './cli-command.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { plainText } from './cli-text.ts';

type FleetCommand = Extract<RemoteCommand, { readonly kind: 'host-drain' | 'host-undrain' | 'rebalance' }>;

export async function runFleetCommand(command: FleetCommand, client: AdminClient, output: Output): Promise<void> {
  // Progress is for somebody who waits; a script gets the report alone.
  const say = ({ text }: { readonly text: string }): void => {
    if (output.isNoteScreen) output.note(plainText(text));
  };
  const tell = (value: object, lines: readonly string[]): void => {
    if (command.json) writeJson(output, value);
    else output.write(`${lines.map(plainText).join('\n')}\n`);
  };
  switch (command.kind) {
    case 'host-drain': {
      const report = await client.drainHost(command.host, { dryRun: command.dryRun, endSessions: command.endSessions }, say);
      tell(report, drainLines(report, command.dryRun));
      return;
    }
    case 'host-undrain': {
      const report = await client.undrainHost(command.host);
      tell(report, [`host ${report.host} is ${report.state} and is given containers again`]);
      return;
    }
    case 'rebalance': {
      const report = await client.rebalance({ dryRun: command.dryRun }, say);
      tell(report, rebalanceLines(report));
      return;
    }
  }
}

function moveLine({ container, from, to, why, outcome, reason, pausedMs }: MoveOutcome): string {
  switch (outcome) {
    case 'planned':
      return `${container} would move from ${from} to ${to}: ${why}`;
    case 'moved':
      return `${container} moved from ${from} to ${to}, paused for ${String(pausedMs ?? 0)} ms: ${why}`;
    case 'failed':
      return `${container} stays on ${from}: ${reason ?? 'its move failed'}`;
  }
}

function drainLines({ host, state, moves, left }: DrainReport, dryRun: boolean): readonly string[] {
  return [
    ...moves.map(moveLine),
    ...left.map(({ container, why, mend, runs }) => `${container} ${runs ? 'keeps the host busy' : 'is left'}: ${why}; ${mend}`),
    dryRun ? `host ${host} is ${state}; nothing was changed` : `host ${host} is ${state}`,
  ];
}

function rebalanceLines({ moves, stays, hosts, hostsWanted }: RebalanceReport): readonly string[] {
  const lines = [
    ...moves.map(moveLine),
    ...stays.map(({ tenant, name, host, text }) => `${tenant}/${name} stays on ${host}: ${text}`),
    ...hosts.map(({ host, verdict, text }) => `host ${host} is ${verdict}: ${text}`),
    ...(hostsWanted === 0 ? [] : [`hosts that are lacking: ${String(hostsWanted)}`]),
  ];
  return lines.length === 0 ? ['nothing is worth a move'] : lines;
}
