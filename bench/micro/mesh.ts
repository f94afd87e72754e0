// What the store and the decisions cost, without sockets: nanoseconds per answer at 1 000 and 100 000 workloads, bytes per workload,
// and decisions under many policies. `bun bench/micro/mesh.ts`. Compare only runs of the same machine.

import { heapStats } from "bun:jsc";
import { type IpAddress } from "../../src/core/ip.ts";
import { seededRandom } from "../../src/core/ports.ts";
import type { AuthorizationPolicy, MeshDelta, Workload } from "../../src/mesh/records.ts";
import { MeshStore } from "../../src/mesh/store.ts";
import { authorise } from "../../src/policy/authorise.ts";
import { Balancer } from "../../src/policy/balance.ts";
import { judgeInbound } from "../../src/policy/inbound.ts";
import { chooseOutbound } from "../../src/policy/outbound.ts";
import { cidr, delta, exact, identity, ip, match, member, policy, service, workload } from "../../test/kit/mesh-records.ts";

const ROUND_MS = 60;
const ROUNDS = 7;
const ENDPOINTS_PER_SERVICE = 20;
const WORKLOADS_PER_DELTA = 1000;

/** Nanoseconds per call, the median of rounds. */
function nsPer(call: (i: number) => unknown): number {
  let i = 0;
  const rounds: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const started = performance.now();
    let calls = 0;
    do {
      for (let k = 0; k < 256; k++) if (call(i++) === undefined) throw new Error("nothing found");
      calls += 256;
    } while (performance.now() - started < ROUND_MS);
    if (round > 0) rounds.push(((performance.now() - started) * 1e6) / calls);
  }
  return rounds.sort((a, b) => a - b)[ROUNDS >> 1]!;
}

const address = (i: number): IpAddress => ip(`198.${18 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`);
const serviceOf = (i: number): string => `s${Math.floor(i / ENDPOINTS_PER_SERVICE)}.shop.svc.cluster.local`;

function bigWorkload(i: number): Workload {
  const name = `s${Math.floor(i / ENDPOINTS_PER_SERVICE)}-6f7d9c5b8d-${i.toString(36)}`;
  return workload({
    name, addresses: [address(i)], node: `node-${i % 500}`, services: member({ [`shop/${serviceOf(i)}`]: { 80: 8080, 443: 8443 } }),
    workloadName: `s${Math.floor(i / ENDPOINTS_PER_SERVICE)}`, canonicalName: `s${Math.floor(i / ENDPOINTS_PER_SERVICE)}`, app: `s${Math.floor(i / ENDPOINTS_PER_SERVICE)}`,
    serviceAccount: `s${Math.floor(i / ENDPOINTS_PER_SERVICE)}`, locality: { region: "r1", zone: `z${i % 3}`, subzone: "" },
  });
}

/** Strings and lists that share nothing, as they come from another thread. */
const received = (d: MeshDelta): MeshDelta => structuredClone(d);

function fill(count: number): MeshStore {
  const store = new MeshStore();
  for (let i = 0; i < count; i += WORKLOADS_PER_DELTA) {
    const workloads = Array.from({ length: Math.min(WORKLOADS_PER_DELTA, count - i) }, (_, k) => bigWorkload(i + k));
    const services = Array.from({ length: workloads.length / ENDPOINTS_PER_SERVICE }, (_, k) => {
      const n = i / ENDPOINTS_PER_SERVICE + k;
      return service({ name: `s${n}`, vips: [`2001:db8::${n.toString(16)}`] });
    });
    store.apply(received(delta({ workloads, services })));
  }
  return store;
}

function row(name: string, ...values: readonly string[]): void {
  console.log(name.padEnd(46) + values.map((value) => value.padStart(16)).join(""));
}
const ns = (value: number): string => `${value.toFixed(0)} ns`;

function heapBytes(): number {
  Bun.gc(true);
  const stats = heapStats();
  return stats.heapSize + stats.extraMemorySize;
}

function storeRows(count: number): Map<string, string> {
  const before = { heap: heapBytes(), rss: process.memoryUsage.rss() };
  const store = fill(count);
  const bytes = heapBytes() - before.heap;
  const rows = new Map<string, string>();
  rows.set("heap per workload", `${(bytes / count).toFixed(0)} B`);
  rows.set("resident per workload", `${((process.memoryUsage.rss() - before.rss) / count).toFixed(0)} B`);

  const at = Array.from({ length: 4096 }, (_, i) => Math.floor((i * count) / 4096));
  const ips = at.map(address);
  const uids = at.map((i) => bigWorkload(i).uid);
  const vips = at.map((i) => ip(`2001:db8::${Math.floor(i / ENDPOINTS_PER_SERVICE).toString(16)}`));
  const hosts = at.map(serviceOf);
  rows.set("workload by uid", ns(nsPer((i) => store.workload(uids[i & 4095]!))));
  rows.set("workload by address", ns(nsPer((i) => store.workloadByAddress("", ips[i & 4095]!))));
  rows.set("service by VIP", ns(nsPer((i) => store.serviceByAddress("", vips[i & 4095]!, "shop"))));
  rows.set("services by hostname", ns(nsPer((i) => store.servicesByHostname(hosts[i & 4095]!)[0])));

  const balancer = new Balancer({ random: seededRandom(1) });
  const source = store.workload(uids[0]!)!;
  const few = vips.slice(0, 64);
  rows.set("outbound to a service (64 in use)", ns(nsPer((i) => chooseOutbound(store, balancer, source, { ip: few[i & 63]!, port: 80 }, 0))));
  rows.set("outbound to a workload", ns(nsPer((i) => chooseOutbound(store, balancer, source, { ip: ips[i & 4095]!, port: 80 }, 0))));
  const request = { authority: { kind: "address", address: { ip: source.addresses[0]!, port: 8080 } }, localIp: source.addresses[0]! } as const;
  rows.set("inbound", ns(nsPer(() => judgeInbound(store, source, request))));
  const changed = received(delta({ workloads: Array.from({ length: 256 }, (_, i) => bigWorkload(at[i * 16]!)) }));
  const single = changed.workloads.map((w) => delta({ workloads: [w] }));
  rows.set("apply a delta of one workload", ns(nsPer((i) => store.apply(single[i & 255]!))));
  return rows;
}

const small = storeRows(1_000);
const large = storeRows(100_000);
row("", "1 000", "100 000");
for (const [name, value] of small) row(name, value, large.get(name)!);

function policyRow(name: string, policies: readonly AuthorizationPolicy[], peer = identity("n7", "a")): void {
  const store = new MeshStore();
  const w = workload({ name: "target" });
  store.apply(delta({ workloads: [w], policies }));
  const target = store.workload(w.uid)!;
  const subject = { peer, sourceIp: ip("198.18.0.9"), destinationIp: ip("198.18.0.1"), destinationPort: 8080 };
  const started = performance.now();
  authorise(store, target, subject);
  const first = performance.now() - started;
  row(name, ns(nsPer(() => authorise(store, target, subject))), `${first.toFixed(2)} ms first`);
}
const allows = (count: number, rule: (i: number) => Parameters<typeof match>[0]): AuthorizationPolicy[] =>
  Array.from({ length: count }, (_, i) => policy({ name: `p${i}`, rules: [[[match(rule(i))]]] }));

console.log();
row("a decision", "", "");
policyRow("no policy", []);
policyRow("1 allow by principal", allows(1, () => ({ principals: [exact("cluster.local/ns/n7/sa/a")] })));
policyRow("5 000 allows by principal", allows(5000, (i) => ({ principals: [exact(`cluster.local/ns/n${i}/sa/a`)] })));
policyRow("5 000 allows by namespace", allows(5000, (i) => ({ namespaces: [exact(`n${i}`)] })));
policyRow("5 000 allows by port, none matches", allows(5000, (i) => ({ destinationPorts: [20_000 + i] })));
policyRow("1 deny of 10 000 source CIDRs, none matches", [
  policy({ name: "d", action: "deny", rules: [[[match({ sourceIps: Array.from({ length: 10_000 }, (_, i) => cidr(`203.${i >> 8}.${i & 255}.0/24`)) })]]] }),
]);
policyRow("100 allows by principal suffix, none matches", allows(100, (i) => ({ principals: [{ kind: "suffix", value: `/sa/x${i}` }] })));
