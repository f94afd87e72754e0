import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DAY_MS, NOON_MS, TEST_DOMAIN, testCa, WEB } from "../../test/kit/certificates.ts";
import { spiffeId, type SpiffeId } from "../core/spiffe.ts";
import { assembleSvid } from "./chain.ts";
import { createRequest } from "./csr.ts";
import { type DiskSvidStore, openSvidStore } from "./svid-store.ts";
import type { Svid } from "./svid.ts";

const ca = testCa({ nowMs: NOON_MS - DAY_MS });
const API = spiffeId(TEST_DOMAIN, "shop", "api");
let folder = "";
let path = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "weft-svids-"));
  path = join(folder, "svids");
});
afterEach(() => rmSync(folder, { recursive: true }));

function store(): DiskSvidStore {
  const opened = openSvidStore(path);
  if (!opened.ok) throw new Error(opened.error);
  return opened.value;
}

function svidFor(id: SpiffeId): Svid {
  const request = createRequest(id);
  const issued = ca.authority.sign({ csr: request.csrPem, mayHave: () => true, caller: "test", lifetimeMs: null }, NOON_MS);
  if (!issued.ok) throw new Error(issued.error.message);
  const svid = assembleSvid({ spiffeId: id, chainPem: issued.value.chainPem.join(""), privateKeyPem: request.privateKeyPem, trustBundlePem: issued.value.trustBundlePem, nowMs: NOON_MS });
  if (!svid.ok) throw new Error(svid.error);
  return svid.value;
}

test("what was saved comes back whole, in files that only the owner reads", () => {
  const svids = [svidFor(WEB), svidFor(API)];
  for (const svid of svids) store().save(svid);
  const loaded = store().load(NOON_MS);
  expect(loaded.ignored).toEqual([]);
  expect(new Set(loaded.svids.map((svid) => JSON.stringify(svid)))).toEqual(new Set(svids.map((svid) => JSON.stringify(svid))));
  expect(statSync(path).mode & 0o777).toBe(0o700);
  for (const name of readdirSync(path)) expect(statSync(join(path, name)).mode & 0o777).toBe(0o600);
});

test("a newer certificate replaces the older one; a removed one is gone", () => {
  store().save(svidFor(WEB));
  const newer = svidFor(WEB);
  store().save(newer);
  expect(store().load(NOON_MS).svids.map((svid) => svid.serial)).toEqual([newer.serial]);
  store().remove(WEB);
  store().remove(WEB);
  expect(store().load(NOON_MS).svids).toEqual([]);
});

test("expired certificates are ignored and said to be", () => {
  store().save(svidFor(WEB));
  const loaded = store().load(NOON_MS + 2 * DAY_MS);
  expect(loaded.svids).toEqual([]);
  expect(loaded.ignored[0]).toContain("expired at");
});

test("files that were swapped, mixed, cut short, or are not ours are ignored one by one", () => {
  store().save(svidFor(WEB));
  store().save(svidFor(API));
  const [first, second] = readdirSync(path).map((name) => join(path, name)) as [string, string];
  const whole = readFileSync(first, "utf8");
  const other = readFileSync(second, "utf8");
  const keyOf = (text: string): string => /"privateKeyPem": "([^"]+)"/.exec(text)![1]!;
  for (const [text, reason] of [
    [other, "does not belong to the identity inside"],
    [whole.replace(keyOf(whole), keyOf(other)), "another key"],
    [whole.slice(0, 500), "JSON"],
    [whole.replace('"version": 1', '"version": 2'), "version"],
    ["", "JSON"],
  ] as const) {
    writeFileSync(first, text);
    const loaded = store().load(NOON_MS);
    expect(loaded.svids).toHaveLength(1);
    expect(loaded.ignored[0]).toContain(reason);
  }
  renameSync(first, join(path, "notes.txt"));
  expect(store().load(NOON_MS).ignored[0]).toContain("not a file of ours");
});
