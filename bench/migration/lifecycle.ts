/** Commands of Écluse that a version may not have yet: asked for once, and then either used or told to be absent. */
import type { Scene } from './scene.ts';

export type LifecycleCommand = 'suspend' | 'wake' | 'snapshot' | 'clone';

/** Undefined where the command exists; else what it says. */
export async function absenceOf(scene: Scene, command: LifecycleCommand): Promise<string | undefined> {
  const { exitCode, stderr } = await scene.ecluse('help', command);
  return exitCode === 0 ? undefined : stderr.trim();
}

/** `ecluse ARGS`; throws where it fails. */
export async function mustEcluse(scene: Scene, ...args: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await scene.ecluse(...args);
  if (exitCode !== 0) throw new Error(`ecluse ${args.join(' ')}: ${stderr.trim()}`);
  return stdout;
}
