const INTERVAL_MS = 1_000;

/** A line that says how far a program is: replaced on a terminal, otherwise a new line at most every second. */
export class Progress {
  #shownAt = performance.now();

  show(text: string): void {
    if (process.stdout.isTTY) {
      process.stdout.write(`\r\x1b[K${text}`);
    } else if (performance.now() - this.#shownAt >= INTERVAL_MS) {
      this.#shownAt = performance.now();
      console.log(text);
    }
  }

  /** Removes the line from a terminal. */
  end(): void {
    if (process.stdout.isTTY) process.stdout.write('\r\x1b[K');
  }
}
