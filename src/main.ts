/**
 * The program. Everything else is loaded after the compile cache is on, because static imports would run before it.
 *
 * The cache lies in the package's own directory: one in /tmp, Node's default, could be prepared by any user for a daemon of root.
 */
import { enableCompileCache } from 'node:module';
import { join } from 'node:path';

enableCompileCache(join(import.meta.dirname, '..', 'node_modules', '.cache', 'ecluse'));

const { report, runCommandLine } = await import('./cli-run.ts');
const { processOutput } = await import('./cli-output.ts');
const { systemPath } = await import('#isolation/program-path.ts');

const fail = (thrown: unknown): void => {
  // oxlint-disable-next-line unicorn/no-process-exit -- after an error that nobody caught the state is unknown
  process.exit(report(thrown, processOutput));
};
process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);
process.stderr.on('error', () => undefined); // Nobody reads what would be said.

process.env['PATH'] = systemPath();
process.exitCode = await runCommandLine(process.argv.slice(2));
