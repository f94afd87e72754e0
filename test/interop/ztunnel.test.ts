// Weft and the reference ztunnel, each with a workload, under one CA: ours. Every conversation is held in both directions and both
// address families. Runs where ZTUNNEL_BIN names a ztunnel.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import { ask, documents, entryYaml, Mesh, namespaceYaml, policyYaml, program, serve, serviceYaml } from "../kit/mesh.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { addressOf, ECHO_PORT, type Family, FAREWELL_PORT, GREETER_PORT, GREETING, HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless, firstReason } from "../kit/skip.ts";
import { needsZtunnel, ReferenceZtunnel } from "./reference-ztunnel.ts";

/** On a machine that is busy; what must be quick has a limit of its own. */
setDefaultTimeout(60_000);

/** An application listens there, and a policy of its own proxy lets nobody in. */
const DENIED_PORT = 9300;
const NOBODY_PORT = 8999;
const SERVICE_HTTP = 80;
const SERVICE_ECHO = 90;
const STREAM_BYTES = 64 * 1024 * 1024;
const STORM = 400;
const SERVICES = {
  ours: { vips: ["198.18.250.31", "2001:db8:250::31"], ports: { [SERVICE_HTTP]: HTTP_PORT, [SERVICE_ECHO]: ECHO_PORT } },
  theirs: { vips: ["198.18.250.32", "2001:db8:250::32"], ports: { [SERVICE_HTTP]: HTTP_PORT, [SERVICE_ECHO]: ECHO_PORT } },
} as const;

describeUnless(firstReason(unsealed, needsZtunnel))("the reference ztunnel", () => {
  let network: MeshNetwork;
  let mesh: Mesh;
  let east: Node;
  let west: Node;
  let ours: Workload;
  let theirs: Workload;
  let ztunnel: ReferenceZtunnel;

  const identity = (name: string): string => `spiffe://cluster.local/ns/shop/sa/${name}`;
  const hostnameOf = (name: keyof typeof SERVICES): string => `${name}.shop.svc.cluster.local`;

  beforeAll(async () => {
    network = MeshNetwork.create();
    [east, west] = [network.node("east"), network.node("west")];
    [ours, theirs] = [east.workload("ours"), west.workload("theirs")];
    for (const server of [ours, theirs]) {
      await Promise.all([
        serve(server, "http", HTTP_PORT, server.name), serve(server, "echo", ECHO_PORT), serve(server, "greeter", GREETER_PORT, GREETING), serve(server, "greeter", DENIED_PORT, "not for you"),
      ]);
    }
    mesh = Mesh.create({ nodes: [east] });
    mesh.write("shop.yaml", documents(
      namespaceYaml("shop", true), entryYaml(ours), entryYaml(theirs, { labels: { "networking.istio.io/tunnel": "http" } }),
      ...(["ours", "theirs"] as const).map((name) => serviceYaml(name, { clusterIPs: SERVICES[name].vips, ports: SERVICES[name].ports })),
      policyYaml("AuthorizationPolicy", { selector: { matchLabels: { app: "ours" } }, action: "DENY", rules: [{ to: [{ operation: { ports: [String(DENIED_PORT)] } }] }] }),
    ));
    await mesh.start();
    await mesh.agent(east).logged(/\/shop\/ours is in the mesh/);
    ztunnel = await ReferenceZtunnel.start(mesh, theirs, {
      workloads: [ours, theirs].map((workload) => ({ workload, services: { [`shop/${hostnameOf(workload.name as keyof typeof SERVICES)}`]: SERVICES[workload.name as keyof typeof SERVICES].ports } })),
      services: Object.fromEntries((["ours", "theirs"] as const).map((name) => [`shop/${hostnameOf(name)}`, SERVICES[name]])),
      deniedPorts: [DENIED_PORT],
    });
  }, 60_000);

  afterAll(async () => {
    await ztunnel?.[Symbol.asyncDispose]();
    await mesh?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  /** Our agent's line about a connection: outbound where we are the client, inbound where they are. */
  const line = async (from: "ours" | "theirs", mark: number, fields: Readonly<Record<string, string>> = {}) =>
    (await mesh.agent(east).connections({ direction: from === "ours" ? "outbound" : "inbound", ...fields }, mark))[0]!;

  for (const from of ["ours", "theirs"] as const) {
    const to = from === "ours" ? "theirs" : "ours";
    const places = () => (from === "ours" ? { client: ours, server: theirs } : { client: theirs, server: ours });
    const words = from === "ours" ? "weft to ztunnel" : "ztunnel to weft";

    for (const family of [4, 6] as const satisfies readonly Family[]) {
      test(`${words}, IPv${family}: by address, in a tunnel with both identities, from the client's own address`, async () => {
        const { client, server } = places();
        const mark = mesh.agent(east).mark();
        using wire = network.witness(east, west);
        expect(await ask(client, "get", urlOf(addressOf(server, family), HTTP_PORT))).toBe(`200 ${to} to ${addressOf(client, family)}`);
        expect(wire.saw(`${to} to ${addressOf(client, family)}`)).toBe(false);
        expect(wire.bytesOnPort(HTTP_PORT)).toBe(0);
        expect(wire.bytesOnPort(15008)).toBeGreaterThan(0);
        const seen = await line(from, mark, { "dst.workload": to });
        expect([seen["src.identity"], seen["dst.identity"], seen["close"]]).toEqual([identity(from), identity(to), "clean"]);
      });

      test(`${words}, IPv${family}: by a service's virtual address`, async () => {
        const { client } = places();
        const vip = SERVICES[to].vips[family === 4 ? 0 : 1];
        const mark = mesh.agent(east).mark();
        expect(await ask(client, "get", urlOf(vip, SERVICE_HTTP))).toBe(`200 ${to} to ${addressOf(client, family)}`);
        // The other side said which service it meant.
        expect((await line(from, mark, { "dst.service": hostnameOf(to) }))["dst.workload"]).toBe(to);
      });

      test(`${words}, IPv${family}: many bytes both ways at once, intact, ended by the client`, async () => {
        const { client, server } = places();
        const { stdout } = await client.run(program("stream", addressOf(server, family), ECHO_PORT, STREAM_BYTES));
        expect(stdout.trim().split("\n").at(-1)).toStartWith(`ok ${STREAM_BYTES} `);
      }, 60_000);
    }

    test(`${words}: many connections, each with a message of its own`, async () => {
      const { client, server } = places();
      const { stdout } = await client.run(program("storm", server.ipv4, ECHO_PORT, STORM, 32));
      expect(stdout.trim().split("\n").at(-1)).toBe(`ok ${STORM}`);
    }, 60_000);

    test(`${words}: a server that speaks first, and one that ends first and still hears the answer`, async () => {
      const { client, server } = places();
      expect(await ask(client, "read", server.ipv4, GREETER_PORT)).toBe(GREETING);
      const app = server.exec(program("farewell", FAREWELL_PORT, "that is all"), { stderr: "inherit" });
      await server.listening(FAREWELL_PORT);
      const lines = (app.stdout as ReadableStream<Uint8Array>).getReader();
      expect(await ask(client, "afterwards", server.ipv4, FAREWELL_PORT, `thanks from ${from}`)).toBe("ok that is all");
      let heard = "";
      while (!heard.includes("heard")) heard += Buffer.from((await lines.read()).value!).toString();
      expect(heard).toContain(`heard thanks from ${from}`);
    });

    test(`${words}: denied by a policy of the destination, with 401`, async () => {
      const { client, server } = places();
      const mark = mesh.agent(east).mark();
      expect(await ask(client, "read", server.ipv4, DENIED_PORT)).toStartWith("failed");
      expect((await line(from, mark, { close: "policy_denied" }))["dst.workload"]).toBe(to);
      if (from === "theirs") expect(ztunnel.log).toMatch(/http status: 401/i);
    });

    test(`${words}: an application that is not there is refused, not waited for`, async () => {
      const { client, server } = places();
      const mark = mesh.agent(east).mark();
      expect(await ask(client, "read", server.ipv4, NOBODY_PORT)).toStartWith("failed");
      const seen = await line(from, mark, { "dst.workload": to });
      expect(seen["close"]).toBe(from === "ours" ? "destination_refused" : "connect_failed");
      if (from === "theirs") expect(ztunnel.log).toMatch(/http status: 503/i);
    });
  }

  test("its certificate is one of ours, asked for by the service that it speaks with any CA", async () => {
    await mesh.agent(east).logged(new RegExp(`certificate issued identity="${identity("theirs")}"`));
  });
});
