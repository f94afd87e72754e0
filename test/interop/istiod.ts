// Istio's own control plane beside the API server of a test: its discovery and its CA on one port of loopback. ISTIOD_BIN names its
// program (`pilot-discovery`), ISTIOCTL_BIN the operator's.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { needsBinary, type SkipReason } from "../kit/skip.ts";
import { freePorts } from "../kit/ports.ts";
import { until } from "../kit/until.ts";
import type { ApiServer } from "../kubernetes/api-server.ts";

export const needsIstiod: SkipReason = needsBinary("ISTIOD_BIN");
export const needsIstioctl: SkipReason = needsBinary("ISTIOCTL_BIN");

const READY_MS = 90_000;
const MESH_CONFIG = "trustDomain: cluster.local\nrootNamespace: istio-system\ndefaultConfig:\n  discoveryAddress: istiod.istio-system.svc:15012\n";

export interface Istiod {
  /** xDS and CA. */
  readonly port: number;
  log(): string;
  kill(): Promise<void>;
  /** After `kill`: on the same port. */
  start(): Promise<void>;
  end(): Promise<void>;
}

/** Starts it, and waits until it is ready. */
export async function startIstiod(server: ApiServer): Promise<Istiod> {
  const directory = mkdtempSync(join(tmpdir(), "weft-istiod-"));
  const [port, plain, http, monitoring] = await freePorts(4);
  const logFile = join(directory, "log");
  writeFileSync(join(directory, "mesh.yaml"), MESH_CONFIG);
  writeFileSync(logFile, "");
  /** It says twenty times a second that it is not ready. */
  const log = (): string => readFileSync(logFile, "utf8").replaceAll(/^.*(discovery is not ready|is syncing).*\n/gm, "");
  let child: Bun.Subprocess | null = null;
  const kill = async (): Promise<void> => {
    child?.kill("SIGKILL");
    await child?.exited;
    child = null;
  };
  const start = async (): Promise<void> => {
    const started = Bun.spawn([
      process.env["ISTIOD_BIN"]!, "discovery", "--kubeconfig", server.kubeconfig, "--meshConfig", join(directory, "mesh.yaml"), "--secureGRPCAddr", `127.0.0.1:${port}`, "--grpcAddr", `127.0.0.1:${plain}`,
      "--httpAddr", `127.0.0.1:${http}`, "--httpsAddr", "", "--monitoringAddr", `127.0.0.1:${monitoring}`, "--ctrlz_port", "0", "--log_target", logFile,
    ], {
      stdio: ["ignore", "ignore", Bun.file(join(directory, "stderr"))], cwd: directory,
      env: {
        HOME: directory, POD_NAME: "istiod-1", POD_NAMESPACE: "istio-system", REVISION: "default", CLUSTER_ID: "Kubernetes", PILOT_ENABLE_AMBIENT: "true", CA_TRUSTED_NODE_ACCOUNTS: "istio-system/ztunnel",
        VALIDATION_WEBHOOK_CONFIG_NAME: "", INJECTION_WEBHOOK_CONFIG_NAME: "", AUTOMEMLIMIT: "off",
      },
    });
    child = started;
    await until(() => `istiod to be ready:\n${readFileSync(join(directory, "stderr"), "utf8").slice(-1000)}\n${log().slice(-3000)}`, READY_MS, async () => {
      if (started.exitCode !== null) throw new Error(`istiod ended with status ${started.exitCode}:\n${readFileSync(join(directory, "stderr"), "utf8").slice(-2000)}\n${log().slice(-3000)}`);
      return fetch(`http://127.0.0.1:${http}/ready`).then((answer) => answer.ok, () => false);
    });
  };
  await start();
  return {
    port: port!, log, kill, start,
    async end() {
      await kill();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
