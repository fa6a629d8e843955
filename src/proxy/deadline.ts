/** The one timer of an exchange: each phase arms it anew, progress pushes it on. */
export class Deadline {
  #timer: NodeJS.Timeout | undefined;

  arm(ms: number, over: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(over, ms);
  }

  /** Something moved: the current phase gets its whole time again. */
  progress(): void {
    this.#timer?.refresh();
  }

  disarm(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
