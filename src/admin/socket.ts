/**
 * The admin socket's file: one daemon holds it, and a file that a killed daemon left is no obstacle.
 *
 * SECURITY: whoever may open the socket commands the node. It has mode 0600, and its directory may only be passed through by others.
 */
import { chmod, lstat, mkdir, rm } from 'node:fs/promises';
import { createConnection } from 'node:net';
import type { Server } from 'node:net';
import { dirname } from 'node:path';
import { EcluseError, codeOf, reasonOf } from '#errors';
import { checkSocketPath } from '#node-paths';
import { PROBE_TIMEOUT_MS } from './limits.ts';

const SOCKET_MODE = 0o600;
const FOLDER_MODE = 0o711;

/** Listens on `path`. Errors: ECLUSE_ALREADY_RUNS, ECLUSE_ADMIN_SOCKET. */
export async function listenOnSocket(server: Server, path: string): Promise<void> {
  checkSocketPath(path);
  try {
    await mkdir(dirname(path), { recursive: true, mode: FOLDER_MODE });
    await clearStale(path);
    await listen(server, path);
    // Between these two lines the usual umask keeps others from connecting: that takes the right to write.
    await chmod(path, SOCKET_MODE);
  } catch (error) {
    if (error instanceof EcluseError) throw error;
    if (codeOf(error) === 'EADDRINUSE') throw alreadyRuns(path);
    throw socketError(path, reasonOf(error), error);
  }
}

function socketError(path: string, reason: string, cause?: unknown): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_ADMIN_SOCKET',
    source: 'runtime',
    message: `the admin socket ${path} cannot be opened: ${reason}`,
    mend: 'check the directory, or name another with --data or listen.admin',
    cause,
  });
}

function alreadyRuns(path: string): EcluseError {
  return new EcluseError({
    code: 'ECLUSE_ALREADY_RUNS',
    source: 'usage',
    message: `another ecluse runs with this data directory: it answers at ${path}`,
    mend: 'stop that one first, or start this one with another --data',
    status: 409,
  });
}

async function clearStale(path: string): Promise<void> {
  const found = await lstat(path).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw error;
  });
  if (found === undefined) return;
  if (!found.isSocket()) throw socketError(path, 'there is a file of that name that is not a socket');
  if (await isAnswered(path)) throw alreadyRuns(path);
  await rm(path, { force: true });
}

/** True where somebody listens; a listener that is too busy to accept is somebody too. */
async function isAnswered(path: string): Promise<boolean> {
  return await new Promise((resolve, reject) => {
    const socket = createConnection(path);
    const end = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(PROBE_TIMEOUT_MS, () => {
      end(true);
    });
    socket.on('connect', () => {
      end(true);
    });
    socket.on('error', (error) => {
      const code = codeOf(error);
      if (code === 'ECONNREFUSED' || code === 'ENOENT') end(false);
      else if (code === 'EAGAIN') end(true);
      else reject(error);
    });
  });
}

async function listen(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
