/** Runs a program of the system to its end, with a time limit and bounded output. */
import { execFile } from 'node:child_process';
import { EcluseError } from '#errors';

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly timeoutMs?: number;
  readonly env?: NodeJS.ProcessEnv;
  readonly input?: string;
}

const TIMEOUT_MS_DEFAULT = 30_000;
/** No program that we call prints more; one that does is cut and fails. */
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

/** Runs `program` and returns what it said, whatever its exit code. 127 where it does not exist. */
export async function tryCommand(program: string, args: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  return await new Promise((resolve) => {
    const child = execFile(
      program,
      [...args],
      {
        timeout: options.timeoutMs ?? TIMEOUT_MS_DEFAULT,
        maxBuffer: OUTPUT_BYTES_MAX,
        killSignal: 'SIGKILL',
        env: options.env ?? process.env,
      },
      (error, stdout, stderr) => {
        if (error === null) resolve({ exitCode: 0, stdout, stderr });
        else if (typeof error.code === 'number') resolve({ exitCode: error.code, stdout, stderr });
        else if (error.code === 'ENOENT') resolve({ exitCode: 127, stdout, stderr: `${program}: not found` });
        else resolve({ exitCode: 1, stdout, stderr: stderr === '' ? error.message : stderr });
      },
    );
    child.stdin?.on('error', () => undefined); // A program that does not read its input closes it; its exit code tells the rest.
    child.stdin?.end(options.input ?? '');
  });
}

/** Runs `program` and returns its standard output; a non-zero exit is an error that carries the last line it said. */
export async function runCommand(program: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const result = await tryCommand(program, args, options);
  if (result.exitCode !== 0) {
    const said = (result.stderr.trim() === '' ? result.stdout : result.stderr).trim().split('\n').slice(-3).join(' ');
    throw new EcluseError({
      code: 'ECLUSE_COMMAND_FAILED',
      source: 'runtime',
      message: `${program} ${args.join(' ').slice(0, 200)} failed with exit code ${String(result.exitCode)}: ${said.slice(0, 1000)}`,
    });
  }
  return result.stdout;
}
