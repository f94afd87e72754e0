// Labels of a workload, as far as rules look at them: subsets, failover priorities, matches on who asks. Most workloads have none of those,
// and no record of this kind.

import type { WorkloadUid } from "../../core/brand.ts";

export interface WorkloadLabels {
  readonly uid: WorkloadUid;
  readonly labels: Readonly<Record<string, string>>;
}
