// What was measured: figures per row, peer and round, and every run that gave none.

export interface FailedRun {
  readonly peer: string;
  readonly round: number;
  readonly probe: string;
  readonly why: string;
}

export class Record {
  readonly failedRuns: FailedRun[] = [];
  /** `row/peer` to round to figure. */
  readonly #figures = new Map<string, Map<number, number>>();
  #runs = 0;

  get runs(): number {
    return this.#runs;
  }

  add(peer: string, round: number, figures: Readonly<{ [row: string]: number }>): void {
    this.#runs += 1;
    for (const [row, figure] of Object.entries(figures)) {
      const key = `${row}/${peer}`;
      const rounds = this.#figures.get(key) ?? new Map<number, number>();
      rounds.set(round, figure);
      this.#figures.set(key, rounds);
    }
  }

  fail(failed: FailedRun): void {
    this.#runs += 1;
    this.failedRuns.push(failed);
  }

  /** Round to figure. */
  of(row: string, peer: string): ReadonlyMap<number, number> {
    return this.#figures.get(`${row}/${peer}`) ?? new Map();
  }
}
