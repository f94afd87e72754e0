// Weft and the reference ztunnel on two networks, with a gateway of neither before each: double HBONE from each end to the other.
// Runs where ZTUNNEL_BIN names a ztunnel.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { parseIp } from "../../src/core/ip.ts";
import { parseTrustDomain, type SpiffeId, spiffeId } from "../../src/core/spiffe.ts";
import { unsealed } from "../kit/box.ts";
import { EastWestGateway } from "../kit/east-west-gateway.ts";
import { issueSvid } from "../kit/hbone-peer.ts";
import { ask, documents, entryYaml, Mesh, namespaceYaml, program, serve, serviceYaml } from "../kit/mesh.ts";
import { MeshNetwork, type Workload } from "../kit/network.ts";
import { ECHO_PORT, GREETER_PORT, GREETING, HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless, firstReason } from "../kit/skip.ts";
import { needsZtunnel, ReferenceZtunnel } from "./reference-ztunnel.ts";

/** On a machine that is busy; what must be quick has a limit of its own. */
setDefaultTimeout(60_000);

const PORTS = { 80: HTTP_PORT, 90: ECHO_PORT, 91: GREETER_PORT } as const;
const VIPS = { ours: "198.18.250.61", theirs: "198.18.250.62" } as const;
const STREAM_BYTES = 32 * 1024 * 1024;

describeUnless(firstReason(unsealed, needsZtunnel))("the reference ztunnel on another network", () => {
  let network: MeshNetwork;
  let mesh: Mesh;
  let ours: Workload;
  let theirs: Workload;
  /** Before our network, and before theirs. */
  let gates: { readonly ours: Workload; readonly theirs: Workload };
  let gateways: { readonly ours: EastWestGateway; readonly theirs: EastWestGateway };
  let ztunnel: ReferenceZtunnel;

  const identity = (name: string, namespace = "shop"): SpiffeId => spiffeId(parseTrustDomain("cluster.local")!, namespace, name);
  const hostnameOf = (name: string): string => `${name}.shop.svc.cluster.local`;

  beforeAll(async () => {
    network = MeshNetwork.create();
    const [east, west] = [network.node("east"), network.node("west")];
    [ours, theirs] = [east.workload("ours"), west.workload("theirs")];
    gates = { ours: east.workload("gate-east"), theirs: west.workload("gate-west") };
    for (const server of [ours, theirs]) {
      await Promise.all([serve(server, "http", HTTP_PORT, server.name), serve(server, "echo", ECHO_PORT), serve(server, "greeter", GREETER_PORT, GREETING)]);
    }
    mesh = Mesh.create({ nodes: [east], flags: ["--network", "n1"] });
    mesh.write("shop.yaml", documents(
      namespaceYaml("shop", true), entryYaml(ours, { network: "n1" }), entryYaml(theirs, { network: "n2", labels: { "networking.istio.io/tunnel": "http" } }),
      ...(["ours", "theirs"] as const).map((name) => serviceYaml(name, { clusterIPs: [VIPS[name]], ports: PORTS })),
      JSON.stringify({
        apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway",
        metadata: { name: "to-n2", namespace: "istio-system", labels: { "topology.istio.io/network": "n2" }, annotations: { "gateway.istio.io/service-account": "east-west" } },
        spec: { gatewayClassName: "istio-remote", addresses: [{ value: gates.theirs.ipv4 }], listeners: [{ name: "cross-network", port: 15008, protocol: "HBONE" }] },
      }),
    ));
    await mesh.start();
    await mesh.agent(east).logged(/\/shop\/ours is in the mesh/);
    const svid = issueSvid(mesh, identity("east-west", "istio-system"));
    gateways = {
      ours: await EastWestGateway.listen(gates.ours, svid, () => [parseIp(ours.ipv4)!]),
      theirs: await EastWestGateway.listen(gates.theirs, svid, () => [parseIp(theirs.ipv4)!]),
    };
    ztunnel = await ReferenceZtunnel.start(mesh, theirs, {
      workloads: [{ workload: ours, network: "n1", services: { [`shop/${hostnameOf("ours")}`]: PORTS } }, { workload: theirs, network: "n2", services: { [`shop/${hostnameOf("theirs")}`]: PORTS } }],
      services: Object.fromEntries((["ours", "theirs"] as const).map((name) => [`shop/${hostnameOf(name)}`, { vips: [VIPS[name]], ports: PORTS, identities: [identity(name)] }])),
      deniedPorts: [],
      network: { own: "n2", gateway: { place: gates.ours, network: "n1", namespace: "istio-system", serviceAccount: "east-west" } },
    });
  }, 60_000);

  afterAll(async () => {
    await ztunnel?.[Symbol.asyncDispose]();
    gateways?.ours[Symbol.dispose]();
    gateways?.theirs[Symbol.dispose]();
    await mesh?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  for (const from of ["ours", "theirs"] as const) {
    const to = from === "ours" ? "theirs" : "ours";
    const words = from === "ours" ? "weft to ztunnel" : "ztunnel to weft";
    const client = () => (from === "ours" ? ours : theirs);

    test(`${words}: by the service's address, through the gateway, as whom it is`, async () => {
      const agent = mesh.agents[0]!;
      const mark = agent.mark();
      expect(await ask(client(), "get", urlOf(VIPS[to], 80))).toBe(`200 ${to} to ${gates[to].ipv4}`);
      expect(gateways[to].connects).toContain(`${hostnameOf(to)}:80`);
      expect(new Set(gateways[to].callers)).toEqual(new Set([identity(from)]));
      const [line] = await agent.connections({ direction: from === "ours" ? "outbound" : "inbound", "dst.service": hostnameOf(to) }, mark);
      expect([line!["src.workload"], line!["src.namespace"], line!["src.identity"], line!["dst.identity"], line!["close"]]).toEqual([from, "shop", identity(from), identity(to), "clean"]);
    });

    test(`${words}: many bytes both ways at once, intact, ended by the client; a server that speaks first`, async () => {
      const { stdout } = await client().run(program("stream", VIPS[to], 90, STREAM_BYTES));
      expect(stdout.trim().split("\n").at(-1)).toStartWith(`ok ${STREAM_BYTES} `);
      expect(await ask(client(), "read", VIPS[to], 91)).toBe(GREETING);
    }, 60_000);
  }
});
