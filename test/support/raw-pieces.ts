/** Where bytes are split that are to come in many reads. */

/** At most so many that a row stays quick. */
const PIECES_MAX = 9;

/** Cut between CR and LF, behind line ends and colons, and in the midst where there is none of them. */
export function piecesOf(text: string): string[] {
  const places: number[] = [];
  for (let index = 1; index < text.length; index += 1) {
    const previous = text[index - 1] ?? '';
    if ('\r\n:;'.includes(previous)) places.push(index);
  }
  if (places.length === 0) places.push(1, Math.ceil(text.length / 2));
  const stride = Math.max(1, places.length / (PIECES_MAX - 1));
  const chosen = new Set<number>();
  for (let at = 0; at < places.length; at += stride) chosen.add(places[Math.floor(at)] ?? 0);
  const cuts = [0, ...chosen, text.length];
  return cuts.slice(1).map((cut, index) => text.slice(cuts[index], cut));
}
