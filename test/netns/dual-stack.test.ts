// Workloads of one IP family and of both: what is captured and what is not, how each reaches the other, and whose address is seen there.
// That the usual paths hold for either family is in paths.test.ts and policy-matrix.test.ts.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unsealed } from "../kit/box.ts";
import { ask, documents, entryYaml, policyYaml, serve, serviceYaml } from "../kit/mesh.ts";
import { NameServer } from "../kit/name-server.ts";
import type { Place, Workload } from "../kit/network.ts";
import { HTTP_PORT, Shop, urlOf } from "../kit/shop.ts";
import { describeUnless, firstReason, needsProgram } from "../kit/skip.ts";
import { until } from "../kit/until.ts";

/** Of a service whose only endpoint has no IPv4 address. */
const VIP = "198.18.250.60";
const VIP6 = "2001:db8:250::60";

describeUnless(firstReason(unsealed, needsProgram("curl"), needsProgram("ip")))("dual stack", () => {
  let shop: Shop;
  /** No IPv4 address: on the client's node, and across. */
  let near6: Workload;
  let far6: Workload;

  beforeAll(async () => {
    shop = await Shop.open();
    [near6, far6] = [shop.east.workload("near6"), shop.west.workload("far6")];
    for (const place of [near6, far6]) {
      expect(await place.run(["ip", "-4", "address", "flush", "dev", place.linkName])).toMatchObject({ exitCode: 0 });
      await serve(place, "http", HTTP_PORT, place.name);
    }
    shop.mesh.write("six.yaml", documents(
      ...[near6, far6].map((place) => entryYaml(place, { ipv4: false })),
      serviceYaml("six", { clusterIPs: [VIP, VIP6], selector: { app: "far6" }, ports: { 80: HTTP_PORT } }),
    ));
    for (const place of [near6, far6]) await shop.mesh.agent(place.node).logged(new RegExp(`/shop/${place.name} is in the mesh`));
  }, 60_000);
  afterAll(async () => await shop?.[Symbol.asyncDispose]());

  const curl = async (from: Place, url: string): Promise<string> => (await from.run(["curl", "-sS", "-g", "--max-time", "5", url])).stdout.trim();
  /** Of its link to the node, with the interface's name as the scope. */
  const linkLocal = async (place: Place, link: string): Promise<string> => {
    const { stdout } = await place.run(["ip", "-6", "-o", "address", "show", "dev", link, "scope", "link"]);
    return /inet6 (fe80::[0-9a-f:]+)\//.exec(stdout)?.[1] ?? `no link-local address: ${stdout}`;
  };

  for (const [from, to] of [["client", "near6"], ["client", "far6"], ["near6", "far"], ["far6", "near"], ["near6", "far6"]] as const) {
    test(`${from} to ${to} over IPv6: in a tunnel where it crosses, with the client's own address`, async () => {
      const place = (name: typeof from | typeof to): Workload => (name === "near6" ? near6 : name === "far6" ? far6 : shop[name]);
      using wire = shop.wire();
      expect(await shop.get(place(from), place(to).ipv6!)).toBe(`200 ${to} to ${place(from).ipv6}`);
      expect(wire.saw(`${to} to`)).toBe(false);
      expect(wire.bytesOnPort(15008) > 0).toBe(place(from).node !== place(to).node);
    });
  }

  for (const vip of [VIP, VIP6]) {
    test(`a service with addresses of both families and an endpoint of one: by ${vip}`, async () => {
      // The endpoint has nowhere to send an answer for an IPv4 client: it sees its own side's address then.
      expect(await shop.get(shop.client, vip, 80)).toMatch(vip === VIP ? /^200 far6 to / : new RegExp(`^200 far6 to ${shop.client.ipv6}$`));
      expect(await shop.get(near6, VIP6, 80)).toBe(`200 far6 to ${near6.ipv6}`);
    });
  }

  test("a host that has addresses of both families and is reached by one: the other is tried, whichever the client came by", async () => {
    const directory = mkdtempSync(join(tmpdir(), "weft-dual-"));
    await using names = await NameServer.start(directory, shop.east);
    using _folder = { [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) };
    const [byName, byName6] = ["198.18.250.61", "2001:db8:250::61"];
    // Nothing listens at the other address of either.
    for (const [host, ...addresses] of [["by4.example.com", shop.legacy.ipv4, shop.stranger.ipv6!], ["by6.example.com", shop.stranger.ipv4, shop.legacy.ipv6!]] as const) {
      names.names.set(host, addresses);
      shop.mesh.write("external.yaml", JSON.stringify({
        apiVersion: "networking.istio.io/v1", kind: "ServiceEntry", metadata: { name: "external", namespace: "shop" },
        spec: { hosts: [host], addresses: [byName, byName6], resolution: "DNS", ports: [{ number: 80, name: "http", protocol: "TCP", targetPort: HTTP_PORT }] },
      }));
      for (const vip of [byName, byName6]) await until(`${host} to answer by ${vip}`, 8_000, async () => (await shop.get(shop.client, vip, 80)).startsWith("200 legacy to "));
    }
    shop.mesh.remove("external.yaml");
  });

  test("an IPv4-mapped address is IPv4: captured, tunnelled, and known by its IPv4 address at both ends", async () => {
    const [source, destination] = [shop.mesh.agent(shop.east), shop.mesh.agent(shop.west)];
    const [sourceMark, destinationMark] = [source.mark(), destination.mark()];
    expect(await ask(shop.client, "get", urlOf(`::ffff:${shop.far.ipv4}`, HTTP_PORT))).toBe(`200 far to ${shop.client.ipv4}`);
    const [outbound] = await source.connections({ direction: "outbound", "src.workload": "client", "dst.workload": "far" }, sourceMark);
    const [inbound] = await destination.connections({ direction: "inbound", "src.workload": "client" }, destinationMark);
    expect(outbound!["src.addr"]).toStartWith(`${shop.client.ipv4}:`);
    expect([inbound!["dst.addr"], inbound!["dst.hbone_addr"]].sort()).toEqual([`${shop.far.ipv4}:15008`, `${shop.far.ipv4}:${HTTP_PORT}`].sort());
  });

  test("a policy's IPv6 range, and an IPv4 one written as IPv4-mapped, hold for who comes from there", async () => {
    const blocked = async (family: 4 | 6): Promise<boolean> => !(await shop.get(shop.client, family === 4 ? shop.far.ipv4 : shop.far.ipv6!)).startsWith("200");
    for (const [block, wanted] of [["2001:db8:1::/64", [false, true]], ["::ffff:198.18.1.0/120", [true, false]], ["2001:db8:2::/64", [false, false]]] as const) {
      shop.mesh.write("deny.yaml", policyYaml("AuthorizationPolicy", { selector: { matchLabels: { app: "far" } }, action: "DENY", rules: [{ from: [{ source: { ipBlocks: [block, "198.51.100.77"] } }] }] }, "deny"));
      await until(`${block} to be in force`, 5_000, async () => [await blocked(4), await blocked(6)].join() === wanted.join());
      shop.mesh.remove("deny.yaml");
      await until("it to be gone", 5_000, async () => !(await blocked(4)) && !(await blocked(6)));
    }
  });

  test("link-local: what a workload opens goes as it was; what comes is judged by the inbound listener, and no way around it", async () => {
    const [link] = [...shop.client.node.workloads].flatMap((workload, i) => (workload === shop.client ? [`w${i + 1}-client`] : []));
    const [node, own] = [await linkLocal(shop.east, link!), await linkLocal(shop.client, shop.client.linkName)];
    await serve(shop.east, "http", 8070, "node");
    await serve(shop.client, "http", 8071, "client");
    expect(await curl(shop.client, `http://[${node}%25${shop.client.linkName}]:8070/`)).toMatch(/^node to fe80::/);
    expect(await curl(shop.east, `http://[${own}%25${link}]:8071/`)).toMatch(/^client to fe80::/);
    const strict = policyYaml("PeerAuthentication", { selector: { matchLabels: { app: "client" } }, mtls: { mode: "STRICT" } }, "strict");
    shop.mesh.write("strict.yaml", strict);
    await until("link-local plaintext to be refused", 5_000, async () => (await curl(shop.east, `http://[${own}%25${link}]:8071/`)) === "");
    shop.mesh.remove("strict.yaml");
    await until("it to be let in again", 5_000, async () => (await curl(shop.east, `http://[${own}%25${link}]:8071/`)).startsWith("client to"));
  });

  test("ICMPv6 passes as it is: neighbours are found anew", async () => {
    expect(await shop.client.run(["ip", "-6", "neighbour", "flush", "dev", shop.client.linkName])).toMatchObject({ exitCode: 0 });
    expect(await shop.get(shop.client, shop.far.ipv6!)).toStartWith("200 far");
    expect(await shop.client.run(["ip", "-6", "neighbour", "show", "dev", shop.client.linkName])).toMatchObject({ stdout: expect.stringContaining("lladdr") });
  });
});
