// Tells the demo's story on a terminal: a title, a step at a time, a table at the end.

const WIDTH = 100;

/** How long something took, and the time within which the mesh promises it. */
export interface Timing {
  readonly tookMs: number;
  readonly promisedMs: number;
}

/** What a step saw, and the promises about time that it tried. */
export interface Seen {
  readonly text: string;
  readonly timings: readonly Timing[];
}

interface StepRecord {
  readonly name: string;
  readonly seen: Seen | null;
  readonly tookMs: number;
}

export class Narrator {
  readonly #steps: StepRecord[] = [];
  #told = false;
  readonly #colour = process.stdout.isTTY === true;

  title(title: string, subtitle: string): void {
    console.log(`\n${this.#bold(title)}\n${subtitle}\n`);
  }

  /** Runs one step and tells what it saw; a failure is recorded and thrown on. After the summary a step never ends: the story is over. */
  async step(name: string, run: () => Promise<string | Seen>): Promise<void> {
    console.log(this.#bold(`${this.#steps.length + 1}. ${name}`));
    const since = performance.now();
    try {
      const told = await run();
      if (this.#told) return await new Promise(() => {});
      const seen = typeof told === "string" ? { text: told, timings: [] } : told;
      this.#steps.push({ name, seen, tookMs: performance.now() - since });
      const [first] = seen.timings;
      console.log(`${wrap(first === undefined ? seen.text : `${seen.text}\n(promised: within ${first.promisedMs} ms)`)}\n`);
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
    this.#told = true;
    const nameWidth = Math.max(...this.#steps.map(({ name }) => name.length), 4);
    const results = this.#steps.map(({ seen }) => resultOf(seen));
    const resultWidth = Math.max(...results.map((result) => result.length), 6);
    console.log(this.#bold(`${"step".padEnd(nameWidth)}  ${"result".padEnd(resultWidth)}    time`));
    for (const [i, { name, tookMs }] of this.#steps.entries()) {
      console.log(`${name.padEnd(nameWidth)}  ${(results[i] ?? "").padEnd(resultWidth)}  ${`${(tookMs / 1000).toFixed(1)} s`.padStart(6)}`);
    }
  }

  #bold(text: string): string {
    return this.#colour ? `\x1b[1m${text}\x1b[0m` : text;
  }
}

function resultOf(seen: Seen | null): string {
  if (seen === null) return "FAILED";
  const [first] = seen.timings;
  if (first === undefined) return "as expected";
  const slow = seen.timings.find(({ tookMs, promisedMs }) => tookMs > promisedMs);
  return slow === undefined ? `as promised (within ${first.promisedMs} ms)` : `slower than promised (${slow.promisedMs} ms)`;
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
