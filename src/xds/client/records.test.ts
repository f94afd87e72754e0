// What a client makes of what it is told.

import { describe, expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { namespacedName } from "../../core/brand.ts";
import { isEmptyPackedDelta } from "../../mesh/packed/packed-delta.ts";
import { MeshStore } from "../../mesh/store.ts";
import { authorise } from "../../policy/authorise.ts";
import { exact, ip, match, policy, service, uid, workload } from "../../../test/kit/mesh-records.ts";
import { AuthorizationSchema } from "../../wire/protobuf/istio/security/authorization_pb.ts";
import { RecordSchema } from "../../wire/protobuf/weft/l7/v1/l7_pb.ts";
import { StoredChangeSchema } from "../../wire/protobuf/weft/state/v1/state_pb.ts";
import { L7_CODECS } from "../l7/kinds.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, encodePolicy, encodeService, encodeWorkload, type EncodedResource, readResource, type ReceivedResource } from "../resource.ts";
import { L7_READER } from "./l7-reader.ts";
import { FRAME_HEADER_BYTES } from "./log-frames.ts";
import { type Told, XdsRecords } from "./records.ts";

const A = "Kubernetes//Pod/shop/a";
const received = (encoded: EncodedResource): ReceivedResource => {
  const read = readResource(encoded.bytes);
  if (!read.ok) throw new Error(read.error);
  return read.value;
};
const broken = (name: string, typeUrl = ADDRESS_TYPE): ReceivedResource => ({ name, version: "broken", typeUrl, value: new Uint8Array([0xff]) });

/** What is kept for the next start. */
const framesIn = ({ frames }: Told): { readonly name: string; readonly removed: boolean }[] => frames.pieces().flatMap((piece) => {
  const found: { name: string; removed: boolean }[] = [];
  for (let at = 0; at < piece.length; ) {
    const end = at + FRAME_HEADER_BYTES + Buffer.from(piece).readUInt32LE(at);
    const { name, removed } = fromBinary(StoredChangeSchema, piece.subarray(at + FRAME_HEADER_BYTES, end));
    found.push({ name, removed });
    at = end;
  }
  return found;
});

describe("addresses", () => {
  test("are workloads and services, each removed by its name", () => {
    const records = new XdsRecords(L7_READER, new MeshStore());
    const told = records.take({ typeUrl: ADDRESS_TYPE, resources: [received(encodeWorkload(workload({ name: "a" }))), received(encodeService(service({ name: "web" })))], removed: [], first: true });
    expect([told.delta.workloads.length, told.delta.services.length, records.count]).toEqual([1, 1, 2]);
    const gone = records.take({ typeUrl: ADDRESS_TYPE, resources: [], removed: [A, "shop/web.shop.svc.cluster.local", "shop/never"], first: false });
    expect([gone.delta.removedWorkloads, gone.delta.removedServices, records.count, records.versions(ADDRESS_TYPE).size]).toEqual([[uid(A)], [namespacedName("shop", "web.shop.svc.cluster.local")], 0, 0]);
  });

  test("that are refused leave the state before, and its version, and take nobody along", () => {
    const records = new XdsRecords(L7_READER, new MeshStore());
    const good = received(encodeWorkload(workload({ name: "a" })));
    records.take({ typeUrl: ADDRESS_TYPE, resources: [good], removed: [], first: true });
    const told = records.take({ typeUrl: ADDRESS_TYPE, resources: [broken(A), received(encodeWorkload(workload({ name: "b" })))], removed: [], first: false });
    expect(told.refused).toMatchObject([{ name: A, reason: expect.stringContaining("not a istio.workload.Address") }]);
    expect(told.delta.workloads.map(({ name }) => name)).toEqual(["b"]);
    expect(records.mesh.workloads.get(uid(A))?.name).toBe("a");
    expect(records.versions(ADDRESS_TYPE).get(A)).toBe(good.version);
  });
});

test("a response is taken in whole while it comes, comes into force at its end, and one that does not end leaves nothing behind", () => {
  const store = new MeshStore();
  const resources = Array.from({ length: 2_500 }, (_, i) => received(encodeWorkload(workload({ name: `w${i}` }))));
  const records = new XdsRecords(L7_READER, store);
  const cut = records.begin();
  for (const resource of resources) cut.add(resource);
  expect(store.counts().workloads).toBe(0);
  const intake = records.begin();
  for (const resource of [...resources.slice(0, 2_000), broken(A)]) intake.add(resource);
  const told = intake.end({ typeUrl: ADDRESS_TYPE, removed: [resources[7]!.name, resources[2_400]!.name], first: true });
  expect([store.counts().workloads, told.refused.length, records.versions(ADDRESS_TYPE).size]).toEqual([1_999, 1, 1_999]);
  expect([told.delta.workloads.length, told.delta.removedWorkloads]).toEqual([2_000, [uid(resources[7]!.name)]]);
  expect([framesIn(told).length, framesIn(told).filter(({ removed }) => removed).map(({ name }) => name)]).toEqual([2_002, [resources[7]!.name, resources[2_400]!.name]]);
});

test("what is told again as it is changes nothing", () => {
  const records = new XdsRecords(L7_READER, new MeshStore());
  const resources = [received(encodeWorkload(workload({ name: "a" }))), received(encodeService(service({ name: "web" })))];
  const policies = [received(encodePolicy(policy({ name: "p" })))];
  records.take({ typeUrl: ADDRESS_TYPE, resources, removed: [], first: true });
  records.take({ typeUrl: AUTHORIZATION_TYPE, resources: policies, removed: [], first: true });
  const again = [records.take({ typeUrl: ADDRESS_TYPE, resources, removed: ["shop/never"], first: true }), records.take({ typeUrl: AUTHORIZATION_TYPE, resources: policies, removed: [], first: true })];
  expect(again.map(({ packed }) => isEmptyPackedDelta(packed))).toEqual([true, true]);
});

test("resources of another type than their response says are refused together", () => {
  const store = new MeshStore();
  const records = new XdsRecords(L7_READER, store);
  const told = records.take({ typeUrl: AUTHORIZATION_TYPE, resources: [received(encodeWorkload(workload({ name: "a" })))], removed: [], first: true });
  expect([told.refused, store.counts().workloads, framesIn(told)]).toEqual([[{ name: "1 resources", reason: expect.stringContaining(ADDRESS_TYPE) }], 0, []]);
});

describe("a policy that cannot be read", () => {
  const denies = (told: Told, namespace = "shop"): boolean => {
    const store = new MeshStore();
    store.apply({ ...told.delta, workloads: [workload({ name: "a", namespace })] });
    const [only] = [...store.workloads()];
    return !authorise(store, only!, { peer: null, sourceIp: ip("198.18.0.9"), destinationIp: ip("198.18.0.1"), destinationPort: 80 }).allowed;
  };
  const ofScope = (scope: number, fields: object = {}): ReceivedResource => ({
    name: "shop/p", version: "v", typeUrl: AUTHORIZATION_TYPE, value: toBinary(AuthorizationSchema, create(AuthorizationSchema, { name: "p", namespace: "shop", scope, action: 7, ...fields })),
  });

  test("and has no state before it denies all that it may be about", () => {
    const records = new XdsRecords(L7_READER, new MeshStore());
    const told = records.take({ typeUrl: AUTHORIZATION_TYPE, resources: [broken("shop/p", AUTHORIZATION_TYPE)], removed: [], first: true });
    expect(told.refused.length).toBe(1);
    expect(told.delta.policies).toMatchObject([{ namespace: "shop", name: "p", scope: "namespace", action: "deny" }]);
    expect([denies(told), denies(told, "bank")]).toEqual([true, false]);
    expect(records.versions(AUTHORIZATION_TYPE).size).toBe(0);
    expect(framesIn(told).length).toBe(1);
  });

  test("denies as widely as it says itself, and not where it would decide nothing or is named by who it binds", () => {
    const standIn = (resource: ReceivedResource) => new XdsRecords(L7_READER, new MeshStore()).take({ typeUrl: AUTHORIZATION_TYPE, resources: [resource], removed: [], first: true }).delta.policies.map(({ scope }) => scope);
    expect(standIn(ofScope(0))).toEqual(["global"]);
    expect(standIn(ofScope(2))).toEqual([]);
    expect(standIn(ofScope(1, { dryRun: true }))).toEqual([]);
    expect(standIn(ofScope(77))).toEqual(["namespace"]);
  });

  test("and is not even named as one is refused alone: nothing could take a denial away again", () => {
    const told = new XdsRecords(L7_READER, new MeshStore()).take({ typeUrl: AUTHORIZATION_TYPE, resources: [broken("nameless", AUTHORIZATION_TYPE)], removed: [], first: true });
    expect([told.refused.length, told.delta.policies, framesIn(told)]).toEqual([1, [], []]);
  });

  test("keeps its last good state where it has one", () => {
    const records = new XdsRecords(L7_READER, new MeshStore());
    const good = policy({ name: "p", rules: [[[match({ principals: [exact("cluster.local/ns/shop/sa/web")] })]]] });
    records.take({ typeUrl: AUTHORIZATION_TYPE, resources: [received(encodePolicy(good))], removed: [], first: true });
    const told = records.take({ typeUrl: AUTHORIZATION_TYPE, resources: [broken("shop/p", AUTHORIZATION_TYPE)], removed: [], first: false });
    expect([told.delta.policies, framesIn(told), records.mesh.policies.get(namespacedName("shop", "p"))?.action]).toEqual([[], [], "allow"]);
  });

  test("stops denying when it can be read, when it is removed, and when a new stream no longer names it", () => {
    const begin = () => {
      const records = new XdsRecords(L7_READER, new MeshStore());
      records.take({ typeUrl: AUTHORIZATION_TYPE, resources: [broken("shop/p", AUTHORIZATION_TYPE)], removed: [], first: true });
      return records;
    };
    const good = begin().take({ typeUrl: AUTHORIZATION_TYPE, resources: [received(encodePolicy(policy({ name: "p" })))], removed: [], first: false });
    expect(good.delta.policies.map(({ action }) => action)).toEqual(["allow"]);
    expect(begin().take({ typeUrl: AUTHORIZATION_TYPE, resources: [], removed: ["shop/p"], first: false }).delta.removedPolicies).toEqual([namespacedName("shop", "p")]);
    expect(begin().take({ typeUrl: AUTHORIZATION_TYPE, resources: [], removed: [], first: false }).delta.removedPolicies).toEqual([]);
    const records = begin();
    expect(records.take({ typeUrl: AUTHORIZATION_TYPE, resources: [], removed: [], first: true }).delta.removedPolicies).toEqual([namespacedName("shop", "p")]);
    expect(records.mesh.policies.size).toBe(0);
  });
});

describe("what guards requests and cannot be read", () => {
  const json = (kind: "requestPolicies" | "loginPolicies", name: string, text: string): ReceivedResource => ({
    name, version: "v", typeUrl: L7_CODECS[kind].typeUrl, value: toBinary(RecordSchema, create(RecordSchema, { json: text })),
  });
  const target = { kind: "service", service: "shop/web" };

  test("denies at its targets, or in its namespace where they are not known", () => {
    const take = (kind: "requestPolicies" | "loginPolicies", text: string) =>
      new XdsRecords(L7_READER, new MeshStore()).take({ typeUrl: L7_CODECS[kind].typeUrl, resources: [json(kind, "shop/p", text)], removed: [], first: true }).l7Delta.requestPolicies.map(({ name, targets, action }) => ({ name, targets, action }));
    expect(take("requestPolicies", JSON.stringify({ targets: [target], news: 1 }))).toEqual([{ name: "p", targets: [target as never], action: { kind: "deny" } }]);
    expect(take("requestPolicies", "{")).toEqual([{ name: "p", targets: [{ kind: "namespace", namespace: "shop" }], action: { kind: "deny" } }]);
    expect(take("loginPolicies", JSON.stringify({ targets: [target] }))).toEqual([{ name: "p-login-refused", targets: [target as never], action: { kind: "deny" } }]);
  });

  test("stops denying when it is gone", () => {
    for (const kind of ["requestPolicies", "loginPolicies"] as const) {
      const records = new XdsRecords(L7_READER, new MeshStore());
      const { typeUrl } = L7_CODECS[kind];
      const [standIn] = records.take({ typeUrl, resources: [json(kind, "shop/p", "{")], removed: [], first: true }).l7Delta.requestPolicies;
      expect(records.l7.requestPolicies.size).toBe(1);
      expect(records.take({ typeUrl, resources: [], removed: ["shop/p"], first: false }).l7Delta.removedRequestPolicies).toEqual([namespacedName("shop", standIn!.name)]);
      expect(records.l7.requestPolicies.size).toBe(0);
    }
  });
});

test("a type that nobody asked for is refused", () => {
  expect(new XdsRecords(L7_READER, new MeshStore()).take({ typeUrl: "else", resources: [broken("x", "else")], removed: [], first: true }).refused).toEqual([{ name: "else", reason: "nobody here asked for this type" }]);
  expect(new XdsRecords(null, new MeshStore()).take({ typeUrl: L7_CODECS.routes.typeUrl, resources: [broken("x", L7_CODECS.routes.typeUrl)], removed: [], first: true }).refused).toEqual([{ name: L7_CODECS.routes.typeUrl, reason: "nobody here asked for this type" }]);
});
