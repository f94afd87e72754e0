// Real traffic through two agents: paths, families, policies, and what happens to connections that are open when rules change.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import { promised } from "../kit/fair-time.ts";
import { ask, documents, entryYaml, Mesh, namespaceYaml, program, serve } from "../kit/mesh.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { describeUnless } from "../kit/skip.ts";

const PORT = 8080;
const ECHO_PORT = 9000;
const GREETER_PORT = 9001;
/** A change of the configuration is in force within this time. */
const CHANGE_MS = 1_000;

describeUnless(unsealed)("a mesh of two nodes", () => {
  let network: MeshNetwork;
  let mesh: Mesh;
  let east: Node;
  let west: Node;
  /** In the mesh: on the client's node, and across. */
  let near: Workload;
  let far: Workload;
  let client: Workload;
  /** Known to nobody: outside the mesh. */
  let stranger: Workload;

  const url = (host: string, port = PORT) => `http://${host.includes(":") ? `[${host}]` : host}:${port}/`;
  const get = (from: Workload, to: Workload, family: 4 | 6 = 4) => ask(from, "get", url(family === 4 ? to.ipv4 : to.ipv6!));
  const policy = (kind: string, spec: object) => JSON.stringify({ apiVersion: "security.istio.io/v1", kind, metadata: { name: "under-test", namespace: "shop" }, spec });

  /** Puts a policy in force, runs the body, takes it away again; `settled` tells when each is in force. */
  async function under(yaml: string, settled: () => Promise<boolean>, body: () => Promise<void>): Promise<void> {
    mesh.write("policy.yaml", yaml);
    try {
      await promised("the policy to be in force", CHANGE_MS, settled);
      await body();
    } finally {
      mesh.remove("policy.yaml");
      await promised("the policy to be gone", CHANGE_MS, async () => (await get(stranger, far)).startsWith("200") && (await get(client, far)).startsWith("200"));
    }
  }

  beforeAll(async () => {
    network = MeshNetwork.create();
    [east, west] = [network.node("east"), network.node("west")];
    [client, near, stranger, far] = [east.workload("client"), east.workload("near"), east.workload("stranger"), west.workload("far")];
    for (const server of [near, far]) {
      await serve(server, "http", PORT, server.name);
      await serve(server, "echo", ECHO_PORT);
      await serve(server, "greeter", GREETER_PORT, "welcome");
    }
    mesh = Mesh.create({ nodes: [east, west] });
    mesh.write("shop.yaml", documents(namespaceYaml("shop", true), ...[client, near, far].map((workload) => entryYaml(workload))));
    await mesh.start();
    for (const [node, names] of [[east, ["client", "near"]], [west, ["far"]]] as const) {
      for (const name of names) await mesh.agent(node).logged(new RegExp(`/shop/${name} is in the mesh`));
    }
  }, 60_000);

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  for (const family of [4, 6] as const) {
    test(`IPv${family}: across and on the same node, from inside and from outside, with the client's own address`, async () => {
      const own = (workload: Workload) => (family === 4 ? workload.ipv4 : workload.ipv6!);
      expect(await get(client, far, family)).toBe(`200 far to ${own(client)}`);
      expect(await get(client, near, family)).toBe(`200 near to ${own(client)}`);
      expect(await get(stranger, far, family)).toBe(`200 far to ${own(stranger)}`);
    });

    test(`IPv${family}: STRICT refuses plaintext and lets the mesh in, on both paths`, async () => {
      const strict = policy("PeerAuthentication", { mtls: { mode: "STRICT" } });
      await under(strict, async () => (await get(stranger, far, family)).startsWith("failed"), async () => {
        expect(await get(client, far, family)).toStartWith("200");
        expect(await get(client, near, family)).toStartWith("200");
        expect(await get(stranger, near, family)).toStartWith("failed");
      });
    });

    test(`IPv${family}: ALLOW for one identity refuses everybody else`, async () => {
      const allow = policy("AuthorizationPolicy", { action: "ALLOW", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/client"] } }] }] });
      await under(allow, async () => (await get(stranger, far, family)).startsWith("failed"), async () => {
        expect(await get(client, far, family)).toStartWith("200");
        expect(await get(client, near, family)).toStartWith("200");
      });
    });
  }

  test("STRICT with a port left out: plaintext reaches that port only", async () => {
    const exception = policy("PeerAuthentication", { selector: { matchLabels: { app: "far" } }, mtls: { mode: "STRICT" }, portLevelMtls: { [PORT]: { mode: "PERMISSIVE" } } });
    // Whoever is refused may see it while it connects, or just after.
    const greeting = () => ask(stranger, "read", far.ipv4, GREETER_PORT);
    expect(await greeting()).toBe("welcome");
    await under(exception, async () => (await greeting()).startsWith("failed"), async () => {
      expect(await get(stranger, far)).toStartWith("200");
    });
  });

  test("a live connection is cut when a policy begins to deny it, across and on the same node", async () => {
    for (const server of [far, near]) {
      const live = client.exec(program("talk", server.ipv4, ECHO_PORT), { stderr: "inherit" });
      const reader = (live.stdout as ReadableStream<Uint8Array>).getReader();
      expect(Buffer.from((await reader.read()).value!).toString()).toContain("beat 1");
      const deny = policy("AuthorizationPolicy", { action: "DENY", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/client"] } }] }] });
      await under(deny, async () => (await get(client, far)).startsWith("failed"), async () => {
        let heard = "";
        for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) heard += Buffer.from(chunk.value).toString();
        expect(heard).toContain("ended");
      });
    }
  }, 60_000);

  test("connections are counted and logged with both identities", async () => {
    const from = mesh.agent(west).log.length;
    await get(client, far);
    const line = await mesh.agent(west).logged(/access.*src\.workload="client".*direction="inbound"/, from);
    expect(line).toContain('src.identity="spiffe://cluster.local/ns/shop/sa/client"');
    expect(line).toContain('dst.identity="spiffe://cluster.local/ns/shop/sa/far"');
    const labels = ['reporter="destination"', 'source_workload="client"', 'destination_workload="far"', 'connection_security_policy="mutual_tls"'];
    const opened = (await mesh.agent(west).metrics()).split("\n").find((sample) => sample.startsWith("istio_tcp_connections_opened_total{") && labels.every((label) => sample.includes(label)));
    expect(Number(opened?.split(" ").at(-1))).toBeGreaterThan(0);
  });

  test("an agent killed and started again is back within two seconds", async () => {
    await mesh.agent(west).kill();
    const starting = mesh.agent(west).start();
    await promised("traffic to flow", 2_000, async () => (await get(client, far)).startsWith("200"));
    await starting;
  }, 90_000);
});
