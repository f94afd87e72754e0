import { describe, expect, test } from "bun:test";
import { delta, ip, member, service, workload } from "../../test/kit/mesh-records.ts";
import { isIpv6, ipFromBytes } from "../core/ip.ts";
import { seededRandom } from "../core/ports.ts";
import type { Service, Workload } from "../mesh/records.ts";
import { MeshStore } from "../mesh/store.ts";
import { type ResourceRecord } from "../wire/dns/message.ts";
import { readName } from "../wire/dns/name.ts";
import { RecordClass, RecordType } from "../wire/dns/types.ts";
import { ANSWER_RECORDS_MAX, ANSWER_TTL_S, type NameAnswer, nameClient, type NameScope, resolveName } from "./resolve-name.ts";

const DOMAIN = "cluster.local";

const web = service({ name: "web", vips: ["198.18.100.1", "2001:db8:100::1"] });
const legacy = service({ name: "legacy", vips: ["198.18.100.2"] });
const far = service({ name: "far", vips: ["198.18.100.3"], network: "other" });
const secret = service({ name: "secret", namespace: "vault", vips: ["198.18.100.4"], visibility: "namespace" });
const payWeb = service({ name: "web", namespace: "pay", vips: ["198.18.100.5"] });
const db = service({ name: "db", headless: true, ports: [{ servicePort: 5432, targetPort: 5432, name: "sql", appProtocol: "" }, { servicePort: 9000, targetPort: 9001, name: "stats", appProtocol: "" }] });
const empty = service({ name: "empty", headless: true });
const entry = (name: string, fields: Parameters<typeof service>[0]): Service => ({ ...service(fields), hostname: name, canonical: false });
const api = entry("api.example", { name: "api", vips: ["198.18.100.20"] });
const noAddress = entry("plain.example", { name: "plain" });
const cidrOnly = entry("range.example", { name: "range", vips: ["198.18.101.0/24"] });
const wild = entry("*.wild.example", { name: "wild", vips: ["198.18.100.21"] });
const deeper = entry("*.b.wild.example", { name: "deeper", vips: ["198.18.100.22"] });

const pod = (name: string, address: string, more: Partial<Workload> = {}) =>
  workload({ name, addresses: [ip(address)], services: member({ "shop/db.shop.svc.cluster.local": { 5432: 5433 } }), ...more });
const pods = [
  pod("db-0", "198.18.1.10"), pod("db-1", "2001:db8:1::11"), pod("db-2", "198.18.1.12", { status: "unhealthy" }), pod("db-3", "198.18.1.13", { network: "other" }),
  pod("Db_4", "198.18.1.14"),
];

const store = new MeshStore();
store.apply(delta({ services: [web, legacy, far, secret, payWeb, db, empty, api, noAddress, cidrOnly, wild, deeper], workloads: pods }));

const shopper = workload({ name: "client" });
const payer = workload({ name: "payer", namespace: "pay" });

function scopeOf(client: Workload, more: Partial<NameScope> = {}, search: readonly string[] | null = null): NameScope {
  return { store, client: nameClient(client, DOMAIN, search), clusterDomain: DOMAIN, ipv6: true, random: seededRandom(1), ...more };
}

const shop = scopeOf(shopper);

function ask(name: string, type: keyof typeof RecordType = "A", scope = shop): NameAnswer {
  return resolveName(scope, { name, type: RecordType[type], class: RecordClass.IN });
}

/** `A 198.18.0.1`, `CNAME target`, `SRV port target`, each with its owner when that is not the name asked for. */
function described(answer: NameAnswer, asked: string): string[] | string {
  if (answer.kind === "forward") return answer.known ? "forward, known" : "forward";
  if (answer.kind === "nodata") return "nodata";
  return answer.records.map((record) => (record.name === asked ? text(record) : `${record.name}: ${text(record)}`)).sort();
}

function text({ type, rdata }: ResourceRecord): string {
  if (type === RecordType.CNAME) return `CNAME ${readName(rdata, 0)!.text}`;
  if (type === RecordType.SRV) return `SRV ${(rdata[4]! << 8) | rdata[5]!} ${readName(rdata, 6)!.text}`;
  return `${type === RecordType.A ? "A" : "AAAA"} ${ipFromBytes(rdata)}`;
}

describe("names of services", () => {
  const table: readonly (readonly [asked: string, from: Workload, expected: string | string[]])[] = [
    ["web.shop.svc.cluster.local", shopper, ["A 198.18.100.1"]],
    ["WEB.Shop.svc.Cluster.Local", shopper, ["A 198.18.100.1"]],
    ["web.shop.svc", shopper, ["A 198.18.100.1"]],
    ["web.shop", shopper, ["A 198.18.100.1"]],
    ["web", shopper, ["A 198.18.100.1"]],
    ["web", payer, ["A 198.18.100.5"]],
    ["web.shop", payer, ["A 198.18.100.1"]],
    ["legacy", payer, "forward"],
    ["nothing.shop.svc.cluster.local", shopper, "forward"],
    ["shop.svc.cluster.local", shopper, "forward"],
    ["cluster.local", shopper, "forward"],
    ["example", shopper, "forward"],
    ["", shopper, "forward"],
    // Service entries.
    ["api.example", payer, ["A 198.18.100.20"]],
    ["plain.example", shopper, "forward"],
    ["range.example", shopper, "forward"],
    ["other.example", shopper, "forward"],
    // Completed by the client's resolver already.
    ["api.example.shop.svc.cluster.local", shopper, ["CNAME api.example", "api.example: A 198.18.100.20"]],
    ["api.example.svc.cluster.local", shopper, ["CNAME api.example", "api.example: A 198.18.100.20"]],
    ["api.example.cluster.local", shopper, ["CNAME api.example", "api.example: A 198.18.100.20"]],
    ["web.shop.shop.svc.cluster.local", shopper, ["CNAME web.shop.svc.cluster.local", "web.shop.svc.cluster.local: A 198.18.100.1"]],
    ["web.shop.svc.cluster.local.pay.svc.cluster.local", payer, ["CNAME web.shop.svc.cluster.local", "web.shop.svc.cluster.local: A 198.18.100.1"]],
    // Another namespace's search domain is not ours.
    ["api.example.vault.svc.cluster.local", shopper, "forward"],
    // Wildcards.
    ["a.wild.example", shopper, ["A 198.18.100.21"]],
    ["a.c.wild.example", shopper, ["A 198.18.100.21"]],
    ["a.b.wild.example", shopper, ["A 198.18.100.22"]],
    ["b.wild.example", shopper, ["A 198.18.100.21"]],
    ["wild.example", shopper, "forward"],
    ["a.wild.example.shop.svc.cluster.local", shopper, ["A 198.18.100.21"]],
    // Visibility and networks.
    ["secret.vault", shopper, "forward"],
    ["secret.vault", workload({ name: "inside", namespace: "vault" }), ["A 198.18.100.4"]],
    ["far", shopper, "nodata"],
    ["far", workload({ name: "there", network: "other" }), ["A 198.18.100.3"]],
  ];
  for (const [asked, from, expected] of table) {
    test(`${asked || "the root"} asked in ${from.namespace}${from.network && ` on ${from.network}`}: ${expected}`, () => {
      expect(described(ask(asked, "A", scopeOf(from)), asked)).toEqual(expected);
    });
  }

  test("the family that is there, and no other", () => {
    expect(described(ask("web", "AAAA"), "web")).toEqual(["AAAA 2001:db8:100::1"]);
    expect(described(ask("legacy", "AAAA"), "legacy")).toBe("nodata");
    expect(described(ask("api.example", "AAAA"), "api.example")).toBe("nodata");
  });

  test("without IPv6, and in services of one family", () => {
    expect(described(ask("web", "AAAA", scopeOf(shopper, { ipv6: false })), "web")).toBe("nodata");
    const single = new MeshStore();
    single.apply(delta({ services: [{ ...web, ipFamilies: "ipv6" }] }));
    expect(described(ask("web", "A", { ...shop, store: single }), "web")).toBe("nodata");
  });

  test("other types go upstream, and a name of ours is said to be known", () => {
    expect(described(ask("web.shop", "TXT"), "web.shop")).toBe("forward, known");
    expect(described(ask("a.wild.example", "HTTPS"), "a.wild.example")).toBe("forward, known");
    expect(described(ask("example", "TXT"), "example")).toBe("forward");
  });

  test("other classes go upstream", () => {
    expect(resolveName(shop, { name: "web", type: RecordType.A, class: RecordClass.CH })).toEqual({ kind: "forward", known: false });
  });

  test("the answer keeps the case of the question", () => {
    const answer = ask("WeB.ShOp");
    expect(answer.kind === "answer" && answer.records[0]!.name).toBe("WeB.ShOp");
    expect(answer.kind === "answer" && answer.records[0]!.ttl).toBe(ANSWER_TTL_S);
  });

  test("the pod's own search path decides", () => {
    const own = scopeOf(shopper, {}, ["corp.example", "shop.svc.cluster.local"]);
    expect(described(ask("web", "A", own), "web")).toEqual(["A 198.18.100.1"]);
    expect(described(ask("web.shop", "A", own), "web.shop")).toBe("forward");
    expect(described(ask("api.example.corp.example", "A", own), "api.example.corp.example")).toEqual(["CNAME api.example", "api.example: A 198.18.100.20"]);
    expect(described(ask("web.corp.example", "A", own), "web.corp.example")).toEqual(["CNAME web.shop.svc.cluster.local", "web.shop.svc.cluster.local: A 198.18.100.1"]);
  });

  test("a search path that says nothing of the cluster is tried first, and completed", () => {
    const own = scopeOf(shopper, {}, ["lan"]);
    expect(own.client.searchDomains).toEqual(["lan", "shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
    expect(described(ask("web.lan", "A", own), "web.lan")).toEqual(["CNAME web.shop.svc.cluster.local", "web.shop.svc.cluster.local: A 198.18.100.1"]);
    expect(described(ask("printer.lan", "A", own), "printer.lan")).toBe("forward");
  });

  test("names of more than four labels are not completed", () => {
    const long = new MeshStore();
    long.apply(delta({ services: [entry("a.b.c.d.e.cluster.local", { name: "long", vips: ["198.18.100.9"] })] }));
    expect(ask("a.b.c.d.e", "A", { ...shop, store: long }).kind).toBe("forward");
  });

  test("a name too long to be an alias is not made one", () => {
    const long = `${"a".repeat(60)}.${"b".repeat(60)}.${"c".repeat(60)}.${"d".repeat(40)}`;
    const store = new MeshStore();
    store.apply(delta({ services: [entry(`${long}.svc.cluster.local`, { name: "long", vips: ["198.18.100.9"] })] }));
    expect(ask(`${long}.svc.cluster.local`, "A", { ...shop, store }).kind).toBe("answer");
    expect(() => ask(`${long}.shop.svc.cluster.local`, "A", { ...shop, store })).not.toThrow();
  });
});

describe("headless services", () => {
  test("the addresses of ready endpoints on the client's network", () => {
    expect(described(ask("db"), "db")).toEqual(["A 198.18.1.10", "A 198.18.1.14"]);
    expect(described(ask("db", "AAAA"), "db")).toEqual(["AAAA 2001:db8:1::11"]);
  });

  test("publishNotReadyAddresses gives out those that are not ready", () => {
    const ready = new MeshStore();
    ready.apply(delta({ services: [{ ...db, loadBalancing: { ...db.loadBalancing, allowUnhealthy: true } }], workloads: pods }));
    expect(described(ask("db", "A", { ...shop, store: ready }), "db")).toEqual(["A 198.18.1.10", "A 198.18.1.12", "A 198.18.1.14"]);
  });

  test("without endpoints there is a name and no address", () => expect(ask("empty").kind).toBe("nodata"));

  test("one pod by its name, or by its address with dashes", () => {
    expect(described(ask("db-0.db.shop.svc.cluster.local"), "db-0.db.shop.svc.cluster.local")).toEqual(["A 198.18.1.10"]);
    expect(described(ask("db-0.db.shop.svc"), "db-0.db.shop.svc")).toEqual(["A 198.18.1.10"]);
    expect(described(ask("db-0.db"), "db-0.db")).toEqual(["A 198.18.1.10"]);
    expect(described(ask("198-18-1-14.db.shop"), "198-18-1-14.db.shop")).toEqual(["A 198.18.1.14"]);
    expect(described(ask("2001-db8-1--11.db.shop", "AAAA"), "2001-db8-1--11.db.shop")).toEqual(["AAAA 2001:db8:1::11"]);
    expect(described(ask("db-0.db", "AAAA"), "db-0.db")).toBe("nodata");
    expect(described(ask("db-9.db"), "db-9.db")).toBe("forward");
    expect(described(ask("db-0.web"), "db-0.web")).toBe("forward");
  });

  test("of ten thousand endpoints a random thousand", () => {
    const many = new MeshStore();
    const members = Array.from({ length: 10_000 }, (_, i) => pod(`p-${i}`, `198.19.${i >> 8}.${i & 255}`));
    many.apply(delta({ services: [db], workloads: members }));
    const answer = ask("db", "A", { ...shop, store: many });
    expect(answer.kind === "answer" && new Set(answer.records.map(text)).size).toBe(ANSWER_RECORDS_MAX);
  });
});

describe("SRV", () => {
  test("a named port of a service", () => {
    const asked = "_http._tcp.web.shop.svc.cluster.local";
    const answer = ask(asked, "SRV");
    expect(described(answer, asked)).toEqual(["SRV 80 web.shop.svc.cluster.local"]);
    expect(answer.kind === "answer" && answer.additionals.map(text).sort()).toEqual(["A 198.18.100.1", "AAAA 2001:db8:100::1"]);
  });

  test("a named port of a headless service: each endpoint's own name and port", () => {
    const asked = "_SQL._tcp.db";
    const answer = ask(asked, "SRV");
    expect(described(answer, asked)).toEqual([
      "SRV 5433 198-18-1-14.db.shop.svc.cluster.local", "SRV 5433 db-0.db.shop.svc.cluster.local", "SRV 5433 db-1.db.shop.svc.cluster.local",
    ]);
    for (const additional of answer.kind === "answer" ? answer.additionals : []) {
      const type = isIpv6(ipFromBytes(additional.rdata)) ? "AAAA" : "A";
      expect(described(ask(additional.name, type), additional.name)).toEqual([text(additional)]);
    }
  });

  test("without a port name: all ports", () => {
    const asked = "db.shop.svc.cluster.local";
    expect(described(ask(asked, "SRV"), asked)).toHaveLength(6);
  });

  test("completed by the client's resolver: an alias, with the port's labels", () => {
    const asked = "_http._tcp.web.shop.pay.svc.cluster.local";
    expect(described(ask(asked, "SRV", scopeOf(payer)), asked)).toEqual([
      "CNAME _http._tcp.web.shop.svc.cluster.local", "_http._tcp.web.shop.svc.cluster.local: SRV 80 web.shop.svc.cluster.local",
    ]);
  });

  test("what is not ours goes upstream: other ports, UDP, names outside the cluster's domain", () => {
    for (const asked of ["_grpc._tcp.web", "_http._udp.web", "_http._tcp.api.example", "_http._tcp.nothing", "_http._tcp.a.wild.example"]) {
      expect(described(ask(asked, "SRV"), asked)).toBe("forward");
    }
    expect(described(ask("api.example", "SRV"), "api.example")).toBe("forward, known");
  });

  test("a service without addresses here has no targets", () => expect(ask("_http._tcp.far", "SRV").kind).toBe("nodata"));
});

test("the order of addresses changes from answer to answer", () => {
  const two = new MeshStore();
  two.apply(delta({ services: [service({ name: "web", vips: ["198.18.100.1", "198.18.100.2"] })] }));
  const scope = { ...shop, store: two };
  const firsts = new Set<string>();
  for (let i = 0; i < 50; i++) {
    const answer = ask("web", "A", scope);
    if (answer.kind === "answer") firsts.add(text(answer.records[0]!));
  }
  expect(firsts.size).toBe(2);
});
