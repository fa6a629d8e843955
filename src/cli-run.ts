/**
 * Carries a command out. Each group of commands is loaded when it is asked for, so that `ecluse ps` does not load a node.
 *
 * Exit codes: 0 done, 1 refused or failed, 2 wrong usage. An error is one line on stderr (a configuration's problems are one line each).
 */
import type { AdminClient } from '#admin/client.ts';
import type { NodeConfig } from '#config';
import { EcluseError, codeOf, errorLine, reasonOf } from '#errors';
import { DATA_DIR_DEFAULT, adminSocketOf } from '#node-paths';
import { parseCommandLine } from './cli.ts';
import type {
  Command,
  DaemonAddress,
  EdgeCommand,
  LedgerCommand,
  PriceCommand,
  RemoteCommand,
  UpCommand,
} from './cli-command.ts';
import { processOutput } from './cli-output.ts';
import type { Output } from './cli-output.ts';

const DONE = 0;
const FAILED = 1;
const WRONG_USAGE = 2;

/** Parses and runs; returns the exit code. Never throws. */
export async function runCommandLine(argv: readonly string[]): Promise<number> {
  try {
    const command = parseCommandLine(argv);
    process.stdout.on('error', command.kind === 'up' ? () => undefined : endQuietly);
    return await run(command, processOutput);
  } catch (error) {
    return report(error, processOutput);
  }
}

/** Says what went wrong; returns the exit code for it. */
export function report(thrown: unknown, output: Output): number {
  if (process.env['ECLUSE_DEBUG'] === '1' && thrown instanceof Error) output.note(thrown.stack ?? thrown.message);
  if (!(thrown instanceof EcluseError)) {
    output.note(`ecluse: unexpected error: ${reasonOf(thrown)}; run it again with ECLUSE_DEBUG=1 and report what it prints`);
    return FAILED;
  }
  if (thrown.code === 'ECLUSE_CONFIG_INVALID') {
    const problems = thrown.message.split('\n');
    for (const [index, problem] of problems.entries()) {
      const isLast = index === problems.length - 1;
      output.note(`ecluse: ${isLast && thrown.mend !== undefined ? `${problem}; ${thrown.mend}` : problem}`);
    }
  } else output.note(`ecluse: ${errorLine(thrown)}`);
  return thrown.code === 'ECLUSE_USAGE' ? WRONG_USAGE : FAILED;
}

/** `ecluse ps | head` closes the pipe when it has seen enough: that is no error, and there is nobody left to tell. A node goes on without. */
function endQuietly(error: Error): void {
  // oxlint-disable-next-line unicorn/no-process-exit -- what the command still would do is print
  process.exit(codeOf(error) === 'EPIPE' ? DONE : FAILED);
}

async function run(command: Command, output: Output): Promise<number> {
  if (!('daemon' in command)) return await runLocal(command, output);
  await runRemote(command, output);
  return DONE;
}

async function runLocal(command: Exclude<Command, RemoteCommand>, output: Output): Promise<number> {
  switch (command.kind) {
    case 'help': {
      const { helpText } = await import('./cli-help.ts');
      output.write(helpText(command.topic));
      return DONE;
    }
    case 'version': {
      const { packageVersion } = await import('./version.ts');
      output.write(command.json ? `${JSON.stringify({ version: packageVersion() })}\n` : `ecluse ${packageVersion()}\n`);
      return DONE;
    }
    case 'config-schema': {
      output.write(`${JSON.stringify(await schemaOf(command.of), undefined, 2)}\n`);
      return DONE;
    }
    case 'hash-password': {
      const { printPasswordHash } = await import('./cli-password.ts');
      await printPasswordHash(output);
      return DONE;
    }
    case 'not-implemented':
      output.note(`ecluse: ${command.name} is not implemented yet in this version; see: ecluse help`);
      return FAILED;
    case 'up':
      return await up(command);
    case 'doctor': {
      const { runDoctor } = await import('./doctor.ts');
      const { fix, quiet, forTests, json } = command;
      const isFit = await runDoctor(
        { fix, quiet, forTests, json, dataDir: dataDirOf(command.dataDir) ?? DATA_DIR_DEFAULT },
        (line) => {
          output.write(`${line}\n`);
        },
      );
      return isFit ? DONE : FAILED;
    }
  }
}

async function schemaOf(what: (Command & { readonly kind: 'config-schema' })['of']): Promise<object> {
  switch (what) {
    case 'node':
      return (await import('./config.ts')).configJsonSchema();
    case 'routes':
      return (await import('#routing/operator/schema.ts')).documentJsonSchema();
    case 'admin-api':
      return (await import('#admin/routes.ts')).adminOpenApi();
  }
}

/** ECLUSE_DATA stands for --data wherever that is not given. */
function dataDirOf(flag: string | undefined): string | undefined {
  const fromEnv = process.env['ECLUSE_DATA'];
  return flag ?? (fromEnv === '' ? undefined : fromEnv);
}

async function up(command: UpCommand): Promise<number> {
  const { loadConfig } = await import('./config.ts');
  const { configFile, demo, listen, dataDir } = command;
  const readConfig = async (): Promise<NodeConfig> =>
    await loadConfig({ file: configFile, dataDir: dataDirOf(dataDir), demo, overrides: listen });
  const config = await readConfig();
  const { runNode } = await import('./node.ts');
  if (command.checkOnly) {
    processOutput.write('the configuration is in order\n');
    return DONE;
  }
  return await runNode(config, readConfig);
}

function socketOf({ dataDir, adminSocket }: DaemonAddress): string {
  return adminSocket ?? adminSocketOf(dataDirOf(dataDir) ?? DATA_DIR_DEFAULT);
}

async function runRemote(command: RemoteCommand, output: Output): Promise<void> {
  const { createAdminClient } = await import('#admin/client.ts');
  const client = createAdminClient(socketOf(command.daemon));
  if (isOfEdge(command)) {
    await (await import('./cli-edge.ts')).runEdgeCommand(command, client, output);
    return;
  }
  if (isOfLedger(command)) {
    await (await import('./cli-ledger.ts')).runLedgerCommand(command, client, output);
    return;
  }
  if (isOfPrices(command)) {
    await (await import('./cli-prices.ts')).runPriceCommand(command, client, output);
    return;
  }
  if (!isOfNode(command)) {
    await runOnObjects(command, client, output);
    return;
  }
  switch (command.kind) {
    case 'status':
      await (await import('./cli-node.ts')).printStatus(client, output, command);
      return;
    case 'host-ls':
      await (await import('./cli-node.ts')).printHosts(client, output, command);
      return;
    case 'reload':
      await (await import('./cli-reload.ts')).runReload(client, output, command);
      return;
    case 'upgrade':
      await (await import('./cli-upgrade.ts')).runUpgrade(command, client, output);
      return;
    case 'events':
      await (await import('./cli-node.ts')).printEvents(client, output, command);
      return;
    case 'top':
      await (await import('./cli-top.ts')).runTop(client, output, command);
      return;
    case 'host-drain':
    case 'host-undrain':
    case 'rebalance':
      await (await import('./cli-fleet.ts')).runFleetCommand(command, client, output);
      return;
    case 'usage':
      await (await import('./cli-usage.ts')).printUsage(command, client, output);
      return;
  }
}

const OF_EDGE: readonly RemoteCommand['kind'][] = [
  'apply',
  'rollback',
  'history',
  'diff-since',
  'config-show',
  'config-lint',
  'route-ls',
  'route-add',
  'route-rm',
  'service-ls',
  'service-set',
  'service-rm',
  'explain',
] satisfies readonly EdgeCommand['kind'][];

function isOfEdge(command: RemoteCommand): command is EdgeCommand {
  return OF_EDGE.includes(command.kind);
}

const OF_LEDGER: readonly RemoteCommand['kind'][] = [
  'ledger-verify',
  'ledger-export',
  'ledger-key',
  'ledger-correct',
] satisfies readonly LedgerCommand['kind'][];

function isOfLedger(command: RemoteCommand): command is LedgerCommand {
  return OF_LEDGER.includes(command.kind);
}

const OF_PRICES: readonly RemoteCommand['kind'][] = [
  'prices-check',
  'prices-apply',
  'prices-show',
  'prices-history',
  'invoice',
  'invoice-ls',
  'invoice-issue',
] satisfies readonly PriceCommand['kind'][];

function isOfPrices(command: RemoteCommand): command is PriceCommand {
  return OF_PRICES.includes(command.kind);
}

const OF_NODE = [
  'status',
  'reload',
  'upgrade',
  'host-ls',
  'host-drain',
  'host-undrain',
  'rebalance',
  'events',
  'top',
  'usage',
] as const;
type NodeCommand = Extract<RemoteCommand, { readonly kind: (typeof OF_NODE)[number] }>;
type ObjectCommand = Exclude<RemoteCommand, NodeCommand | EdgeCommand | LedgerCommand | PriceCommand>;

function isOfNode(command: Exclude<RemoteCommand, EdgeCommand | LedgerCommand | PriceCommand>): command is NodeCommand {
  return OF_NODE.some((kind) => kind === command.kind);
}

const OF_CERTIFICATES = ['cert-ls', 'cert-add', 'cert-rm', 'cert-renew'] as const;
type CertCommand = Extract<RemoteCommand, { readonly kind: (typeof OF_CERTIFICATES)[number] }>;

function isOfCertificates(command: ObjectCommand): command is CertCommand {
  return OF_CERTIFICATES.some((kind) => kind === command.kind);
}

const OF_SNAPSHOTS = ['snapshot', 'snapshot-ls', 'snapshot-rm', 'restore'] as const;
type SnapshotCommand = Extract<RemoteCommand, { readonly kind: (typeof OF_SNAPSHOTS)[number] }>;

function isOfSnapshots(command: ObjectCommand): command is SnapshotCommand {
  return OF_SNAPSHOTS.some((kind) => kind === command.kind);
}

/** Commands about one tenant or one container. */
async function runOnObjects(command: ObjectCommand, client: AdminClient, output: Output): Promise<void> {
  if (isOfSnapshots(command)) {
    await (await import('./cli-snapshots.ts')).runSnapshotCommand(command, client, output);
    return;
  }
  if (isOfCertificates(command)) {
    await (await import('./cli-cert.ts')).runCertCommand(command, client, output);
    return;
  }
  switch (command.kind) {
    case 'tenant-add':
    case 'tenant-ls':
    case 'tenant-set':
    case 'tenant-rm':
    case 'tenant-env':
      await (await import('./cli-tenant.ts')).runTenantCommand(command, client, output);
      return;
    case 'ps':
      await (await import('./cli-containers.ts')).printContainers(client, output, command);
      return;
    case 'explain-container':
      await (await import('./cli-containers.ts')).explainContainer(client, output, command);
      return;
    case 'migrate':
      await (await import('./cli-containers.ts')).migrateContainer(client, output, command);
      return;
    case 'migrate-cancel':
    case 'suspend':
    case 'wake':
    case 'clone':
      await (await import('./cli-lifecycle.ts')).runLifecycleCommand(command, client, output);
      return;
  }
}
