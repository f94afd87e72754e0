// What the operator's verbs share: the cluster they speak to, and where they print.

import { err, ok, type Result } from "../../core/result.ts";
import { defaultAccess, kubeconfigAccess } from "../../runtime/kubernetes/access.ts";
import { KubernetesClient } from "../../runtime/kubernetes/client.ts";

export interface VerbContext {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly print: (text: string) => void;
  readonly complain: (text: string) => void;
}

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 64;

export interface ClusterFlags {
  readonly kubeconfig?: string | undefined;
  readonly context?: string | undefined;
}

export const CLUSTER_OPTIONS = { kubeconfig: { type: "string" }, context: { type: "string" } } as const;

export function openCluster(flags: ClusterFlags, { environment }: VerbContext): Result<KubernetesClient, string> {
  const access = flags.kubeconfig === undefined ? defaultAccess(environment, flags.context ?? null) : kubeconfigAccess(flags.kubeconfig, flags.context ?? null);
  return access.ok ? ok(new KubernetesClient(access.value)) : err(access.error);
}
