// Schema of src/mesh/l7/workload-labels.ts.

import { z } from "zod";
import { parseWorkloadUid, type WorkloadUid } from "../../core/brand.ts";
import type { WorkloadLabels } from "../../mesh/l7/workload-labels.ts";
import { exactly, labels } from "./values.ts";

const uid = z.codec(z.string().refine((text) => parseWorkloadUid(text) !== null, "wanted the uid of a workload"), z.custom<WorkloadUid>((value) => typeof value === "string"), {
  decode: (read) => parseWorkloadUid(read)!,
  encode: (written): string => written,
});

export const workloadLabels = exactly<WorkloadLabels>()(z.strictObject({ uid, labels }));
