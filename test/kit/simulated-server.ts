// A server of known capacity in simulated time: so many requests at once, each for a time drawn at random; the others wait in line.

import type { Random } from "../../src/core/ports.ts";
import type { EventQueue } from "./event-queue.ts";

export interface ServerModel {
  /** Requests that it works on at once. */
  workers: number;
  /** Mean time of work; half of it is fixed, half is exponential. */
  serviceMs: number;
  /** Requests that may wait; more are refused with 503. */
  queueMax: number;
  /** Share of requests answered with an error, 0 to 1. */
  errorRate: number;
  /** Nothing listens. */
  isDown: boolean;
}

export type ServerAnswer = "ok" | "error" | "overloaded" | "refused";

export const CALM_SERVER: ServerModel = { workers: 8, serviceMs: 10, queueMax: 10_000, errorRate: 0, isDown: false };

/** Time after which a connection that nobody answers to is known to have failed. */
const REFUSED_MS = 0.5;

export class SimulatedServer {
  readonly model: ServerModel;
  readonly #events: EventQueue;
  readonly #random: Random;
  #busy = 0;
  readonly #waiting: (() => void)[] = [];
  served = 0;
  received = 0;

  constructor(events: EventQueue, random: Random, model: Partial<ServerModel> = {}) {
    this.#events = events;
    this.#random = random;
    this.model = { ...CALM_SERVER, ...model };
  }

  request(done: (answer: ServerAnswer) => void): void {
    this.received++;
    const { model } = this;
    if (model.isDown) return this.#events.after(REFUSED_MS, () => done("refused"));
    if (this.#busy < model.workers) return this.#work(done);
    if (this.#waiting.length >= model.queueMax) return this.#events.after(REFUSED_MS, () => done("overloaded"));
    this.#waiting.push(() => this.#work(done));
  }

  #work(done: (answer: ServerAnswer) => void): void {
    const { model } = this;
    this.#busy++;
    const ms = model.serviceMs * (0.5 - 0.5 * Math.log(1 - this.#random.next()));
    this.#events.after(ms, () => {
      this.#busy--;
      this.served++;
      if (this.#busy < model.workers) this.#waiting.shift()?.();
      done(this.#random.next() < model.errorRate ? "error" : "ok");
    });
  }
}
