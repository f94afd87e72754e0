// Where the Kubernetes API is and how we prove who we are: here the service account of a pod, in kubeconfig.ts a kubeconfig. Reads files;
// opens no connection.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { err, ok, type Result } from "../../core/result.ts";

export interface KubernetesAccess {
  /** `https://198.18.0.1:443`, without a slash at its end. */
  readonly server: string;
  readonly tls: { readonly ca?: string; readonly cert?: string; readonly key?: string; readonly serverName?: string; readonly rejectUnauthorized?: boolean };
  /** The value of the Authorization header now; null where a client certificate says who we are. Asked for each request. */
  readonly authorization: () => Promise<string | null>;
  /** For messages: `service account`, `context kind-test of /root/.kube/config`. */
  readonly origin: string;
  /** The namespace that a command without one means. */
  readonly namespace: string;
}

const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";
/** The kubelet renews a projected token long before its end; so often we look. */
export const TOKEN_REREAD_MS = 60_000;

export type Environment = Readonly<Record<string, string | undefined>>;

/** The access of a pod; an error when this is none. */
export function inClusterAccess(environment: Environment, directory: string = SERVICE_ACCOUNT): Result<KubernetesAccess, string> {
  const host = environment["KUBERNETES_SERVICE_HOST"] ?? "";
  const port = environment["KUBERNETES_SERVICE_PORT"] ?? "443";
  if (host === "") return err("KUBERNETES_SERVICE_HOST is not set: this is no pod");
  let ca: string;
  let token: string;
  const readToken = () => readFileSync(join(directory, "token"), "utf8").trim();
  try {
    ca = readFileSync(join(directory, "ca.crt"), "utf8");
    token = readToken();
  } catch (cause) {
    return err(`the service account's files cannot be read (automountServiceAccountToken: false?): ${words(cause)}`);
  }
  let namespace = "default";
  try {
    namespace = readFileSync(join(directory, "namespace"), "utf8").trim();
  } catch {
    // Only commands without a namespace miss it.
  }
  let readAtMs = performance.now();
  return ok({
    server: `https://${host.includes(":") ? `[${host}]` : host}:${port}`,
    tls: { ca },
    namespace,
    origin: "service account",
    authorization: async () => {
      if (performance.now() - readAtMs >= TOKEN_REREAD_MS) {
        token = readToken();
        readAtMs = performance.now();
      }
      return `Bearer ${token}`;
    },
  });
}

export const words = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause));
