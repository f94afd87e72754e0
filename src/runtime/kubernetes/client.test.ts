import * as net from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type ApiObject, FakeKubernetesApi } from "../../../test/kit/kubernetes-api.ts";
import { quietLog } from "../../../test/kit/quiet-log.ts";
import { until } from "../../../test/kit/until.ts";
import { seededRandom, systemClock } from "../../core/ports.ts";
import { systemTimers } from "../../net/timers.ts";
import type { KubernetesAccess } from "./access.ts";
import { KubernetesClient } from "./client.ts";
import { ListWatch } from "./list-watch.ts";

const THINGS = { group: "", version: "v1", plural: "things", kind: "Thing", namespaced: false };

const WAIT_MS = 10_000;

let api: FakeKubernetesApi;
/** What the watcher knows now. */
let known: Map<string, number>;
let synced: boolean;
let watch: ListWatch;

const object = (name: string, value: number): ApiObject => ({ metadata: { name }, value });

beforeEach(() => {
  api = new FakeKubernetesApi();
  known = new Map();
  synced = false;
});

function start(): void {
  watch = new ListWatch({ types: [THINGS], namespace: null }, {
    api: new KubernetesClient(api.access), clock: systemClock, random: seededRandom(1), timers: systemTimers, log: quietLog(),
    sink: {
      upsert: (seen) => {
        const { metadata, value } = seen as unknown as { metadata: { name: string }; value: number };
        known.set(metadata.name, value);
      },
      remove: (_, name) => {
        known.delete(name);
      },
      synced: () => {
        synced = true;
      },
    },
  });
  watch.start();
}

afterEach(() => api[Symbol.dispose]());

describe("list and watch over HTTP", () => {
  afterEach(() => watch.stop());

  test("what is there, in pages; then what comes, changes and goes", async () => {
    for (let i = 0; i < 7; i++) api.put("things", object(`t${i}`, i));
    api.pageObjects = 3;
    start();
    await until("the first list", WAIT_MS, () => synced);
    expect([...known]).toEqual([["t0", 0], ["t1", 1], ["t2", 2], ["t3", 3], ["t4", 4], ["t5", 5], ["t6", 6]]);
    api.put("things", object("t0", 100));
    api.put("things", object("new", 1));
    api.delete("things", "t6");
    await until("the changes", WAIT_MS, () => known.get("t0") === 100 && known.get("new") === 1 && !known.has("t6"));
    expect(watch.counters).toEqual({ lists: 1, gone: 0, failures: 0, drifted: 0 });
  });

  test("a server that has forgotten where we were: listed anew, and what went unseen is gone", async () => {
    api.put("things", object("stays", 1));
    api.put("things", object("goes", 1));
    start();
    await until("the first list and a watch", WAIT_MS, () => synced && api.watching === 1);
    api.deleteSilently("things", "goes");
    api.forgetHistory();
    await until("what went unseen is gone", WAIT_MS, () => !known.has("goes"));
    expect([...known.keys()]).toEqual(["stays"]);
    expect([watch.counters.gone, watch.counters.failures]).toEqual([1, 0]);
  });

  test("a connection that breaks is taken up where it was", async () => {
    api.put("things", object("a", 1));
    start();
    await until("the first list and a watch", WAIT_MS, () => synced && api.watching === 1);
    api.breakConnections();
    api.put("things", object("b", 2));
    await until("what came meanwhile", WAIT_MS, () => known.has("b"));
    expect(watch.counters.lists).toBe(1);
  });

  test("a server that refuses is told of, and asked again", async () => {
    api.refuseWith = 403;
    start();
    await until("two refusals", WAIT_MS, () => watch.counters.failures >= 2);
    expect(watch.trouble).toContain("answered 403 Refused: told to refuse");
    api.refuseWith = null;
    api.put("things", object("a", 1));
    await until("the object", WAIT_MS, () => known.has("a"));
    expect(watch.trouble).toBe("");
  });

  test("an answer that is no JSON is one that failed", async () => {
    api.fixedText.set("/api/v1/things", "<html>");
    start();
    await until("a failure", WAIT_MS, () => watch.counters.failures >= 1);
    expect(watch.trouble).toContain("GET /api/v1/things: the answer of http://127.0.0.1");
  });
});

describe("a watch", () => {
  test("whose line never ends is ended", async () => {
    api.fixedText.set("/api/v1/things", "x".repeat(9 * 1024 * 1024));
    const client = new KubernetesClient(api.access);
    const ended = await client.watch({ path: "/api/v1/things", query: {}, timeoutSeconds: 300, signal: new AbortController().signal }, () => {});
    expect(ended).toMatchObject({ ok: false, error: { code: "api_malformed", blame: "peer" } });
  });

  /** A server that answers a watch and sends nothing: its first bookmark is a minute away. */
  async function quietServer(): Promise<{ readonly access: KubernetesAccess; readonly answered: () => boolean; readonly send: (event: object) => void; readonly asked: (path: string) => number; readonly lastAskedMs: () => number; readonly mute: () => void; [Symbol.dispose](): void }> {
    let connection: net.Socket | null = null;
    let muted = false;
    let lastAskedMs = 0;
    const asked: string[] = [];
    const sockets: net.Socket[] = [];
    const server = net.createServer((socket) => {
      socket.on("error", () => {});
      sockets.push(socket);
      socket.on("data", (data) => {
        const path = data.toString("latin1").split(" ")[1]!;
        asked.push(path);
        lastAskedMs = performance.now();
        if (muted) return;
        if (path === "/version") return void socket.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}");
        socket.write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection = socket;
      });
    });
    const listening = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", () => listening.resolve());
    await listening.promise;
    return {
      access: { ...api.access, server: `http://127.0.0.1:${(server.address() as net.AddressInfo).port}` },
      answered: () => connection !== null,
      send(event) {
        const line = `${JSON.stringify(event)}\n`;
        connection?.write(`${line.length.toString(16)}\r\n${line}\r\n`);
      },
      asked: (path) => asked.filter((one) => one === path).length,
      lastAskedMs: () => lastAskedMs,
      mute: () => void (muted = true),
      [Symbol.dispose]() {
        for (const socket of sockets) socket.destroy();
        server.close();
      },
    };
  }
  const request = { path: "/api/v1/things", query: { resourceVersion: "7" }, timeoutSeconds: 300 };

  test("on which nothing comes lives as long as it is told to, not as long as an answer may take", async () => {
    using server = await quietServer();
    const answerMs = 500;
    const client = new KubernetesClient(server.access, { answerMs, silenceMs: WAIT_MS });
    const stop = new AbortController();
    const events: unknown[] = [];
    let ended: unknown = null;
    const begun = performance.now();
    const watched = client.watch({ ...request, signal: stop.signal }, (event) => events.push(event)).then((result) => (ended = result));
    await until("longer than an answer may take", WAIT_MS, () => ended !== null || (server.answered() && performance.now() - begun > 4 * answerMs));
    expect([ended, events]).toEqual([null, []]);
    server.send({ type: "ADDED" });
    await until("the event", WAIT_MS, () => events.length > 0);
    stop.abort();
    await watched;
  });

  test("on which nothing comes for too long has ended, and says for how long", async () => {
    using server = await quietServer();
    const client = new KubernetesClient(server.access, { answerMs: WAIT_MS, silenceMs: 50 });
    const ended = await client.watch({ ...request, signal: new AbortController().signal }, () => {});
    expect(ended).toMatchObject({ ok: false, error: { code: "api_unreachable", message: expect.stringContaining("nothing came for 0.05 s") } });
  });

  test("is asked after while nothing comes: one whose server answers lives, and all of a server that does not have ended", async () => {
    using server = await quietServer();
    const pulse = { quietMs: 50, pulseMs: 1_000 };
    const client = new KubernetesClient(server.access, pulse);
    const ended: unknown[] = [];
    const stop = new AbortController();
    const watches = [0, 1].map(() => client.watch({ ...request, signal: stop.signal }, () => {}).then((result) => ended.push(result)));
    await until("the server was asked several times", WAIT_MS, () => server.asked("/version") >= 3);
    expect(ended).toEqual([]);
    server.mute();
    await Promise.all(watches);
    expect(ended).toMatchObject([0, 1].map(() => ({ ok: false, error: { code: "api_unreachable", message: expect.stringMatching(/broke: nothing came for \d+ s, and the server does not answer$/) } })));
    // Nothing is asked for nobody.
    const asked = server.asked("/version");
    await until("longer than it would be quiet", WAIT_MS, () => performance.now() - server.lastAskedMs() > 4 * pulse.quietMs + 2 * pulse.pulseMs);
    expect(server.asked("/version")).toBe(asked);
  });

  test("asks by its query, and tells every event in order", async () => {
    api.put("things", object("a", 1));
    const client = new KubernetesClient(api.access);
    const events: unknown[] = [];
    const stop = new AbortController();
    const ended = client.watch({ path: "/api/v1/things", query: { labelSelector: "a=b,c!=d", resourceVersion: "0" }, timeoutSeconds: 300, signal: stop.signal }, (event) => {
      events.push(event);
      if (events.length === 2) stop.abort();
    });
    expect((await ended).ok).toBe(false);
    expect(events).toMatchObject([{ type: "ADDED", object: { metadata: { name: "a" } } }, { type: "BOOKMARK" }]);
    expect(api.requests.at(-1)).toBe("GET /api/v1/things?labelSelector=a%3Db%2Cc%21%3Dd&resourceVersion=0&watch=true&allowWatchBookmarks=true&timeoutSeconds=300");
  });
});
