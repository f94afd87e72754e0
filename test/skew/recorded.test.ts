// What earlier releases said, read by this version: records, requests, what an agent has on disk, and the CNI plugin's packets. And what
// this version makes of the records is what they were: a release before it can read what it tells, as long as nothing newer is used.

import { describe, expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeAnswer, decodeRequest } from "../../src/cni/agent-protocol.ts";
import type { NamespacedName } from "../../src/core/brand.ts";
import { MeshStore } from "../../src/mesh/store.ts";
import { decode } from "../../src/wire/protobuf/decode.ts";
import { DeltaDiscoveryRequestSchema } from "../../src/wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import { RecordSchema } from "../../src/wire/protobuf/weft/l7/v1/l7_pb.ts";
import { L7_READER } from "../../src/xds/client/l7-reader.ts";
import { XdsRecords } from "../../src/xds/client/records.ts";
import { ResourceLog } from "../../src/xds/client/resource-log.ts";
import { L7_CODECS, type L7Codec, type L7Kind } from "../../src/xds/l7/kinds.ts";
import { readNode } from "../../src/xds/node-message.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, encodePolicy, encodeService, encodeWorkload, type EncodedResource, readAddress, readAuthorization, readResource, type ReceivedResource } from "../../src/xds/resource.ts";
import { Session } from "../../src/xds/server/session.ts";
import { World } from "../../src/xds/server/world.ts";
import type { ClientView } from "../../src/xds/serving.ts";
import type { Recorded } from "./recorded.ts";

const RELEASES = join(import.meta.dir, "../vectors/releases");
const releases = readdirSync(RELEASES).map((file) => ({ release: file.replace(/\.json$/, ""), recorded: JSON.parse(readFileSync(join(RELEASES, file), "utf8")) as Recorded }));
const KINDS = new Map((Object.keys(L7_CODECS) as L7Kind[]).map((kind) => [L7_CODECS[kind].typeUrl, kind]));

const bytesOf = (base64: string): Uint8Array => new Uint8Array(Buffer.from(base64, "base64"));

function received(resource: Recorded["resources"][number]): ReceivedResource {
  const value = "json" in resource ? toBinary(RecordSchema, create(RecordSchema, { json: JSON.stringify(resource.json) })) : bytesOf(resource.base64);
  return { name: resource.name, version: "1", typeUrl: resource.typeUrl, value };
}

/** The resource that this version makes of one, or what it has against it. */
function again(resource: ReceivedResource): EncodedResource | string {
  if (resource.typeUrl === ADDRESS_TYPE) {
    const read = readAddress(resource);
    if (!read.ok) return read.error;
    return read.value.kind === "workload" ? encodeWorkload(read.value.workload) : encodeService(read.value.service);
  }
  if (resource.typeUrl === AUTHORIZATION_TYPE) {
    const read = readAuthorization(resource);
    return read.ok ? encodePolicy(read.value) : read.error;
  }
  const kind = KINDS.get(resource.typeUrl);
  if (kind === undefined) return `nobody here knows ${resource.typeUrl}`;
  const codec: L7Codec<never> = L7_CODECS[kind] as L7Codec<never>;
  const read = codec.decode(resource);
  if (!read.ok) return read.error;
  const encoded = codec.encode(resource.name, read.value);
  return encoded.ok ? encoded.value : encoded.error;
}

/** A record as its text, a message as its bytes. */
function contentOf({ typeUrl, value }: ReceivedResource): string {
  if (!KINDS.has(typeUrl)) return Buffer.from(value).toString("base64");
  const record = decode(RecordSchema, value);
  return record.ok ? record.value.json : record.error;
}

test("there are releases to read", () => expect(releases.length).toBeGreaterThan(0));

describe.each(releases)("what $release said", ({ recorded }) => {
  test("every record is read, and would be said again in the same bytes", () => {
    for (const resource of recorded.resources.map(received)) {
      const said = again(resource);
      const read = typeof said === "string" ? null : readResource(said.bytes);
      expect(read?.ok === true ? contentOf(read.value) : said, `${resource.typeUrl} ${resource.name}`).toBe(contentOf(resource));
    }
  });

  test("there are records of every type", () => {
    expect(new Set(recorded.resources.map(({ typeUrl }) => typeUrl))).toEqual(new Set([ADDRESS_TYPE, AUTHORIZATION_TYPE, ...KINDS.keys()]));
  });

  test("every client is admitted and may ask what it asked", () => {
    for (const { view, requests } of recorded.clients) {
      const world = new World((message) => {
        throw new Error(message);
      });
      const wanted: ClientView = view.kind === "node" ? view : { kind: "waypoint", gateway: view.gateway as NamespacedName };
      const asked = requests.map((request) => fromBinary(DeltaDiscoveryRequestSchema, bytesOf(request)));
      expect(readNode(asked[0]?.node)).toMatchObject({ ok: true, value: { view: wanted } });
      const session = new Session(world, wanted, () => 0);
      for (const request of asked) expect(session.request(request)).toBeNull();
    }
  });

  test("what its agent has on disk is taken up whole", async () => {
    const state = mkdtempSync(join(tmpdir(), "weft-skew-"));
    try {
      mkdirSync(join(state, "xds"));
      writeFileSync(join(state, "xds/resources.log"), bytesOf(recorded.resourceLog));
      const { types, fault } = (await ResourceLog.open(state)).state;
      expect(fault).toBeNull();
      const records = new XdsRecords(L7_READER, new MeshStore());
      const told = [...(types ?? [])].map(([typeUrl, resources]) => ({ typeUrl, count: resources.length, refused: records.take({ typeUrl, resources, removed: [], first: true }).refused }));
      expect(told.map(({ typeUrl, count }) => `${typeUrl} ${count}`).sort()).toEqual([ADDRESS_TYPE, AUTHORIZATION_TYPE, ...KINDS.keys()].map((typeUrl) => `${typeUrl} 1`).sort());
      expect(told.flatMap(({ refused }) => refused)).toEqual([]);
    } finally {
      rmSync(state, { recursive: true });
    }
  });

  test("its CNI plugin and its CNI agent are understood", () => {
    const encoder = new TextEncoder();
    expect(recorded.plugin.requests.map((packet) => decodeRequest(encoder.encode(packet))).map((read) => (read.ok ? read.value.kind : read.error))).toEqual(["add", "check", "del", "gc", "status"]);
    expect(recorded.plugin.answers.map((packet) => decodeAnswer(encoder.encode(packet))).map((read) => (read.ok ? read.value.kind : read.error))).toEqual(["done", "refused"]);
  });
});
