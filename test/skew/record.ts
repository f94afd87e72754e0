// `bun test/skew/record.ts > test/vectors/releases/VERSION.json`: what this version of the program says to others of its kind, as a fixture
// that every later version must still read (recorded.test.ts). Made once for a release, and never written anew.

import { create, toBinary } from "@bufbuild/protobuf";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type AgentAnswer, type AgentRequest, encodeAnswer, encodeRequest } from "../../src/cni/agent-protocol.ts";
import { evaluate } from "../../src/resources/test-kit.ts";
import { decode } from "../../src/wire/protobuf/decode.ts";
import { DeltaDiscoveryRequestSchema } from "../../src/wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import { LogFrames } from "../../src/xds/client/log-frames.ts";
import { ResourceLog } from "../../src/xds/client/resource-log.ts";
import { L7_CODECS, type L7Kind } from "../../src/xds/l7/kinds.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type EncodedResource, encodePolicy, encodeService, encodeWorkload, readResource, type ReceivedResource } from "../../src/xds/resource.ts";
import { RecordSchema } from "../../src/wire/protobuf/weft/l7/v1/l7_pb.ts";
import type { Recorded } from "./recorded.ts";

const CORPUS = join(import.meta.dir, "../../src/resources/corpus");
const POD = { containerId: "c0ffee", namespace: "shop", name: "web-1", uid: "6a0b3d8e-6d1f-4f0a-8f8e-0d6f6d1c2b3a" };
const REQUESTS: readonly AgentRequest[] = [
  { kind: "add", pod: POD, addresses: ["198.18.0.7/24", "2001:db8::7/64"] }, { kind: "check", pod: POD }, { kind: "del", pod: { ...POD, uid: "" } }, { kind: "gc", validContainerIds: ["c0ffee"] }, { kind: "status" },
];
const ANSWERS: readonly AgentAnswer[] = [{ kind: "done", inMesh: true }, { kind: "refused", why: "port 15008 is taken", later: true }];

function received({ bytes, name }: EncodedResource): ReceivedResource {
  const read = readResource(bytes);
  if (!read.ok) throw new Error(`${name}: ${read.error}`);
  return read.value;
}

function resources(): ReceivedResource[] {
  const made: ReceivedResource[] = [];
  for (const folder of readdirSync(CORPUS).sort()) {
    const files = readdirSync(join(CORPUS, folder)).filter((file) => file !== "expected.txt").sort();
    const { mesh, l7 } = evaluate(Object.fromEntries(files.map((file) => [file, readFileSync(join(CORPUS, folder, file), "utf8")])));
    made.push(...[...mesh.workloads.values()].map((one) => received(encodeWorkload(one))), ...[...mesh.services.values()].map((one) => received(encodeService(one))), ...[...mesh.policies.values()].map((one) => received(encodePolicy(one))));
    for (const kind of Object.keys(L7_CODECS) as L7Kind[]) {
      for (const [name, record] of l7[kind] as ReadonlyMap<string, never>) {
        const encoded = L7_CODECS[kind].encode(name, record);
        if (!encoded.ok) throw new Error(encoded.error);
        made.push(received(encoded.value));
      }
    }
  }
  return made;
}

function asRecorded({ name, typeUrl, value }: ReceivedResource): Recorded["resources"][number] {
  if (typeUrl === ADDRESS_TYPE || typeUrl === AUTHORIZATION_TYPE) return { typeUrl, name, base64: Buffer.from(value).toString("base64") };
  const record = decode(RecordSchema, value);
  if (!record.ok) throw new Error(record.error);
  return { typeUrl, name, json: JSON.parse(record.value.json) as unknown };
}

/** One resource of each type. */
async function logOf(all: readonly ReceivedResource[]): Promise<string> {
  const state = mkdtempSync(join(tmpdir(), "weft-record-"));
  try {
    const { log } = await ResourceLog.open(state);
    const firsts = [...new Map(all.toReversed().map((one) => [one.typeUrl, one])).values()];
    const frames = new LogFrames();
    for (const one of firsts) frames.keep(one);
    await log.append([frames], firsts.length);
    return readFileSync(join(state, "xds/resources.log")).toString("base64");
  } finally {
    rmSync(state, { recursive: true });
  }
}

const discovery = (fields: Parameters<typeof create<typeof DeltaDiscoveryRequestSchema>>[1]): string => Buffer.from(toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, fields))).toString("base64");

const all = resources();
const text = new TextDecoder();
const recorded: Recorded = {
  resources: all.map(asRecorded),
  clients: [
    { view: { kind: "node", node: "node-1" }, requests: [
      discovery({ typeUrl: ADDRESS_TYPE, initialResourceVersions: { "shop/web.shop.svc.cluster.local": "qTwn0Lxkx4CgkQWA" }, node: { id: "ztunnel~198.18.0.2~ztunnel-x.istio-system~istio-system.svc.cluster.local", metadata: { NODE_NAME: "node-1", WEFT_VERSION: "0.1.0" } } }),
      discovery({ typeUrl: AUTHORIZATION_TYPE }),
      discovery({ typeUrl: ADDRESS_TYPE, responseNonce: "1" }),
      discovery({ typeUrl: AUTHORIZATION_TYPE, responseNonce: "2", errorDetail: { code: 3, message: "shop/deny: scope 9 is not known" } }),
    ] },
    { view: { kind: "waypoint", gateway: "shop/wp" }, requests: [ADDRESS_TYPE, AUTHORIZATION_TYPE, ...Object.values(L7_CODECS).map(({ typeUrl }) => typeUrl)].map((typeUrl) =>
      discovery({ typeUrl, node: { id: "waypoint~198.18.0.3~wp-x.shop~shop.svc.cluster.local", metadata: { WEFT_GATEWAY: "shop/wp", WEFT_VERSION: "0.1.0" } } })) },
  ],
  resourceLog: await logOf(all),
  plugin: { requests: REQUESTS.map((request) => text.decode(encodeRequest(request))), answers: ANSWERS.map((answer) => text.decode(encodeAnswer(answer))) },
};

// One entry a line: what differs between two releases can be read.
const lines = (entries: readonly unknown[]): string => `[\n${entries.map((entry) => `    ${JSON.stringify(entry)}`).join(",\n")}\n  ]`;
process.stdout.write(`{
  "resources": ${lines(recorded.resources)},
  "clients": ${lines(recorded.clients)},
  "resourceLog": ${JSON.stringify(recorded.resourceLog)},
  "plugin": { "requests": ${lines(recorded.plugin.requests)}, "answers": ${lines(recorded.plugin.answers)} }
}
`);
