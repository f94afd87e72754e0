// The body of a response on its way to the client: what the client does not take is held and the server told to wait; a fault may hold
// it to so many bytes a second.

import { giveBackWhole } from "../../core/spent-bytes.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import type { HeldCount } from "../channel/held-count.ts";
import type { BodySink, BodySource } from "../channel/streams.ts";

const NO_TRAILERS: HeaderList = [];
/** With a limit: how often bytes are let through. */
const PACE_MS = 20;

export class ResponseBody {
  sentBytes = 0;
  readonly #sink: BodySink;
  /** Null for an answer of our own. */
  readonly #source: BodySource | null;
  readonly #bytesPerSecond: number | null;
  readonly #held: HeldCount;
  #queue: Uint8Array[] | null = null;
  #paused = false;
  #ended = false;
  #endSent = false;
  #trailers: HeaderList = NO_TRAILERS;
  #allowance = 0;
  #paceMs = 0;

  /** @param bytesPerSecond null for no limit. */
  constructor(sink: BodySink, source: BodySource | null, bytesPerSecond: number | null, held: HeldCount, nowMs: number) {
    this.#held = held;
    this.#sink = sink;
    this.#source = source;
    this.#bytesPerSecond = bytesPerSecond;
    this.#paceMs = nowMs;
  }

  /** The whole went to the client's connection. */
  get finished(): boolean {
    return this.#endSent;
  }

  /** When to call `flush` because of the limit; Infinity when it does not hold anything back. */
  get paceDueMs(): number {
    return this.#bytesPerSecond === null || this.#queue === null ? Infinity : this.#paceMs + PACE_MS;
  }

  receive(bytes: Uint8Array): void {
    let from = 0;
    if (this.#queue === null && this.#bytesPerSecond === null) {
      from = this.#sink.send(bytes);
      this.#sent(from);
      if (from === bytes.length) return;
    }
    (this.#queue ??= []).push(new Uint8Array(bytes.subarray(from)));
    this.#held.add(bytes.length - from);
    if (this.#paused) return;
    this.#paused = true;
    this.#source?.pause();
  }

  receiveEnd(trailers: HeaderList, nowMs: number): void {
    this.#ended = true;
    this.#trailers = trailers;
    this.flush(nowMs);
  }

  flush(nowMs: number): void {
    const queue = this.#queue;
    if (queue !== null) {
      if (this.#bytesPerSecond !== null) this.#earn(nowMs);
      let done = 0;
      while (done < queue.length) {
        const chunk = queue[done]!;
        const offered = this.#bytesPerSecond === null ? chunk : chunk.subarray(0, Math.floor(this.#allowance));
        const taken = offered.length === 0 ? 0 : this.#sink.send(offered);
        this.#sent(taken);
        this.#held.add(-taken);
        this.#allowance -= taken;
        if (taken < chunk.length) {
          queue[done] = chunk.subarray(taken);
          break;
        }
        giveBackWhole(chunk);
        done++;
      }
      if (done > 0) queue.splice(0, done);
      if (queue.length > 0) return;
      this.#queue = null;
    }
    if (this.#ended) {
      if (this.#endSent) return;
      this.#endSent = true;
      this.#sink.end(this.#trailers);
    } else if (this.#paused) {
      this.#paused = false;
      this.#source?.resume();
    }
  }

  #earn(nowMs: number): void {
    const perSecond = this.#bytesPerSecond!;
    this.#allowance = Math.min(perSecond, this.#allowance + (perSecond * (nowMs - this.#paceMs)) / 1000);
    this.#paceMs = nowMs;
  }

  #sent(bytes: number): void {
    if (bytes <= 0) return;
    this.sentBytes += bytes;
    this.#source?.consumed(bytes);
  }
}
