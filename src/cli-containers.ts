/** `ps`, `explain container` and `migrate`: containers of all tenants. */
import type { AdminClient } from '#admin/client.ts';
import type { ContainerExplanation, ContainerView, MigrateOrder } from '#admin/node-control.ts';
import type { MigrationReport } from '#caas/migration/move.ts';
import { formatBytes, formatDuration } from '#units';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { plainText, spanText, tableText } from './cli-text.ts';

/** As many digits of an id as docker shows. */
const ID_LENGTH = 12;

export async function printContainers(
  client: AdminClient,
  output: Output,
  options: { readonly json: boolean; readonly all: boolean; readonly tenant: string | undefined },
): Promise<void> {
  const containers = await client.containers({ all: options.all, tenant: options.tenant });
  if (options.json) writeJson(output, containers);
  else output.write(containerTable(containers, Date.now()));
}

function containerTable(containers: readonly ContainerView[], nowMs: number): string {
  return tableText(
    ['CONTAINER ID', 'TENANT', 'NAME', 'IMAGE', 'HOST', 'CREATED', 'STATUS', 'ROUTES'],
    containers.map(({ id, tenant, name, image, host, createdMs, status, routes }) =>
      [
        id.slice(0, ID_LENGTH),
        tenant,
        name,
        image,
        host,
        `${formatDuration(nowMs - createdMs)} ago`,
        status,
        routes.length === 0 ? '-' : routes.join(','),
      ].map(plainText),
    ),
  );
}

/** `explain container`: the decision that put it where it is, with what spoke for and against each host then. */
export async function explainContainer(
  client: AdminClient,
  output: Output,
  options: { readonly json: boolean; readonly container: string },
): Promise<void> {
  const explanation = await client.explainContainer(options.container);
  if (options.json) writeJson(output, explanation);
  else output.write(explanationText(explanation));
}

function explanationText({ tenant, name, host, placement }: ContainerExplanation): string {
  if (placement === undefined) return `${plainText(`${tenant}/${name} is on ${host}; why was not kept`)}\n`;
  const { decidedMs, why, considered, ruledOut } = placement;
  const lines = [
    `${tenant}/${name} is on ${host}`,
    `${new Date(decidedMs).toISOString()}: placed on ${placement.host}: ${why}`,
    ...(host === placement.host ? [] : [`moved to ${host} since`]),
    ...considered.flatMap((verdict) => [
      `  ${verdict.host}: score ${String(verdict.score)}`,
      ...verdict.reasons.map((reason) => `    ${reason}`),
    ]),
    ...ruledOut.map((verdict) => `  ${verdict.host}: ruled out: ${verdict.reason}`),
  ];
  return `${lines.map(plainText).join('\n')}\n`;
}

export async function migrateContainer(
  client: AdminClient,
  output: Output,
  options: { readonly json: boolean; readonly container: string } & MigrateOrder,
): Promise<void> {
  const { to, endSessions } = options;
  const report = await client.migrate(options.container, { to, endSessions }, ({ phase, detail, elapsedMs }) => {
    // Progress is for somebody who waits; a script gets the report alone.
    if (output.isNoteScreen)
      output.note(plainText(`${spanText(elapsedMs).padStart(9)}  ${phase}${detail === '' ? '' : `: ${detail}`}`));
  });
  if (options.json) writeJson(output, report);
  else output.write(reportText(report));
}

function reportText({ container, from, to, totalMs, pausedMs, heldMs, imageBytes, cut }: MigrationReport): string {
  const lines = [
    `${container} moved from ${from} to ${to} in ${spanText(totalMs)}`,
    `longest pause: ${spanText(pausedMs)}`,
    `requests held for at most: ${spanText(heldMs)}`,
    `memory image: ${formatBytes(imageBytes)}`,
    `requests and streams cut: ${String(cut)}`,
  ];
  return `${lines.map(plainText).join('\n')}\n`;
}
