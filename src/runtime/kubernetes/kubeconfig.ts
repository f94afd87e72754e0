// Where the Kubernetes API is and how we prove who we are: a kubeconfig, as kubectl reads it. Reads files and starts credential plugins;
// opens no connection.

import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parse as parseYaml } from "yaml";
import { z } from "zod";
import { err, ok, type Result } from "../../core/result.ts";
import { type Environment, inClusterAccess, type KubernetesAccess, TOKEN_REREAD_MS, words } from "./access.ts";

/** A credential plugin that takes longer waits for a person or for a network that is not there. */
const EXEC_LIMIT_MS = 60_000;

const clusterSchema = z.looseObject({
  server: z.string(), "certificate-authority": z.string().optional(), "certificate-authority-data": z.string().optional(),
  "insecure-skip-tls-verify": z.boolean().optional(), "tls-server-name": z.string().optional(),
});
const contextSchema = z.looseObject({ cluster: z.string(), user: z.string(), namespace: z.string().optional() });
const userSchema = z.looseObject({
  "client-certificate": z.string().optional(), "client-certificate-data": z.string().optional(),
  "client-key": z.string().optional(), "client-key-data": z.string().optional(),
  token: z.string().optional(), tokenFile: z.string().optional(), username: z.string().optional(), password: z.string().optional(),
  exec: z.looseObject({
    apiVersion: z.string(), command: z.string(), args: z.array(z.string()).nullish(),
    env: z.array(z.object({ name: z.string(), value: z.string() })).nullish(),
  }).optional(),
});
const kubeconfigSchema = z.looseObject({
  "current-context": z.string().optional(),
  clusters: z.array(z.looseObject({ name: z.string(), cluster: clusterSchema })),
  contexts: z.array(z.looseObject({ name: z.string(), context: contextSchema })),
  users: z.array(z.looseObject({ name: z.string(), user: userSchema.nullish() })),
});

/**
 * The access that a kubeconfig gives, as kubectl reads it: certificates and tokens inline or in files, tokens of credential plugins.
 * @param context null for the current one.
 */
export function kubeconfigAccess(path: string, context: string | null = null): Result<KubernetesAccess, string> {
  let parsed: ReturnType<typeof kubeconfigSchema.safeParse>;
  try {
    parsed = kubeconfigSchema.safeParse(parseYaml(readFileSync(path, "utf8")));
  } catch (cause) {
    return err(`kubeconfig ${path}: ${words(cause)}`);
  }
  if (!parsed.success) return err(`kubeconfig ${path}: ${z.prettifyError(parsed.error)}`);
  const config = parsed.data;
  const contextName = context ?? config["current-context"] ?? "";
  const chosen = config.contexts.find(({ name }) => name === contextName)?.context;
  if (chosen === undefined) return err(`kubeconfig ${path} has no context ${JSON.stringify(contextName)}; it has ${config.contexts.map(({ name }) => name).join(", ") || "none"}`);
  const cluster = config.clusters.find(({ name }) => name === chosen.cluster)?.cluster;
  if (cluster === undefined) return err(`kubeconfig ${path} has no cluster ${JSON.stringify(chosen.cluster)}`);
  const found = config.users.find(({ name }) => name === chosen.user);
  if (found === undefined) return err(`kubeconfig ${path} has no user ${JSON.stringify(chosen.user)}`);
  const user = found.user ?? {};
  const base = dirname(resolve(path));
  const inlineOrFile = (inline: string | undefined, file: string | undefined): string | undefined =>
    inline !== undefined && inline !== "" ? Buffer.from(inline, "base64").toString("utf8") : file === undefined ? undefined : readFileSync(resolve(base, file), "utf8");
  try {
    const ca = inlineOrFile(cluster["certificate-authority-data"], cluster["certificate-authority"]);
    const cert = inlineOrFile(user["client-certificate-data"], user["client-certificate"]);
    const key = inlineOrFile(user["client-key-data"], user["client-key"]);
    const serverName = cluster["tls-server-name"];
    return ok({
      server: cluster.server.replace(/\/+$/, ""),
      tls: {
        ...(ca === undefined ? {} : { ca }), ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }),
        ...(serverName === undefined ? {} : { serverName }), ...(cluster["insecure-skip-tls-verify"] === true ? { rejectUnauthorized: false } : {}),
      },
      namespace: chosen.namespace ?? "default",
      origin: `context ${contextName} of ${path}`,
      authorization: authorizationOf(user, base),
    });
  } catch (cause) {
    return err(`kubeconfig ${path}: ${words(cause)}`);
  }
}

/** $KUBECONFIG (the first file of it that exists), or ~/.kube/config, or the pod's own account. */
export function defaultAccess(environment: Environment, context: string | null = null): Result<KubernetesAccess, string> {
  const listed = (environment["KUBECONFIG"] ?? "").split(":").filter((path) => path !== "");
  const paths = listed.length > 0 ? listed : [join(environment["HOME"] ?? homedir(), ".kube/config")];
  const path = paths.find(exists);
  if (path !== undefined) return kubeconfigAccess(path, context);
  if (listed.length > 0) return err(`none of the files in KUBECONFIG exists: ${listed.join(", ")}`);
  const inCluster = inClusterAccess(environment);
  return inCluster.ok ? inCluster : err(`no kubeconfig at ${paths[0]} and ${inCluster.error}; set KUBECONFIG`);
}

type User = z.infer<typeof userSchema>;

function authorizationOf(user: User, base: string): () => Promise<string | null> {
  const { token, tokenFile, username, password, exec } = user;
  if (tokenFile !== undefined) return async () => `Bearer ${readFileSync(resolve(base, tokenFile), "utf8").trim()}`;
  if (token !== undefined) return async () => `Bearer ${token}`;
  if (username !== undefined) return async () => `Basic ${Buffer.from(`${username}:${password ?? ""}`).toString("base64")}`;
  if (exec !== undefined) return execAuthorization(exec);
  return async () => null;
}

const execCredentialSchema = z.looseObject({ status: z.looseObject({ token: z.string().optional(), expirationTimestamp: z.string().optional() }) });

/** What a credential plugin said, until shortly before it expires. Client certificates from plugins are not taken. */
function execAuthorization(exec: NonNullable<User["exec"]>): () => Promise<string | null> {
  let held: { readonly value: string; readonly untilMs: number } | null = null;
  return async () => {
    if (held !== null && Date.now() < held.untilMs - TOKEN_REREAD_MS) return held.value;
    const environment = { ...process.env, ...Object.fromEntries((exec.env ?? []).map(({ name, value }) => [name, value])) };
    const info = JSON.stringify({ apiVersion: exec.apiVersion, kind: "ExecCredential", spec: { interactive: false } });
    const child = Bun.spawn([exec.command, ...(exec.args ?? [])], { env: { ...environment, KUBERNETES_EXEC_INFO: info }, stdout: "pipe", stderr: "inherit", timeout: EXEC_LIMIT_MS });
    const [text, status] = await Promise.all([new Response(child.stdout).text(), child.exited]);
    if (status !== 0) throw new Error(`the credential plugin ${exec.command} ended with status ${status}`);
    const { status: credential } = execCredentialSchema.parse(JSON.parse(text));
    if (credential.token === undefined) throw new Error(`the credential plugin ${exec.command} gave no token`);
    const untilMs = credential.expirationTimestamp === undefined ? Number.POSITIVE_INFINITY : Date.parse(credential.expirationTimestamp);
    held = { value: `Bearer ${credential.token}`, untilMs };
    return held.value;
  };
}

function exists(path: string): boolean {
  try {
    readFileSync(path);
    return true;
  } catch {
    return false;
  }
}
