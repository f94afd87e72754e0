// The short way from bytes to the store is the long way's, byte for byte, of whatever bytes; and what is usual takes it.

import { describe, expect, test } from "bun:test";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { ip, RandomMesh, uid, workload } from "../../../test/kit/mesh-records.ts";
import { type Random, seededRandom } from "../../core/ports.ts";
import { PackWriter } from "../../mesh/packed/bytes.ts";
import { workloadShape } from "../../mesh/packed/record-codecs.ts";
import type { Workload } from "../../mesh/records.ts";
import { AddressSchema, WorkloadSchema } from "../../wire/protobuf/istio/workload/workload_pb.ts";
import { ADDRESS_TYPE, encodeWorkload, readAddress, readResource, type ReceivedResource } from "../resource.ts";
import { packPlainWorkload } from "./plain-workload.ts";
import { writeWorkload } from "./workload.ts";

function received(record: Workload): ReceivedResource {
  const read = readResource(encodeWorkload(record).bytes);
  if (!read.ok) throw new Error(read.error);
  return read.value;
}

function resource(record: Workload, fields: MessageInitShape<typeof WorkloadSchema>, name?: string): ReceivedResource {
  const { $typeName: _, ...written } = writeWorkload(record);
  const value = { ...written, ...fields };
  return { name: name ?? value.uid ?? "", version: "v1", typeUrl: ADDRESS_TYPE, value: toBinary(AddressSchema, create(AddressSchema, { type: { case: "workload", value } })) };
}

/** Null where it does not take the short way. */
function short(of: ReceivedResource): string | null {
  const to = new PackWriter();
  const taken = packPlainWorkload(of, to);
  if (!taken && to.length > 0) throw new Error("it has written what it did not take");
  return taken ? Buffer.from(to.own()).toString("latin1") : null;
}

/** Null where it is refused, or no workload. */
function long(of: ReceivedResource): string | null {
  const read = readAddress(of);
  if (!read.ok || read.value.kind !== "workload") return null;
  const to = new PackWriter();
  workloadShape.whole.write(to, read.value.workload);
  return Buffer.from(to.own()).toString("latin1");
}

const below = (random: Random, n: number): number => Math.floor(random.next() * n);

function mutate(random: Random, bytes: Uint8Array): Uint8Array {
  const mutated = [...bytes];
  for (let n = 1 + below(random, 3); n > 0; n--) {
    const at = below(random, mutated.length + 1);
    if (random.next() < 0.7) mutated[at] = below(random, 256);
    else if (random.next() < 0.5) mutated.splice(at, 1 + below(random, 4));
    else mutated.splice(at, 0, ...mutated.slice(at, at + below(random, 8)));
  }
  return Uint8Array.from(mutated);
}

/** Of the usual kind; some fields are not there. */
function usual(mesh: RandomMesh): Workload {
  const record = mesh.workload();
  const [canonicalName, canonicalRevision] = [mesh.of(["", "web"]), mesh.of(["", "v2"])];
  const [, , kind = "", namespace = "", name = ""] = record.uid.split("/");
  return { ...record, provenance: { ...record.provenance, kind, namespace, name }, waypoints: [], networkGateway: null, applicationTunnel: null, canonicalName, canonicalRevision, app: mesh.of([canonicalName, "", "shop"]), version: mesh.of([canonicalRevision, "", "v3"]), nativeTunnel: mesh.chance(0.2), workloadType: mesh.of(["pod", "deployment", "job", "cronjob"] as const), workloadName: mesh.of(["", "web"]) };
}

describe("a workload of the usual kind", () => {
  test("takes the short way, which packs what the long one does", () => {
    let taken = 0;
    for (let seed = 0; seed < 400; seed++) {
      const mesh = new RandomMesh(seededRandom(seed));
      const of = received(usual(mesh));
      const packed = short(of);
      if (packed === null) continue;
      taken++;
      if (packed !== long(of)) throw new Error(`seed ${seed}: packed otherwise`);
    }
    expect(taken).toBeGreaterThan(200);
  });

  const pod = workload({ name: "web-1", namespace: "shop", uid: uid("Kubernetes//Pod/shop/web-1"), addresses: [ip("198.18.0.1"), ip("2001:db8::1")], app: "web", canonicalName: "web", version: "latest", provenance: { kind: "Pod", namespace: "shop", name: "web-1", resourceVersion: "", fieldPath: "" } });

  test("as a control plane tells of a pod", () => {
    expect(short(received(pod))).toBe(long(received(pod)));
    expect(short(received(pod))).not.toBeNull();
  });

  test("as ours tells of one without a version", () => {
    const of = received({ ...pod, version: "" });
    expect(short(of)).toBe(long(of));
    expect(short(of)).not.toBeNull();
  });

  test.each([
    ["without a uid", { uid: "" }], ["with a space in its uid", { uid: "a b" }], ["whose uid has one part", { uid: "one" }], ["whose uid has parts to spare", { uid: "a/b//c/d/e/f" }], ["whose uid names no kind", { uid: "a/b//c/d" }],
    ["without a name", { name: "" }], ["without a namespace", { namespace: "" }], ["of a namespace that is dots", { namespace: ".." }], ["with a slash in its namespace", { namespace: "a/b" }], ["of a long namespace", { namespace: "n".repeat(254) }],
    ["of an account that cannot be", { serviceAccount: "a b" }], ["of a trust domain that cannot be", { trustDomain: "A b" }], ["of another trust domain", { trustDomain: "td.example" }], ["of another cluster", { clusterId: "west" }],
    ["with an address of five bytes", { addresses: [new Uint8Array(5)] }], ["with an address that is mapped", { addresses: [Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 198, 18, 0, 1])] }],
    ["of a protocol that is not known", { tunnelProtocol: 2 }], ["of a status that is not known", { status: 2 }], ["of a network mode that is not known", { networkMode: 2 }], ["of a type that is not known", { workloadType: 4 }],
    ["of no capacity", { capacity: 0 }], ["of much capacity", { capacity: 0xffff_ffff }], ["with a name that is no ASCII", { name: "wéb" }],
    ["with a service that is no name", { services: { web: { ports: [] } } }], ["with a service of two slashes", { services: { "a/b/c": { ports: [] } } }], ["with a port of 0", { services: { "a/b": { ports: [{ servicePort: 0, targetPort: 80 }] } } }],
    ["with a port beyond all", { services: { "a/b": { ports: [{ servicePort: 80, targetPort: 65_536 }] } } }], ["with a target port of 0", { services: { "a/b": { ports: [{ servicePort: 80, targetPort: 0 }] } } }],
    ["with several services", { services: { "b/x": { ports: [{ servicePort: 1, targetPort: 2 }] }, "a/x": { ports: [] }, "c/x": { ports: [{ servicePort: 3, targetPort: 4 }, { servicePort: 5, targetPort: 6 }] } } }],
    ["with forty policies", { authorizationPolicies: Array.from({ length: 40 }, (_, i) => `shop/p${i}`) }], ["with a policy that is no name", { authorizationPolicies: ["p"] }],
    ["with forty ports", { services: { "a/b": { ports: Array.from({ length: 40 }, (_, i) => ({ servicePort: i + 1, targetPort: i + 1 })) } } }],
    ["with a tunnel", { applicationTunnel: { protocol: 1, port: 15_088 } }],
  ] as readonly (readonly [string, MessageInitShape<typeof WorkloadSchema>])[])("%s is what the long way makes of it, or is left to that", (_, fields) => {
    const of = resource(pod, fields);
    const packed = short(of);
    if (packed !== null) expect(packed).toBe(long(of)!);
  });

  test("whose message names a service twice, the second time otherwise, is left to the long way, which knows what that means", () => {
    const withPort = (servicePort: number): Uint8Array => toBinary(WorkloadSchema, create(WorkloadSchema, { services: { "shop/web": { ports: [{ servicePort, targetPort: 80 }] } } }));
    const { $typeName: _, ...written } = writeWorkload(pod);
    const value = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(Buffer.concat([toBinary(WorkloadSchema, create(WorkloadSchema, written)), withPort(80), withPort(81)])).finish();
    const of = { name: pod.uid, version: "v1", typeUrl: ADDRESS_TYPE, value };
    expect(short(of)).toBeNull();
    expect(long(of)).not.toBeNull();
  });

  test("under another's name is left to the long way, which refuses it", () => {
    const of = resource(pod, {}, "Kubernetes//Pod/shop/web-2");
    expect([short(of), long(of)]).toEqual([null, null]);
  });
});

test("whatever the bytes, the short way takes nothing that the long one refuses or reads otherwise", () => {
  let taken = 0;
  for (let seed = 0; seed < 1_000; seed++) {
    const random = seededRandom(seed);
    const mesh = new RandomMesh(random);
    const whole = received(mesh.chance(0.8) ? usual(mesh) : mesh.workload());
    const of = { ...whole, value: mutate(random, whole.value) };
    const packed = short(of);
    if (packed === null) continue;
    taken++;
    if (packed !== long(of)) throw new Error(`seed ${seed}: packed otherwise`);
  }
  expect(taken).toBeGreaterThan(50);
});
