/**
 * Which images a build makes, as its output tells: not the ones that its stages begin with, and none that were there. Those of others would
 * go with them when a failed build is cleared away.
 */
const STEP = /^Step \d+\/\d+ : \s*([A-Za-z]+)/;
const IMAGE = /^ ---> ([0-9a-f]{12})\n?$/;

export class StepImages {
  readonly made: string[] = [];
  #isNew = false;

  /** One piece of the output, as the engine wrote it. */
  read(text: string): void {
    const keyword = STEP.exec(text)?.[1];
    if (keyword !== undefined) this.#isNew = keyword.toLowerCase() !== 'from';
    else if (text.startsWith('# Executing ')) this.#isNew = true; // Triggers make of the base something new.
    else if (text === ' ---> Using cache\n') this.#isNew = false;
    const image = IMAGE.exec(text)?.[1];
    if (image !== undefined && this.#isNew) this.made.push(image);
  }
}
