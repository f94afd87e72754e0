import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { type ApiObject, FakeKubernetesApi } from "../../../test/kit/kubernetes-api.ts";
import { seededRandom } from "../../core/ports.ts";
import { KubernetesClient } from "./client.ts";
import { listWatch } from "./list-watch.ts";

let api: FakeKubernetesApi;
let stop: AbortController;
/** What the watcher knows now. */
let known: Map<string, number>;
let troubles: string[];
let synced: number;
let changed: PromiseWithResolvers<void>;
let ended: Promise<void>;

const object = (name: string, value: number): ApiObject => ({ metadata: { name }, value });

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await changed.promise;
}

beforeEach(() => {
  api = new FakeKubernetesApi();
  stop = new AbortController();
  known = new Map();
  troubles = [];
  synced = 0;
  changed = Promise.withResolvers();
});

const bump = (): void => {
  changed.resolve();
  changed = Promise.withResolvers();
};

function start(options: { readonly relistAfterMs?: number } = {}): void {
  ended = listWatch<number>({
    client: new KubernetesClient(api.access), path: "/api/v1/things", query: "", random: seededRandom(1), signal: stop.signal, ...options,
    keep: (seen) => {
      const { metadata, value } = seen as unknown as { metadata: { name: string }; value: number };
      return { key: metadata.name, value };
    },
    onChange: (key, value) => {
      if (value === null) known.delete(key);
      else known.set(key, value);
      bump();
    },
    onSynced: () => {
      synced++;
      bump();
    },
    onTrouble: ({ message }) => {
      troubles.push(message);
      bump();
    },
  });
}

afterEach(async () => {
  stop.abort();
  await ended;
  api[Symbol.dispose]();
});

describe("list and watch", () => {
  test("what is there, in pages; then what comes, changes and goes", async () => {
    for (let i = 0; i < 7; i++) api.put("things", object(`t${i}`, i));
    api.pageObjects = 3;
    start();
    await until(() => synced === 1);
    expect([...known]).toEqual([["t0", 0], ["t1", 1], ["t2", 2], ["t3", 3], ["t4", 4], ["t5", 5], ["t6", 6]]);
    api.put("things", object("t0", 100));
    api.put("things", object("new", 1));
    api.delete("things", "t6");
    await until(() => known.get("t0") === 100 && known.get("new") === 1 && !known.has("t6"));
    expect(troubles).toEqual([]);
  });

  test("a server that has forgotten where we were: listed anew, and what went unseen is gone", async () => {
    api.put("things", object("stays", 1));
    api.put("things", object("goes", 1));
    start();
    await until(() => synced === 1);
    api.deleteSilently("things", "goes");
    api.forgetHistory();
    await until(() => synced === 2);
    expect([...known.keys()]).toEqual(["stays"]);
    expect(troubles).toEqual([]);
  });

  test("a connection that breaks is taken up where it was", async () => {
    api.put("things", object("a", 1));
    start();
    await until(() => synced === 1);
    api.breakConnections();
    api.put("things", object("b", 2));
    await until(() => known.has("b"));
    expect(synced).toBe(1);
  });

  test("an event that was lost: the end of a watch whose list is old is the time for another list", async () => {
    api.put("things", object("goes", 1));
    start({ relistAfterMs: 0 });
    await until(() => synced === 1);
    api.put("things", object("seen", 1));
    await until(() => known.has("seen"));
    api.deleteSilently("things", "goes");
    api.breakConnections();
    await until(() => synced === 2);
    expect([...known.keys()]).toEqual(["seen"]);
  });

  test("a server that refuses is told of, and asked again", async () => {
    api.refuseWith = 403;
    start();
    await until(() => troubles.length >= 2);
    expect(troubles[0]).toContain("answered 403 Refused: told to refuse");
    api.refuseWith = null;
    api.put("things", object("a", 1));
    await until(() => known.has("a"));
  });
});
