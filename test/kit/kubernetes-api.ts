// As much of the Kubernetes API as its clients here need: collections that are listed in pages and watched, objects that are read and
// patched by merge. In memory, over plain HTTP on loopback; it can forget its history, refuse, and break every connection.

import type { KubernetesAccess } from "../../src/runtime/kubernetes/access.ts";

export interface ApiObject {
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly [field: string]: unknown };
  readonly [field: string]: unknown;
}

interface Stored {
  readonly collection: string;
  readonly key: string;
  readonly object: ApiObject;
}

type Watcher = { readonly collection: string; readonly send: (line: object) => void; readonly end: (error?: Error) => void };

export class FakeKubernetesApi implements Disposable {
  readonly requests: string[] = [];
  readonly #objects = new Map<string, Stored>();
  readonly #watchers = new Set<Watcher>();
  readonly #server: ReturnType<typeof Bun.serve>;
  readonly #history: { readonly version: number; readonly collection: string; readonly line: object }[] = [];
  #version = 1;
  #oldestWatchable = 0;
  /** Every request is answered so while it is set. */
  refuseWith: number | null = null;
  pageObjects = Number.POSITIVE_INFINITY;
  /** Answers by path, for what is no object; and for what is no JSON. */
  readonly fixed = new Map<string, object>();
  readonly fixedText = new Map<string, string>();

  constructor() {
    this.#server = Bun.serve({ hostname: "127.0.0.1", port: 0, idleTimeout: 0, fetch: (request) => this.#answer(request) });
  }

  [Symbol.dispose](): void {
    void this.#server.stop(true);
  }

  get access(): KubernetesAccess {
    return { server: `http://127.0.0.1:${this.#server.port}`, tls: {}, authorization: async () => "Bearer test", origin: "test", namespace: "default" };
  }

  get watching(): number {
    return this.#watchers.size;
  }

  /** @param collection `pods`, `namespaces` */
  put(collection: string, object: ApiObject): void {
    const key = keyOf(object);
    const id = `${collection} ${key}`;
    const type = this.#objects.has(id) ? "MODIFIED" : "ADDED";
    const stored = this.#stamp(object);
    this.#objects.set(id, { collection, key, object: stored });
    this.#tell(collection, type, stored);
  }

  get(collection: string, key: string): ApiObject | null {
    return this.#objects.get(`${collection} ${key}`)?.object ?? null;
  }

  delete(collection: string, key: string): void {
    const id = `${collection} ${key}`;
    const stored = this.#objects.get(id);
    if (stored === undefined) return;
    this.#objects.delete(id);
    this.#tell(collection, "DELETED", this.#stamp(stored.object));
  }

  /** `COLLECTION NAMESPACE/NAME` of everything there is. */
  get everything(): string[] {
    return [...this.#objects.keys()].sort();
  }

  /** A kubeconfig that leads here. */
  get kubeconfig(): object {
    return {
      "current-context": "test", clusters: [{ name: "test", cluster: { server: this.access.server } }], users: [{ name: "test", user: { token: "test" } }],
      contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    };
  }

  /** What is removed now is told to nobody: whoever watches has to find out. */
  deleteSilently(collection: string, key: string): void {
    this.#objects.delete(`${collection} ${key}`);
    this.#version++;
  }

  /** Watches from before now are answered 410, and those there are end. */
  forgetHistory(): void {
    this.#oldestWatchable = ++this.#version;
    for (const watcher of [...this.#watchers]) watcher.end();
  }

  breakConnections(): void {
    for (const watcher of [...this.#watchers]) watcher.end(new Error("broken"));
  }

  #stamp(object: ApiObject): ApiObject {
    return { ...object, metadata: { ...object.metadata, resourceVersion: String(++this.#version) } };
  }

  #tell(collection: string, type: string, object: ApiObject): void {
    this.#history.push({ version: this.#version, collection, line: { type, object } });
    for (const watcher of this.#watchers) if (watcher.collection === collection) watcher.send({ type, object });
  }

  async #answer(request: Request): Promise<Response> {
    const url = new URL(request.url);
    this.requests.push(`${request.method} ${url.pathname}${url.search}`);
    if (this.refuseWith !== null) return status(this.refuseWith, "Refused", "told to refuse");
    const parts = url.pathname.split("/").filter((part) => part !== "");
    if (this.fixed.has(url.pathname)) return Response.json(this.fixed.get(url.pathname));
    if (this.fixedText.has(url.pathname)) return new Response(this.fixedText.get(url.pathname));
    // api/v1/COLLECTION, api/v1/namespaces/NAME, api/v1/namespaces/NS/COLLECTION/NAME[/status]
    const rest = parts.slice(parts[0] === "api" ? 2 : 3);
    if (request.method === "POST") {
      const made = (await request.json()) as ApiObject & { readonly metadata: { readonly generateName?: string } };
      const named = { ...made, metadata: { ...made.metadata, name: made.metadata.name ?? `${made.metadata.generateName ?? ""}${this.#version}` } };
      this.put(rest.at(-1)!, named);
      return Response.json(named, { status: 201 });
    }
    if (rest.length === 1 || (rest.length === 3 && rest[0] === "namespaces")) {
      const collection = rest.at(-1)!;
      return url.searchParams.get("watch") === "true" ? this.#watch(collection, url) : this.#list(collection, url);
    }
    const [collection, key] = rest.length === 2 ? [rest[0]!, rest[1]!] : [rest[2]!, `${rest[1]}/${rest[3]}`];
    const found = this.get(collection, key);
    const applies = request.method === "PATCH" && request.headers.get("Content-Type") === "application/apply-patch+yaml";
    if (found === null && !applies) return status(404, "NotFound", `${collection} "${key}" not found`);
    if (request.method === "PATCH") {
      const patched = merge(found ?? {}, await request.json()) as ApiObject;
      if (!Bun.deepEquals(patched, found)) this.put(collection, patched);
    }
    if (request.method === "DELETE") this.delete(collection, key);
    return Response.json(this.get(collection, key) ?? found);
  }

  #list(collection: string, url: URL): Response {
    const all = [...this.#objects.values()].filter((stored) => stored.collection === collection).map(({ object }) => object);
    const from = Number(url.searchParams.get("continue") ?? "0");
    const page = all.slice(from, from + this.pageObjects);
    const more = from + page.length < all.length ? { continue: String(from + page.length) } : {};
    return Response.json({ kind: "List", metadata: { resourceVersion: String(this.#version), ...more }, items: page });
  }

  #watch(collection: string, url: URL): Response {
    const from = Number(url.searchParams.get("resourceVersion"));
    if (from < this.#oldestWatchable) return status(410, "Expired", "too old resource version");
    const watchers = this.#watchers;
    let watcher: Watcher;
    const stream = new ReadableStream<Uint8Array>({
      start: (controller) => {
        watcher = {
          collection,
          send: (line) => controller.enqueue(new TextEncoder().encode(`${JSON.stringify(line)}\n`)),
          end: (error) => {
            watchers.delete(watcher);
            if (error === undefined) controller.close();
            else controller.error(error);
          },
        };
        watchers.add(watcher);
        for (const event of this.#history) if (event.collection === collection && event.version > from) watcher.send(event.line);
        watcher.send({ type: "BOOKMARK", object: { metadata: { resourceVersion: String(this.#version) } } });
      },
      cancel: () => void watchers.delete(watcher),
    });
    return new Response(stream, { headers: { "Content-Type": "application/json" } });
  }
}

const keyOf = ({ metadata }: ApiObject): string => (metadata.namespace === undefined ? metadata.name : `${metadata.namespace}/${metadata.name}`);
const status = (code: number, reason: string, message: string): Response => Response.json({ kind: "Status", code, reason, message }, { status: code });

/** JSON merge patch, RFC 7396. */
function merge(target: unknown, patch: unknown): unknown {
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
  const merged: Record<string, unknown> = typeof target === "object" && target !== null && !Array.isArray(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = merge(merged[key], value);
  }
  return merged;
}
