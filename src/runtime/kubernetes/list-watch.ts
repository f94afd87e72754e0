// A list of the API kept up to date: listed in pages, then watched with bookmarks; listed anew when the server has forgotten where
// we were (410), and now and then anyway, so that whatever was missed is mended. What is kept of an object is the caller's choice.

import { z } from "zod";
import { unreachable } from "../../core/result.ts";
import type { Random } from "../../core/ports.ts";
import type { KubernetesClient, KubernetesFault } from "./client.ts";

export interface ListWatchOptions<T> {
  readonly client: KubernetesClient;
  /** Path of the collection: `/api/v1/pods`. */
  readonly path: string;
  /** `fieldSelector=spec.nodeName%3Da`, or empty. */
  readonly query: string;
  /** Only metadata is asked for, of any kind. */
  readonly metadataOnly?: boolean;
  /** What is kept of one object; null for one that is not understood, which `onMalformed` has been told. */
  readonly keep: (object: unknown) => { readonly key: string; readonly value: T } | null;
  readonly onChange: (key: string, value: T | null) => void;
  /** After the first list, and after each later one. */
  readonly onSynced: () => void;
  readonly onTrouble: (fault: KubernetesFault) => void;
  readonly random: Random;
  readonly signal: AbortSignal;
  /** RELIST_MS unless given. */
  readonly relistAfterMs?: number;
}

/** Objects a page: some megabytes at most, as one answer. */
const PAGE_OBJECTS = 500;
/** The server ends a watch after this; between the two so that the watches of many nodes do not end together. */
const WATCH_SECONDS_MIN = 300;
const WATCH_SECONDS_MAX = 600;
/** A server, a proxy or we may have lost an event: once a list is older than this, the end of a watch is the time for another. Rare enough
 * that thousands of nodes are no load, and spread by the different lengths of their watches. */
const RELIST_MS = 30 * 60_000;
const BACKOFF_FIRST_MS = 250;
const BACKOFF_MAX_MS = 15_000;

const listSchema = z.looseObject({ metadata: z.looseObject({ resourceVersion: z.string(), continue: z.string().optional() }), items: z.array(z.unknown()).nullish() });
const eventSchema = z.looseObject({ type: z.enum(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]), object: z.looseObject({}) });
const versionSchema = z.looseObject({ metadata: z.looseObject({ resourceVersion: z.string() }) });
const errorSchema = z.looseObject({ code: z.number().optional(), message: z.string().optional() });

const METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const METADATA_ONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/** Runs until `signal`; never rejects. */
export async function listWatch<T>(options: ListWatchOptions<T>): Promise<void> {
  const { random, signal } = options;
  const keys = new Set<string>();
  let backoffMs = BACKOFF_FIRST_MS;
  while (!signal.aborted) {
    const listed = await list(options, keys);
    if (typeof listed === "string") {
      options.onSynced();
      backoffMs = BACKOFF_FIRST_MS;
      await watchFrom(listed, options, keys);
    } else if (!signal.aborted) {
      options.onTrouble(listed);
      await pause(backoffMs * (0.5 + random.next()), signal);
      backoffMs = Math.min(BACKOFF_MAX_MS, backoffMs * 2);
    }
  }
}

/** @returns the version the list was true at. Keys that are no longer there are told as gone. */
async function list<T>(options: ListWatchOptions<T>, keys: Set<string>): Promise<string | KubernetesFault> {
  const { client, path, query, metadataOnly = false, signal } = options;
  const found = new Map<string, T>();
  let more = "";
  let version = "";
  do {
    const parameters = [query, `limit=${PAGE_OBJECTS}`, ...(more === "" ? [] : [`continue=${encodeURIComponent(more)}`])].filter((part) => part !== "").join("&");
    const page = await client.get(`${path}?${parameters}`, { signal, ...(metadataOnly ? { accept: METADATA_LIST } : {}) });
    if (!page.ok) return page.error;
    const parsed = listSchema.safeParse(page.value);
    if (!parsed.success) return malformed(path, z.prettifyError(parsed.error));
    for (const item of parsed.data.items ?? []) {
      const kept = options.keep(item);
      if (kept !== null) found.set(kept.key, kept.value);
    }
    more = parsed.data.metadata.continue ?? "";
    version = parsed.data.metadata.resourceVersion;
  } while (more !== "");
  for (const key of [...keys]) {
    if (found.has(key)) continue;
    keys.delete(key);
    options.onChange(key, null);
  }
  for (const [key, value] of found) {
    keys.add(key);
    options.onChange(key, value);
  }
  return version;
}

/** Returns when the list must be made anew. A watch that merely ended is taken up where it was, while the list is young. */
async function watchFrom<T>(listedVersion: string, options: ListWatchOptions<T>, keys: Set<string>): Promise<void> {
  const { client, path, query, metadataOnly = false, random, signal, relistAfterMs = RELIST_MS } = options;
  const listedMs = performance.now();
  let version = listedVersion;
  let backoffMs = BACKOFF_FIRST_MS;
  while (!signal.aborted) {
    const seconds = WATCH_SECONDS_MIN + Math.floor(random.next() * (WATCH_SECONDS_MAX - WATCH_SECONDS_MIN));
    const parameters = [query, `resourceVersion=${version}`].filter((part) => part !== "").join("&");
    let heard = false;
    for await (const line of client.watch(`${path}?${parameters}`, seconds, { signal, ...(metadataOnly ? { accept: METADATA_ONE } : {}) })) {
      if (!line.ok) {
        if (line.error.status === 410 || line.error.status >= 400) {
          if (line.error.status !== 410) options.onTrouble(line.error);
          return;
        }
        options.onTrouble(line.error);
        break;
      }
      const event = eventSchema.safeParse(line.value);
      if (!event.success) {
        options.onTrouble(malformed(path, z.prettifyError(event.error)));
        return;
      }
      if (event.data.type === "ERROR") {
        const said = errorSchema.safeParse(event.data.object);
        if (said.data?.code !== 410) options.onTrouble(malformed(path, `the watch ended with an error: ${said.data?.message ?? "without words"}`));
        return;
      }
      const at = versionSchema.safeParse(event.data.object);
      if (at.success) version = at.data.metadata.resourceVersion;
      heard = true;
      take(event.data.type, event.data.object, options, keys);
    }
    if (signal.aborted) return;
    backoffMs = heard ? BACKOFF_FIRST_MS : Math.min(BACKOFF_MAX_MS, backoffMs * 2);
    await pause(backoffMs * (0.5 + random.next()), signal);
    if (performance.now() - listedMs >= relistAfterMs) return;
  }
}

function take<T>(type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK", object: unknown, options: ListWatchOptions<T>, keys: Set<string>): void {
  if (type === "BOOKMARK") return;
  const kept = options.keep(object);
  if (kept === null) return;
  switch (type) {
    case "ADDED":
    case "MODIFIED":
      keys.add(kept.key);
      return options.onChange(kept.key, kept.value);
    case "DELETED":
      keys.delete(kept.key);
      return options.onChange(kept.key, null);
    default:
      return unreachable(type);
  }
}

function malformed(path: string, what: string): KubernetesFault {
  return { code: "kubernetes_malformed", message: `${path}: ${what}`, blame: "peer", dies: "nothing", retry: { kind: "never" }, status: 0, reason: "" };
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
