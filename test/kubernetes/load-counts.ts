// What the loads of app.ts have done so far, by their pods' logs: a change is made under them, and none of their requests may fail.

import { until } from "../kit/until.ts";
import { type Cluster, WAIT_MS } from "./cluster.ts";
import type { MeshLogs } from "./mesh-logs.ts";

/** New connections, one that is kept, questions to the DNS, calls of gRPC. */
const KINDS = ["fresh", "kept", "names", "calls"] as const;
/** Requests of each kind that a load has to have made after a change before it is looked at: some two seconds of them. */
const ENOUGH = 60;
/** Of those that failed: the first ones tell most. */
const FAILURES_SHOWN = 8;
/** What the mesh said is shown from so long before the first failure, as a request that was not answered is given up after five seconds. */
const BEFORE_MS = 6_000;
const AFTER_MS = 500;
const LOG_LINES_SHOWN = 36;

type Counts = Readonly<Record<(typeof KINDS)[number], number>> & { readonly failures: readonly string[] };

export class LoadCounts {
  readonly #cluster: Cluster;
  readonly #namespace: string;
  readonly #pods: readonly string[];
  readonly #logs: MeshLogs;

  constructor(cluster: Cluster, namespace: string, pods: readonly string[], logs: MeshLogs) {
    this.#cluster = cluster;
    this.#namespace = namespace;
    this.#pods = pods;
    this.#logs = logs;
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
    const failures = after.flatMap((each, i) => each.failures.slice(before[i]!.failures.length).map((line) => `${this.#pods[i]} ${line}`));
    if (failures.length > 0) throw new Error(this.#explained(failures));
  }

  /** @param failures lines of the loads with the pod before them, as `load-near failed 2000-01-01T00:00:00.000Z fresh ...`. */
  #explained(failures: readonly string[]): string {
    const firstMs = Math.min(...failures.map((line) => Date.parse(line.split(" ")[2] ?? "")));
    const said = this.#logs.between(firstMs - BEFORE_MS, firstMs + AFTER_MS);
    return [
      `${failures.length} requests failed:`, ...failures.slice(0, FAILURES_SHOWN).map((line) => line.slice(0, 200)),
      `what the mesh said before the first of them (the last ${Math.min(said.length, LOG_LINES_SHOWN)} lines of ${said.length}):`, ...said.slice(-LOG_LINES_SHOWN),
    ].join("\n");
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
