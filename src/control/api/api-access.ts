// Where the API server is and as whom we ask: a kubeconfig, or what every pod is given. Read once; a token file is read again, as
// Kubernetes renews it within the hour.

import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { err, ok, type Result } from "../../core/result.ts";

/** What every pod is given, unless it declines. */
export const SERVICE_ACCOUNT_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount";
const FILE_BYTES_MAX = 1024 * 1024;
/** A token file is looked at this often at most. */
const TOKEN_LOOK_MS = 10_000;

export interface ApiAccess {
  /** Origin, e.g. `https://198.19.0.1:443`. */
  readonly server: string;
  /** PEM; null uses the system's. */
  readonly ca: string | null;
  /** Name to verify in place of the host's; null for the host's. */
  readonly serverName: string | null;
  readonly clientCertificate: { readonly cert: string; readonly key: string } | null;
  /** As it is now; null without one. */
  token(nowMs: number): string | null;
  /** Namespace of the context or pod; "default" without one. */
  readonly namespace: string;
}

const kubeconfigSchema = z.object({
  "current-context": z.string().nullish(),
  clusters: z.array(z.object({ name: z.string(), cluster: z.object({
    server: z.string(), "certificate-authority": z.string().nullish(), "certificate-authority-data": z.string().nullish(), "insecure-skip-tls-verify": z.boolean().nullish(), "tls-server-name": z.string().nullish(),
  }) })),
  contexts: z.array(z.object({ name: z.string(), context: z.object({ cluster: z.string(), user: z.string(), namespace: z.string().nullish() }) })),
  users: z.array(z.object({ name: z.string(), user: z.object({
    token: z.string().nullish(), tokenFile: z.string().nullish(), "client-certificate": z.string().nullish(), "client-certificate-data": z.string().nullish(),
    "client-key": z.string().nullish(), "client-key-data": z.string().nullish(), exec: z.unknown().optional(), "auth-provider": z.unknown().optional(),
  }) })),
});

/** @param kubeconfig path; null takes what the pod was given. */
export function findApiAccess(kubeconfig: string | null, environment: Readonly<Record<string, string | undefined>>): Result<ApiAccess, string> {
  try {
    return kubeconfig === null ? inCluster(environment) : fromKubeconfig(kubeconfig);
  } catch (cause) {
    return err(`the way to the API server: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}

function inCluster(environment: Readonly<Record<string, string | undefined>>): Result<ApiAccess, string> {
  const host = environment["KUBERNETES_SERVICE_HOST"];
  const port = environment["KUBERNETES_SERVICE_PORT"] ?? "443";
  if (host === undefined || host === "") return err("this is no pod (KUBERNETES_SERVICE_HOST is not set); give --kubeconfig");
  return ok({
    server: `https://${host.includes(":") ? `[${host}]` : host}:${port}`,
    ca: readText(`${SERVICE_ACCOUNT_DIRECTORY}/ca.crt`),
    serverName: null,
    clientCertificate: null,
    token: tokenFile(`${SERVICE_ACCOUNT_DIRECTORY}/token`),
    namespace: readText(`${SERVICE_ACCOUNT_DIRECTORY}/namespace`).trim(),
  });
}

function fromKubeconfig(path: string): Result<ApiAccess, string> {
  const parsed = kubeconfigSchema.safeParse(parse(readText(path)));
  if (!parsed.success) return err(`${path} is no kubeconfig: ${z.prettifyError(parsed.error)}`);
  const config = parsed.data;
  const context = config.contexts.find(({ name }) => name === config["current-context"]) ?? (config.contexts.length === 1 ? config.contexts[0] : undefined);
  if (context === undefined) return err(`${path}: found the current context ${JSON.stringify(config["current-context"] ?? "")}, which it does not define`);
  const cluster = config.clusters.find(({ name }) => name === context.context.cluster)?.cluster;
  const user = config.users.find(({ name }) => name === context.context.user)?.user;
  if (cluster === undefined || user === undefined) return err(`${path}: context ${context.name} names a cluster or user that it does not define`);
  if (cluster["insecure-skip-tls-verify"] === true) return err(`${path}: insecure-skip-tls-verify is not supported; give the certificate-authority`);
  if (user.exec !== undefined || user["auth-provider"] !== undefined) return err(`${path}: user ${context.context.user} logs in by a program, which is not supported; use a token or a certificate`);
  const url = URL.parse(cluster.server);
  if (url === null || url.protocol !== "https:") return err(`${path}: found the server ${JSON.stringify(cluster.server)}, expected https://HOST:PORT`);
  const near = (file: string): string => resolve(dirname(path), file);
  const given = (file: string | null | undefined, inline: string | null | undefined): string | null =>
    typeof inline === "string" ? Buffer.from(inline, "base64").toString("utf8") : typeof file === "string" ? readText(near(file)) : null;
  const cert = given(user["client-certificate"], user["client-certificate-data"]);
  const key = given(user["client-key"], user["client-key-data"]);
  const { token } = user;
  return ok({
    server: cluster.server.replace(/\/+$/, ""),
    ca: given(cluster["certificate-authority"], cluster["certificate-authority-data"]),
    serverName: cluster["tls-server-name"] ?? null,
    clientCertificate: cert === null || key === null ? null : { cert, key },
    token: typeof user.tokenFile === "string" ? tokenFile(near(user.tokenFile)) : () => token ?? null,
    namespace: context.context.namespace ?? "default",
  });
}

/** @throws when the file cannot be read now; a later failure leaves the token that was read last. */
function tokenFile(path: string): (nowMs: number) => string {
  let known = readText(path).trim();
  let lookedMs = 0;
  return (nowMs) => {
    if (nowMs - lookedMs >= TOKEN_LOOK_MS) {
      lookedMs = nowMs;
      try {
        known = readText(path).trim() || known;
      } catch {
        // The API server says when the one we have is too old.
      }
    }
    return known;
  };
}

function readText(path: string): string {
  if (statSync(path).size > FILE_BYTES_MAX) throw new Error(`${path} has more than ${FILE_BYTES_MAX} bytes`);
  return readFileSync(path, "utf8");
}
