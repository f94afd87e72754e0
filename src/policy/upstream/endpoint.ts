// One endpoint of one upstream: where it is, what it is worth, and what has been observed of it. Plain mutable numbers, read and
// written several times per request; who may change them is upstream.ts and what it is made of, and health-check results from its owner.

import type { Picked } from "../candidates.ts";
import { OutlierState } from "./outliers.ts";

/** `unchecked`: no health check is configured. `unknown`: there is one, and its first result is awaited. */
export type EndpointHealth = "unchecked" | "unknown" | "healthy" | "unhealthy";

export class UpstreamEndpoint {
  /** The workload's UID, with the address where a name stands for several. Tells it from its siblings, and names it in sessions. */
  readonly key: string;
  /** Replaced when the workload's record changes; the observations stay. */
  target: Picked;
  /** Relative share of requests, > 0. */
  weight: number;
  /** When it came, or came back into service: slow start counts from here. -Infinity for those that were there from the start. */
  sinceMs: number;
  /** In the zone of the client, or nothing is known of zones. */
  near = true;
  health: EndpointHealth = "unchecked";
  readonly outlier = new OutlierState();
  /** Left the service: kept only while requests are under way. */
  gone = false;
  /** May be picked in the ordinary way; set by its upstream. */
  usable = true;

  /** Requests under way. */
  active = 0;
  /** Of those, without any answer yet. */
  awaiting = 0;
  /** Decayed latency up to the head of an answer; 0 before the first one. */
  latencyMs = 0;
  /** Decayed share of its answers that were failures, 0 to 1. */
  failureShare = 0;
  /** When `latencyMs` and `failureShare` were last observed. */
  observedMs = 0;
  /** While `awaiting`: since when nothing has come. */
  silentSinceMs = 0;
  /** It asked to be left alone until then. */
  avoidUntilMs = 0;

  constructor(key: string, target: Picked, sinceMs: number) {
    this.key = key;
    this.target = target;
    this.weight = target.workload.capacity;
    this.sinceMs = sinceMs;
  }
}
