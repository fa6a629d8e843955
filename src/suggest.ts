/** "Did you mean": the word that was probably meant, for commands, flags and configuration keys. Pure. */

/** Edits (insert, delete, replace, swap of neighbours) from one word to the other. */
function editDistance(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let row = 1; row <= from.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= to.length; column += 1) {
      const isSame = from[row - 1] === to[column - 1];
      const replaced = (last[column - 1] ?? 0) + (isSame ? 0 : 1);
      const edited = Math.min((last[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1, replaced);
      const isSwap = row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      current.push(isSwap ? Math.min(edited, (beforeLast[column - 2] ?? 0) + 1) : edited);
    }
    beforeLast = last;
    last = current;
  }
  return last[to.length] ?? 0;
}

/** The longest word that is compared: a wrong one may be anything that was pasted into a terminal. */
const WORD_LENGTH_MAX = 64;

/** The nearest of `candidates`, or undefined where none is near enough to be what was meant. */
export function nearestWord(word: string, candidates: readonly string[]): string | undefined {
  if (word === '' || word.length > WORD_LENGTH_MAX) return undefined;
  const lower = word.toLowerCase();
  const ranked = candidates
    .map((candidate) => ({ candidate, distance: editDistance(lower, candidate.toLowerCase()) }))
    .toSorted((one, other) => one.distance - other.distance);
  const [best] = ranked;
  if (best !== undefined && best.distance <= Math.max(1, Math.floor(best.candidate.length / 3))) return best.candidate;
  // A beginning (`cont` for `containers`) or a plural is further away than a typo, and as clear where it is the only one.
  const related = candidates.filter((candidate) => candidate.startsWith(lower) || lower.startsWith(candidate));
  return related.length === 1 && lower.length >= 3 ? related[0] : undefined;
}
