/** Where a node's data and its admin socket are. Without dependencies: every command loads it. */
import { join, resolve } from 'node:path';
import { EcluseError } from '#errors';

export const DATA_DIR_DEFAULT = '/var/lib/ecluse';
const ADMIN_SOCKET_DEFAULT = '/run/ecluse/admin.sock';

/** `sun_path` of Linux, less the byte that ends it. */
const SOCKET_PATH_BYTES_MAX = 107;

/** The admin socket of the node with this data directory, where its configuration names no other. */
export function adminSocketOf(dataDir: string): string {
  const absolute = resolve(dataDir);
  return absolute === DATA_DIR_DEFAULT ? ADMIN_SOCKET_DEFAULT : join(absolute, 'admin.sock');
}

/** Says why the kernel would not take the path as a unix socket's, or undefined where it does. */
export function socketPathFault(path: string): string | undefined {
  const bytes = Buffer.byteLength(path);
  return bytes <= SOCKET_PATH_BYTES_MAX
    ? undefined
    : `the path of the admin socket has ${String(bytes)} bytes, and Linux takes ${String(SOCKET_PATH_BYTES_MAX)}: ${path}`;
}

/** Throws where `path` is too long for a unix socket. */
export function checkSocketPath(path: string): void {
  const fault = socketPathFault(path);
  if (fault === undefined) return;
  throw new EcluseError({
    code: 'ECLUSE_CONFIG_INVALID',
    source: 'config',
    message: fault,
    mend: 'give a shorter directory with --data, or a shorter listen.admin in the configuration file',
    status: 400,
  });
}
