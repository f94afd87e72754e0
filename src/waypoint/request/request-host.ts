// What a request needs from its surroundings, and what they see of it while it is under way.

import type { Random } from "../../core/ports.ts";
import type { Workload } from "../../mesh/records.ts";
import type { DueList } from "../../net/due-list.ts";
import type { LoginContext, LoginDecision, LoginStep } from "../../policy/http/login.ts";
import type { RuleTelling } from "../../policy/http/rule-header.ts";
import type { SessionSigner } from "../../policy/http/session.ts";
import type { FoundToken, TokenVerdict } from "../../policy/http/tokens.ts";
import type { ByteBudget } from "../../tunnel/byte-budget.ts";
import type { Clusters } from "../upstream/clusters.ts";
import type { GatherBudget } from "./gather-budget.ts";
import type { RequestObserver } from "./observer.ts";
import type { ServiceViews } from "../upstream/service-view.ts";

/** Verifies tokens; the answer may have to be fetched. */
export interface TokenChecker {
  /** The answer that is at hand; null when `verify` has to be asked. */
  recall(found: FoundToken): TokenVerdict | null;
  verify(found: FoundToken): Promise<TokenVerdict>;
}

/** Answers what a login has to ask of its provider. */
export interface LoginChecker {
  context(): LoginContext;
  settle(step: LoginStep): Promise<LoginDecision>;
}

export interface RunningRequest {
  /** For introspection. */
  readonly state: string;
  /** Ends it from outside: the process stops. */
  destroy(): void;
}

export interface RequestHost {
  readonly due: DueList;
  readonly nowMs: () => number;
  readonly wallMs: () => number;
  readonly random: Random;
  readonly views: ServiceViews;
  readonly clusters: Clusters;
  /** This waypoint's own record. */
  readonly self: () => Workload;
  readonly tokens: TokenChecker;
  readonly logins: LoginChecker;
  readonly sessionSigner: SessionSigner | null;
  /** Whom answers of our own tell which rule they come from. */
  readonly ruleTelling: RuleTelling;
  readonly observer: RequestObserver;
  /** What all of them may hold for slow readers. */
  readonly budget: ByteBudget;
  /** Of bodies that authorisers are to see. */
  readonly gathering: GatherBudget;
  /** All that are under way. */
  readonly requests: Set<RunningRequest>;
}
