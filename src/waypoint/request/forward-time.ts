// How long a forwarded request and its attempts may take, by whatever is the shortest of what rule, services and client say; and who said it.

import type { Provenance } from "../../core/fault.ts";
import { INHERITED_TIMEOUTS, type RetryPolicy } from "../../mesh/l7/route.ts";
import type { ForwardPlan } from "../../policy/http/plan.ts";
import { parseGrpcTimeout } from "../../policy/upstream/grpc-timeout.ts";
import { effectiveTimeouts, type TimeoutSettings } from "../../policy/upstream/settings.ts";
import { type AttemptTime, attemptTime, provenanceOfTimeout, requestDeadline, type TimeLimit } from "../../policy/upstream/timeouts.ts";
import type { ClusterPlace } from "../upstream/cluster-place.ts";
import type { RequestAccount } from "./request-account.ts";

export class ForwardTime {
  /** End of it all; Infinity for never. */
  deadlineMs: number;
  readonly timeouts: TimeoutSettings;
  readonly #plan: ForwardPlan;
  readonly #place: ClusterPlace;
  readonly #perTryTimeoutMs: number | null;
  /** The client's own grpc-timeout, where it is the shorter one. */
  readonly #clientMs: number | null;

  constructor(plan: ForwardPlan, place: ClusterPlace, { isGrpc, head }: RequestAccount, { perTryTimeoutMs }: RetryPolicy, nowMs: number) {
    this.#plan = plan;
    this.#place = place;
    this.#perTryTimeoutMs = perTryTimeoutMs;
    this.timeouts = effectiveTimeouts(plan.timeouts ?? INHERITED_TIMEOUTS, place.namedApart?.settings.said ?? null, place.cluster.settings);
    const text = isGrpc ? head.fields.value("grpc-timeout") : undefined;
    const clientMs = text === undefined ? null : parseGrpcTimeout(text);
    const { requestMs } = this.timeouts;
    this.deadlineMs = requestDeadline(this.timeouts, clientMs, nowMs);
    this.#clientMs = clientMs !== null && (requestMs === 0 || clientMs < requestMs) ? clientMs : null;
  }

  /** Nothing bounds it any more. */
  lift(): void {
    this.deadlineMs = Infinity;
  }

  /** Of an attempt that begins now. */
  ofAttempt(nowMs: number): AttemptTime {
    return attemptTime({ deadlineMs: this.deadlineMs, perTryTimeoutMs: this.#perTryTimeoutMs, backendRequestMs: this.timeouts.backendRequestMs }, nowMs);
  }

  /** The client's time is over, and not one that the configuration says. */
  get isClients(): boolean {
    return this.#clientMs !== null;
  }

  /** `15000 ms`: what the request had. */
  get text(): string {
    return this.#clientMs === null ? `${this.timeouts.requestMs} ms` : `${this.#clientMs} ms (the client's grpc-timeout)`;
  }

  /** What an attempt had. */
  attemptMs(limit: "perTryMs" | "backendRequestMs"): number | null {
    return limit === "perTryMs" ? this.#perTryTimeoutMs : this.timeouts.backendRequestMs;
  }

  /** Who said a limit; null: it is a default. */
  sourceOf(limit: TimeLimit): Provenance | null {
    const { cluster, namedApart } = this.#place;
    const { rule, timeouts, retry } = this.#plan;
    return provenanceOfTimeout(limit, { rule, timeouts: timeouts ?? INHERITED_TIMEOUTS, retry, named: namedApart?.settings ?? null, backend: cluster.settings });
  }
}
