// The same messages as the library's, of whatever bytes.

import { describe, expect, test } from "bun:test";
import { create, type DescMessage, fromBinary, type MessageInitShape, toBinary, toJson } from "@bufbuild/protobuf";
import { RandomMesh } from "../../../test/kit/mesh-records.ts";
import { type Random, seededRandom } from "../../core/ports.ts";
import { encodePolicy, encodeService, encodeWorkload } from "../../xds/resource.ts";
import { decodeMessage } from "./decode.ts";
import { DeltaDiscoveryRequestSchema, ResourceSchema } from "./envoy/service/discovery/v3/ads_pb.ts";
import { AuthorizationSchema } from "./istio/security/authorization_pb.ts";
import { AddressSchema, WorkloadSchema } from "./istio/workload/workload_pb.ts";
import { StoredChangeSchema } from "./weft/state/v1/state_pb.ts";

const below = (random: Random, n: number): number => Math.floor(random.next() * n);

function mutate(random: Random, bytes: Uint8Array): Uint8Array {
  const mutated = [...bytes];
  for (let n = 1 + below(random, 3); n > 0; n--) {
    const at = below(random, mutated.length + 1);
    if (random.next() < 0.6) mutated[at] = below(random, 256);
    else if (random.next() < 0.5) mutated.splice(at, 1 + below(random, 4));
    else mutated.splice(at, 0, ...mutated.slice(at, at + below(random, 8)));
  }
  return Uint8Array.from(mutated);
}

/** Message or refusal. The library's messages have prototypes and unions of their own making, so the bytes of both are compared. */
function outcome(schema: DescMessage, decode: typeof fromBinary, bytes: Uint8Array): string | null {
  try {
    return Buffer.from(toBinary(schema, decode(schema, bytes))).toString("hex");
  } catch {
    return null;
  }
}

const encoded = (mesh: RandomMesh): readonly (readonly [DescMessage, Uint8Array])[] => {
  const [ofWorkload, ofService, ofPolicy] = [encodeWorkload(mesh.workload()), encodeService(mesh.service()), encodePolicy(mesh.policy())].map(({ bytes }) => bytes);
  const value = (bytes: Uint8Array): Uint8Array => fromBinary(ResourceSchema, bytes).resource!.value;
  return [[ResourceSchema, ofWorkload!], [AddressSchema, value(ofWorkload!)], [AddressSchema, value(ofService!)], [AuthorizationSchema, value(ofPolicy!)]];
};

describe("a message", () => {
  test("is the library's, field by field", () => {
    for (let seed = 0; seed < 300; seed++) {
      for (const [schema, bytes] of encoded(new RandomMesh(seededRandom(seed)))) {
        const [ours, theirs] = [decodeMessage(schema, bytes), fromBinary(schema, bytes)];
        expect(toJsonOf(schema, ours), `seed ${seed}`).toEqual(toJsonOf(schema, theirs));
        expect(JSON.stringify(ours), `seed ${seed}`).toBe(JSON.stringify(theirs));
      }
    }
  });

  test("that has suffered is refused, or is what the library makes of it", () => {
    let taken = 0;
    for (let seed = 0; seed < 3_000; seed++) {
      const random = seededRandom(seed);
      for (const [schema, bytes] of encoded(new RandomMesh(random))) {
        const mutated = mutate(random, bytes);
        const ours = outcome(schema, decodeMessage, mutated);
        if (ours === null) continue;
        taken++;
        expect(ours, `seed ${seed} ${Buffer.from(mutated).toString("hex")}`).toBe(outcome(schema, fromBinary, mutated)!);
      }
    }
    expect(taken).toBeGreaterThan(1_000);
  });

  test("keeps what is not known of it, and gives the value of a wrapper", () => {
    const bytes = Uint8Array.from([...toBinary(WorkloadSchema, create(WorkloadSchema, { uid: "u", capacity: 7 })), 0xfa, 0x7f, 2, 1, 2]);
    const read = decodeMessage(WorkloadSchema, bytes);
    expect([read.uid, read.capacity, read.$unknown?.map(({ no, data }) => [no, [...data]])]).toEqual(["u", 7, [[2047, [2, 1, 2]]]]);
    expect(decodeMessage(WorkloadSchema, new Uint8Array(0)).capacity).toBeUndefined();
  });

  test("with a kind of field that is the library's to read is read by it", () => {
    const bytes = toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, { typeUrl: "t", node: { id: "n", metadata: { a: 1 } } }));
    expect(decodeMessage(DeltaDiscoveryRequestSchema, bytes)).toEqual(fromBinary(DeltaDiscoveryRequestSchema, bytes));
  });
});

describe("refused is", () => {
  const bytesOf = <S extends DescMessage>(schema: S, fields: MessageInitShape<S>): number[] => [...toBinary(schema, create(schema, fields))];
  const refusal = (bytes: readonly number[], schema: DescMessage = StoredChangeSchema): string => {
    try {
      decodeMessage(schema, Uint8Array.from(bytes));
      return "nothing";
    } catch (cause) {
      return String(cause);
    }
  };

  test.each([
    ["a field that is cut off", bytesOf(StoredChangeSchema, { name: "abc" }).slice(0, -1), "3 bytes are announced, 2 are there"],
    ["a number that does not end", [0x28, ...Array.from({ length: 11 }, () => 0xff)], "more than 10 bytes"],
    ["a field of another wire type", [0x10, 1], "field name is of wire type 0, wanted 2"],
    ["text that is no UTF-8", [0x12, 2, 0xc3, 0x28], "TypeError"],
    ["a group", [0x73, 0x74], "groups are not read"],
    ["a field without a number", [0x02, 0], "without a number"],
  ])("%s", (_, bytes, reason) => expect(refusal(bytes)).toContain(reason));

  test("a message that ends after what it is in, and a key that no object has", () => {
    // A gateway of two bytes holds a host name whose length goes beyond it.
    expect(refusal([...tagOf("waypoint"), 2, 0x0a, 5, 0x0a, 3, 97, 98, 99], WorkloadSchema)).toContain("goes beyond its message");
    const entry = [0x0a, 9, ...Buffer.from("__proto__"), 0x12, 0];
    expect(refusal([...tagOf("services"), entry.length, ...entry], WorkloadSchema)).toContain("__proto__");
  });
});

/** Of a field of Workload that is a message. */
function tagOf(name: string): readonly number[] {
  const tag = (WorkloadSchema.fields.find(({ localName }) => localName === name)!.number << 3) | 2;
  return tag > 0x7f ? [(tag & 0x7f) | 0x80, tag >> 7] : [tag];
}

const toJsonOf = (schema: DescMessage, message: ReturnType<typeof fromBinary>): unknown => {
  try {
    return toJson(schema, message);
  } catch {
    return "the library cannot write an Any of this kind";
  }
};
