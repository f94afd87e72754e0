// Tells the demo's story on a terminal: a title, a step at a time, a table at the end.

const WIDTH = 100;

interface StepRecord {
  readonly name: string;
  readonly seen: string | null;
  readonly tookMs: number;
}

export class Narrator {
  readonly #steps: StepRecord[] = [];
  readonly #colour = process.stdout.isTTY === true;

  title(title: string, subtitle: string): void {
    console.log(`\n${this.#bold(title)}\n${subtitle}\n`);
  }

  /** Runs one step and tells what it saw; a failure is recorded and thrown on. */
  async step(name: string, run: () => Promise<string>): Promise<void> {
    console.log(this.#bold(`${this.#steps.length + 1}. ${name}`));
    const since = performance.now();
    try {
      const seen = await run();
      this.#steps.push({ name, seen, tookMs: performance.now() - since });
      console.log(`${wrap(seen)}\n`);
    } catch (error) {
      this.#steps.push({ name, seen: null, tookMs: performance.now() - since });
      throw error;
    }
  }

  failed(error: unknown, lastWords: string): void {
    const step = this.#steps.findLast(({ seen }) => seen === null);
    console.log(`\n${this.#bold(step === undefined ? "The demo could not be set up" : `Failed at step ${this.#steps.length}: ${step.name}`)}`);
    console.log(wrap(error instanceof Error ? error.message : String(error)));
    if (step === undefined && error instanceof Error && error.stack !== undefined) console.log(error.stack);
    if (lastWords !== "") console.log(`\nThe agents' last words:\n${lastWords}`);
  }

  summary(): void {
    const nameWidth = Math.max(...this.#steps.map(({ name }) => name.length), 4);
    console.log(this.#bold(`${"step".padEnd(nameWidth)}  result       time`));
    for (const { name, seen, tookMs } of this.#steps) {
      console.log(`${name.padEnd(nameWidth)}  ${(seen === null ? "FAILED" : "as promised").padEnd(11)}  ${`${(tookMs / 1000).toFixed(1)} s`.padStart(6)}`);
    }
  }

  #bold(text: string): string {
    return this.#colour ? `\x1b[1m${text}\x1b[0m` : text;
  }
}

/** Indented, broken between words. */
function wrap(text: string): string {
  const lines: string[] = [];
  for (const paragraph of text.split("\n")) {
    let line = "  ";
    for (const word of paragraph.split(" ")) {
      if (line.length + word.length > WIDTH && line.trim() !== "") {
        lines.push(line.trimEnd());
        line = "  ";
      }
      line += `${word} `;
    }
    lines.push(line.trimEnd());
  }
  return lines.join("\n");
}
