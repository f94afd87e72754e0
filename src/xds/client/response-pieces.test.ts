// A response in pieces: each resource once it is whole, the rest at the end, nothing taken of what is announced and does not come.

import { describe, expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { DeltaDiscoveryResponseSchema } from "../../wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import { RESOURCE_BYTES_MAX, ResponsePieces, REST_BYTES_MAX } from "./response-pieces.ts";

const RESOURCES = [new Uint8Array(0), new Uint8Array([1, 2, 3]), new Uint8Array(5_000).fill(4), new Uint8Array(100_000).fill(5)];
const RESPONSE = toBinary(DeltaDiscoveryResponseSchema, create(DeltaDiscoveryResponseSchema, { systemVersionInfo: "v", typeUrl: "t", nonce: "n", removedResources: ["gone", "gone too"], resources: RESOURCES }));

describe("a response", () => {
  test.each([1, 3, 1_000, 16_384, RESPONSE.length])("in pieces of %i bytes is read resource by resource", (size) => {
    const seen: Uint8Array[] = [];
    const pieces = new ResponsePieces((resource) => seen.push(new Uint8Array(resource)));
    for (let at = 0; at < RESPONSE.length; at += size) expect(pieces.push(RESPONSE.subarray(at, at + size)).ok).toBe(true);
    expect(pieces.end()).toEqual({ ok: true, value: { typeUrl: "t", nonce: "n", removed: ["gone", "gone too"] } });
    expect(seen.map((resource) => [resource.length, resource[0]])).toEqual(RESOURCES.map((resource) => [resource.length, resource[0]]));
  });

  test("hands a resource on before the next has come, and reads the next response anew", () => {
    let seen = 0;
    const pieces = new ResponsePieces(() => void seen++);
    pieces.push(Uint8Array.from([0x12, 1, 9]));
    expect(seen).toBe(1);
    expect(pieces.end()).toEqual({ ok: true, value: { typeUrl: "", nonce: "", removed: [] } });
    pieces.push(Uint8Array.from([0x22, 1, 0x61]));
    expect(pieces.end()).toEqual({ ok: true, value: { typeUrl: "a", nonce: "", removed: [] } });
  });

  const varint = (value: number): number[] => (value < 128 ? [value] : [(value % 128) | 0x80, ...varint(Math.floor(value / 128))]);

  test.each([
    ["cut off within a field", [0x12, 5, 1], "a field is cut off"], ["cut off within a head", [0x92], "a field is cut off"], ["with a group", [0x13], "field 2 is of wire type 3: groups are not read"],
    ["with a resource that is too large", [0x12, ...varint(RESOURCE_BYTES_MAX + 1)], `a resource of ${RESOURCE_BYTES_MAX + 1} bytes, wanted at most ${RESOURCE_BYTES_MAX}`],
    ["with names that are too many", [0x32, ...varint(REST_BYTES_MAX)], `more than ${REST_BYTES_MAX} bytes beside resources`],
    ["with a number without an end", new Array<number>(30).fill(0xff), "a tag of more than ten bytes"], ["with a length without an end", [0x12, ...new Array<number>(30).fill(0xff)], "a number of more than ten bytes"],
    ["with a name that is no text", [0x22, 1, 0xff], "not a envoy.service.discovery.v3.DeltaDiscoveryResponse"],
  ] as const)("%s is none", (_, bytes, error) => {
    for (const size of [1, bytes.length]) {
      const pieces = new ResponsePieces(() => {});
      let fault: string | null = null;
      for (let at = 0; at < bytes.length && fault === null; at += size) {
        const taken = pieces.push(Uint8Array.from(bytes.slice(at, at + size)));
        if (!taken.ok) fault = taken.error;
      }
      const end = pieces.end();
      expect(fault ?? (end.ok ? "" : end.error)).toStartWith(error);
    }
  });
});
