/**
 * A container's log on its way to another host: copied before the target's engine opens it, and brought up to date while the source is paused. The
 * engine there appends to the same file, so its end is added, not the file replaced.
 */
import { cp, open, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';

const PIECE_BYTES = 1024 * 1024;

interface Seen {
  readonly inode: number;
  readonly bytes: number;
}

export class LogCopy {
  readonly #folder: string;
  readonly #file: string;
  readonly #targetFolder: string;
  readonly #ids: { readonly source: string; readonly target: string };
  #seen = new Map<string, Seen>();

  private constructor(source: EngineInspect, target: EngineInspect, targetFolder: string) {
    this.#folder = dirname(source.LogPath);
    this.#file = basename(source.LogPath);
    this.#targetFolder = targetFolder;
    this.#ids = { source: source.Id, target: target.Id };
  }

  /** Undefined where the container has no log of its engine. */
  static of(source: EngineInspect, target: EngineInspect): LogCopy | undefined {
    const upper = target.GraphDriver?.Data?.['UpperDir'];
    if (source.LogPath === '' || upper === undefined) return undefined;
    // DATA-ROOT/overlay2/LAYER/diff and DATA-ROOT/containers/ID. An engine names the log of a container only once it was started.
    return new LogCopy(source, target, join(dirname(dirname(dirname(upper))), 'containers', target.Id));
  }

  /** Before the target is started. */
  async first(): Promise<void> {
    this.#seen = await this.#look();
    for (const [name, { bytes }] of this.#seen) await this.#write(name, { fromByte: 0, toByte: bytes, flags: 'w' });
  }

  /** After the source stopped writing. */
  async finish(): Promise<void> {
    const now = await this.#look();
    const before = this.#seen.get(this.#file);
    const current = now.get(this.#file);
    const isSame = (name: string): boolean => this.#seen.get(name)?.inode === now.get(name)?.inode;
    const grewOnly =
      before !== undefined &&
      current !== undefined &&
      now.size === this.#seen.size &&
      [...now.keys()].every((name) => isSame(name));
    if (grewOnly && current.bytes >= before.bytes) {
      await this.#write(this.#file, { fromByte: before.bytes, toByte: current.bytes, flags: 'a' });
      return;
    }
    // It was rotated meanwhile. The engine's file stays the one that it has open.
    for (const [name, { bytes }] of now) {
      if (name === this.#file) await this.#write(name, { fromByte: 0, toByte: bytes, flags: 'w' });
      else await cp(join(this.#folder, name), this.#targetOf(name));
    }
  }

  #targetOf(name: string): string {
    return join(this.#targetFolder, name.replace(this.#ids.source, this.#ids.target));
  }

  async #look(): Promise<Map<string, Seen>> {
    const seen = new Map<string, Seen>();
    for (const name of await readdir(this.#folder)) {
      if (!name.startsWith(this.#file)) continue;
      const { ino, size } = await stat(join(this.#folder, name));
      seen.set(name, { inode: ino, bytes: size });
    }
    return seen;
  }

  async #write(
    name: string,
    { fromByte, toByte, flags }: { readonly fromByte: number; readonly toByte: number; readonly flags: 'a' | 'w' },
  ): Promise<void> {
    await using to = await open(this.#targetOf(name), flags, 0o640);
    if (toByte <= fromByte) return;
    await using from = await open(join(this.#folder, name), 'r');
    const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, toByte - fromByte));
    for (let at = fromByte; at < toByte;) {
      const { bytesRead } = await from.read(piece, 0, Math.min(piece.length, toByte - at), at);
      if (bytesRead === 0) throw new Error('a log became shorter while it was copied');
      await to.writeFile(piece.subarray(0, bytesRead));
      at += bytesRead;
    }
  }
}
