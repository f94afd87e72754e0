// The body of a request on its way to a server: what the server does not take is held and the client told to wait; what an attempt has
// sent is kept while it is small, for the attempt after it. Before there is a server all of it waits.

import type { HeaderList } from "../../wire/http/header-list.ts";
import type { HeldCount } from "../channel/held-count.ts";
import type { BodySink, BodySource } from "../channel/streams.ts";

/** Of a body, kept for another attempt. Larger ones are sent once; Envoy's default is 1 MiB for each connection. */
export const REPLAY_BYTES_MAX = 64 * 1024;

const NO_TRAILERS: HeaderList = [];
const NO_SOURCE: BodySource = { pause: () => {}, resume: () => {}, consumed: () => {} };

export class RequestBody {
  receivedBytes = 0;
  readonly #source: BodySource;
  /** Null when the bytes are counted elsewhere. */
  readonly #held: HeldCount | null;
  /** Told to it. */
  #heldBytes = 0;
  #sink: BodySink | null = null;
  #queue: Uint8Array[] = [];
  /** Everything so far; null when it is not kept, or no longer. */
  #replay: Uint8Array[] | null = [];
  #paused = false;
  #ended = false;
  #trailers: HeaderList = NO_TRAILERS;
  /** Told to the present sink. */
  #endSent = false;
  /** Of the present attempt. */
  #sentBytes = 0;
  /** Told to the source. */
  #consumedBytes = 0;
  /** Bytes that are read on although nobody takes them yet. */
  #wantedBytes = 0;
  #gathered: (() => void) | null = null;

  constructor(source: BodySource, held: HeldCount | null) {
    this.#source = source;
    this.#held = held;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Once it has ended. */
  get trailers(): HeaderList {
    return this.#trailers;
  }

  /** Another attempt could send all of it again. */
  get replayable(): boolean {
    return this.#replay !== null || this.#sentBytes === 0;
  }

  /** All of the body, for an attempt beside the present one; null while it is not all here, or no longer kept. */
  duplicate(): RequestBody | null {
    if (!this.#ended || this.#replay === null) return null;
    const copy = new RequestBody(NO_SOURCE, null);
    copy.#queue = [...this.#replay];
    copy.#replay = null;
    copy.#ended = true;
    copy.#trailers = this.#trailers;
    return copy;
  }

  /**
   * Before any attempt: reads on until there is more than `bytes` of the body, or all of it. What was gathered stays held, however large,
   * and goes out first.
   * @param done once it is there; at once when it is already.
   */
  gather(bytes: number, done: () => void): void {
    this.#wantedBytes = bytes;
    if (this.#isGathered) return done();
    this.#gathered = done;
    this.#giveCredit();
    if (!this.#paused) return;
    this.#paused = false;
    this.#source.resume();
  }

  /** What was received and not sent yet, at most `bytes` of it, and whether that is all there will be. */
  peek(bytes: number): { readonly bytes: Uint8Array; readonly isWhole: boolean } {
    const all = this.#queue.length === 1 ? this.#queue[0]! : Buffer.concat(this.#queue);
    return { bytes: new Uint8Array(all.subarray(0, bytes)), isWhole: this.#ended && all.length <= bytes };
  }

  get #isGathered(): boolean {
    return this.#ended || this.receivedBytes > this.#wantedBytes;
  }

  receive(bytes: Uint8Array): void {
    this.#take(bytes);
    this.#recount();
  }

  #take(bytes: Uint8Array): void {
    this.receivedBytes += bytes.length;
    let copy: Uint8Array | null = null;
    if (this.#replay !== null) {
      if (this.receivedBytes > REPLAY_BYTES_MAX) this.#replay = null;
      else this.#replay.push((copy = new Uint8Array(bytes)));
    }
    if (this.#sink !== null && this.#queue.length === 0) {
      const taken = this.#sink.send(bytes);
      this.#sent(taken);
      if (taken === bytes.length) return;
      // Nobody else keeps these bytes: a view of the copy does, where there is one.
      this.#queue.push(copy === null ? new Uint8Array(bytes.subarray(taken)) : copy.subarray(taken));
    } else {
      this.#queue.push(copy ?? new Uint8Array(bytes));
    }
    if (this.#gathered !== null) {
      if (!this.#isGathered) return this.#giveCredit();
      this.#tellGathered();
    }
    // Whoever was told may have sent everything on.
    if (this.#paused || (this.#sink !== null && this.#queue.length === 0)) return;
    this.#paused = true;
    this.#source.pause();
  }

  receiveEnd(trailers: HeaderList): void {
    this.#ended = true;
    this.#trailers = trailers;
    this.#tellGathered();
    this.flush();
  }

  /** An attempt begins: all of the body so far goes to `sink`, and what follows. */
  attach(sink: BodySink): void {
    if (this.#sentBytes > 0) {
      if (this.#replay === null) throw new Error("a body that is gone was asked for again");
      this.#queue = [...this.#replay];
    }
    this.#sentBytes = 0;
    this.#endSent = false;
    this.#sink = sink;
    this.flush();
  }

  /** The attempt is over. */
  detach(): void {
    this.#sink = null;
  }

  /** There will be no further attempt. */
  forget(): void {
    this.#replay = null;
    this.#recount();
  }

  /** The sink may take more. */
  flush(): void {
    const sink = this.#sink;
    if (sink === null) return;
    this.#sendOn(sink);
    this.#recount();
  }

  #sendOn(sink: BodySink): void {
    const queue = this.#queue;
    let done = 0;
    while (done < queue.length) {
      const chunk = queue[done]!;
      const taken = sink.send(chunk);
      this.#sent(taken);
      if (taken < chunk.length) {
        queue[done] = chunk.subarray(taken);
        break;
      }
      done++;
    }
    if (done > 0) queue.splice(0, done);
    if (queue.length > 0) return;
    if (this.#ended) {
      if (this.#endSent) return;
      this.#endSent = true;
      sink.end(this.#trailers);
    } else if (this.#paused) {
      this.#paused = false;
      this.#source.resume();
    }
  }

  #recount(): void {
    if (this.#held === null) return;
    const bytes = this.#replay === null ? this.receivedBytes - this.#sentBytes : this.receivedBytes;
    this.#held.add(bytes - this.#heldBytes);
    this.#heldBytes = bytes;
  }

  #tellGathered(): void {
    const done = this.#gathered;
    this.#gathered = null;
    done?.();
  }

  /** What is gathered needs no room in the source's window: it is bounded here. */
  #giveCredit(): void {
    const more = Math.min(this.receivedBytes, this.#wantedBytes + 1) - this.#consumedBytes;
    if (more <= 0) return;
    this.#consumedBytes += more;
    this.#source.consumed(more);
  }

  #sent(bytes: number): void {
    this.#sentBytes += bytes;
    if (this.#sentBytes <= this.#consumedBytes) return;
    const more = this.#sentBytes - this.#consumedBytes;
    this.#consumedBytes = this.#sentBytes;
    this.#source.consumed(more);
  }
}
