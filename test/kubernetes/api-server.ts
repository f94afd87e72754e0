// A real Kubernetes API: etcd and kube-apiserver from KUBE_BIN_DIR on loopback, in the sealed box, without controllers or nodes. What
// controllers would do (endpoints, service accounts) a test does itself.

import { generateKeyPairSync } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Api, APPLY_PATCH } from "../../src/runtime/kubernetes/api.ts";
import { kubeconfigAccess } from "../../src/runtime/kubernetes/kubeconfig.ts";
import { KubernetesClient } from "../../src/runtime/kubernetes/client.ts";
import { unsealed } from "../kit/box.ts";
import { freePorts } from "../kit/ports.ts";
import { firstReason, type SkipReason } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import { testDefinitions } from "./definitions.ts";
import { SHOWS_MS } from "./eventually.ts";

const BINARIES = process.env["KUBE_BIN_DIR"] ?? "";
const START_MS = 90_000;

/** Null where there is a Kubernetes to start. */
export const needsKubernetes: SkipReason = firstReason(
  BINARIES === "" ? "needs kube-apiserver and etcd: set KUBE_BIN_DIR" : ["etcd", "kube-apiserver"].every((name) => existsSync(join(BINARIES, name))) ? null : `KUBE_BIN_DIR ${BINARIES} has no kube-apiserver and etcd`,
  unsealed,
);

export interface ApiServer {
  /** As an administrator. */
  readonly client: Api;
  readonly kubeconfig: string;
  /** Kills the API server and starts it again; etcd keeps what it has. */
  restart(): Promise<void>;
  stopApiServer(): Promise<void>;
  startApiServer(): Promise<void>;
  stop(): Promise<void>;
}

export async function startApiServer(): Promise<ApiServer> {
  const directory = mkdtempSync(join(tmpdir(), "weft-kube-"));
  const [etcdPort, peerPort, port] = await freePorts(3);
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  writeFileSync(join(directory, "sa.key"), privateKey.export({ type: "pkcs1", format: "pem" }), { mode: 0o600 });
  writeFileSync(join(directory, "tokens.csv"), 'admin-token,admin,admin,"system:masters"\n', { mode: 0o600 });
  const etcd = Bun.spawn([
    join(BINARIES, "etcd"), "--data-dir", join(directory, "etcd"), "--unsafe-no-fsync", "--listen-client-urls", `http://127.0.0.1:${etcdPort}`, "--advertise-client-urls", `http://127.0.0.1:${etcdPort}`,
    "--listen-peer-urls", `http://127.0.0.1:${peerPort}`, "--initial-advertise-peer-urls", `http://127.0.0.1:${peerPort}`, "--initial-cluster", `default=http://127.0.0.1:${peerPort}`,
  ], { stdio: ["ignore", "ignore", Bun.file(join(directory, "etcd.log"))] });
  let server: Bun.Subprocess | null = null;
  const caFile = join(directory, "pki", "apiserver.crt");

  const stopApiServer = async (): Promise<void> => {
    server?.kill("SIGKILL");
    await server?.exited;
    server = null;
  };
  const stop = async (): Promise<void> => {
    await stopApiServer();
    etcd.kill("SIGKILL");
    await etcd.exited;
    rmSync(directory, { recursive: true, force: true });
  };
  const launch = async (): Promise<void> => {
    server = Bun.spawn([
      join(BINARIES, "kube-apiserver"), `--etcd-servers=http://127.0.0.1:${etcdPort}`, `--secure-port=${port}`, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", `--cert-dir=${join(directory, "pki")}`,
      `--token-auth-file=${join(directory, "tokens.csv")}`, "--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc", `--service-account-key-file=${join(directory, "sa.key")}`,
      `--service-account-signing-key-file=${join(directory, "sa.key")}`, "--service-cluster-ip-range=198.19.0.0/16", "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none", "--watch-cache=true",
    ], { stdio: ["ignore", "ignore", Bun.file(join(directory, "apiserver.log"))] });
    const deadline = Date.now() + START_MS;
    for (;;) {
      if (existsSync(caFile)) {
        const ready = await fetch(`https://127.0.0.1:${port}/readyz`, { headers: { Authorization: "Bearer admin-token" }, tls: { ca: readFileSync(caFile, "utf8") }, signal: AbortSignal.timeout(5000) } as RequestInit).then((response) => response.ok, () => false);
        if (ready) return;
      }
      if (server.exitCode !== null || etcd.exitCode !== null || Date.now() > deadline) {
        const said = ["etcd.log", "apiserver.log"].map((name) => `${name}:\n${readFileSync(join(directory, name), "utf8").slice(-2000)}`).join("\n");
        await stop();
        throw new Error(`the Kubernetes API did not start:\n${said}`);
      }
      await Bun.sleep(100);
    }
  };
  await launch();
  const kubeconfig = join(directory, "kubeconfig");
  writeFileSync(kubeconfig, JSON.stringify({
    apiVersion: "v1", kind: "Config", "current-context": "test", contexts: [{ name: "test", context: { cluster: "test", user: "admin" } }],
    clusters: [{ name: "test", cluster: { server: `https://127.0.0.1:${port}`, "certificate-authority": caFile } }], users: [{ name: "admin", user: { token: "admin-token" } }],
  }), { mode: 0o600 });
  const access = kubeconfigAccess(kubeconfig);
  if (!access.ok) throw new Error(access.error);
  return {
    client: new KubernetesClient(access.value), kubeconfig,
    restart: async () => {
      await stopApiServer();
      await launch();
    },
    stopApiServer, startApiServer: launch, stop,
  };
}

export interface KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly [field: string]: unknown };
  readonly [field: string]: unknown;
}

const PLURALS: Readonly<Record<string, string>> = { NetworkPolicy: "networkpolicies", PeerAuthentication: "peerauthentications", RequestAuthentication: "requestauthentications", Telemetry: "telemetries", Ingress: "ingresses", ServiceEntry: "serviceentries", WorkloadEntry: "workloadentries", GatewayClass: "gatewayclasses", XMesh: "xmeshes" };
const UNNAMESPACED: ReadonlySet<string> = new Set(["Namespace", "Node", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "GatewayClass", "XMesh"]);

export function pathOf(object: Pick<KubeObject, "apiVersion" | "kind"> & { readonly metadata: { readonly name: string; readonly namespace?: string } }): string {
  const plural = PLURALS[object.kind] ?? (object.kind.endsWith("Policy") ? `${object.kind.slice(0, -1).toLowerCase()}ies` : `${object.kind.toLowerCase()}s`);
  const root = object.apiVersion.includes("/") ? `/apis/${object.apiVersion}` : `/api/${object.apiVersion}`;
  return UNNAMESPACED.has(object.kind) ? `${root}/${plural}/${object.metadata.name}` : `${root}/namespaces/${object.metadata.namespace ?? "default"}/${plural}/${object.metadata.name}`;
}

/** As `kubectl apply --server-side`, with the status where there is one. */
export async function apply(client: Api, ...objects: readonly KubeObject[]): Promise<void> {
  for (const object of objects) {
    // A server that has just begun, or has just been told of a kind, does not know its path for a moment, and says so as for any file.
    const answer = await until(`the API server to know ${pathOf(object)}`, SHOWS_MS, async () => {
      const answered = await client.request({ method: "PATCH", path: pathOf(object), query: { fieldManager: "test", force: "true" }, contentType: APPLY_PATCH, body: object });
      return !answered.ok && answered.error.message.includes("404 page not found") ? null : answered;
    });
    if (!answer.ok) throw new Error(answer.error.message);
    if (object["status"] === undefined) continue;
    const status = await client.request({ method: "PATCH", path: `${pathOf(object)}/status`, query: { fieldManager: "test-status", force: "true" }, contentType: APPLY_PATCH, body: { apiVersion: object.apiVersion, kind: object.kind, metadata: { name: object.metadata.name, ...(object.metadata.namespace === undefined ? {} : { namespace: object.metadata.namespace }) }, status: object["status"] } });
    if (!status.ok) throw new Error(status.error.message);
  }
}

export async function remove(client: Api, ...objects: readonly KubeObject[]): Promise<void> {
  for (const object of objects) {
    const answer = await client.request({ method: "DELETE", path: pathOf(object), query: { gracePeriodSeconds: "0" } });
    if (!answer.ok && answer.error.status !== 404) throw new Error(answer.error.message);
  }
}

/** The kinds of the Gateway API, of Istio and of ours, with every field allowed; waits until they are served. */
export async function installDefinitions(client: Api, kinds: readonly string[] = []): Promise<void> {
  const definitions = testDefinitions().filter(({ kind }) => kinds.length === 0 || kinds.includes(kind));
  for (const { object } of definitions) await apply(client, object);
  for (const { listPath } of definitions) {
    const deadline = Date.now() + START_MS;
    while (!(await client.request({ method: "GET", path: listPath, query: { limit: "1" } })).ok) {
      if (Date.now() > deadline) throw new Error(`${listPath} is not served`);
      await Bun.sleep(50);
    }
  }
}
