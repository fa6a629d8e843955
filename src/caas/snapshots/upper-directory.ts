/** Where an engine keeps what a container wrote. */
import type { EngineInspect } from '#caas/engine/engine-answers.ts';

export function upperOf({ GraphDriver }: EngineInspect): string {
  const upper = GraphDriver?.Data?.['UpperDir'];
  if (upper === undefined) throw new Error('an engine does not keep its layers in overlay directories');
  return upper;
}
