/** The files of a paused container, brought to the container that was made for it on the target. Both hosts are on this machine. */
import { cp, readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { runCommand } from '#command';
import type { EngineInspect } from '#caas/engine/engine-answers.ts';

const COPY_TIMEOUT_MS = 600_000;

/** Copies what the container wrote (its upper directory) and its logs. The target must not have been started: its layers are not mounted yet. */
export async function copyFiles(source: EngineInspect, target: EngineInspect): Promise<void> {
  const from = source.GraphDriver?.Data?.['UpperDir'];
  const to = target.GraphDriver?.Data?.['UpperDir'];
  if (from === undefined || to === undefined) throw new Error('an engine does not keep its layers in overlay directories');
  // `cp -a` keeps owners, times, attributes (overlay's opaque marks) and device nodes (its whiteouts).
  await runCommand('cp', ['-a', `${from}/.`, to], { timeoutMs: COPY_TIMEOUT_MS });
  if (source.LogPath === '') return;
  // DATA-ROOT/overlay2/LAYER/diff and DATA-ROOT/containers/ID. An engine names the log of a container only once it was started.
  const targetFolder = join(dirname(dirname(dirname(to))), 'containers', target.Id);
  for (const name of await readdir(dirname(source.LogPath))) {
    if (!name.startsWith(basename(source.LogPath))) continue;
    await cp(join(dirname(source.LogPath), name), join(targetFolder, name.replace(source.Id, target.Id)));
  }
}
