import { describe, expect, test } from "bun:test";
import { MeshStore } from "../mesh/store.ts";
import { emptyDelta } from "../mesh/records.ts";
import { ip, service, workload } from "../../test/kit/mesh-records.ts";
import { egressRefusal } from "./egress-address.ts";

const store = new MeshStore();
const pod = workload({ name: "web", addresses: [ip("198.18.1.2")] });
const shop = service({ name: "cart", vips: ["198.18.250.4"] });
store.apply({ ...emptyDelta, workloads: [pod], services: [shop] });
const refusal = (text: string, allowPrivate = false): string | null => egressRefusal({ store, network: pod.network }, ip(text), allowPrivate);

describe("a name that a client chose does not lead to", () => {
  test.each([
    ["loopback", "127.0.0.1"], ["all of it", "127.8.9.10"], ["IPv6's", "::1"], ["unspecified", "0.0.0.0"], ["IPv6's", "::"], ["link-local, where cloud metadata is", "169.254.169.254"], ["IPv6's", "fe80::1"],
    ["metadata in IPv6", "fd00:ec2::254"], ["multicast", "224.0.0.1"], ["IPv6's", "ff02::1"], ["broadcast", "255.255.255.255"], ["loopback behind a translator", "64:ff9b::7f00:1"], ["loopback in IPv6's dress", "::ffff:127.0.0.1"],
  ])("%s: %s", (_, address) => {
    for (const allowed of [false, true]) expect(refusal(address, allowed)).toContain("loopback, link-local, multicast or unspecified");
  });
  test("a workload or a service of the configuration, which have policies of their own", () => {
    expect([refusal("198.18.1.2", true), refusal("198.18.250.4", true)]).toEqual([expect.stringContaining("is the workload "), expect.stringContaining("is the service ")]);
  });
  test.each(["10.0.0.1", "172.16.3.4", "192.168.1.1", "100.64.0.1", "fc00::1", "64:ff9b::a00:1"])("the private address %s, unless its ServiceEntry says so", (address) => {
    expect(refusal(address)).toContain("weft.dev/egress-private-addresses");
    expect(refusal(address, true)).toBeNull();
  });
  test.each(["203.0.113.9", "2001:db8::5", "198.51.100.7", "64:ff9b::cb00:7109"])("and does to %s", (address) => expect(refusal(address)).toBeNull());
});
