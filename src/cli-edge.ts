/** `apply`, `rollback`, `route add`, `service set` and their kin: changes of what operators write of the edge. */
import { stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { EcluseError, errorLine } from '#errors';
import type { AdminClient } from '#admin/client.ts';
import { problemsOf } from '#admin/config-requests.ts';
import type { EdgeControl, SettingsReport } from '#admin/edge-control.ts';
import { documentSchema, hasPrototypeKey } from '#routing/operator/schema.ts';
import type { EdgeDocument } from '#routing/operator/schema.ts';
import type { ChangeFlags, EdgeCommand } from './cli-command.ts';
import { diffText, moreText, showEdge } from './cli-edge-view.ts';
import { writeJson } from './cli-output.ts';
import type { Output } from './cli-output.ts';
import { configInvalid, placedProblem, readYamlFile } from './yaml-file.ts';

/** As much as the daemon takes. */
const FILE_BYTES_MAX = 32 * 1024 * 1024;
const WATCH_MS = 500;
const RETRY_MS = 5000;

type ApplyCommand = Extract<EdgeCommand, { readonly kind: 'apply' }>;
type ChangeCommand = Extract<EdgeCommand, ChangeFlags>;

export async function runEdgeCommand(command: EdgeCommand, client: AdminClient, output: Output): Promise<void> {
  if (!isChange(command)) {
    await showEdge(command, client, output);
    return;
  }
  if (command.kind === 'apply' && command.watch) {
    await applyAgain(command, client.edge, output);
    return;
  }
  const report = await changeOf(command, client.edge);
  if (command.json) writeJson(output, report);
  else output.write(reportText(report));
}

/**
 * Applies files now and whenever one of them changed, until somebody ends the program. A file that changes is left alone until it has been the same for
 * one period: half of a file could be a whole one that says less.
 */
async function applyAgain(command: ApplyCommand, edge: EdgeControl, output: Output): Promise<never> {
  let [applied, seen] = ['', ''];
  for (;;) {
    const now = await identityOf(command.files);
    if (now !== applied && now === seen) {
      applied = now;
      try {
        const report = await changeOf(command, edge);
        if (command.json) writeJson(output, report);
        else output.write(reportText(report));
      } catch (error) {
        output.note(`ecluse: ${errorLine(error)}`);
        // What is served stays. A file that is wrong is tried again when it changes, a daemon that is away after a while.
        if (!(error instanceof EcluseError) || error.source !== 'config') {
          applied = '';
          await sleep(RETRY_MS);
        }
      }
    }
    seen = now;
    await sleep(WATCH_MS);
  }
}

async function identityOf(files: readonly string[]): Promise<string> {
  const parts = files.map(async (file) => {
    const found = await stat(file).catch(() => undefined);
    return found === undefined ? 'none' : `${String(found.ino)} ${String(found.size)} ${String(found.mtimeMs)}`;
  });
  return (await Promise.all(parts)).join('\n');
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
      return await edge.transact([{ op: 'put-route', route: command.route }], request);
    case 'route-rm':
      return await edge.transact([{ op: 'remove-route', match: command.match }], request);
    case 'service-set':
      return await edge.transact([{ op: 'put-service', name: command.name, service: command.service }], request);
    case 'service-rm':
      return await edge.transact([{ op: 'remove-service', name: command.name }], request);
  }
}

/** All files as one document. `-` is standard input. */
async function readDocument(paths: readonly string[]): Promise<EdgeDocument> {
  const whole: Required<EdgeDocument> = { services: {}, routes: [], caBundles: {} };
  for (const path of paths) {
    const file = await readYamlFile(path === '-' ? '/dev/stdin' : path, {
      bytesMax: FILE_BYTES_MAX,
      mend: 'check the name of the file',
    });
    if (hasPrototypeKey(file.value)) throw configInvalid([`${path}: the key __proto__ is no key of anything here`]);
    const parsed = documentSchema.safeParse(file.value);
    if (!parsed.success) {
      const problems = problemsOf(parsed.error.issues).map((problem) => placedProblem(file, problem.path, problem.message));
      throw configInvalid(problems.toSorted((one, other) => one.line - other.line).map(({ text }) => text));
    }
    const { services, caBundles = {} } = parsed.data;
    addTo(whole.services, services, (name) => placedProblem(file, ['services', name], SAID_TWICE).text);
    addTo(whole.caBundles, caBundles, (name) => placedProblem(file, ['caBundles', name], SAID_TWICE).text);
    for (const route of parsed.data.routes) whole.routes.push(route); // There may be more than a call takes arguments.
  }
  return whole;
}

const SAID_TWICE = 'another of the files has it, too';

function addTo<T>(whole: Record<string, T>, more: Readonly<Record<string, T>>, twice: (name: string) => string): void {
  for (const [name, value] of Object.entries(more)) {
    if (Object.hasOwn(whole, name)) throw configInvalid([twice(name)]);
    whole[name] = value;
  }
}

function reportText({ version, changed, dryRun, diff, differences, workers }: SettingsReport): string {
  if (!changed) return `nothing differs; version ${String(version)} stays\n`;
  const end = dryRun
    ? 'nothing was changed: it was a dry run\n'
    : `version ${String(version)} is served by ${String(workers.length)} workers\n`;
  return `${diffText(diff)}${moreText(diff.length, differences)}${end}`;
}
