/** Smaller inputs with the same fault: what is left of a finding when nothing more can be taken away. */
import type { Input } from './input.ts';

const TRIES_MAX = 4000;
const PARTS_FIRST = 2;

/** Takes parts away, halves first and single octets last, as long as `fails` holds. */
export async function shrink(input: Input, fails: (smaller: Input) => Promise<boolean>): Promise<Input> {
  let { text } = input;
  let tries = 0;
  for (let size = Math.ceil(text.length / PARTS_FIRST); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    let at = 0;
    while (at < text.length && tries < TRIES_MAX) {
      const smaller = text.slice(0, at) + text.slice(at + size);
      tries += 1;
      // oxlint-disable-next-line no-await-in-loop -- each try begins where the one before it ended
      if (await fails({ ...input, text: smaller })) text = smaller;
      else at += size;
    }
  }
  return { ...input, text };
}
