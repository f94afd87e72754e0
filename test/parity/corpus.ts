// All cases, each by a name of its own.

import { ACCESS } from "./corpus/access.ts";
import { AUTHORIZERS } from "./corpus/authorizers.ts";
import { FILTERS } from "./corpus/filters.ts";
import { GRPC } from "./corpus/grpc.ts";
import { HTTP2_INPUT } from "./corpus/http2-input.ts";
import { INPUT } from "./corpus/input.ts";
import { LIMITS } from "./corpus/limits.ts";
import { PROTOCOLS } from "./corpus/protocols.ts";
import { RESILIENCE } from "./corpus/resilience.ts";
import { ROUTING } from "./corpus/routing.ts";
import type { Case } from "./description.ts";

const under = (group: string, cases: readonly Case[]): Case[] => cases.map((one) => ({ ...one, name: `${group}: ${one.name}` }));

export const CORPUS: readonly Case[] = [
  ...under("routing", ROUTING), ...under("filters", FILTERS), ...under("resilience", RESILIENCE), ...under("access", ACCESS), ...under("input", INPUT),
  ...under("protocols", PROTOCOLS), ...under("gRPC", GRPC), ...under("limits", LIMITS), ...under("authorisers", AUTHORIZERS), ...under("HTTP/2 input", HTTP2_INPUT),
];
