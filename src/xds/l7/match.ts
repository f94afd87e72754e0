// Schemas of src/mesh/l7/match.ts and fault.ts.

import { z } from "zod";
import type { Fault, FaultAction } from "../../mesh/l7/fault.ts";
import type { HeaderPattern, PathPattern, QueryPattern, RequestMatch, TextPattern } from "../../mesh/l7/match.ts";
import { exactly, labels, list, nullable, number, share, text } from "./values.ts";

export const textPattern = exactly<TextPattern>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("exact"), value: text }),
  z.strictObject({ kind: z.literal("prefix"), value: text }),
  z.strictObject({ kind: z.literal("suffix"), value: text }),
  z.strictObject({ kind: z.literal("regex"), value: text }),
  z.strictObject({ kind: z.literal("present") }),
]));

const pathPattern = exactly<PathPattern>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("exact"), value: text }),
  z.strictObject({ kind: z.literal("prefix"), value: text }),
  z.strictObject({ kind: z.literal("textPrefix"), value: text }),
  z.strictObject({ kind: z.literal("regex"), value: text }),
]));

const headerPattern = exactly<HeaderPattern>()(z.strictObject({ name: text, pattern: textPattern, invert: z.boolean() }));
const queryPattern = exactly<QueryPattern>()(z.strictObject({ name: text, pattern: textPattern }));

export const requestMatch = exactly<RequestMatch>()(z.strictObject({
  path: nullable(pathPattern), pathIgnoresCase: z.boolean(), method: nullable(textPattern), headers: list(headerPattern), query: list(queryPattern),
  authority: nullable(textPattern), scheme: nullable(textPattern), sourceNamespace: nullable(text), sourceLabels: labels,
}));

const faultAction = exactly<FaultAction>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("delay"), fixedMs: number }),
  z.strictObject({ kind: z.literal("abort"), httpStatus: number, grpcStatus: nullable(number) }),
  z.strictObject({ kind: z.literal("reset") }),
  z.strictObject({ kind: z.literal("bandwidth"), bytesPerSecond: number }),
]));

export const fault = exactly<Fault>()(z.strictObject({ action: faultAction, fraction: share, matches: list(requestMatch), fieldPath: text }));
