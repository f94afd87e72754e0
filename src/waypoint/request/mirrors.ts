// The copies of one request, each to another service: all of them get what comes of its body.

import type { ServiceTarget } from "../../policy/http/plan.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import type { Cluster } from "../upstream/cluster.ts";
import { Mirror } from "./mirror.ts";
import type { RequestAccount } from "./request-account.ts";
import type { RequestHost } from "./request-host.ts";
import { type AttemptRequest, upstreamVersion } from "./server-attempt.ts";

/** Those that take a copy; null for none. */
export function startMirrors(host: RequestHost, { request, clientVersion, body }: AttemptRequest, targets: readonly ServiceTarget[], { client, trace, head }: RequestAccount): Mirrors | null {
  if (targets.length === 0) return null;
  const nowMs = host.nowMs();
  const started: Mirror[] = [];
  for (const { service, port, subset } of targets) {
    const named = host.clusters.of({ service, port, subset, clientNamespace: client.source.namespace });
    // Of a wildcard it goes to the host that the copy names, if that is under it.
    const cluster = named === null || named.settings.dynamicHosts === null ? named : clusterUnder(host, named, request.target.host?.name ?? head.host, nowMs);
    if (cluster === null || !cluster.refresh(nowMs)) continue;
    const mirror = new Mirror(host, cluster, request, upstreamVersion(cluster, clientVersion, request), { trace, clientTrace: client.trace });
    if (mirror.start()) started.push(mirror);
  }
  if (started.length === 0) return null;
  const mirrors = new Mirrors(started);
  // What came of the body while others were asked.
  const { bytes } = body.peek(Infinity);
  if (bytes.length > 0) mirrors.body(bytes);
  if (request.hasBody && body.ended) mirrors.bodyEnd(body.trailers);
  return mirrors;
}

function clusterUnder({ clusters }: RequestHost, wildcard: Cluster, name: string, nowMs: number): Cluster | null {
  const found = clusters.hostUnder(wildcard, name, nowMs);
  return found.kind === "cluster" ? found.cluster : null;
}

export class Mirrors {
  readonly #all: readonly Mirror[];

  constructor(all: readonly Mirror[]) {
    this.#all = all;
  }

  body(bytes: Uint8Array): void {
    for (const mirror of this.#all) mirror.body(bytes);
  }

  bodyEnd(trailers: HeaderList): void {
    for (const mirror of this.#all) mirror.bodyEnd(trailers);
  }

  /** The original ended early. */
  abandon(): void {
    for (const mirror of this.#all) mirror.abandon();
  }
}
