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

/** Throws where the kernel would not take `path` as a unix socket's. */
export function checkSocketPath(path: string): void {
  checkLength(
    path,
    'the admin socket',
    'give a shorter directory with --data, or a shorter listen.admin in the configuration file',
  );
}

/** Throws where the sockets of a managed engine would not fit below the data directory: dockerd would fail half-way, and obscurely. */
export function checkEngineSocketPath(dataDir: string, host: string): void {
  // The longest name that dockerd and its containerd make.
  const path = join(dataDir, 'hosts', host, 'exec', 'containerd', 'containerd-debug.sock');
  checkLength(path, `a socket of host ${host}`, 'give a shorter directory with --data');
}

function checkLength(path: string, what: string, mend: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= SOCKET_PATH_BYTES_MAX) return;
  throw new EcluseError({
    code: 'ECLUSE_CONFIG_INVALID',
    source: 'config',
    message: `the path of ${what} has ${String(bytes)} bytes, and Linux takes ${String(SOCKET_PATH_BYTES_MAX)}: ${path}`,
    mend,
    status: 400,
  });
}
