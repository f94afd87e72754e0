// All cases, each by a name of its own.

import { ACCESS } from "./corpus/access.ts";
import { FILTERS } from "./corpus/filters.ts";
import { INPUT } from "./corpus/input.ts";
import { RESILIENCE } from "./corpus/resilience.ts";
import { ROUTING } from "./corpus/routing.ts";
import type { Case } from "./description.ts";

const under = (group: string, cases: readonly Case[]): Case[] => cases.map((one) => ({ ...one, name: `${group}: ${one.name}` }));

export const CORPUS: readonly Case[] = [
  ...under("routing", ROUTING), ...under("filters", FILTERS), ...under("resilience", RESILIENCE), ...under("access", ACCESS), ...under("input", INPUT),
];
