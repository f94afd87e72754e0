// All objects of one resource, kept up to date: a list in pages, then a watch from where it ended, for ever. Pure decisions are few and
// the API is handed in, so that a test plays every server there is.
//
//   list (pages) ──▶ watch ──ends──▶ watch from the last version
//     ▲   ▲           │ 410 Gone: what we missed is forgotten there
//     │   └───────────┘
//     └── 404, and the server's list of what it serves says the same: no such resource (its CRD is not installed): nothing, asked again every
//         CRD_LOOK_MS. Objects that are known are kept until it has said so for GONE_BELIEVED_MS
//
// Every COMPARE_MS, or as often as is asked for, the versions of all objects are compared with the API's: a server, a proxy or we may have lost an event.

import { z } from "zod";
import { pause } from "../../core/pause.ts";
import type { Clock, Random } from "../../core/ports.ts";
import type { Result } from "../../core/result.ts";
import type { Timers } from "../../net/timers.ts";
import { metadataText } from "../../resources/object-head.ts";
import type { Logger } from "../logger.ts";
import type { Api, ApiFault } from "./api.ts";
import { apiVersionOf, collectionPath, type ResourceType } from "./api-path.ts";
import { isServed } from "./discovery.ts";

export const PAGE_OBJECTS = 500;
/** Objects of a page that are taken without a pause: some milliseconds, of all lists that are read together. */
const TAKEN_AT_ONCE = 10;
/** How long a server keeps a watch: a little different each time, so that not all end together. */
const WATCH_S_MIN = 300;
const WATCH_S_MAX = 600;
const BACKOFF_MS_MIN = 200;
const BACKOFF_MS_MAX = 30_000;
/** How soon a kind that is installed later is seen. */
export const CRD_LOOK_MS = 10_000;
/**
 * How long a server must say that a kind is gone before its known objects are. Whoever uninstalls a kind deletes its objects first, each with an
 * event: objects that are still known are more likely those of a server that is being replaced, and policies among them would open what they close.
 */
export const GONE_BELIEVED_MS = 5 * 60_000;
export const COMPARE_MS = 10 * 60_000;
/** Of that time: those who began together do not compare together for ever. */
const COMPARE_JITTER = 0.25;
/** An object that is older here than there may be on its way: it gets this long. */
export const COMPARE_GRACE_MS = 30_000;
/** Continuations of one list: 500 million objects are no cluster. */
const PAGES_MAX = 1_000_000;

const METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json;q=0.5";
/** Of one object, its metadata alone. */
export const METADATA_ONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json;q=0.5";

export interface Watched {
  /** Tried in order until the server knows one. */
  readonly types: readonly ResourceType[];
  /** Null for all namespaces. */
  readonly namespace: string | null;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  /** Nothing else of the objects is asked for. */
  readonly metadataOnly?: boolean;
  /** COMPARE_MS unless given. */
  readonly compareMs?: number;
  /** Where it may not be read the rest goes on without it: nothing waits for it. */
  readonly optional?: boolean;
}

export interface ListWatchSink {
  /** False for one that there is no room for: it comes again with the next list, whatever its version. */
  upsert(object: Readonly<Record<string, unknown>>): boolean | void;
  remove(namespace: string, name: string): void;
  /** The first list is done; or the server says that there is no such kind. */
  synced(): void;
}

export interface ListWatchCounters {
  lists: number;
  /** Watches that ended with what we missed forgotten. */
  gone: number;
  failures: number;
  /** Objects that a comparison found to differ. */
  drifted: number;
}

export interface ListWatchParts {
  readonly api: Api;
  readonly clock: Clock;
  readonly random: Random;
  readonly timers: Timers;
  readonly log: Logger;
  readonly sink: ListWatchSink;
  /** Whenever `trouble` is another one. */
  readonly onTrouble?: (trouble: string) => void;
}

/** In the place of a version: no object has it. */
const NOT_KEPT = "not kept";

const metaSchema = z.object({ metadata: z.object({ name: z.string(), namespace: z.string().optional(), resourceVersion: z.string().optional() }) });
const listSchema = z.object({ metadata: z.object({ resourceVersion: z.string().optional(), continue: z.string().optional() }).optional(), items: z.array(z.record(z.string(), z.unknown())).nullish() });
const eventSchema = z.object({ type: z.string(), object: z.record(z.string(), z.unknown()) });

/** What kubectl and controllers put in and nothing here reads. */
function pruned(object: Record<string, unknown>, type: ResourceType): Record<string, unknown> {
  const { metadata } = object;
  if (metadata !== null && typeof metadata === "object") {
    Reflect.deleteProperty(metadata, "managedFields");
    const annotations: unknown = Reflect.get(metadata, "annotations");
    if (annotations !== null && typeof annotations === "object") Reflect.deleteProperty(annotations, "kubectl.kubernetes.io/last-applied-configuration");
  }
  // Items of a list carry neither.
  return { apiVersion: apiVersionOf(type), kind: type.kind, ...object };
}

export class ListWatch {
  readonly counters: ListWatchCounters = { lists: 0, gone: 0, failures: 0, drifted: 0 };
  readonly #watched: Watched;
  readonly #parts: ListWatchParts;
  readonly #stop = new AbortController();
  /** `namespace/name` to resourceVersion. */
  readonly #versions = new Map<string, string>();
  readonly #compareMs: number;
  #type: ResourceType;
  #synced = false;
  /** Null when it must be listed anew. */
  #version: string | null = null;
  #failedInARow = 0;
  /** Monotonic: since when the server says that there is no such kind, of which objects are known. */
  #goneSinceMs: number | null = null;
  #told = "";
  #relist = new AbortController();
  #running: Promise<void> | null = null;

  constructor(watched: Watched, parts: ListWatchParts) {
    const [first] = watched.types;
    if (first === undefined) throw new Error("a watch without a type");
    this.#type = first;
    this.#watched = watched;
    this.#parts = parts;
    this.#compareMs = (watched.compareMs ?? COMPARE_MS) * (1 - COMPARE_JITTER + 2 * COMPARE_JITTER * parts.random.next());
  }

  /** Why nothing is heard now; "" when all is well. */
  get trouble(): string {
    return this.#told;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Lists anew what was not kept, and what changed meanwhile. */
  relist(): void {
    this.#relist.abort();
  }

  /** What it said is kept; nothing more is said. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    let comparedMs = this.#parts.clock.monotonicMs();
    while (!signal.aborted) {
      if (this.#version === null) {
        const listed = await this.#list();
        if (listed !== "done") {
          await this.#pause(listed === "absent" ? CRD_LOOK_MS : this.#backoffMs());
          continue;
        }
        comparedMs = this.#parts.clock.monotonicMs();
      }
      const cancel = this.#parts.timers.after(Math.max(0, comparedMs + this.#compareMs - this.#parts.clock.monotonicMs()), () => void this.#compare());
      await this.#watch();
      cancel();
      if (this.#parts.clock.monotonicMs() - comparedMs >= this.#compareMs) comparedMs = this.#parts.clock.monotonicMs();
    }
  }

  async #list(): Promise<"done" | "absent" | "failed"> {
    for (const type of this.#watched.types) {
      const found = await this.#listType(type);
      if (found === "done") {
        this.#type = type;
        this.#failedInARow = 0;
        this.#goneSinceMs = null;
        this.#tell("");
        this.#syncedOnce();
        return "done";
      }
      if (found === "failed") return "failed";
    }
    return this.#absent();
  }

  /** None of the types can be listed: 404. */
  async #absent(): Promise<"absent" | "failed"> {
    const known = this.#versions.size;
    // Nothing hangs on it, and it is asked often.
    if (known > 0 || !this.#synced) {
      const served = await isServed(this.#parts.api, this.#watched.types, this.#stop.signal);
      if (!served.ok || served.value) {
        this.#goneSinceMs = null;
        const why = served.ok ? `the API server answers 404 to lists of ${this.#type.plural}, which it has` : `the API server answers 404 to lists of ${this.#type.plural}, and does not say what it has: ${served.error.message}`;
        this.#failedWith(known === 0 ? why : `${why}; the ${known} that are known are kept`);
        return "failed";
      }
    }
    this.#failedInARow = 0;
    const nowMs = this.#parts.clock.monotonicMs();
    this.#goneSinceMs ??= nowMs;
    const waitMs = this.#goneSinceMs + GONE_BELIEVED_MS - nowMs;
    if (known > 0 && waitMs > 0) {
      this.#tell(`the API server has no ${this.#type.plural} any more; the ${known} that are known are kept until it has said so for ${GONE_BELIEVED_MS / 60_000} minutes`);
      return "absent";
    }
    if (known > 0) this.#parts.log.warn("the kind is gone, and its objects with it", { resource: this.#type.plural, objects: known });
    for (const key of [...this.#versions.keys()]) this.#remove(key);
    this.#goneSinceMs = null;
    this.#tell("");
    this.#syncedOnce();
    return "absent";
  }

  async #listType(type: ResourceType): Promise<"done" | "absent" | "failed"> {
    const seen = new Set<string>();
    let next = "";
    for (let page = 0; page < PAGES_MAX; page++) {
      const answer = await this.#page(type, next, this.#accept(METADATA_LIST));
      if (!answer.ok) {
        if (answer.error.code === "api_not_found") return "absent";
        if (answer.error.code === "api_gone") this.counters.gone++;
        this.#failed(answer.error);
        if (answer.error.code === "api_forbidden" && this.#watched.optional === true) this.#syncedOnce();
        return "failed";
      }
      const list = listSchema.safeParse(answer.value);
      if (!list.success) {
        this.#tell(`the list of ${type.plural} is none: ${z.prettifyError(list.error)}`);
        this.counters.failures++;
        return "failed";
      }
      for (const [index, item] of (list.data.items ?? []).entries()) {
        // Whoever reads objects closely needs its time for each.
        if (index % TAKEN_AT_ONCE === TAKEN_AT_ONCE - 1) await new Promise<void>((resolve) => setImmediate(resolve));
        if (this.#stop.signal.aborted) return "failed";
        const key = this.#take(item, type);
        if (key !== null) seen.add(key);
      }
      next = list.data.metadata?.continue ?? "";
      if (next !== "") continue;
      for (const key of [...this.#versions.keys()]) if (!seen.has(key)) this.#remove(key);
      this.#version = list.data.metadata?.resourceVersion ?? "";
      this.counters.lists++;
      return "done";
    }
    return "failed";
  }

  async #watch(): Promise<void> {
    const seconds = WATCH_S_MIN + Math.floor(this.#parts.random.next() * (WATCH_S_MAX - WATCH_S_MIN));
    this.#relist = new AbortController();
    const ended = await this.#parts.api.watch({
      path: this.#path(this.#type), query: { ...this.#selectors(), resourceVersion: this.#version ?? "" }, ...this.#accept(METADATA_ONE), timeoutSeconds: seconds,
      signal: AbortSignal.any([this.#stop.signal, this.#relist.signal]), onBegun: () => this.#tell(""),
    }, (event) => this.#event(event));
    if (this.#stop.signal.aborted) return;
    if (this.#relist.signal.aborted) {
      this.#version = null;
      return;
    }
    if (ended.ok) {
      // A server that ends every watch at once is not asked without pause.
      this.#failedInARow = 0;
      await this.#pause(BACKOFF_MS_MIN * this.#parts.random.next());
      return;
    }
    if (ended.error.code === "api_gone" || ended.error.code === "api_not_found") {
      if (ended.error.code === "api_gone") this.counters.gone++;
      this.#version = null;
      return;
    }
    this.#failed(ended.error);
    await this.#pause(this.#backoffMs());
  }

  #event(raw: unknown): void {
    const parsed = eventSchema.safeParse(raw);
    if (!parsed.success) return;
    const { type, object } = parsed.data;
    this.#failedInARow = 0;
    this.#tell("");
    switch (type) {
      case "ADDED":
      case "MODIFIED":
        this.#take(object, this.#type);
        break;
      case "DELETED": {
        const meta = metaSchema.safeParse(object);
        if (!meta.success) return;
        this.#version = meta.data.metadata.resourceVersion ?? this.#version;
        this.#remove(`${meta.data.metadata.namespace ?? ""}/${meta.data.metadata.name}`);
        return;
      }
      case "BOOKMARK":
        break;
      case "ERROR":
        if (object["code"] === 410) this.counters.gone++;
        this.#relist.abort();
        return;
      default:
        return;
    }
    const version = metadataText(object, "resourceVersion");
    if (version !== "") this.#version = version;
  }

  /** @returns its key; null for what is no object. */
  #take(object: Record<string, unknown>, type: ResourceType): string | null {
    const meta = metaSchema.safeParse(object);
    if (!meta.success) return null;
    const { namespace = "", name, resourceVersion = "" } = meta.data.metadata;
    const key = `${namespace}/${name}`;
    const before = this.#versions.get(key);
    if (before !== undefined && before === resourceVersion) return key;
    this.#versions.set(key, resourceVersion);
    if (this.#parts.sink.upsert(pruned(object, type)) === false) this.#versions.set(key, NOT_KEPT);
    return key;
  }

  #remove(key: string): void {
    if (!this.#versions.delete(key)) return;
    const slash = key.indexOf("/");
    this.#parts.sink.remove(key.slice(0, slash), key.slice(slash + 1));
  }

  /** Names and versions of all objects, twice with a pause where something differs: what is still different was lost. */
  async #compare(): Promise<void> {
    const suspects = await this.#differing(null);
    if (suspects === null || suspects.size === 0) return;
    await this.#pause(COMPARE_GRACE_MS);
    const lost = await this.#differing(suspects);
    if (lost === null || lost.size === 0) return;
    this.counters.drifted += lost.size;
    this.#parts.log.warn("objects differ from the API server's; listing anew", { resource: this.#type.plural, count: lost.size, first: [...lost.keys()][0] ?? "" });
    this.#relist.abort();
  }

  /** Keys whose version there is not ours; with `among` only those that still have the version that they had then. */
  async #differing(among: ReadonlyMap<string, string> | null): Promise<Map<string, string> | null> {
    const found = new Map<string, string>();
    const listed = new Set<string>();
    let next = "";
    do {
      const answer = await this.#page(this.#type, next, { accept: METADATA_LIST });
      const list = answer.ok ? listSchema.safeParse(answer.value) : null;
      if (list === null || !list.success) return null;
      for (const item of list.data.items ?? []) {
        const meta = metaSchema.safeParse(item);
        if (!meta.success) continue;
        const { namespace = "", name, resourceVersion = "" } = meta.data.metadata;
        const key = `${namespace}/${name}`;
        listed.add(key);
        const known = this.#versions.get(key);
        if (known !== resourceVersion && known !== NOT_KEPT) found.set(key, this.#versions.get(key) ?? "");
      }
      next = list.data.metadata?.continue ?? "";
    } while (next !== "" && !this.#stop.signal.aborted);
    for (const [key, version] of this.#versions) if (!listed.has(key)) found.set(key, version);
    if (among === null) return found;
    return new Map([...found].filter(([key, version]) => among.get(key) === version));
  }

  /** @param next what the page before said is to follow; "" for the first. */
  #page(type: ResourceType, next: string, accept: { readonly accept?: string }): Promise<Result<unknown, ApiFault>> {
    return this.#parts.api.request({ method: "GET", path: this.#path(type), query: { ...this.#selectors(), limit: String(PAGE_OBJECTS), ...(next === "" ? {} : { continue: next }) }, ...accept, signal: this.#stop.signal });
  }

  #path(type: ResourceType): string {
    return collectionPath(type, this.#watched.namespace);
  }

  #accept(metadata: string): { readonly accept?: string } {
    return this.#watched.metadataOnly === true ? { accept: metadata } : {};
  }

  #selectors(): Record<string, string> {
    const { labelSelector, fieldSelector } = this.#watched;
    return { ...(labelSelector === undefined ? {} : { labelSelector }), ...(fieldSelector === undefined ? {} : { fieldSelector }) };
  }

  #syncedOnce(): void {
    if (this.#synced) return;
    this.#synced = true;
    this.#parts.sink.synced();
  }

  #failed(fault: ApiFault): void {
    this.#failedWith(fault.message);
  }

  #failedWith(trouble: string): void {
    if (this.#stop.signal.aborted) return;
    this.counters.failures++;
    this.#failedInARow++;
    this.#tell(trouble);
  }

  /** Each trouble is told once. */
  #tell(trouble: string): void {
    if (trouble === this.#told) return;
    if (trouble !== "") this.#parts.log.warn(trouble, { resource: this.#type.plural });
    else this.#parts.log.info("reached again", { resource: this.#type.plural });
    this.#told = trouble;
    this.#parts.onTrouble?.(trouble);
  }

  #backoffMs(): number {
    const ceiling = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** Math.min(this.#failedInARow, 16));
    return ceiling * (0.5 + this.#parts.random.next() / 2);
  }

  #pause(ms: number): Promise<void> {
    return pause(this.#parts.timers, ms, this.#stop.signal);
  }
}
