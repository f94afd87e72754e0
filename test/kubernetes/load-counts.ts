// What the loads of app.ts have done so far, by their pods' logs: a change is made under them, and none of their requests may fail.

import { expect } from "bun:test";
import { until } from "../kit/until.ts";
import { type Cluster, WAIT_MS } from "./cluster.ts";

/** New connections, one that is kept, questions to the DNS, calls of gRPC. */
const KINDS = ["fresh", "kept", "names", "calls"] as const;
/** Requests of each kind that a load has to have made after a change before it is looked at: some two seconds of them. */
const ENOUGH = 60;

type Counts = Readonly<Record<(typeof KINDS)[number], number>> & { readonly failures: readonly string[] };

export class LoadCounts {
  readonly #cluster: Cluster;
  readonly #namespace: string;
  readonly #pods: readonly string[];

  constructor(cluster: Cluster, namespace: string, pods: readonly string[]) {
    this.#cluster = cluster;
    this.#namespace = namespace;
    this.#pods = pods;
  }

  async begun(): Promise<void> {
    await until("the loads have begun", WAIT_MS, async () => (await this.#all()).every((each) => KINDS.every((kind) => each[kind] > 0)));
  }

  /** Runs a change under load: enough requests before it, through it and after it, and none of them failed. */
  async withoutLoss(change: () => Promise<void>): Promise<void> {
    const before = await this.#all();
    await change();
    const middle = await this.#all();
    const after = await until("the loads go on", WAIT_MS, async () => {
      const now = await this.#all();
      return now.every((each, i) => KINDS.every((kind) => each[kind] >= middle[i]![kind] + ENOUGH)) ? now : null;
    });
    expect(after.map(({ failures }, i) => failures.slice(before[i]!.failures.length))).toEqual(this.#pods.map(() => []));
  }

  #all(): Promise<Counts[]> {
    return Promise.all(this.#pods.map(async (pod) => {
      const lines = (await this.#cluster.log(this.#namespace, pod)).split("\n");
      const last = lines.findLast((line) => line.startsWith("done")) ?? "";
      const count = (kind: string): number => Number(new RegExp(`${kind}=(\\d+)`).exec(last)?.[1] ?? 0);
      return { fresh: count("fresh"), kept: count("kept"), names: count("names"), calls: count("calls"), failures: lines.filter((line) => line.startsWith("failed")) };
    }));
  }
}
