// How many requests a service can take at once, found out by its latency: while answers are as quick as without load the limit grows,
// when they queue it falls to where the queue is short. Past the limit requests are shed, the lowest class first.

import type { AdaptiveConcurrency } from "../../mesh/l7/traffic-policy.ts";
import {
  CONCURRENCY_BACKOFF, CONCURRENCY_BASE_WINDOWS, CONCURRENCY_INITIAL, CONCURRENCY_SMOOTHING, CONCURRENCY_TOLERANCE, CONCURRENCY_WINDOW_MAX_MS,
  CONCURRENCY_WINDOW_MIN_MS, CONCURRENCY_WINDOW_SAMPLES, LOWEST_PRIORITY_SHARE,
} from "./defaults.ts";

/** Least share of the limit that a window may leave of it, however slow the answers. */
const GRADIENT_MIN = 0.5;
/** The limit grows only while this share of it is in use: an idle service proves nothing. */
const IN_USE_SHARE = 0.75;

export interface ShedRefusal {
  /** Requests that may be under way at once for this class. */
  readonly limit: number;
  readonly inFlight: number;
  readonly priority: string | null;
}

/** `timedOut`: it took so long that it was cut. `ignored`: says nothing (refused elsewhere, injected, abandoned). */
export type AdmissionEnd = "answered" | "timedOut" | "ignored";

/** The limit of one service, port and subset. */
export class AdaptiveLimit {
  readonly #settings: AdaptiveConcurrency;
  /** Share of the limit that class i may use. */
  readonly #shares: readonly number[];
  #limit: number;
  #inFlight = 0;
  /** Latency without load; 0 until the first window. */
  #baseMs = 0;
  /** Measuring the base: half the limit, first until the rest has drained. */
  #phase: "normal" | "draining" | "measuring" = "normal";
  #windowsToBase = CONCURRENCY_BASE_WINDOWS;
  #windowStartMs = -Infinity;
  #samples = 0;
  #sumMs = 0;
  #timedOut = 0;
  #inFlightMax = 0;

  constructor(settings: AdaptiveConcurrency) {
    this.#settings = settings;
    const classes = Math.max(1, settings.priorities.length);
    this.#shares = Array.from({ length: classes }, (_, i) => (classes === 1 ? 1 : 1 - ((1 - LOWEST_PRIORITY_SHARE) * i) / (classes - 1)));
    this.#limit = clamp(CONCURRENCY_INITIAL, settings.limitMin, settings.limitMax);
  }

  get limit(): number {
    return Math.floor(this.#limit);
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** Class of a request by the value of the priority header; what is unknown or missing is of the lowest. 0 is the highest. */
  classOf(value: string | null): number {
    const { priorities } = this.#settings;
    if (priorities.length === 0) return 0;
    const index = value === null ? -1 : priorities.indexOf(value);
    return index < 0 ? priorities.length - 1 : index;
  }

  /** For Admission only. Null when the request may go on. */
  enter(priorityClass: number): ShedRefusal | null {
    const allowed = Math.max(1, Math.floor(this.#effectiveLimit() * this.#shares[priorityClass]!));
    if (this.#inFlight >= allowed) return { limit: allowed, inFlight: this.#inFlight, priority: this.#settings.priorities[priorityClass] ?? null };
    this.#inFlight++;
    if (this.#inFlight > this.#inFlightMax) this.#inFlightMax = this.#inFlight;
    return null;
  }

  leave(end: AdmissionEnd, latencyMs: number, nowMs: number): void {
    this.#inFlight--;
    if (end === "ignored") return;
    if (this.#phase === "draining") {
      if (this.#inFlight < this.#effectiveLimit()) this.#startWindow("measuring", nowMs);
      return;
    }
    if (this.#windowStartMs === -Infinity) this.#startWindow("normal", nowMs);
    this.#samples++;
    this.#sumMs += latencyMs;
    if (end === "timedOut") this.#timedOut++;
    const ageMs = nowMs - this.#windowStartMs;
    if (ageMs >= CONCURRENCY_WINDOW_MAX_MS || (ageMs >= CONCURRENCY_WINDOW_MIN_MS && this.#samples >= CONCURRENCY_WINDOW_SAMPLES)) this.#endWindow(nowMs);
  }

  #effectiveLimit(): number {
    return this.#phase === "normal" ? this.#limit : Math.max(this.#settings.limitMin, this.#limit / 2);
  }

  #endWindow(nowMs: number): void {
    const meanMs = this.#sumMs / this.#samples;
    if (this.#phase === "measuring") {
      this.#baseMs = meanMs;
      this.#windowsToBase = CONCURRENCY_BASE_WINDOWS;
      this.#startWindow("normal", nowMs);
      return;
    }
    this.#baseMs = this.#baseMs === 0 ? meanMs : Math.min(this.#baseMs, meanMs);
    this.#limit = clamp(this.#nextLimit(meanMs), this.#settings.limitMin, this.#settings.limitMax);
    const measureBase = --this.#windowsToBase <= 0;
    this.#startWindow(measureBase ? "draining" : "normal", nowMs);
  }

  #nextLimit(meanMs: number): number {
    const limit = this.#limit;
    if (this.#timedOut > 0) return limit * CONCURRENCY_BACKOFF;
    const gradient = clamp((CONCURRENCY_TOLERANCE * this.#baseMs) / meanMs, GRADIENT_MIN, 1);
    // Room for a short queue: its root lets small limits grow fast and large ones keep still.
    const target = limit * gradient + Math.sqrt(limit);
    if (target <= limit) return target;
    return this.#inFlightMax >= limit * IN_USE_SHARE ? limit + (target - limit) * CONCURRENCY_SMOOTHING : limit;
  }

  #startWindow(phase: "normal" | "draining" | "measuring", nowMs: number): void {
    this.#phase = phase;
    this.#windowStartMs = nowMs;
    this.#samples = this.#sumMs = this.#timedOut = 0;
    this.#inFlightMax = this.#inFlight;
  }
}

/** The place of one request; may be used again after it has ended. */
export class Admission {
  #limit: AdaptiveLimit | null = null;
  #startedMs = 0;

  /** Null when the request may go on. Throws when it already has a place: a broken caller. */
  enter(limit: AdaptiveLimit, priorityClass: number, nowMs: number): ShedRefusal | null {
    if (this.#limit !== null) throw new Error("one request was admitted twice");
    const refusal = limit.enter(priorityClass);
    if (refusal !== null) return refusal;
    this.#limit = limit;
    this.#startedMs = nowMs;
    return null;
  }

  /** Gives the place back; only the first call counts. */
  leave(end: AdmissionEnd, nowMs: number): void {
    const limit = this.#limit;
    if (limit === null) return;
    this.#limit = null;
    limit.leave(end, nowMs - this.#startedMs, nowMs);
  }
}

/** e.g. `32 requests under way, which is what the service takes at present (for priority "batch")`. */
export function explainShed({ limit, priority }: ShedRefusal): string {
  return `${limit} requests under way, which is what the service takes at present${priority === null ? "" : ` (for priority ${JSON.stringify(priority)})`}`;
}

function clamp(value: number, min: number, max: number): number {
  return value < min ? min : value > max ? max : value;
}
