// Node agents under the control plane that is measured, ours and the reference's: told the same by the same replica, idle apart from that.
// What they take is read from /proc; whether they have everything, from what they confirmed to the control plane.

import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ZdsServer } from "../../src/cni/zds-server.ts";
import { CONTROL_NAMESPACE, type ControlRole } from "../../test/kubernetes/control-role.ts";
import { until } from "../../test/kit/until.ts";
import { cpuSeconds, memoryOf } from "../lib/accounting.ts";

/** How an agent shows who it is: a token of the pod `pod`, and the control plane's roots. */
export interface AgentIdentity {
  readonly roots: string;
  readonly token: string;
  readonly pod: string;
  readonly node: string;
}

export interface NodeAgentProcess {
  readonly name: string;
  /** Resolves when it has confirmed the state that the control plane has published last. */
  synced(limitMs: number): Promise<void>;
  /** Processor time of all its threads so far. */
  cpuSeconds(): number;
  /** Resident now. */
  residentBytes(): number;
  end(): Promise<void>;
}

/** After a load both give memory back, each in its own way: ours looks every five seconds. */
export const QUIET_MS = 20_000;

/** With a CNI agent that has no pod for it, as on a node that has just joined. @param program the command that runs Weft */
export function ourAgent(program: readonly string[], control: ControlRole, identity: AgentIdentity): NodeAgentProcess {
  const folder = folderOf(identity);
  const state = join(folder, "state");
  mkdirSync(state, { mode: 0o700 });
  const zds = new ZdsServer({ path: join(folder, "zds.sock"), pods: () => [], onConnections: () => {} });
  const listening = zds.listen();
  if (!listening.ok) throw new Error(listening.error);
  const ports = { "--admin-address": "127.0.0.1:22000", "--metrics-address": "127.0.0.1:22020", "--readiness-address": "127.0.0.1:22021" };
  const started = start("weft", [...program, "ztunnel", "--state", state, "--log-file", join(folder, "log"), ...Object.entries(ports).flat()], folder, control, identity, { INPOD_UDS: join(folder, "zds.sock") });
  return {
    ...started,
    end: async () => {
      zds.close();
      await started.end();
    },
  };
}

/** Null where ZTUNNEL_BIN names no program. */
export function referenceAgent(control: ControlRole, identity: AgentIdentity): NodeAgentProcess | null {
  const binary = process.env["ZTUNNEL_BIN"] ?? "";
  if (binary === "" || !existsSync(binary)) return null;
  return start("ztunnel", [binary], folderOf(identity), control, identity, { PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: `${CONTROL_NAMESPACE}/${identity.pod}/ztunnel`, RUST_LOG: "off" });
}

function folderOf({ roots, token }: AgentIdentity): string {
  const folder = mkdtempSync(join(tmpdir(), "weft-bench-agent-"));
  writeFileSync(join(folder, "root.pem"), roots);
  writeFileSync(join(folder, "token"), token, { mode: 0o600 });
  return folder;
}

function start(name: string, command: readonly string[], folder: string, control: ControlRole, { pod, node }: AgentIdentity, more: Readonly<Record<string, string>>): NodeAgentProcess {
  const [address, serverName] = [`https://127.0.0.1:${control.port}`, `istiod.${CONTROL_NAMESPACE}.svc`];
  const child = Bun.spawn([...command], {
    stdio: ["ignore", "ignore", "ignore"], cwd: folder,
    env: {
      XDS_ADDRESS: address, CA_ADDRESS: address, XDS_ROOT_CA: join(folder, "root.pem"), CA_ROOT_CA: join(folder, "root.pem"), ALT_XDS_HOSTNAME: serverName, ALT_CA_HOSTNAME: serverName,
      AUTH_TOKEN: join(folder, "token"), NODE_NAME: node, POD_NAME: pod, POD_NAMESPACE: CONTROL_NAMESPACE, INSTANCE_IP: "127.0.0.1", CLUSTER_ID: "Kubernetes", DNS_CAPTURE: "false", ...more,
    },
  });
  return {
    name,
    async synced(limitMs) {
      await until(`${name} has confirmed everything`, limitMs, () => {
        if (child.exitCode !== null) throw new Error(`${name} ended with status ${child.exitCode}`);
        return hasConfirmed(control, pod);
      });
    },
    cpuSeconds: () => cpuSeconds([child.pid]),
    residentBytes: () => memoryOf([child.pid]).rssBytes,
    async end() {
      child.kill("SIGKILL");
      await child.exited;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

interface Clients {
  readonly publishedState: number;
  readonly clients: readonly { readonly id: string; readonly types: readonly { readonly ackedState: number; readonly sentState: number }[] }[];
}

async function hasConfirmed(control: ControlRole, pod: string): Promise<boolean> {
  const answer = await fetch(`http://127.0.0.1:${control.adminPort}/config_dump`).then(async (response) => (await response.json()) as Clients, () => null);
  const types = answer?.clients.find(({ id }) => id.includes(`~${pod}.`))?.types ?? [];
  return answer !== null && types.length === AGENT_TYPES && types.every(({ ackedState, sentState }) => ackedState === sentState && sentState > 0);
}

/** Addresses and policies. */
const AGENT_TYPES = 2;
