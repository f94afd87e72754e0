import { afterEach, describe, expect, test } from "bun:test";
import { err, ok, type Result } from "../../core/result.ts";
import type { Api, ApiFault, ApiRequest, WatchRequest } from "./api.ts";
import { FakeTime } from "../../../test/kit/fake-time.ts";
import { quietLog } from "../../../test/kit/quiet-log.ts";
import { COMPARE_GRACE_MS, COMPARE_MS, CRD_LOOK_MS, GONE_BELIEVED_MS, ListWatch, PAGE_OBJECTS, type Watched } from "./list-watch.ts";

const GROUP = "gateway.networking.k8s.io";
const ROUTES = ["v1", "v1beta1"].map((version) => ({ group: GROUP, version, plural: "httproutes", kind: "HTTPRoute", namespaced: true }));

const fault = (status: number, message = ""): Result<never, ApiFault> => err({ code: status === 0 ? "api_unreachable" : status === 410 ? "api_gone" : status === 404 ? "api_not_found" : "api_failed", status, message: `status ${status} ${message}`, blame: "peer", dies: "nothing", retry: { kind: "never" } });

interface Item {
  readonly name: string;
  readonly namespace?: string;
  readonly version: number;
}
const objectOf = ({ name, namespace = "shop", version }: Item): Record<string, unknown> => ({ metadata: { name, namespace, resourceVersion: String(version), managedFields: [{}] } });

/** An API server of one kind whose state a test sets; `answers` come first, one for each list. */
class Server implements Api {
  items: Item[] = [];
  version = 1;
  served = ["v1"];
  /** Versions that it says it serves. */
  listed = ["v1"];
  /** In the place of that. */
  discovery: Result<unknown, ApiFault> | null = null;
  readonly lists: ApiRequest[] = [];
  readonly answers: Result<unknown, ApiFault>[] = [];
  watch_: { readonly path: string; readonly query: Readonly<Record<string, string>>; readonly accept: string | undefined; readonly onEvent: (event: unknown) => void; readonly end: (result: Result<void, ApiFault>) => void } | null = null;
  watches = 0;

  async request(request: ApiRequest): Promise<Result<unknown, ApiFault>> {
    this.lists.push(request);
    const answer = this.answers.shift();
    if (answer !== undefined) return answer;
    if (request.path === "/apis") return this.discovery ?? ok({ groups: [{ name: "apps", versions: [{ version: "v1" }] }, { name: GROUP, versions: this.listed.map((version) => ({ version })) }] });
    if (request.path.startsWith("/apis/") && request.path.endsWith(`/${request.path.split("/")[3]}`)) return ok({ resources: [{ name: "httproutes" }, { name: "httproutes/status" }] });
    if (!this.served.some((version) => request.path.includes(`/${version}/`))) return fault(404);
    const start = Number(request.query?.["continue"] ?? "0");
    const page = this.items.slice(start, start + PAGE_OBJECTS);
    const more = start + PAGE_OBJECTS < this.items.length;
    return ok({ metadata: { resourceVersion: String(this.version), ...(more ? { continue: String(start + PAGE_OBJECTS) } : {}) }, items: page.map(objectOf) });
  }

  watch(request: WatchRequest, onEvent: (event: unknown) => void): Promise<Result<void, ApiFault>> {
    this.watches++;
    return new Promise((resolve) => {
      this.watch_ = { path: request.path, query: request.query, accept: request.accept, onEvent, end: resolve };
      request.signal.addEventListener("abort", () => resolve(fault(0, "aborted")));
    });
  }

  send(type: string, object: unknown): void {
    this.watch_!.onEvent({ type, object });
  }
}

describe("list and watch", () => {
  const started: ListWatch[] = [];
  afterEach(async () => {
    const all = started.splice(0);
    await Promise.all(all.map((one) => one.stop()));
  });

  async function start(server: Server, more: Partial<Watched> = {}): Promise<{ readonly time: FakeTime; readonly seen: string[]; readonly held: Map<string, unknown>; readonly watch: ListWatch }> {
    const time = new FakeTime();
    const seen: string[] = [];
    const held = new Map<string, unknown>();
    const watch = new ListWatch({ types: ROUTES, namespace: null, ...more }, {
      api: server, clock: time, random: { next: () => 0.5 }, timers: time, log: quietLog(),
      sink: {
        upsert: (object) => {
          const { name, resourceVersion } = object["metadata"] as { name: string; resourceVersion: string };
          seen.push(`+${name}@${resourceVersion}`);
          held.set(name, object);
        },
        remove: (_, name) => {
          seen.push(`-${name}`);
          held.delete(name);
        },
        synced: () => seen.push("synced"),
      },
    });
    started.push(watch);
    watch.start();
    await pages(time);
    return { time, seen, held, watch };
  }

  /** A page is taken a few objects at a time: as many turns as two pages need. */
  async function pages(time: FakeTime): Promise<void> {
    for (let turn = 0; turn < PAGE_OBJECTS / 2; turn++) await time.pass(0);
  }

  test("lists in pages, then watches from where the list ended", async () => {
    const server = new Server();
    server.items = Array.from({ length: PAGE_OBJECTS + 1 }, (_, index) => ({ name: `r${index}`, version: 1 }));
    server.version = 77;
    const { seen, held } = await start(server);
    expect([held.size, seen.at(-1), server.lists.length]).toEqual([PAGE_OBJECTS + 1, "synced", 2]);
    expect(server.watch_?.query).toEqual({ resourceVersion: "77" });
    expect(held.get("r0")).toEqual({ apiVersion: "gateway.networking.k8s.io/v1", kind: "HTTPRoute", metadata: { name: "r0", namespace: "shop", resourceVersion: "1" } });
  });

  test("takes events as they come, twice the same one once, and goes on from a bookmark", async () => {
    const server = new Server();
    const { seen, time } = await start(server);
    server.send("ADDED", objectOf({ name: "a", version: 2 }));
    server.send("MODIFIED", objectOf({ name: "a", version: 3 }));
    server.send("MODIFIED", objectOf({ name: "a", version: 3 }));
    server.send("DELETED", objectOf({ name: "b", version: 4 }));
    server.send("BOOKMARK", { metadata: { resourceVersion: "9" } });
    server.send("NONSENSE", 7);
    server.watch_!.onEvent("not an event");
    server.watch_!.end(ok(undefined));
    await time.pass(1_000);
    expect(seen).toEqual(["synced", "+a@2", "+a@3"]);
    expect([server.watches, server.watch_?.query["resourceVersion"], server.lists.length]).toEqual([2, "9", 1]);
  });

  test.each([["an ERROR event", (server: Server) => server.send("ERROR", { code: 410 })], ["an answer", (server: Server) => server.watch_!.end(fault(410))]])("410 Gone as %s: lists anew, and removes what is not there any more", async (_, gone) => {
    const server = new Server();
    server.items = [{ name: "a", version: 1 }, { name: "b", version: 1 }];
    const { seen, watch, time } = await start(server);
    server.items = [{ name: "b", version: 1 }, { name: "c", version: 5 }];
    gone(server);
    await time.pass(0);
    expect(seen.slice(3)).toEqual(["+c@5", "-a"]);
    expect([watch.counters.gone, server.lists.length]).toEqual([1, 2]);
  });

  test("a list that expires half way begins again, and nothing is removed for it", async () => {
    const server = new Server();
    server.items = Array.from({ length: PAGE_OBJECTS + 1 }, (_, index) => ({ name: `r${index}`, version: 1 }));
    const { held, time } = await start(server);
    server.send("ERROR", { code: 410 });
    server.answers.push(ok({ metadata: { continue: "500" }, items: [] }), fault(410));
    await time.pass(0);
    expect(held.size).toBe(PAGE_OBJECTS + 1);
    await time.pass(1_000);
    await pages(time);
    expect([held.size, server.watches]).toEqual([PAGE_OBJECTS + 1, 2]);
  });

  test("an API server that is away is asked again, ever less often, and what was known stays", async () => {
    const server = new Server();
    server.items = [{ name: "a", version: 1 }];
    const { held, seen, time, watch } = await start(server);
    let tried = 0;
    server.watch = (): Promise<Result<void, ApiFault>> => {
      tried++;
      return Promise.resolve(fault(0));
    };
    server.watch_!.end(fault(0, "reset"));
    await time.pass(3_600_000);
    expect(held.size).toBe(1);
    expect(tried).toBeGreaterThan(100);
    expect(tried).toBeLessThan(300);
    expect(watch.trouble).toContain("status 0");
    expect(seen).toEqual(["+a@1", "synced"]);
    server.watch = (request) => {
      request.onBegun?.();
      return new Promise((resolve) => request.signal.addEventListener("abort", () => resolve(fault(0, "aborted"))));
    };
    await time.pass(60_000);
    expect(watch.trouble).toBe("");
  });

  test("a kind that is not installed is empty, and picked up when it is; with an older version, under that", async () => {
    const server = new Server();
    server.served = [];
    server.listed = [];
    const { seen, time, watch } = await start(server);
    expect([seen, watch.trouble]).toEqual([["synced"], ""]);
    // Whether it is there is all that is asked from then on.
    const asked = server.lists.length;
    await time.pass(CRD_LOOK_MS);
    expect(server.lists.slice(asked).map(({ path }) => path.split("/").at(-1))).toEqual(["httproutes", "httproutes"]);
    server.served = ["v1beta1"];
    server.items = [{ name: "a", version: 1 }];
    await time.pass(CRD_LOOK_MS);
    expect(seen).toEqual(["synced", "+a@1"]);
    expect(server.watch_?.path).toContain("/v1beta1/");
  });

  test.each([
    ["a server that has it all the same", (server: Server) => void (server.listed = ["v1"]), "404 to lists of httproutes, which it has"],
    ["somebody in front of the server", (server: Server) => void (server.discovery = fault(404)), "does not say what it has: status 404"],
    ["an answer that is no list", (server: Server) => void (server.discovery = ok("<html>")), "does not say what it has: GET /apis"],
  ])("404 at the start from %s is no reason to go on without the kind", async (_, answers, trouble) => {
    const server = new Server();
    server.served = server.listed = [];
    answers(server);
    server.items = [{ name: "a", version: 1 }];
    const { seen, time, watch } = await start(server);
    await time.pass(10 * GONE_BELIEVED_MS);
    expect([seen, watch.trouble.includes(trouble)]).toEqual([[], true]);
    server.served = ["v1"];
    await time.pass(60_000);
    await pages(time);
    expect([seen, watch.trouble]).toEqual([["+a@1", "synced"], ""]);
  });

  test.each([
    ["a server that has it all the same", (server: Server) => void (server.listed = ["v1"]), "which it has; the 1 that are known are kept"],
    ["somebody in front of the server", (server: Server) => void (server.discovery = fault(404)), "does not say what it has: status 404 ; the 1 that are known are kept"],
  ])("404 later from %s takes nothing away, ever", async (_, answers, trouble) => {
    const server = new Server();
    server.items = [{ name: "a", version: 1 }];
    const { seen, time, watch } = await start(server);
    server.served = server.listed = [];
    answers(server);
    server.watch_!.end(fault(404));
    await time.pass(10 * GONE_BELIEVED_MS);
    expect([seen, watch.trouble.includes(trouble)]).toEqual([["+a@1", "synced"], true]);
    server.served = ["v1"];
    server.items = [{ name: "a", version: 2 }];
    await time.pass(60_000);
    await pages(time);
    expect([seen.slice(2), watch.trouble]).toEqual([["+a@2"], ""]);
  });

  test("a kind that is uninstalled takes its objects with it when the server has said so for long enough without a break", async () => {
    const server = new Server();
    server.items = [{ name: "a", version: 1 }];
    const { seen, time, watch } = await start(server);
    server.served = server.listed = [];
    server.watch_!.end(fault(404));
    await time.pass(GONE_BELIEVED_MS - 1_000);
    expect(watch.trouble).toBe("the API server has no httproutes any more; the 1 that are known are kept until it has said so for 5 minutes");
    // Another server of the same cluster has it.
    server.listed = ["v1"];
    await time.pass(2 * CRD_LOOK_MS);
    server.listed = [];
    await time.pass(GONE_BELIEVED_MS - 60_000);
    expect(seen).toEqual(["+a@1", "synced"]);
    await time.pass(2 * 60_000);
    expect([seen, watch.trouble]).toEqual([["+a@1", "synced", "-a"], ""]);
    server.served = server.listed = ["v1"];
    await time.pass(CRD_LOOK_MS);
    await pages(time);
    expect(seen.slice(3)).toEqual(["+a@1"]);
  });

  test("an event that was lost is found by comparing, and not taken for lost while it may be on its way", async () => {
    const server = new Server();
    server.items = [{ name: "a", version: 1 }, { name: "b", version: 1 }];
    const { seen, time, watch } = await start(server);
    server.items = [{ name: "a", version: 4 }, { name: "b", version: 1 }];
    await time.pass(COMPARE_MS);
    server.send("MODIFIED", objectOf({ name: "a", version: 4 }));
    await time.pass(COMPARE_GRACE_MS);
    expect([watch.counters.drifted, seen.slice(3)]).toEqual([0, ["+a@4"]]);
    server.items = [{ name: "c", version: 9 }];
    server.watch_!.end(ok(undefined));
    await time.pass(COMPARE_MS + COMPARE_GRACE_MS + 1_000);
    await time.pass(0);
    expect(watch.counters.drifted).toBe(3);
    expect(seen.slice(4)).toEqual(["+c@9", "-a", "-b"]);
  });

  test("who needs metadata alone asks for no more, as often as it is told to compare", async () => {
    const server = new Server();
    server.items = [{ name: "a", version: 1 }];
    const { time, watch } = await start(server, { metadataOnly: true, compareMs: 2 * COMPARE_MS });
    expect([server.lists[0]?.accept, server.watch_?.accept].map((accept) => accept?.split(";")[1])).toEqual(["as=PartialObjectMetadataList", "as=PartialObjectMetadata"]);
    server.items = [];
    await time.pass(COMPARE_MS + COMPARE_GRACE_MS + 1_000);
    expect(watch.counters.drifted).toBe(0);
    await time.pass(COMPARE_MS + COMPARE_GRACE_MS);
    expect(watch.counters.drifted).toBe(1);
  });

  test("what is no list, and objects without a name, are passed over", async () => {
    const server = new Server();
    server.answers.push(ok({ items: "none" }), ok({ metadata: { resourceVersion: "3" }, items: [{}, { metadata: { name: 7 } }, objectOf({ name: "a", version: 2 })] }));
    const { seen, time } = await start(server);
    await time.pass(1_000);
    expect(seen).toEqual(["+a@2", "synced"]);
  });
});
