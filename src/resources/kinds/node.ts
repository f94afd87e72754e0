// core/v1 Node: where its pods are. Only the labels that say so are kept.

import { z } from "zod";
import { err, ok, type Result } from "../../core/result.ts";
import type { Locality } from "../../mesh/records.ts";

const REGION = ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"] as const;
const ZONE = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"] as const;
const SUBZONE = ["topology.istio.io/subzone"] as const;

const schema = z.object({ metadata: z.object({ name: z.string().min(1), labels: z.record(z.string(), z.string()).nullish() }) });

export interface Node {
  readonly name: string;
  readonly locality: Locality;
}

export function readNode(value: unknown): Result<Node, string> {
  const read = schema.safeParse(value);
  if (!read.success) return err(z.prettifyError(read.error));
  const { name, labels } = read.data.metadata;
  const first = (keys: readonly string[]): string => keys.map((key) => labels?.[key]).find((label) => label !== undefined && label !== "") ?? "";
  return ok({ name, locality: { region: first(REGION), zone: first(ZONE), subzone: first(SUBZONE) } });
}
