// The cluster as one changing state: every watch feeds one ClusterSet, and what has come together for a moment is evaluated as one.
//
// An evaluation is done a slice at a time, and handed on when it is whole. Nothing is handed on before every list is complete: half of the policies would open what the other half closes.

import type { Clock, Random } from "../../core/ports.ts";
import { inTurns, type Steps } from "../../core/steps.ts";
import type { Timers } from "../../net/timers.ts";
import { type ClusterEvaluation, type ClusterKind, ClusterSet } from "../../resources/cluster/cluster-set.ts";
import { headOf } from "../../resources/object-head.ts";
import type { TranslationOptions } from "../../resources/resource.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { Api } from "../../runtime/kubernetes/api.ts";
import { ListWatch, type ListWatchCounters } from "../../runtime/kubernetes/list-watch.ts";
import { ReferencedObjects } from "./referenced-objects.ts";
import { WATCHED_RESOURCES } from "./watched-kinds.ts";

/** Changes that come this close together are one: a rollout is many, and a push costs every agent something. */
const SETTLE_MS = 20;
/** Between two evaluations, at least this long and twice what the last one took: the thread has a CA to run too. */
const INTERVAL_MS_MIN = 50;
const INTERVAL_PER_EVALUATION = 2;

/** Of an evaluation, without a pause: xDS, the CA, probes and the Lease have their turns in between. */
const SLICE_MS = 10;

/** After a namespace that was too full has room again; one that is emptied says so many times. */
const AGAIN_MS = 30_000;

export interface ObjectEvent {
  readonly kind: ClusterKind;
  readonly namespace: string;
  readonly name: string;
  /** Null for one that is gone. */
  readonly object: Readonly<Record<string, unknown>> | null;
}

export interface ClusterSourceParts {
  readonly api: Api;
  readonly clock: Clock;
  readonly random: Random;
  readonly timers: Timers;
  readonly log: Logger;
  readonly options: TranslationOptions;
  /** Namespaces to watch where more is not allowed; empty for all. */
  readonly namespaces: readonly string[];
  readonly onEvaluated: (evaluation: ClusterEvaluation, timing: EvaluationTiming) => void;
  /** Every object as it comes, before it is evaluated. */
  readonly onObject: (event: ObjectEvent) => void;
  /** What of the cluster cannot be followed now, in words; null when everything is heard of again. */
  readonly onTrouble?: (trouble: string | null) => void;
}

export interface EvaluationTiming {
  /** Monotonic: when the first of the changes arrived. */
  readonly sinceMs: number;
  readonly evaluationMs: number;
  readonly changes: number;
}

export class ClusterSource {
  readonly set: ClusterSet;
  readonly #parts: ClusterSourceParts;
  readonly #watches: ListWatch[] = [];
  readonly #referenced: ReferencedObjects;
  readonly #unsynced = new Set<string>();
  /** By what is watched. */
  readonly #troubles = new Map<string, string>();
  #cancel: (() => void) | null = null;
  #cancelAgain: (() => void) | null = null;
  #sinceMs = 0;
  #changes = 0;
  #lastEndMs = 0;
  #intervalMs = INTERVAL_MS_MIN;
  #evaluating = false;
  readonly #ending = new AbortController();

  constructor(parts: ClusterSourceParts) {
    this.#parts = parts;
    this.set = new ClusterSet(parts.options);
    this.#referenced = new ReferencedObjects({
      api: parts.api, timers: parts.timers, log: parts.log,
      upsert: ({ kind }, object) => {
        this.set.upsert(kind, object);
        this.#changed();
      },
      remove: ({ kind, namespace, name }) => {
        this.set.remove(kind, namespace, name);
        this.#changed();
      },
      settled: () => this.#changed(),
    });
  }

  /** What is not listed yet, in words; empty when all is. */
  get unsynced(): readonly string[] {
    return [...this.#unsynced];
  }

  /** Lists of which nothing is heard now. */
  get unfollowed(): number {
    return this.#troubles.size;
  }

  get counters(): ListWatchCounters {
    const sum: ListWatchCounters = { lists: 0, gone: 0, failures: 0, drifted: 0 };
    for (const { counters } of this.#watches) {
      sum.lists += counters.lists;
      sum.gone += counters.gone;
      sum.failures += counters.failures;
      sum.drifted += counters.drifted;
    }
    return sum;
  }

  start(): void {
    const { namespaces } = this.#parts;
    const begin: (() => void)[] = [];
    for (const resource of WATCHED_RESOURCES) {
      const { namespaced } = resource.types[0]!;
      if (!namespaced || namespaces.length === 0) {
        // Of all namespaces only those that we may read can be listed one by one, by their names.
        if (resource.kind === "Namespace" && namespaces.length > 0) for (const name of namespaces) begin.push(this.#add(resource, null, `metadata.name=${name}`));
        else begin.push(this.#add(resource, null));
      } else for (const namespace of namespaces) begin.push(this.#add(resource, namespace));
    }
    for (const one of begin) one();
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    this.#cancel?.();
    this.#cancelAgain?.();
    this.#referenced.stop();
    await Promise.all(this.#watches.map((watch) => watch.stop()));
  }

  #add({ kind, types, labelSelector }: (typeof WATCHED_RESOURCES)[number], namespace: string | null, fieldSelector?: string): () => void {
    const name = `${types[0]!.plural}${namespace === null ? "" : ` of ${namespace}`}${fieldSelector === undefined ? "" : ` ${fieldSelector}`}`;
    this.#unsynced.add(name);
    const { api, clock, random, timers, log, onObject } = this.#parts;
    const watch = new ListWatch({ types, namespace, ...(labelSelector === undefined ? {} : { labelSelector }), ...(fieldSelector === undefined ? {} : { fieldSelector }),
      // Who may read some namespaces alone may not read what belongs to none: localities, and the controllers of classes.
      optional: this.#parts.namespaces.length > 0 && !types[0]!.namespaced && kind !== "Namespace" }, {
      api, clock, random, timers, log, onTrouble: (trouble) => this.#troubled(name, trouble),
      sink: {
        upsert: (object) => {
          const taken = this.set.upsert(kind, object);
          // Nothing is run for a Gateway that is not looked at.
          const noticed = taken === "kept" || (taken === "refused" && kind !== "Gateway");
          onObject({ kind, ...headOf(object), object: noticed ? object : null });
          this.#changed();
          return taken === "kept";
        },
        remove: (at, called) => {
          this.set.remove(kind, at, called);
          onObject({ kind, namespace: at, name: called, object: null });
          this.#changed();
          if (this.set.hasRoomAgain(at)) this.#bringAgain();
        },
        synced: () => {
          this.#unsynced.delete(name);
          if (this.#unsynced.size === 0) this.#changed();
        },
      },
    });
    this.#watches.push(watch);
    return () => watch.start();
  }

  #troubled(watched: string, trouble: string): void {
    if (trouble === "") this.#troubles.delete(watched);
    else this.#troubles.set(watched, trouble);
    const [first] = this.#troubles.values();
    this.#parts.onTrouble?.(first === undefined ? null : `${this.#troubles.size} of ${this.#watches.length} lists are not followed, what they said last is in force: ${first}`);
  }

  /** What found no room before is in the next list. */
  #bringAgain(): void {
    this.#cancelAgain ??= this.#parts.timers.after(AGAIN_MS, () => {
      this.#cancelAgain = null;
      for (const watch of this.#watches) watch.relist();
    });
  }

  #changed(): void {
    const nowMs = this.#parts.clock.monotonicMs();
    if (this.#changes++ === 0) this.#sinceMs = nowMs;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#cancel !== null || this.#evaluating || this.#unsynced.size > 0 || this.#ending.signal.aborted) return;
    const nowMs = this.#parts.clock.monotonicMs();
    const dueMs = Math.max(nowMs + SETTLE_MS, this.#lastEndMs + this.#intervalMs);
    this.#cancel = this.#parts.timers.after(dueMs - nowMs, () => {
      this.#cancel = null;
      this.#evaluating = true;
      void this.#evaluate();
    });
  }

  async #evaluate(): Promise<void> {
    const { clock, onEvaluated } = this.#parts;
    const startMs = clock.monotonicMs();
    // What names a secret for the first time waits for it: a moment later it would be told again.
    const named = await this.#inTurns(this.set.referenceSteps());
    if (named === null) return;
    this.#referenced.want(named.made);
    if (this.#referenced.waiting) return this.#ended(startMs, false);
    const timing = { sinceMs: this.#sinceMs, changes: this.#changes };
    this.#changes = 0;
    const evaluated = await this.#inTurns(this.set.evaluationSteps());
    if (evaluated === null) return;
    const evaluationMs = clock.monotonicMs() - startMs;
    onEvaluated(evaluated.made, { ...timing, evaluationMs });
    // A service that has come may be what a resource waited for that names a secret.
    const namedNow = await this.#inTurns(this.set.referenceSteps());
    if (namedNow === null) return;
    this.#referenced.want(namedNow.made);
    this.#ended(startMs, this.#changes > 0);
  }

  #inTurns<T>(steps: Steps<T>): Promise<{ readonly made: T } | null> {
    return inTurns(steps, SLICE_MS, { nowMs: () => this.#parts.clock.monotonicMs(), turn: () => new Promise((resolve) => setImmediate(resolve)) }, this.#ending.signal);
  }

  #ended(startMs: number, again: boolean): void {
    this.#evaluating = false;
    this.#lastEndMs = this.#parts.clock.monotonicMs();
    this.#intervalMs = Math.max(INTERVAL_MS_MIN, INTERVAL_PER_EVALUATION * (this.#lastEndMs - startMs));
    if (again) this.#schedule();
  }
}
