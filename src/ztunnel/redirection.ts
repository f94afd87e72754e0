// Who makes the rules that redirect a workload's traffic to our listeners: this agent, or the CNI agent that also tells us of the workload.

import { ok } from "../core/result.ts";
import { drainRedirect, installRedirect, removeRedirect } from "../net/redirect/redirect.ts";

export interface Redirection {
  readonly install: typeof installRedirect;
  readonly drain: typeof drainRedirect;
  readonly remove: typeof removeRedirect;
}

export const OWN_RULES: Redirection = { install: installRedirect, drain: drainRedirect, remove: removeRedirect };

const THEIRS = { generation: 0, changed: false, tookOverFrom: null, notes: [] } as const;

/** Its rules are there before we are told, and its to take away. */
export const RULES_OF_CNI: Redirection = { install: () => ok(THEIRS), drain: () => ok(THEIRS), remove: () => ok({ kind: "absent" }) };
