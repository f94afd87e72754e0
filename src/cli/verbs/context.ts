// What the operator's verbs share: the cluster they speak to, and where they print.

import { err, ok, type Result } from "../../core/result.ts";
import type { KubernetesAccess } from "../../runtime/kubernetes/access.ts";
import { KubernetesClient } from "../../runtime/kubernetes/client.ts";
import { defaultAccess, kubeconfigAccess } from "../../runtime/kubernetes/kubeconfig.ts";

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

export function openAccess(flags: ClusterFlags, { environment }: VerbContext): Result<KubernetesAccess, string> {
  return flags.kubeconfig === undefined ? defaultAccess(environment, flags.context ?? null) : kubeconfigAccess(flags.kubeconfig, flags.context ?? null);
}

export function openCluster(flags: ClusterFlags, context: VerbContext): Result<KubernetesClient, string> {
  const access = openAccess(flags, context);
  return access.ok ? ok(new KubernetesClient(access.value)) : err(access.error);
}

export function fail({ complain }: VerbContext, why: string, status = EXIT_FAILED): number {
  complain(`weft: ${why}\n`);
  return status;
}

/** Columns as wide as their widest cell. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows.reduce<number[]>((widest, row) => row.map((cell, i) => Math.max(cell.length, widest[i] ?? 0)), []);
  return rows.map((row) => `${row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]! + 2))).join("")}\n`).join("");
}
