/** Files that only their owner may read. */
import { open } from 'node:fs/promises';
import { EcluseError, codeOf, reasonOf } from '#errors';

/** Access by the group or by others. */
const FOREIGN_ACCESS = 0o077;

/** Its text; undefined: there is none, which is an answer. `what` it is, and `unusable`, say what is wrong with one that cannot be used. */
export async function readPrivateFile(
  path: string,
  what: string,
  unusable: (message: string, mend: string, cause?: unknown) => EcluseError,
): Promise<string | undefined> {
  try {
    await using handle = await open(path, 'r');
    const { mode } = await handle.stat();
    if ((mode & FOREIGN_ACCESS) !== 0) {
      const bits = (mode & 0o777).toString(8).padStart(4, '0');
      throw unusable(`${what} can be read by others: ${path} has mode ${bits}`, `type: chmod 600 ${path}`);
    }
    return await handle.readFile('utf8');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    if (error instanceof EcluseError) throw error;
    throw unusable(`${what} cannot be read: ${reasonOf(error)}`, `make ${path} a file that this user can read`, error);
  }
}
