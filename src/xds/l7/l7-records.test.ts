// L7 records as resources and back: every record that the corpus of YAML makes, and what must be refused.

import { describe, expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Result } from "../../core/result.ts";
import type { L7Snapshot } from "../../mesh/l7/delta.ts";
import { evaluate } from "../../resources/test-kit.ts";
import { RecordSchema } from "../../wire/protobuf/weft/l7/v1/l7_pb.ts";
import { readResource } from "../resource.ts";
import { L7_CODECS, type L7Codec, type L7Kind } from "./kinds.ts";

const CORPUS = join(import.meta.dir, "../../resources/corpus");
const KINDS = Object.keys(L7_CODECS) as L7Kind[];

/** Versions of objects and files do not travel. */
const travels = (record: unknown): unknown => JSON.parse(JSON.stringify(record, (key, value: unknown) => (key === "source" ? undefined : key === "resourceVersion" ? "" : value)));

function through<T>(codec: L7Codec<T>, name: string, record: T): Result<T, string> {
  const encoded = codec.encode(name, record);
  if (!encoded.ok) return encoded;
  const received = readResource(encoded.value.bytes);
  return received.ok ? codec.decode(received.value) : received;
}

function snapshots(): L7Snapshot[] {
  return readdirSync(CORPUS).map((name) => {
    const directory = join(CORPUS, name);
    const files = readdirSync(directory).filter((file) => file !== "expected.txt");
    return evaluate(Object.fromEntries(files.map((file) => [file, readFileSync(join(directory, file), "utf8")]))).l7;
  });
}

describe("every record of the corpus", () => {
  const all = snapshots();
  for (const kind of KINDS) {
    test(`${kind}: comes back as it went out`, () => {
      let seen = 0;
      for (const snapshot of all) {
        for (const [name, record] of snapshot[kind] as ReadonlyMap<string, never>) {
          const codec: L7Codec<never> = L7_CODECS[kind] as L7Codec<never>;
          expect(codec.nameOf(record)).toBe(name);
          const read = through(codec, name, record);
          expect(read.ok ? travels(read.value) : read, name).toEqual(travels(record));
          seen++;
        }
      }
      expect(seen, "the corpus has some").toBeGreaterThan(0);
    });
  }
});

describe("what is refused", () => {
  const received = (name: string, json: string) => ({ name, version: "v", typeUrl: "", value: toBinary(RecordSchema, create(RecordSchema, { json })) });
  const waypoint = { name: "wp", namespace: "shop", service: "shop/wp.shop", serves: "service", clientCertificate: null, provenance: { kind: "Gateway", namespace: "shop", name: "wp", fieldPath: "" } };
  const errorOf = (name: string, record: unknown): string => {
    const read = L7_CODECS.waypoints.decode(received(name, typeof record === "string" ? record : JSON.stringify(record)));
    return read.ok ? "taken" : read.error;
  };

  test("a field that is not known, or missing, or of another value", () => {
    expect(errorOf("shop/wp", waypoint)).toBe("taken");
    expect(errorOf("shop/wp", { ...waypoint, onlyFrom: "shop" })).toContain("onlyFrom");
    expect(errorOf("shop/wp", { ...waypoint, serves: undefined })).toContain("serves");
    expect(errorOf("shop/wp", { ...waypoint, serves: "everything" })).toContain("serves");
    expect(errorOf("shop/wp", { ...waypoint, service: "nowhere" })).toContain("wanted namespace/name");
  });

  test("a record under another's name, and text that is no JSON", () => {
    expect(errorOf("shop/other", waypoint)).toContain("its content calls itself \"shop/wp\"");
    expect(errorOf("shop/wp", "{")).toContain("not JSON");
  });

  test("an address range that is none", () => {
    const base = { name: "p", namespace: "shop", targets: [], action: { kind: "allow" }, dryRun: false, rules: [], provenance: waypoint.provenance };
    expect(L7_CODECS.requestPolicies.decode(received("shop/p", JSON.stringify(base))).ok).toBe(true);
    expect(L7_CODECS.requestPolicies.decode(received("shop/p", JSON.stringify({ ...base, action: { kind: "permit" } }))).ok).toBe(false);
  });
});

describe("records of a newer control plane", () => {
  const received = (name: string, record: unknown) => ({ name, version: "v", typeUrl: "", value: toBinary(RecordSchema, create(RecordSchema, { json: JSON.stringify(record) })) });
  const provenance = { kind: "HTTPRoute", namespace: "shop", name: "web", fieldPath: "" };
  const rule = { name: null, matches: [], matchPaths: null, filters: [], backends: [], timeouts: { requestMs: null, backendRequestMs: null, streamIdleMs: null }, retry: null, sessionPersistence: null, faults: [], broken: null, fieldPath: "spec.rules[0]" };
  const route = (rules: readonly unknown[], more: object = {}) => ({ id: "HTTPRoute/shop/web", name: "web", namespace: "shop", parents: [], rules: { protocol: "http", rules, precedence: "gatewayApi" }, createdMs: 0, provenance, ...more });
  const brokenIn = (record: unknown): (string | null)[] | string => {
    const read = L7_CODECS.routes.decode(received("HTTPRoute/shop/web", record));
    if (!read.ok) return read.error;
    return "precedence" in read.value.rules ? read.value.rules.rules.map(({ broken }) => broken) : [];
  };

  test("a rule that does something unknown is broken alone", () => {
    for (const unknown of [{ filters: [{ kind: "translate", to: "latin" }] }, { filters: [{ kind: "respond", status: 200, body: "", onlyIf: "x" }] }, { backends: [{ weight: 1, target: { kind: "moon" }, filters: [] }] }, { guard: true }]) {
      expect(brokenIn(route([rule, { ...rule, ...unknown }, rule]))).toEqual([null, expect.stringContaining("the control plane is newer than this waypoint"), null]);
    }
  });

  test("a rule that is about unknown requests refuses the route, as does anything unknown around its rules", () => {
    const match = { path: null, method: null, headers: [], query: [], phase: "full moon" };
    expect(brokenIn(route([rule, { ...rule, matches: [match] }]))).toContain("phase");
    expect(brokenIn(route([rule, { ...rule, retry: undefined }]))).toContain("retry");
    expect(brokenIn(route([rule], { onlyFrom: "shop" }))).toContain("onlyFrom");
    expect(brokenIn(route([rule], { rules: { protocol: "quic", rules: [] } }))).toContain("protocol");
  });

  test("what a policy says that is not known refuses it; what is said of where it came from is skipped", () => {
    const policy = { name: "p", namespace: "shop", targets: [], action: { kind: "allow" }, dryRun: false, rules: [], provenance: { ...provenance, commit: "abc" } };
    expect(L7_CODECS.requestPolicies.decode(received("shop/p", policy)).ok).toBe(true);
    expect(L7_CODECS.requestPolicies.decode(received("shop/p", { ...policy, onlyAtNight: true })).ok).toBe(false);
    expect(L7_CODECS.requestPolicies.decode(received("shop/p", { ...policy, rules: [{ clauses: [], fieldPath: "", unless: [] }] })).ok).toBe(false);
  });
});
