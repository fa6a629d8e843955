/** `apply`, `rollback`, `route add`, `service set` and their kin: changes of what operators write of the edge. */
import type { AdminClient } from '#admin/client.ts';
import { problemsOf } from '#admin/config-requests.ts';
import type { EdgeControl, SettingsReport } from '#admin/edge-control.ts';
import { documentSchema } from '#routing/operator/schema.ts';
import type { EdgeDocument } from '#routing/operator/schema.ts';
import type { ChangeFlags, EdgeCommand } from './cli-command.ts';
import { diffText, showEdge } from './cli-edge-view.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { configInvalid, placedProblem, readYamlFile } from './yaml-file.ts';

/** As much as the daemon takes. */
const FILE_BYTES_MAX = 32 * 1024 * 1024;

type ChangeCommand = Extract<EdgeCommand, ChangeFlags>;

export async function runEdgeCommand(command: EdgeCommand, client: AdminClient, output: Output): Promise<void> {
  if (!isChange(command)) {
    await showEdge(command, client, output);
    return;
  }
  const report = await changeOf(command, client.edge);
  if (command.json) writeJson(output, report);
  else output.write(reportText(report));
}

function isChange(command: EdgeCommand): command is ChangeCommand {
  return 'dryRun' in command;
}

async function changeOf(command: ChangeCommand, edge: EdgeControl): Promise<SettingsReport> {
  const { ifVersion, dryRun, note } = command;
  const request = { ifVersion, dryRun, note };
  switch (command.kind) {
    case 'apply':
      return await edge.apply(await readDocument(command.files), request);
    case 'rollback':
      return await edge.rollback(command.to, request);
    case 'route-add':
      return await edge.transact([{ op: 'put-route', route: { match: command.match, service: command.service } }], request);
    case 'route-rm':
      return await edge.transact([{ op: 'remove-route', match: command.match }], request);
    case 'service-set': {
      const { name, endpoints, sendProxy } = command;
      const service = { endpoints: [...endpoints], ...(sendProxy === undefined ? {} : { sendProxy }) };
      return await edge.transact([{ op: 'put-service', name, service }], request);
    }
    case 'service-rm':
      return await edge.transact([{ op: 'remove-service', name: command.name }], request);
  }
}

/** All files as one document. `-` is standard input. */
async function readDocument(paths: readonly string[]): Promise<EdgeDocument> {
  const whole: EdgeDocument = { services: {}, routes: [] };
  for (const path of paths) {
    const file = await readYamlFile(path === '-' ? '/dev/stdin' : path, {
      bytesMax: FILE_BYTES_MAX,
      mend: 'check the name of the file',
    });
    const parsed = documentSchema.safeParse(file.value);
    if (!parsed.success) {
      const problems = problemsOf(parsed.error.issues).map((problem) => placedProblem(file, problem.path, problem.message));
      throw configInvalid(problems.toSorted((one, other) => one.line - other.line).map(({ text }) => text));
    }
    for (const [name, service] of Object.entries(parsed.data.services)) {
      if (Object.hasOwn(whole.services, name))
        throw configInvalid([placedProblem(file, ['services', name], 'another of the files has it, too').text]);
      whole.services[name] = service;
    }
    whole.routes.push(...parsed.data.routes);
  }
  return whole;
}

function reportText({ version, changed, dryRun, diff, differences, workers }: SettingsReport): string {
  if (!changed) return `nothing differs; version ${String(version)} stays\n`;
  const more = differences > diff.length ? `and ${String(differences - diff.length)} more\n` : '';
  const end = dryRun
    ? 'nothing was changed: it was a dry run\n'
    : `version ${String(version)} is served by ${String(workers.length)} workers\n`;
  return `${diffText(diff)}${more}${end}`;
}
