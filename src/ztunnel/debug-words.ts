// What is said at level debug of a node's slow side: each changed resource, each certificate asked for. Never called for a connection,
// and made into words only where the level wants them.

import type { Clock } from "../core/ports.ts";
import type { CertificateSource } from "../identity/certificate-source.ts";
import type { MeshDelta } from "../mesh/records.ts";
import type { Logger } from "../runtime/logger.ts";

/** Lines for one change: the first state of a large mesh is one change too, and would push out all other lines. */
export const CHANGES_SHOWN_MAX = 500;

/** One line for each resource that came, changed or went; the rest is counted. */
export function tellChanges(log: Logger, version: number, delta: MeshDelta): void {
  if (!log.enabled("debug")) return;
  const lines = [
    ...delta.workloads.map(({ uid }) => ["new or changed", "workload", uid] as const),
    ...delta.services.map(({ namespace, hostname }) => ["new or changed", "service", `${namespace}/${hostname}`] as const),
    ...delta.policies.map(({ namespace, name }) => ["new or changed", "policy", `${namespace}/${name}`] as const),
    ...delta.removedWorkloads.map((uid) => ["gone", "workload", uid] as const),
    ...delta.removedServices.map((name) => ["gone", "service", name] as const),
    ...delta.removedPolicies.map((name) => ["gone", "policy", name] as const),
  ];
  for (const [what, kind, name] of lines.slice(0, CHANGES_SHOWN_MAX)) log.debug(`${kind} ${what}`, { name, version });
  if (lines.length > CHANGES_SHOWN_MAX) log.debug("more resources have changed", { count: lines.length - CHANGES_SHOWN_MAX, version });
}

/** The same source; each request and its answer are told, without what is secret in them. */
export function tellingSource(source: CertificateSource, log: Logger, clock: Pick<Clock, "monotonicMs">): CertificateSource {
  return {
    async issue(request) {
      const { spiffeId, lifetimeMs } = request;
      const startMs = clock.monotonicMs();
      log.debug("asking for a certificate", { identity: spiffeId, lifetime_ms: lifetimeMs });
      const answer = await source.issue(request);
      const ms = Math.round(clock.monotonicMs() - startMs);
      if (answer.ok) log.debug("the certificate came", { identity: spiffeId, chain: answer.value.chainPem.length, ms });
      else log.debug("no certificate came", { identity: spiffeId, code: answer.error.code, reason: answer.error.message, ms });
      return answer;
    },
  };
}
