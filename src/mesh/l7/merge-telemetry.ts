// Several Telemetry resources that hold for the same requests, as one, as Istio merges them: of tracing field by field, of access
// logs the most specific that says anything, of metrics one override after the other.

import type { AccessLogSettings, MetricsOverride, TelemetryPolicy, TracingSettings } from "./telemetry.ts";

/** What is observed of the requests to one service. Stays the same object until one of `sources` changes. */
export interface EffectiveTelemetry {
  /** Null: nothing is said; the role's own settings hold. */
  readonly tracing: TracingSettings | null;
  readonly accessLog: AccessLogSettings | null;
  /** Later ones win. */
  readonly metrics: readonly MetricsOverride[];
  /** The least specific first. */
  readonly sources: readonly TelemetryPolicy[];
}

/** @param policies the least specific first. */
export function mergeTelemetry(policies: readonly TelemetryPolicy[]): EffectiveTelemetry {
  let tracing: TracingSettings | null = null;
  let accessLog: AccessLogSettings | null = null;
  for (const policy of policies) {
    tracing = mergeTracing(tracing, policy.tracing);
    accessLog = mergeAccessLog(accessLog, policy.accessLog);
  }
  return { tracing, accessLog, metrics: policies.flatMap(({ metrics }) => metrics), sources: policies };
}

function mergeTracing(below: TracingSettings | null, above: TracingSettings | null): TracingSettings | null {
  if (below === null || above === null) return above ?? below;
  const names = new Set(above.tags.map(({ name }) => name));
  return {
    disabled: above.disabled,
    collectors: above.collectors ?? below.collectors,
    sampling: above.sampling ?? below.sampling,
    tags: [...below.tags.filter(({ name }) => !names.has(name)), ...above.tags],
  };
}

function mergeAccessLog(below: AccessLogSettings | null, above: AccessLogSettings | null): AccessLogSettings | null {
  if (below === null || above === null) return above ?? below;
  return { ...above, sinks: above.sinks ?? below.sinks };
}
