// The copies of one request, each to another service: all of them get what comes of its body.

import type { ServiceTarget } from "../../policy/http/plan.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import { Mirror } from "./mirror.ts";
import type { RequestAccount } from "./request-account.ts";
import type { RequestHost } from "./request-host.ts";
import { type AttemptRequest, upstreamVersion } from "./server-attempt.ts";

/** Those that take a copy; null for none. */
export function startMirrors(host: RequestHost, { request, clientVersion, body }: AttemptRequest, targets: readonly ServiceTarget[], { client, trace }: RequestAccount): Mirrors | null {
  if (targets.length === 0) return null;
  const started: Mirror[] = [];
  for (const { service, port, subset } of targets) {
    const cluster = host.clusters.of({ service, port, subset, clientNamespace: client.source.namespace });
    if (cluster === null || !cluster.refresh(host.nowMs())) continue;
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
