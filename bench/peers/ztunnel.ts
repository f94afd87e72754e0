// The reference ztunnel, in dedicated mode: one process in each namespace, configured from a file, its own test CA.
// ZTUNNEL_BIN names a binary built with the `testing` feature, which FAKE_CA needs.

import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { must, run, until, type Server, type ServerOptions } from "../lib/process.ts";
import { SERVED_PORTS, type Node, type Testbed } from "../l4/testbed.ts";
import type { Peer } from "./peer.ts";
import { flushRules, loadRules, Setup } from "./running.ts";

const READY_SECONDS = 15;
const READINESS_PORT = 15021;
const HBONE_PORT = 15008;

export const ztunnel: Peer = {
  name: "ztunnel",
  command: () => process.env["ZTUNNEL_BIN"] ?? "",
  missing: () => {
    const binary = process.env["ZTUNNEL_BIN"];
    if (binary === undefined || binary === "") return "ZTUNNEL_BIN is not set";
    return existsSync(binary) ? null : `ZTUNNEL_BIN: no such file: ${binary}`;
  },
  idleMissing: () => null,
  tunnelPorts: [HBONE_PORT],
  // A ztunnel that serves both pods of a node still tunnels between them; with one process each, so does this pair.
  hasSameNodePath: false,
  start: async (bed) => {
    await using setup = new Setup();
    const sides = [
      { node: bed.client, name: "client" },
      { node: bed.server, name: "server" },
    ];
    for (const { node } of sides) capture(setup, node);
    const servers = sides.map(({ node, name }) => ({ node, server: setup.server(processOf(bed, node, name)) }));
    for (const { node, server } of servers) await ready(node, server);
    return setup.running();
  },
};

function processOf(bed: Testbed, node: Node, name: string): ServerOptions {
  const configuration = join(bed.folder, "ztunnel.yaml");
  writeFileSync(configuration, localConfiguration(bed));
  return {
    argv: [...node.enter, process.env["ZTUNNEL_BIN"] ?? ""],
    logFile: join(bed.folder, `ztunnel-${name}.log`),
    env: {
      LOCAL_XDS_PATH: configuration,
      XDS_ADDRESS: "",
      FAKE_CA: "true",
      PROXY_MODE: "dedicated",
      PROXY_WORKLOAD_INFO: `default/${name}/${name}`,
      NODE_NAME: name,
      CLUSTER_ID: "Kubernetes",
      PACKET_MARK: "1337",
      RUST_LOG: "info",
    },
  };
}

/** JSON is YAML. */
function localConfiguration(bed: Testbed): string {
  const workload = (node: Node, name: string): object => ({
    uid: `Kubernetes//Pod/default/${name}`,
    name,
    namespace: "default",
    trustDomain: "cluster.local",
    serviceAccount: name,
    workloadIps: [node.ip],
    protocol: "HBONE",
    node: name,
    network: "",
    services: {},
  });
  return JSON.stringify({ workloads: [workload(bed.client, "client"), workload(bed.server, "server")] });
}

const ready = (node: Node, server: Server): Promise<void> =>
  until(
    async () => {
      const asked = await run([...node.enter, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", `http://127.0.0.1:${READINESS_PORT}/healthz/ready`], { limitSeconds: 2 });
      return asked.stdout === "200";
    },
    `ztunnel in ${node.namespace} is ready`,
    READY_SECONDS,
    server,
  );

/**
 * The redirection that the mesh's node agent puts into a pod: connections leaving go to 15001, plaintext arriving goes to
 * 15006, the proxy's own packets carry mark 0x539, and answers to a preserved source address find their way back.
 */
function capture(setup: Setup, node: Node): void {
  setup.undo(() => flushRules(node));
  loadRules(
    node,
    `table ip bench {
      chain mark_in {
        type filter hook prerouting priority -150;
        meta mark & 0xfff == 0x539 ct mark set ct mark & 0xfffff000 | 0x111
      }
      chain mark_out {
        type route hook output priority -150;
        ct mark & 0xfff == 0x111 meta mark set ct mark
      }
      chain nat_in {
        type nat hook prerouting priority -100;
        ip daddr != 127.0.0.1 tcp dport != ${HBONE_PORT} meta mark & 0xfff != 0x539 redirect to :15006
      }
      chain nat_out {
        type nat hook output priority -100;
        meta l4proto tcp meta mark & 0xfff == 0x111 accept
        ip daddr != 127.0.0.1 oifname "lo" accept
        ip daddr != 127.0.0.1 tcp dport { ${SERVED_PORTS.join(", ")} } meta mark & 0xfff != 0x539 redirect to :15001
      }
    }`,
  );
  const ip = (...args: string[]): string => must(["ip", "-n", node.namespace, ...args]);
  ip("route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "100");
  setup.undo(() => ip("route", "flush", "table", "100"));
  ip("rule", "add", "fwmark", "0x111/0xfff", "pref", "32764", "lookup", "100");
  setup.undo(() => ip("rule", "del", "pref", "32764"));
}
