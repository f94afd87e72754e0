// Mesh records as messages and back: nothing is lost, and what does not parse is refused with its reason.

import { describe, expect, test } from "bun:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { seededRandom } from "../../core/ports.ts";
import type { AuthorizationPolicy, Service, Workload } from "../../mesh/records.ts";
import { decode } from "../../wire/protobuf/decode.ts";
import { AuthorizationSchema } from "../../wire/protobuf/istio/security/authorization_pb.ts";
import { AddressSchema, ServiceSchema, WorkloadSchema } from "../../wire/protobuf/istio/workload/workload_pb.ts";
import { cidr, exact, gatewayAt, match, member, policy, RandomMesh, service, uid, waypoint, workload } from "../../../test/kit/mesh-records.ts";
import { encodePolicy, encodeService, encodeWorkload, readAddress, readAuthorization, readResource } from "../resource.ts";
import { readPolicy, writePolicy } from "./authorization.ts";
import { readService, writeService } from "./service.ts";
import { readWorkload, writeWorkload } from "./workload.ts";

const RUNS = 2000;

/** Their version is the resource's, and a zero-weight set of waypoints is none. */
function through(given: Workload): unknown {
  const received = readResource(encodeWorkload(given).bytes);
  if (!received.ok) return received.error;
  const read = readAddress(received.value);
  return read.ok && read.value.kind === "workload" ? read.value.workload : read;
}

const versionOf = (bytes: Uint8Array): string => {
  const received = readResource(bytes);
  return received.ok ? received.value.version : "";
};

/** What goes over the wire of a record: a service named twice is one membership, and memberships have no order. */
function normal(w: Workload): Workload {
  const services = [...new Map([...w.services].reverse().map((membership) => [membership.service, membership])).values()].sort((a, b) => (a.service < b.service ? -1 : 1));
  return { ...w, services, provenance: { ...w.provenance, resourceVersion: versionOf(encodeWorkload(w).bytes) } };
}

describe("workloads", () => {
  test("come back as they went out", () => {
    for (let seed = 0; seed < RUNS; seed++) {
      const given = new RandomMesh(seededRandom(seed)).workload();
      expect(through(given), `seed ${seed}`).toEqual(normal(given));
    }
  });

  test("of equal content are equal bytes, whatever version the object has", () => {
    const given = workload({ name: "web", services: member({ "shop/b": { 80: 8080 }, "shop/a": { 80: 8080 } }) });
    const again = { ...given, services: [...given.services].reverse(), provenance: { ...given.provenance, resourceVersion: "77" } };
    expect(encodeWorkload(again)).toEqual(encodeWorkload(given));
    expect(encodeWorkload({ ...given, capacity: 2 }).version).not.toBe(encodeWorkload(given).version);
  });

  test("without anything of ours carry no extension", () => {
    const plain = workload({ name: "web", app: "web", version: "latest" });
    expect(writeWorkload(plain).extensions).toEqual([]);
    expect(writeWorkload({ ...plain, app: "other" }).extensions.length).toBe(1);
  });

  test("get what empty fields mean", () => {
    const read = readWorkload(create(WorkloadSchema, { uid: "c//Pod/shop/web", name: "web", namespace: "shop", canonicalName: "web", workloadType: 2 }), "v");
    expect(read).toMatchObject({ ok: true, value: { trustDomain: "cluster.local", serviceAccount: "default", clusterId: "Kubernetes", capacity: 1, app: "web", provenance: { kind: "Pod", namespace: "shop", name: "web" } } });
  });

  test("name a waypoint that is one workload so that nobody else finds it", () => {
    const given = workload({ name: "web", waypoints: [{ gateway: { destination: { kind: "workload", uid: uid("Kubernetes//Pod/shop/wp") }, hboneMtlsPort: 15008 }, weight: 1 }] });
    expect(writeWorkload(given).waypoint?.destination).toMatchObject({ case: "hostname", value: { namespace: "", hostname: "Kubernetes//Pod/shop/wp" } });
    expect(through(given)).toMatchObject({ waypoints: given.waypoints });
  });

  test("tell others of the waypoint that gets most, and us of each", () => {
    const given = workload({ name: "web", waypoints: [waypoint("shop/canary", 10), waypoint("shop/main", 90)] });
    expect(writeWorkload(given).waypoint?.destination).toMatchObject({ value: { hostname: "main" } });
    expect(through(given)).toMatchObject({ waypoints: given.waypoints });
  });
});

describe("services", () => {
  test("come back as they went out", () => {
    for (let seed = 0; seed < RUNS; seed++) {
      const given: Service = new RandomMesh(seededRandom(seed)).service();
      const read = readService(writeService(given), given.provenance.resourceVersion);
      expect(read.ok ? read.value : read, `seed ${seed}`).toEqual(given);
    }
  });

  test("of others' control planes have their ports' protocols by number", () => {
    const read = readService(create(ServiceSchema, { name: "web", namespace: "shop", hostname: "web.shop", canonical: true, ports: [{ servicePort: 80, targetPort: 8080, appProtocol: 3 }, { servicePort: 81, targetPort: 0, appProtocol: 9 }] }), "v");
    expect(read).toMatchObject({ ok: true, value: { ports: [{ appProtocol: "grpc", name: "" }, { appProtocol: "" }], headless: true, provenance: { kind: "Service" } } });
  });

  test("with an unknown visibility are public", () => {
    const read = readService(create(ServiceSchema, { name: "web", namespace: "shop", hostname: "web.shop", visibility: 7 }), "v");
    expect(read).toMatchObject({ ok: true, value: { visibility: "public" } });
  });

  test("whose weights are all 0 fall back to the one waypoint", () => {
    const message = writeService(service({ name: "web", waypoints: [waypoint("shop/a", 0), waypoint("shop/b", 0)] }));
    expect(readService(message, "v")).toMatchObject({ ok: true, value: { waypoints: [waypoint("shop/a", 1)] } });
  });
});

describe("policies", () => {
  test("come back as they went out", () => {
    for (let seed = 0; seed < RUNS; seed++) {
      const given: AuthorizationPolicy = new RandomMesh(seededRandom(seed)).policy();
      const read = readPolicy(writePolicy(given), given.provenance.resourceVersion);
      expect(read.ok ? read.value : read, `seed ${seed}`).toEqual(given);
    }
  });

  const refused = (fields: Parameters<typeof create<typeof AuthorizationSchema>>[1]): string => {
    const read = readPolicy(create(AuthorizationSchema, { name: "p", namespace: "shop", ...fields }), "v");
    return read.ok ? "taken" : read.error;
  };
  const matching = (fields: object) => refused({ rules: [{ clauses: [{ matches: [fields] }] }] });

  test("that the reference would widen in silence are refused", () => {
    expect(matching({ sourceIps: [{ address: new Uint8Array(3), length: 8 }] })).toBe("rules[0].clauses[0].matches[0].source_ips[0]: found 3 bytes, wanted an address of 4 or 16");
    expect(matching({ notSourceIps: [{ address: new Uint8Array(4), length: 33 }] })).toContain("not_source_ips[0]: found a prefix of 33 bits of an address of 32");
    expect(matching({ principals: [{}] })).toContain("principals[0]: it says nothing that is known");
    expect(matching({ destinationPorts: [65_616] })).toContain("destination_ports[0]: found 65616, wanted a port from 0 to 65535");
    expect(matching({ serviceAccounts: [{ namespace: "shop" }] })).toContain("wanted a namespace and a service account");
    expect(matching({ extensions: [{ name: "x" }] })).toContain("conditions that are not known here");
    const fieldNinety = new Uint8Array([0x0a, 1, 0x70, 0x12, 4, 0x73, 0x68, 0x6f, 0x70, 0x2a, 7, 0x0a, 5, 0x12, 3, 0xd0, 0x05, 0]);
    const later = decode(AuthorizationSchema, fieldNinety);
    expect(later.ok ? readPolicy(later.value, "v") : later).toMatchObject({ ok: false, error: expect.stringContaining("conditions that are not known here") });
    expect(refused({ action: 4, scope: 9 })).toContain("scope: 9 is not a value that is known, wanted 0 (global), 1 (namespace), 2 (workload); action: 4");
    expect(matching({ destinationPorts: [80] })).toBe("taken");
  });

  test("keep IPv4-mapped ranges what they are", () => {
    const mapped = new Uint8Array([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, 0]);
    const read = readPolicy(create(AuthorizationSchema, { name: "p", namespace: "shop", rules: [{ clauses: [{ matches: [{ sourceIps: [{ address: mapped, length: 111 }] }] }] }] }), "v");
    expect(read).toMatchObject({ ok: true, value: { rules: [{ clauses: [{ matches: [{ sourceIps: [cidr("198.18.0.0/15")] }] }] }] } });
  });
});

describe("what does not parse", () => {
  const refused = (fields: object): string => {
    const read = readWorkload(create(WorkloadSchema, { uid: "c//Pod/shop/web", name: "web", namespace: "shop", ...fields }), "v");
    return read.ok ? "taken" : read.error;
  };

  test("is refused with every problem of a workload", () => {
    expect(refused({})).toBe("taken");
    expect(refused({ addresses: [new Uint8Array(5)], tunnelProtocol: 2, services: { nowhere: {} } })).toBe(
      'addresses[0]: found 5 bytes, wanted an address of 4 or 16; tunnel_protocol: 2 is not a value that is known, wanted 0 (TCP), 1 (HBONE); services: found "nowhere", wanted namespace/name');
    expect(refused({ namespace: "shop/../x" })).toContain("namespace: found");
    expect(refused({ serviceAccount: ".." })).toContain("service_account");
    expect(refused({ trustDomain: "NOT A DOMAIN" })).toContain("trust_domain");
    expect(refused({ uid: "with space" })).toContain("uid");
    expect(refused({ networkGateway: { hboneMtlsPort: 15008 } })).toContain("network_gateway: it has no destination");
    expect(refused({ waypoint: { destination: { case: "address", value: { address: new Uint8Array(1) } }, hboneMtlsPort: 70_000 } })).toContain("waypoint.address: found 1 bytes");
    expect(refused({ extensions: [{ name: "ours", config: { typeUrl: "type.googleapis.com/weft.mesh.v1.WorkloadExtension", value: new Uint8Array([0xff]) } }] })).toContain("extensions[weft.mesh.v1.WorkloadExtension]");
    expect(refused({ extensions: [{ name: "theirs", config: { typeUrl: "type.googleapis.com/else", value: new Uint8Array([0xff]) } }] })).toBe("taken");
  });

  test("is refused when it calls itself otherwise than its resource", () => {
    const received = readResource(encodeService(service({ name: "web" })).bytes);
    if (!received.ok) throw new Error(received.error);
    expect(readAddress({ ...received.value, name: "shop/other" })).toMatchObject({ ok: false, error: expect.stringContaining("its content calls itself") });
    const denial = readResource(encodePolicy(policy({ name: "p", rules: [[[match({ principals: [exact("a")] })]]] })).bytes);
    if (!denial.ok) throw new Error(denial.error);
    expect(readAuthorization({ ...denial.value, name: "shop/q" }).ok).toBe(false);
  });

  test("is refused when it is no message, or an empty one", () => {
    expect(readResource(new Uint8Array([0x0a, 0x05, 0x01]))).toMatchObject({ ok: false, error: expect.stringContaining("not a envoy.service.discovery.v3.Resource") });
    expect(readAddress({ name: "x", version: "", typeUrl: "", value: new Uint8Array([0xff, 0xff]) }).ok).toBe(false);
    expect(readAddress({ name: "x", version: "", typeUrl: "", value: toBinary(AddressSchema, create(AddressSchema)) })).toEqual({ ok: false, error: "it is neither a workload nor a service" });
  });
});

test("a gateway at an address comes back", () => {
  const given = workload({ name: "far", networkGateway: gatewayAt("far", "198.51.100.9", 15009) });
  expect(through(given)).toMatchObject({ networkGateway: given.networkGateway });
});
