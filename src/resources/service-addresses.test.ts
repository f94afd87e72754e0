import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { cidrContains, formatCidr, parseCidr } from "../core/ip.ts";
import { documents, errorsOf, evaluate, namespace } from "./test-kit.ts";

const services = (names: readonly string[], spec = "{clusterIP: '', ports: [{port: 80}]}"): string =>
  documents(namespace("shop"), ...names.map((name) => `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}, namespace: shop}\nspec: ${spec}\n`));

function addresses(names: readonly string[], cidr: string): Map<string, string> {
  const { mesh } = evaluate(services(names), { serviceCidrs: [parseCidr(cidr)!] });
  return new Map([...mesh.services.values()].map((s) => [s.name, s.addresses.map(({ cidr: { bytes } }) => bytes.join(".")).join()]));
}

const names = fc.uniqueArray(fc.stringMatching(/^[a-z][a-z0-9]{0,5}$/), { maxLength: 14 });

describe("virtual addresses", () => {
  test("are distinct, inside the range and never its first or last, and depend on the set of names alone", () => {
    fc.assert(fc.property(names, fc.constantFrom("198.19.0.0/28", "198.19.0.0/24", "198.19.0.0/16"), (all, cidr) => {
      const assigned = addresses(all, cidr);
      const used = [...assigned.values()];
      expect(new Set(used).size).toBe(all.length);
      const last = { "198.19.0.0/28": "198.19.0.15", "198.19.0.0/24": "198.19.0.255", "198.19.0.0/16": "198.19.255.255" }[cidr];
      for (const ip of used) expect(cidrContains(parseCidr(cidr)!, ip as never) && ip !== "198.19.0.0" && ip !== last).toBe(true);
      expect(addresses([...all].reverse(), cidr)).toEqual(assigned);
    }), { numRuns: 60 });
  });
  test("stay when another service comes or goes, in a range with room", () => {
    const all = Array.from({ length: 60 }, (_, i) => `s${i}`);
    const before = addresses(all, "198.19.0.0/16");
    for (const gone of [0, 17, 59]) {
      const after = addresses(all.toSpliced(gone, 1), "198.19.0.0/16");
      for (const [name, ip] of after) expect(ip).toBe(before.get(name)!);
    }
  });
  test("move for few in a range that is half full", () => {
    const all = Array.from({ length: 120 }, (_, i) => `s${i}`);
    const before = addresses(all, "198.19.0.0/24");
    const after = addresses(["newcomer", ...all], "198.19.0.0/24");
    expect(all.filter((name) => after.get(name) !== before.get(name)).length).toBeLessThan(8);
  });
  test("a range that is full is an error at the services left over", () => {
    const evaluation = evaluate(services(["a", "b", "c"]), { serviceCidrs: [parseCidr("198.19.0.0/30")!] });
    expect(errorsOf(evaluation)).toEqual([expect.stringContaining("Service shop/c metadata.name: found no free virtual address")]);
    expect([...evaluation.mesh.services.values()].map((s) => s.addresses.length)).toEqual([1, 1, 0]);
  });
  test("without a range: told by kind, and a warning only of what clients are meant to name", () => {
    const gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: waypoint, namespace: shop}\nspec: {gatewayClassName: weft-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n";
    const bound = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}\nspec: {ports: [{port: 80}]}\n";
    const { diagnostics } = evaluate(documents(services(["web-v1"]), gateway, bound), { serviceCidrs: [] });
    const told = diagnostics.filter(({ code }) => code === "no_address").map(({ severity, resource, message }) => `${severity} ${resource} ${message.slice(message.lastIndexOf("give "))}`);
    expect(told.sort()).toEqual(["info Service shop/waypoint give the Gateway spec.addresses", "info Service shop/web-v1 give spec.clusterIP or --service-cidrs", "warning Service shop/web give spec.clusterIP or --service-cidrs"]);
  });
  test("an address that a service gives is not given away", () => {
    const chosen = addresses(["a"], "198.19.0.0/24").get("a")!;
    const given = `apiVersion: v1\nkind: Service\nmetadata: {name: z, namespace: shop}\nspec: {clusterIP: ${chosen}, ports: [{port: 80}]}\n`;
    const { mesh } = evaluate(documents(services(["a"]), given), { serviceCidrs: [parseCidr("198.19.0.0/24")!] });
    const [a, z] = [...mesh.services.values()].map((s) => s.addresses[0]!.cidr.bytes.join("."));
    expect(z).toBe(chosen);
    expect(a).not.toBe(chosen);
  });
  describe("with a range of each family", () => {
    const serviceCidrs = [parseCidr("198.19.0.0/24")!, parseCidr("2001:db8:2::/112")!];
    const families = (yaml: string): string[] => [...evaluate(documents(namespace("shop"), yaml), { serviceCidrs }).mesh.services.values()].map(({ hostname, addresses: given }) => `${hostname} ${given.map(({ cidr }) => cidr.family).join()}`);
    test.each([
      ["asked for nothing: the first", "{ports: [{port: 80}]}", "4"], ["preferring both", "{ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]}", "4,6"],
      ["of the second alone", "{ipFamilies: [IPv6], ports: [{port: 80}]}", "6"], ["headless, of both", "{clusterIP: None, ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]}", ""],
    ])("a service %s", (_, spec, wanted) => expect(families(services(["a"], spec))).toEqual([`a.shop.svc.cluster.local ${wanted}`]));

    test("hosts of a ServiceEntry have one of each: clients of either family are to be led to the mesh", () => {
      const entry = (addresses: string) => `apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a, namespace: shop}\nspec: {hosts: [a.example.com], resolution: DNS, ${addresses}ports: [{number: 80, name: http, protocol: HTTP}]}\n`;
      expect(families(entry(""))).toEqual(["a.example.com 4,6"]);
      expect(families(entry('addresses: ["2001:db8:9::1"], '))).toEqual(["a.example.com 6"]);
    });

    test("an entry that comes later moves no host of an older one, whatever its name", () => {
      const entry = (name: string, year: number) => `apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: ${name}, namespace: shop, creationTimestamp: "${year}-01-01T00:00:00Z"}\nspec: {hosts: [${name}.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}\n`;
      // Room for two.
      const given = (...entries: readonly string[]) => new Map([...evaluate(documents(namespace("shop"), ...entries), { serviceCidrs: [parseCidr("198.19.0.0/30")!] }).mesh.services.values()].map(({ name, addresses: all }) => [name, all.map(({ cidr }) => formatCidr(cidr)).join()]));
      const [z, y] = [entry("z", 2020), entry("y", 2021)];
      const before = given(z, y);
      expect(new Set(before.values()).size).toBe(2);
      expect([...given(entry("a", 2022), entry("b", 2023), z, y)].sort()).toEqual([["a", ""], ["b", ""], ...[...before].sort()]);
    });

    test("a waypoint has those that its Gateway gives, one of each family at most; else one of each range", () => {
      const gateway = (spec: string) => `apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: waypoint, namespace: shop}\nspec: {gatewayClassName: weft-waypoint, ${spec}listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n`;
      const given = (spec: string) => [...evaluate(documents(namespace("shop"), gateway(spec)), { serviceCidrs }).mesh.services.values()].flatMap(({ addresses: all }) => all.map(({ cidr }) => formatCidr(cidr)));
      expect(given('addresses: [{value: "2001:db8:9::1"}, {type: Hostname, value: w.example.com}, {value: 198.51.100.9}, {value: 198.51.100.10}], ')).toEqual(["198.51.100.9/32", "2001:db8:9::1/128"]);
      expect(families(gateway(""))).toEqual(["waypoint.shop.svc.cluster.local 4,6"]);
    });
  });
});
