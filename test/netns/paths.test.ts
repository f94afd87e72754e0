// Who reaches whom, by which path: inside and outside the mesh, on one node and across, IPv4 and IPv6, by address and by service.
// Seen from three sides: what the client gets, what passes on the wire, what the agents write down.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import type { Agent } from "../kit/mesh.ts";
import { slowdown } from "../kit/fair-time.ts";
import { until } from "../kit/until.ts";
import { Answerer, Conversation } from "../kit/conversation.ts";
import type { Workload } from "../kit/network.ts";
import { addressOf, type Family, HTTP_PORT, SERVICE_HTTP, Shop, urlOf, VIP, VIP6 } from "../kit/shop.ts";
import { describeUnless, needsProgram, testUnless } from "../kit/skip.ts";
import { parseIp } from "../../src/core/ip.ts";
import { countCarried } from "../../src/net/redirect/carried-connections.ts";
import { REDIRECT_DEFAULTS } from "../../src/net/redirect/options.ts";

const identity = (name: string): string => `spiffe://cluster.local/ns/shop/sa/${name}`;

describeUnless(unsealed)("paths", () => {
  let shop: Shop;
  beforeAll(async () => void (shop = await Shop.open()), 60_000);
  afterAll(async () => await shop?.[Symbol.asyncDispose]());

  type Who = "client" | "stranger" | "near" | "far" | "legacy" | "faraway";
  const inMesh = (who: Who): boolean => ["client", "near", "far"].includes(who);
  const onEast = (who: Who): boolean => !["far", "faraway"].includes(who);

  for (const family of [4, 6] as const) {
    for (const from of ["client", "stranger"] as const) {
      for (const to of ["near", "far", "legacy", "faraway"] as const) {
        const words = `${inMesh(from) ? "captured" : "uncaptured"} to ${inMesh(to) ? "captured" : "uncaptured"}, ${onEast(to) ? "same node" : "across"}`;
        test(`IPv${family}, ${words}: answered, with the client's own address`, async () => {
          using wire = shop.wire();
          const [source, destination] = [shop[from], shop[to]];
          expect(await shop.get(source, addressOf(destination, family))).toBe(`200 ${to} to ${addressOf(source, family)}`);
          // A late ACK of an earlier tunnel carries nothing.
          if (onEast(to)) return expect(wire.packets().filter(({ destination: { port }, payload }) => payload.length > 0 && (port === HTTP_PORT || port === 15008))).toEqual([]);
          const tunnelled = inMesh(from) && inMesh(to);
          expect(wire.saw(`${to} to ${addressOf(source, family)}`)).toBe(!tunnelled);
          expect(wire.bytesOnPort(HTTP_PORT) > 0).toBe(!tunnelled);
          expect(wire.bytesOnPort(15008) > 0).toBe(tunnelled);
        });
      }
    }

    test(`IPv${family}: a service is answered by both of its endpoints, and by its name in the log`, async () => {
      const seen = new Set<string>();
      const mark = shop.mesh.agent(shop.east).mark();
      for (let i = 0; i < 40 && seen.size < 2; i++) {
        const answer = await shop.get(shop.client, family === 4 ? VIP : VIP6, SERVICE_HTTP);
        expect(answer).toMatch(new RegExp(`^200 (near|far) to ${addressOf(shop.client, family)}$`));
        seen.add(answer.split(" ")[1]!);
      }
      expect([...seen].sort()).toEqual(["far", "near"]);
      const [line] = await shop.mesh.agent(shop.east).connections({ "dst.service": "web.shop.svc.cluster.local", direction: "outbound" }, mark);
      expect(line!["close"]).toBe("clean");
    });

    test(`IPv${family}: a plain client may use the very port from which the agent speaks to the application in its name`, async () => {
      using app = Answerer.listen(shop.far, 8998, () => "hello");
      const to = { ip: parseIp(addressOf(shop.far, family))!, port: 8998 };
      using first = await Conversation.open(shop.stranger, to);
      expect(await first.receive("hello")).toBe(true);
      const { from } = app.peers[0]!;
      expect(from.ip).toBe(parseIp(addressOf(shop.stranger, family))!);
      using second = await Conversation.open(shop.stranger, to, { sourcePort: from.port });
      expect(await second.receive("hello")).toBe(true);
      expect(await second.echoes("second")).toBe(true);
      expect(await first.echoes("first")).toBe(true);
    });

    test(`IPv${family}: what the agents carry is counted where rules are needed for it, until it ends; a tunnel that stays is not`, async () => {
      const carriedIn = ({ namespaceFd }: Workload): number => {
        const carried = countCarried(namespaceFd, REDIRECT_DEFAULTS);
        if (!carried.ok) throw new Error(carried.error.message);
        return carried.value;
      };
      for (const [from, to, wanted] of [
        [shop.client, shop.far, [1, 1]], [shop.client, shop.near, [1, 1]], [shop.client, shop.faraway, [1, 0]],
        // Once as it came, in plaintext, and once as it goes on to the application.
        [shop.stranger, shop.far, [0, 2]],
      ] as const) {
        const carried = (): number[] => [carriedIn(from), carriedIn(to)];
        await until("what was before to end", 5_000, () => carried().join() === "0,0");
        using _app = Answerer.listen(to, 8996, () => "hello");
        {
          using talk = await Conversation.open(from, { ip: parseIp(addressOf(to, family))!, port: 8996 });
          await talk.receive("hello");
          expect([from.name, to.name, carried()]).toEqual([from.name, to.name, [...wanted]]);
        }
        await until("it to end", 5_000, () => carried().join() === "0,0");
      }
      const tunnels = await shop.far.run(["ss", "-Htn", "state", "established", "sport", "=", ":15008"]);
      expect(tunnels.stdout).not.toBe("");
    });

    test(`IPv${family}: a port nobody listens on is refused, not left waiting`, async () => {
      for (const [from, to] of [[shop.client, shop.near], [shop.client, shop.far], [shop.client, shop.legacy], [shop.client, shop.faraway], [shop.stranger, shop.near], [shop.stranger, shop.far]] as const) {
        const askedMs = performance.now();
        expect(await shop.get(from, addressOf(to, family), 8999)).toMatch(/^failed (ECONN|Connection|Socket)/i);
        expect(performance.now() - askedMs).toBeLessThan(1_000 * slowdown());
      }
    });
  }

  async function logged(from: Workload, to: Workload, family: Family): Promise<{ outbound: Readonly<Record<string, string>> | undefined; inbound: Readonly<Record<string, string>> | undefined }> {
    const [source, destination] = [shop.mesh.agent(from.node), shop.mesh.agent(to.node)];
    const [sourceMark, destinationMark] = [source.mark(), destination.mark()];
    expect(await shop.get(from, addressOf(to, family))).toStartWith("200");
    // Lines are written in batches: one of an earlier connection, to another port, may still come after the mark.
    const lineOf = (agent: Agent, direction: string, mark: number) => until(`the ${direction} line of ${from.name} to ${to.name}`, 5_000, () =>
      agent.connectionsSoFar({ direction, "src.workload": from.name, "dst.workload": to.name }, mark)
        .find((line) => [line["dst.addr"], line["dst.hbone_addr"]].some((address) => address?.endsWith(`:${HTTP_PORT}`))));
    const outbound = await lineOf(source, "outbound", sourceMark);
    const inbound = await lineOf(destination, "inbound", destinationMark);
    return { outbound, inbound };
  }

  test("across: both ends log both identities, the decision, the bytes and a clean end, once each", async () => {
    const { outbound, inbound } = await logged(shop.client, shop.far, 4);
    for (const line of [outbound!, inbound!]) {
      expect(line["src.identity"]).toBe(identity("client"));
      expect(line["dst.identity"]).toBe(identity("far"));
      expect(line["close"]).toBe("clean");
      expect(Number(line["bytes_sent"])).toBeGreaterThan(0);
      expect(Number(line["bytes_recv"])).toBeGreaterThan(0);
    }
    expect(inbound!["decision"]).toBe("allow");
    // What one end sends the other receives.
    expect(new Set([outbound!["bytes_sent"], outbound!["bytes_recv"]])).toEqual(new Set([inbound!["bytes_sent"], inbound!["bytes_recv"]]));
  });

  test("same node: the identities are in the log though no byte was encrypted", async () => {
    const { outbound, inbound } = await logged(shop.client, shop.near, 6);
    for (const line of [outbound!, inbound!]) {
      expect(line["src.identity"]).toBe(identity("client"));
      expect(line["dst.identity"]).toBe(identity("near"));
      expect(line["node_local"]).toBe("true");
    }
    expect([outbound!["decision"], inbound!["decision"]]).toEqual(["same-node", "allow"]);
    expect(outbound!["reason"]).toStartWith("same node, no tunnel: to ");
  });

  test("same node: what is refused there says so too, and speaks of no tunnel", async () => {
    const agent = shop.mesh.agent(shop.client.node);
    const mark = agent.mark();
    expect(await shop.get(shop.client, shop.near.ipv4, 8999)).toStartWith("failed");
    const [line] = await agent.connections({ direction: "outbound", "src.workload": "client", "dst.workload": "near", close: "connect_failed" }, mark);
    expect(line).toMatchObject({ decision: "same-node", node_local: "true", "dst.identity": identity("near"), "dst.addr": `${shop.near.ipv4}:8999` });
    expect(line!["dst.hbone_addr"]).toBeUndefined();
  });

  test("metrics count a connection across once on each side, with mutual TLS, and its bytes", async () => {
    const [source, destination] = [shop.mesh.agent(shop.east), shop.mesh.agent(shop.west)];
    const labels = { source_workload: "client", destination_workload: "far", connection_security_policy: "mutual_tls" };
    const count = async (name: string) => [await source.metric(name, { ...labels, reporter: "source" }), await destination.metric(name, { ...labels, reporter: "destination" })];
    const [opened, closed] = [await count("istio_tcp_connections_opened_total"), await count("istio_tcp_connections_closed_total")];
    const mark = destination.mark();
    for (let i = 0; i < 5; i++) await shop.get(shop.client, shop.far.ipv4);
    await destination.connections({ direction: "inbound", "src.workload": "client" }, mark);
    expect(await count("istio_tcp_connections_opened_total")).toEqual(opened.map((before) => before + 5));
    // An end may not have been counted yet when the answer is read.
    await until("every end to be counted", 5_000, async () => (await count("istio_tcp_connections_closed_total")).every((now, i) => now >= closed[i]! + 5));
    for (const bytes of [...(await count("istio_tcp_sent_bytes_total")), ...(await count("istio_tcp_received_bytes_total"))]) expect(bytes).toBeGreaterThan(0);
  });

  testUnless(needsProgram("curl"))("curl: a megabyte down, a megabyte up, a keep-alive connection for ten requests", async () => {
    for (const family of [4, 6] as const) {
      const base = urlOf(addressOf(shop.far, family), HTTP_PORT, "");
      const down = await shop.client.run(["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", `${base}/bytes/1048576`]);
      expect(down.stdout).toBe("200 1048576");
      const up = await shop.client.run(["curl", "-sS", "-m", "10", "--data-binary", "@-", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", `${base}/`], { stdin: new Uint8Array(1048576).fill(0x62) });
      expect(up.stdout).toBe("200 1048576");
      const many = await shop.client.run(["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{num_connects} %{http_code}\n", `${base}/bytes/[1-10]`]);
      expect(many.stdout.trim().split("\n")).toEqual(["1 200", ...Array<string>(9).fill("0 200")]);
    }
  });
});
