// A node on which no workload lives, while the configuration has some on others: most often its name is not what `--node` says, and
// the agent would do nothing without a word. Pure.

import type { Workload } from "../mesh/records.ts";

/** Names told; the rest is counted. */
const NODES_SHOWN_MAX = 5;

/**
 * @param localCount workloads of this node, captured or not.
 * @returns words for the operator; null when a workload lives here, or none has a node at all.
 */
export function noWorkloadHere(node: string, localCount: number, workloads: Iterable<Pick<Workload, "node">>): string | null {
  if (localCount > 0) return null;
  const names = new Set<string>();
  for (const workload of workloads) if (workload.node !== "") names.add(workload.node);
  if (names.size === 0) return null;
  const shown = [...names].sort().slice(0, NODES_SHOWN_MAX).join(", ");
  const rest = names.size > NODES_SHOWN_MAX ? ` and ${names.size - NODES_SHOWN_MAX} more` : "";
  return `no workload lives on this node (${node}); the configuration has them on: ${shown}${rest}. Is --node right?`;
}
