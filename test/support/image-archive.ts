/** A `docker save` archive made of a root file system, so that `docker load` can be tried where no engine has saved one. */
import { createHash } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';

export interface ArchivedImage {
  readonly repoTags: readonly string[];
  /** The root file system as a tar: the one layer. */
  readonly rootFs: Buffer;
  /** As in `docker inspect`: Cmd, Env, ExposedPorts and the like. */
  readonly config?: Readonly<Record<string, unknown>>;
}

/** Format: moby image/spec v1.2. The same image makes the same archive. */
export async function imageArchive(image: ArchivedImage): Promise<Buffer> {
  const layerSha256 = sha256(image.rootFs);
  const config = JSON.stringify({
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    created: new Date(0).toISOString(),
    config: image.config ?? {},
    rootfs: { type: 'layers', diff_ids: [`sha256:${layerSha256}`] },
    history: [{ created: new Date(0).toISOString(), created_by: 'test/support/image-archive.ts' }],
  });
  const configName = `${sha256(config)}.json`;
  const layerName = `${layerSha256}/layer.tar`;
  const manifest = JSON.stringify([{ Config: configName, RepoTags: image.repoTags, Layers: [layerName] }]);

  const archive = pack();
  const mtime = new Date(0);
  archive.entry({ name: configName, mtime }, config);
  archive.entry({ name: layerName, mtime }, image.rootFs);
  archive.entry({ name: 'manifest.json', mtime }, manifest);
  archive.finalize();
  return await buffer(archive);
}

function sha256(content: string | Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}
