// The logs of the mesh's own pods, followed from a pod's first line to its last: a pod that is replaced takes its log with it, and what it
// said when a request failed is what a failed test has to show. Whoever failed at a time asks for what was said around it.

import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { LOG_FOLDER_VARIABLE } from "../kit/log-path.ts";
import type { Cluster, PodNow } from "./cluster.ts";

/** New pods are looked for this often. */
const LOOK_MS = 500;
/** Some minutes of every pod's lines under load, of which the oldest go first. */
const LINES_MAX = 50_000;
const LINE_CHARS_MAX = 500;

interface Line {
  readonly atMs: number;
  readonly pod: string;
  readonly text: string;
}

export class MeshLogs implements AsyncDisposable {
  readonly #cluster: Cluster;
  readonly #namespace: string;
  readonly #followed = new Set<string>();
  readonly #end = new AbortController();
  #lines: Line[] = [];
  readonly #looking: Promise<void>;

  constructor(cluster: Cluster, namespace: string) {
    this.#cluster = cluster;
    this.#namespace = namespace;
    this.#looking = this.#look();
  }

  /** What was said in that time and is not the record of a connection that ended well, in order, each line with its pod. */
  between(fromMs: number, toMs: number): readonly string[] {
    return this.#lines.filter(({ atMs, text }) => atMs >= fromMs && atMs <= toMs && !/\taccess\t.* close=clean\b/.test(text)).sort((a, b) => a.atMs - b.atMs)
      .map(({ pod, text }) => `${pod} ${text}`.slice(0, LINE_CHARS_MAX));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort();
    await this.#looking;
  }

  async #look(): Promise<void> {
    while (!this.#end.signal.aborted) {
      // While there is no mesh, or no answer, there is nothing to follow.
      for (const pod of await this.#cluster.pods(this.#namespace).catch(() => [])) if (!this.#followed.has(pod.metadata.uid)) this.#follow(pod);
      await Bun.sleep(LOOK_MS);
    }
  }

  /** A log that is cut off is followed again from where it was; one whose pod has gone, or has not begun, has no more lines. */
  #follow({ metadata: { name, uid } }: PodNow): void {
    this.#followed.add(uid);
    const lastMs = this.#lines.findLast((line) => line.pod === name)?.atMs ?? 0;
    void this.#cluster.followLog(this.#namespace, name, lastMs, this.#end.signal, (text) => this.#keep(name, lastMs, text)).catch(() => {}).finally(() => this.#followed.delete(uid));
  }

  #keep(pod: string, lastMs: number, text: string): void {
    const atMs = Date.parse(text.slice(0, text.search(/\s/)));
    if (Number.isNaN(atMs) || atMs <= lastMs) return;
    this.#lines.push({ atMs, pod, text });
    if (this.#lines.length > 2 * LINES_MAX) this.#lines = this.#lines.slice(-LINES_MAX);
    const folder = process.env[LOG_FOLDER_VARIABLE];
    if (folder !== undefined) appendFileSync(join(folder, `${pod}.log`), `${text}\n`);
  }
}
