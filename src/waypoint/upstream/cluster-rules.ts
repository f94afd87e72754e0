// What follows from the configuration alone for one cluster: faults, limits of rates and concurrency, and TLS towards its servers, compiled
// once for each change. What was counted goes on where the setting that it is counted for is the same.

import type { NamespacedName } from "../../core/brand.ts";
import { unreachable } from "../../core/result.ts";
import type { BackendTls, TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import type { ClientCertificate } from "../../mesh/l7/waypoint.ts";
import { type CompiledFault, compileFault } from "../../policy/http/compiled-rule.ts";
import { AdaptiveLimit } from "../../policy/upstream/adaptive-concurrency.ts";
import { LocalRateLimiter } from "../../policy/upstream/rate-limit/local.ts";
import type { UpstreamSettings } from "../../policy/upstream/settings.ts";
import { compileMatches, type ViewFacts } from "../../policy/upstream/view-facts.ts";
import { BackendOrigin, type BackendTlsContexts } from "./backend-tls.ts";

export interface ClusterRules {
  readonly policy: TrafficPolicy | null;
  readonly settings: UpstreamSettings;
  readonly adaptive: AdaptiveLimit | null;
  readonly faults: readonly CompiledFault[];
  readonly rateLimiter: LocalRateLimiter<ViewFacts> | null;
  readonly broken: string | null;
  readonly tlsBroken: string | null;
  /** As it was when `origin` was made. */
  readonly clientCertificate: ClientCertificate | null;
  readonly origin: BackendOrigin | null;
}

export interface ClusterRulesPlace {
  readonly tlsContexts: BackendTlsContexts;
  readonly wallMs: () => number;
  /** This waypoint's own, for backends whose policy asks for it. */
  readonly clientCertificate: () => ClientCertificate | null;
}

export function compileClusterRules(
  policy: TrafficPolicy | null, settings: UpstreamSettings, before: ClusterRules | null, { owner, host }: { readonly owner: NamespacedName; readonly host: string }, place: ClusterRulesPlace,
): ClusterRules {
  const problems: string[] = [];
  const at = settings.provenance["faults"] ?? { kind: "TrafficPolicy", namespace: "", name: String(owner), resourceVersion: "", fieldPath: "" };
  const faults = settings.faults.map((fault) => compileFault(fault, at, problems));
  const { adaptiveConcurrency, localRateLimits } = settings;
  const kept = (field: "adaptiveConcurrency" | "localRateLimits"): boolean => before !== null && same(before.settings[field], settings[field]);
  const clientCertificate = place.clientCertificate();
  const tls = originOf(settings.tls, clientCertificate, host, place);
  return {
    policy, settings, faults, broken: problems.length === 0 ? null : problems.join("; "),
    adaptive: kept("adaptiveConcurrency") ? before!.adaptive : adaptiveConcurrency === null ? null : new AdaptiveLimit(adaptiveConcurrency),
    rateLimiter: kept("localRateLimits") ? before!.rateLimiter : localRateLimits.length === 0 ? null : new LocalRateLimiter(localRateLimits, ({ matches }) => compileMatches(matches).applies),
    clientCertificate, origin: typeof tls === "string" ? null : tls, tlsBroken: typeof tls === "string" ? tls : null,
  };
}

/** Of plain records. */
export const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/** Null when none is originated; a text says why it cannot be. */
function originOf(tls: BackendTls, own: ClientCertificate | null, host: string, { tlsContexts, wallMs }: ClusterRulesPlace): BackendOrigin | string | null {
  switch (tls.mode) {
    case "off":
    case "mesh": return null;
    case "broken": return tls.reason;
    case "simple":
    case "mutual": {
      const shown = tls.certificate === null && tls.gatewayCertificate ? own : null;
      if (shown?.kind === "broken") return `the client certificate of this waypoint's Gateway cannot be had: ${shown.reason}`;
      try {
        return new BackendOrigin(shown === null ? tls : { ...tls, certificate: shown }, host, tlsContexts, wallMs());
      } catch (error) {
        return `its certificates or keys cannot be used: ${error instanceof Error ? error.message : String(error)}`;
      }
    }
    default: return unreachable(tls);
  }
}
