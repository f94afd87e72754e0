// What a control plane may send, what a client may ask, and what may lie on disk: nothing throws whatever the bytes; what is taken is
// what it says when it is written again; the store takes it; refused input leaves nothing behind.

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Random } from "../../src/core/ports.ts";
import { spiffeId } from "../../src/core/spiffe.ts";
import type { L7Snapshot } from "../../src/mesh/l7/delta.ts";
import { PackWriter } from "../../src/mesh/packed/bytes.ts";
import { workloadShape } from "../../src/mesh/packed/record-codecs.ts";
import type { Workload } from "../../src/mesh/records.ts";
import { MeshStore } from "../../src/mesh/store.ts";
import { deepEqual } from "../../src/resources/mesh-delta.ts";
import { evaluate } from "../../src/resources/test-kit.ts";
import { decode } from "../../src/wire/protobuf/decode.ts";
import { DeltaDiscoveryRequestSchema, DeltaDiscoveryResponseSchema, ResourceSchema } from "../../src/wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import { RecordSchema } from "../../src/wire/protobuf/weft/l7/v1/l7_pb.ts";
import { L7_READER } from "../../src/xds/client/l7-reader.ts";
import { XdsRecords } from "../../src/xds/client/records.ts";
import { LogFrames, type StoredContent } from "../../src/xds/client/log-frames.ts";
import { readFrames } from "../../src/xds/client/resource-log.ts";
import { ResponsePieces } from "../../src/xds/client/response-pieces.ts";
import { L7_CODECS, type L7Codec, type L7Kind } from "../../src/xds/l7/kinds.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, encodePolicy, encodeService, encodeWorkload, type EncodedResource, readAddress, readAuthorization, readResource, type ReceivedResource } from "../../src/xds/resource.ts";
import { packPlainWorkload } from "../../src/xds/mesh/plain-workload.ts";
import { Session } from "../../src/xds/server/session.ts";
import { World } from "../../src/xds/server/world.ts";
import { RandomMesh } from "../kit/mesh-records.ts";
import { PublishedMesh } from "../kit/published-mesh.ts";
import { below, pick } from "./choices.ts";
import type { FuzzRun } from "./fuzz.ts";
import { takeTurns } from "./iterate.ts";

export const name = "xds";

const CORPUS = join(import.meta.dir, "../../src/resources/corpus");
const KINDS = Object.keys(L7_CODECS) as L7Kind[];
let corpus: readonly { readonly kind: L7Kind; readonly name: string; readonly json: string }[] | null = null;

export const run = (fuzzRun: FuzzRun) => takeTurns(fuzzRun, properties);

const properties: readonly ((random: Random) => void)[] = [anyResponseIsTaken, anyRecordIsRead, anyRequestIsAnswered, anyLogIsRead, anyResponseIsRead];

/** Some bytes changed, cut off, doubled or put in. */
function mutate(random: Random, bytes: Uint8Array): Uint8Array {
  let mutated = Uint8Array.from(bytes);
  for (let n = below(random, 4); n > 0; n--) {
    const at = below(random, mutated.length + 1);
    const kind = below(random, 4);
    if (kind === 0 && at < mutated.length) mutated[at] = below(random, 256);
    else if (kind === 1) mutated = mutated.slice(0, at);
    else if (kind === 2) mutated = Uint8Array.from([...mutated.slice(0, at), ...Array.from({ length: 1 + below(random, 4) }, () => below(random, 256)), ...mutated.slice(at)]);
    else mutated = Uint8Array.from([...mutated, ...mutated.slice(at)]);
  }
  return mutated;
}

/** A resource whose envelope, or whose content, has suffered. */
function suffered(random: Random, { bytes }: EncodedResource): Uint8Array {
  if (random.next() < 0.3) return mutate(random, bytes);
  const resource = fromBinary(ResourceSchema, bytes);
  if (resource.resource !== undefined) resource.resource.value = mutate(random, resource.resource.value);
  return toBinary(ResourceSchema, resource);
}

function anyResponseIsTaken(random: Random): void {
  const mesh = new RandomMesh(random);
  const records = new XdsRecords(L7_READER, new MeshStore());
  const store = new MeshStore();
  for (let n = 1 + below(random, 3); n > 0; n--) {
    const typeUrl = random.next() < 0.5 ? ADDRESS_TYPE : AUTHORIZATION_TYPE;
    const encoded = typeUrl === AUTHORIZATION_TYPE ? mesh.some(3, () => encodePolicy(mesh.policy())) : mesh.some(3, () => (mesh.chance(0.5) ? encodeWorkload(mesh.workload()) : encodeService(mesh.service())));
    const resources = encoded.flatMap((resource) => {
      const read = readResource(suffered(random, resource));
      return read.ok ? [read.value] : [];
    });
    const told = records.take({ typeUrl, resources, removed: mesh.some(2, () => (mesh.chance(0.5) ? mesh.uid() : mesh.serviceName())), first: mesh.chance(0.5) });
    store.apply(told.delta);
    for (const workload of told.delta.workloads) spiffeId(workload.trustDomain, workload.namespace, workload.serviceAccount);
    for (const resource of resources) sameAgain(resource.value, typeUrl, resource.name, resource.version);
    if (store.counts().workloads !== records.mesh.workloads.size || store.counts().policies !== records.mesh.policies.size) throw new Error("the store holds other records than the client");
  }
}

/** What is taken is, written and read again, what it was. */
function sameAgain(value: Uint8Array, typeUrl: string, resourceName: string, version: string): void {
  if (typeUrl === AUTHORIZATION_TYPE) {
    const read = readAuthorization({ name: resourceName, version, typeUrl, value });
    if (!read.ok) return;
    const again = readResource(encodePolicy(read.value).bytes);
    const policy = again.ok ? readAuthorization({ ...again.value, version }) : again;
    if (!policy.ok || !deepEqual(policy.value, read.value)) throw new Error(`policy ${resourceName} is another when it is written again`);
    return;
  }
  const read = readAddress({ name: resourceName, version, typeUrl, value });
  samePacked({ name: resourceName, version, typeUrl, value }, read.ok && read.value.kind === "workload" ? read.value.workload : null);
  if (!read.ok) return;
  const again = readResource((read.value.kind === "workload" ? encodeWorkload(read.value.workload) : encodeService(read.value.service)).bytes);
  const address = again.ok ? readAddress({ ...again.value, version }) : again;
  if (!address.ok) throw new Error(`${resourceName} is refused when it is written again: ${address.error}`);
  if (!deepEqual(sorted(address.value), sorted(read.value))) throw new Error(`${resourceName} is another when it is written again`);
}

/** What goes the short way to the store is there as what went the long one. */
function samePacked(resource: ReceivedResource, read: Workload | null): void {
  const [short, long] = [new PackWriter(), new PackWriter()];
  if (!packPlainWorkload(resource, short)) return;
  if (read === null) throw new Error(`${resource.name} goes into the store, and is refused when it is looked at`);
  workloadShape.whole.write(long, read);
  if (Buffer.compare(short.own(), long.own()) !== 0) throw new Error(`${resource.name} is packed as another`);
}

/** Memberships have no order. */
function sorted(record: ReturnType<typeof readAddress> extends infer R ? (R extends { ok: true; value: infer V } ? V : never) : never): unknown {
  if (record.kind === "service") return record.service;
  return { ...record.workload, services: [...record.workload.services].sort((a, b) => (a.service < b.service ? -1 : 1)) };
}

function recordsOfCorpus(): NonNullable<typeof corpus> {
  corpus ??= readdirSync(CORPUS).flatMap((folder) => {
    const directory = join(CORPUS, folder);
    const texts = Object.fromEntries(readdirSync(directory).filter((file) => file !== "expected.txt").map((file) => [file, readFileSync(join(directory, file), "utf8")]));
    const { l7 } = evaluate(texts);
    return KINDS.flatMap((kind) => [...(l7[kind] as L7Snapshot["routes"])].map(([recordName, record]) => {
      const encoded = (L7_CODECS[kind] as L7Codec<unknown>).encode(recordName, record);
      const received = encoded.ok ? readResource(encoded.value.bytes) : encoded;
      const message = received.ok ? decode(RecordSchema, received.value.value) : received;
      if (!message.ok) throw new Error(message.error);
      return { kind, name: recordName, json: message.value.json };
    }));
  });
  return corpus;
}

const SOUP = ["null", "true", "-1", "1e999", '""', "[]", "{}", '"exact"', ":", ",", '{"kind":"deny"}', '"\\u0000"', "__proto__", "0"];

function anyRecordIsRead(random: Random): void {
  const one = pick(random, recordsOfCorpus());
  let json = one.json;
  for (let n = below(random, 3); n > 0; n--) {
    const at = below(random, json.length);
    json = random.next() < 0.5 ? json.slice(0, at) + pick(random, SOUP) + json.slice(at + below(random, 8)) : changeOneValue(random, json);
  }
  const codec = L7_CODECS[one.kind] as L7Codec<unknown>;
  const received = { name: one.name, version: "v", typeUrl: codec.typeUrl, value: toBinary(RecordSchema, create(RecordSchema, { json })) };
  const records = new XdsRecords(L7_READER, new MeshStore());
  const told = records.take({ typeUrl: codec.typeUrl, resources: [received], removed: [], first: true });
  const read = codec.decode(received);
  if (read.ok !== (told.refused.length === 0)) throw new Error("a record is taken and refused");
  if (!read.ok) return;
  const again = codec.encode(one.name, read.value);
  if (!again.ok) throw new Error(`a record that was taken cannot be written: ${again.error}`);
  const reread = readResource(again.value.bytes);
  const second = reread.ok ? codec.decode(reread.value) : reread;
  if (!second.ok || !deepEqual(second.value, read.value)) throw new Error("a record is another when it is written again");
}

/** One value somewhere in it becomes another: the text stays JSON. */
function changeOneValue(random: Random, json: string): string {
  try {
    let left = below(random, 40);
    return JSON.stringify(JSON.parse(json, (_, value: unknown) => (left-- === 0 ? pick<unknown>(random, [null, 0, "", "x", [], {}, true, { kind: "exact", value: "" }, 70_000]) : value)));
  } catch {
    return json;
  }
}

function anyRequestIsAnswered(random: Random): void {
  const mesh = new RandomMesh(random);
  const world = new World((message) => {
    throw new Error(message);
  });
  const published = new PublishedMesh();
  world.publish(published.change(mesh.delta()));
  const session = new Session(world, mesh.chance(0.5) ? { kind: "node", node: "node-1" } : { kind: "waypoint", gateway: mesh.serviceName() }, () => 0);
  const types = [ADDRESS_TYPE, AUTHORIZATION_TYPE, L7_CODECS.routes.typeUrl, "else"];
  const names = (): string[] => mesh.some(4, () => pick(random, ["*", mesh.uid(), mesh.serviceName(), `/${mesh.address()}`, `far/${mesh.vip()}`, "", "/", "///", "x".repeat(3)]));
  for (let n = below(random, 12); n > 0; n--) {
    session.request(create(DeltaDiscoveryRequestSchema, {
      typeUrl: pick(random, types), resourceNamesSubscribe: names(), resourceNamesUnsubscribe: mesh.chance(0.3) ? names() : [], responseNonce: String(below(random, 6)),
      initialResourceVersions: Object.fromEntries(names().map((each) => [each, String(below(random, 3))])), ...(mesh.chance(0.2) ? { errorDetail: { code: 3, message: "no" } } : {}),
    }));
    for (let takes = below(random, 4); takes > 0; takes--) session.next();
    if (mesh.chance(0.4)) world.publish(published.change(mesh.delta()));
  }
}

const frameOf = (content: StoredContent): Uint8Array => {
  const frames = new LogFrames();
  frames.add(content);
  return Buffer.concat(frames.pieces());
};

function anyLogIsRead(random: Random): void {
  const mesh = new RandomMesh(random);
  const contents = mesh.some(6, (): StoredContent => ({
    typeUrl: pick(random, ["t", "u"]), name: pick(random, [mesh.uid(), "n\u00e4me\u{1f600}".repeat(below(random, 40))]), version: "1", value: new Uint8Array(below(random, 300)).fill(9), removed: mesh.chance(0.3),
  }));
  const all = new LogFrames();
  for (const content of contents) all.add(content);
  const whole = Buffer.concat([Buffer.from("weftxds1"), ...all.pieces()]);
  const sound = readFrames(whole);
  if (sound.fault !== null || sound.end !== whole.length || sound.frameCount !== contents.length) throw new Error("a sound log has a fault");
  const written = new Set(contents.map((content) => Buffer.from(frameOf(content)).toString("latin1")));
  for (const { change } of readFrames(mutate(random, whole)).live.values()) {
    if (!written.has(Buffer.from(frameOf(change)).toString("latin1"))) throw new Error("a damaged log holds what was not written");
  }
}

/** In pieces of any length a response is what it is as a whole; where it is none, either way says so. */
function anyResponseIsRead(random: Random): void {
  const mesh = new RandomMesh(random);
  const response = toBinary(DeltaDiscoveryResponseSchema, create(DeltaDiscoveryResponseSchema, {
    systemVersionInfo: pick(random, ["", "v"]), typeUrl: ADDRESS_TYPE, nonce: `n${below(random, 1000)}`, removedResources: mesh.some(3, mesh.uid), resources: mesh.some(4, () => new Uint8Array(below(random, 400)).fill(3)),
  }));
  const bytes = random.next() < 0.5 ? response : mutate(random, response);
  const resources: string[] = [];
  const pieces = new ResponsePieces((resource) => resources.push(Buffer.from(resource).toString("latin1")));
  let fault: string | null = null;
  for (let at = 0; at < bytes.length && fault === null; ) {
    const step = 1 + below(random, pick(random, [1, 7, 2_000]));
    const taken = pieces.push(bytes.subarray(at, at + step));
    if (!taken.ok) fault = taken.error;
    at += step;
  }
  const rest = fault === null ? pieces.end() : null;
  const whole = decode(DeltaDiscoveryResponseSchema, bytes);
  if ((rest?.ok ?? false) !== whole.ok) throw new Error(`as a whole: ${whole.ok ? "sound" : whole.error}; in pieces: ${rest?.ok ? "sound" : (fault ?? (rest as { error: string }).error)}`);
  if (!whole.ok || !rest?.ok) return;
  const { typeUrl, nonce, removedResources } = whole.value;
  if (!deepEqual({ ...rest.value, resources }, { typeUrl, nonce, removed: removedResources, resources: whole.value.resources.map((resource) => Buffer.from(resource).toString("latin1")) })) throw new Error("a response in pieces is another");
}
