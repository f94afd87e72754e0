// Whether the server still answers while its watches say nothing. What a watch says of itself is too little: bookmarks of a kind that nobody
// changes are two minutes apart. So when nothing at all has come for a while the server is asked something small; one that does not
// answer, twice, is away, and every watch is to begin anew.

export interface PulseTimes {
  /** After nothing came for this long it is asked. */
  readonly quietMs: number;
  /** How long an answer may take: anything small is answered in milliseconds, by a server under load in a few seconds. */
  readonly pulseMs: number;
}
export const PULSE_TIMES: PulseTimes = { quietMs: 20_000, pulseMs: 8_000 };
/** Questions in a row without an answer. */
const UNANSWERED_MAX = 2;

/** Ends a watch. @param why in words, after "the connection broke:". */
export type EndWatch = (why: string) => void;

export class ServerPulse {
  readonly #times: PulseTimes;
  readonly #ask: (signal: AbortSignal) => Promise<void>;
  readonly #watches = new Set<EndWatch>();
  #heardMs = 0;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #asking = false;

  /** @param ask resolves with any answer whatever, and rejects without one. */
  constructor(ask: (signal: AbortSignal) => Promise<void>, times: PulseTimes) {
    this.#ask = ask;
    this.#times = times;
  }

  /** Something came from the server. */
  heard(): void {
    this.#heardMs = performance.now();
  }

  /** @param gone called once the server is away; another one of each watch. @returns lets go of it. */
  add(gone: EndWatch): () => void {
    this.#watches.add(gone);
    this.heard();
    this.#schedule();
    return () => {
      this.#watches.delete(gone);
      if (this.#watches.size > 0 || this.#timer === null) return;
      clearTimeout(this.#timer);
      this.#timer = null;
    };
  }

  #schedule(): void {
    if (this.#timer !== null || this.#asking || this.#watches.size === 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      void this.#look();
    }, Math.max(0, this.#heardMs + this.#times.quietMs - performance.now()));
  }

  async #look(): Promise<void> {
    const { quietMs, pulseMs } = this.#times;
    if (performance.now() - this.#heardMs >= quietMs) {
      this.#asking = true;
      const asked = [...this.#watches];
      const sinceMs = this.#heardMs;
      for (let unanswered = 0; unanswered < UNANSWERED_MAX && this.#heardMs === sinceMs; unanswered++) {
        await this.#ask(AbortSignal.timeout(pulseMs)).then(() => this.heard(), () => {});
      }
      this.#asking = false;
      if (this.#heardMs === sinceMs) {
        const why = `nothing came for ${Math.round((performance.now() - sinceMs) / 1000)} s, and the server does not answer`;
        // From now on they are others, which begin with an answer.
        this.heard();
        for (const gone of asked) if (this.#watches.has(gone)) gone(why);
      }
    }
    this.#schedule();
  }
}
