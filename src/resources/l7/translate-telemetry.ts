// Telemetry, and the default providers of MeshConfig, into what is observed of the requests at a waypoint.

import type { AccessTarget } from "../../mesh/l7/access.ts";
import type { AccessLogSettings, LogSink, MetricsOverride, OtlpCollector, TelemetryPolicy, TracingSettings } from "../../mesh/l7/telemetry.ts";
import { parseAccessLogFilter } from "../access-log-filter.ts";
import { type FieldPath, formatFieldPath } from "../diagnostic.ts";
import { durationMs } from "../durations.ts";
import type { MeshConfigResource, ProviderSpec } from "../kinds/mesh-config.ts";
import type { TelemetryResource } from "../kinds/telemetry.ts";
import { type Placed, provenanceOf, type Report } from "../resource.ts";
import { targetsOf } from "../targets.ts";
import { accessTargets } from "./targets.ts";
import { providerHost } from "./translate-access.ts";
import type { View } from "./view.ts";

const COLLECTOR_TIMEOUT_MS = 10_000;
/** Providers that need no entry: Istio's built-in ones. */
const STANDARD_OUTPUT = "envoy";
const PROMETHEUS = "prometheus";
/** Sorts before every name a Telemetry can have, so that it is the first to be overridden. */
const DEFAULTS_NAME = "!defaultProviders";

const METRIC_NAMES: Readonly<Record<string, string | null>> = {
  ALL_METRICS: null, REQUEST_COUNT: "istio_requests_total", REQUEST_DURATION: "istio_request_duration_milliseconds", REQUEST_SIZE: "istio_request_bytes", RESPONSE_SIZE: "istio_response_bytes",
  TCP_OPENED_CONNECTIONS: "istio_tcp_connections_opened_total", TCP_CLOSED_CONNECTIONS: "istio_tcp_connections_closed_total", TCP_SENT_BYTES: "istio_tcp_sent_bytes_total", TCP_RECEIVED_BYTES: "istio_tcp_received_bytes_total",
  GRPC_REQUEST_MESSAGES: "istio_request_messages_total", GRPC_RESPONSE_MESSAGES: "istio_response_messages_total",
};

type TracingSpec = NonNullable<NonNullable<TelemetryResource["spec"]>["tracing"]>[number];
type LoggingSpec = NonNullable<NonNullable<TelemetryResource["spec"]>["accessLogging"]>[number];
type MetricsSpec = NonNullable<NonNullable<TelemetryResource["spec"]>["metrics"]>[number];

/** Null for one that selects workloads: those are not waypoints. */
export function translateTelemetry(placed: Placed<TelemetryResource>, view: View, report: Report): TelemetryPolicy | null {
  const { resource } = placed;
  const { namespace, name, spec } = resource;
  const selects = Object.keys(spec?.selector?.matchLabels ?? {}).length > 0;
  if (selects) {
    report("info", "not_supported", ["spec", "selector"], "found a selector: a waypoint takes it by targetRefs, or with its whole namespace");
    return null;
  }
  const whole: AccessTarget = { kind: "namespace", namespace: namespace === view.options.rootNamespace ? "" : namespace };
  const targets = targetsOf(spec).length === 0 ? [whole] : accessTargets(resource, "nothing of it is observed there", view, report);
  const tracing = (spec?.tracing ?? []).map((entry, index) => tracingSettings(entry, ["spec", "tracing", index], view, report));
  const logging = (spec?.accessLogging ?? []).map((entry, index) => loggingSettings(entry, ["spec", "accessLogging", index], view, report));
  for (const [field, all] of [["tracing", tracing], ["accessLogging", logging]] as const) {
    if (all.length > 1) report("warning", "conflict", ["spec", field, 1], `found ${all.length} entries; a waypoint is client and server in one, and takes the last`);
  }
  return { name, namespace, targets, tracing: tracing.at(-1) ?? null, accessLog: logging.at(-1) ?? null, metrics: (spec?.metrics ?? []).flatMap((entry, index) => metricsOverrides(entry, index, report)), provenance: provenanceOf(placed) };
}

/** Null when it names no defaults. */
export function translateDefaults(placed: Placed<MeshConfigResource>, view: View, report: Report): TelemetryPolicy | null {
  const { namespace, spec } = placed.resource;
  const { tracing, accessLogging } = spec.defaultProviders ?? {};
  if (tracing === undefined && accessLogging === undefined) return null;
  const at = ["spec", "defaultProviders"];
  return {
    name: DEFAULTS_NAME, namespace, targets: [{ kind: "namespace", namespace: "" }], metrics: [], provenance: provenanceOf(placed, formatFieldPath(at)),
    tracing: tracing === undefined ? null : { disabled: false, collectors: collectors(tracing, [...at, "tracing"], view, report), sampling: null, tags: [] },
    accessLog: accessLogging === undefined ? null : { disabled: false, sinks: sinks(accessLogging, [...at, "accessLogging"], view, report), conditions: [] },
  };
}

function tracingSettings(spec: TracingSpec, at: FieldPath, view: View, report: Report): TracingSettings {
  if (spec.disableContextPropagation === true) report("warning", "not_supported", [...at, "disableContextPropagation"], "not taken: the context of a trace is always passed on");
  const names = spec.providers?.map(({ name }) => name);
  const tags = Object.entries(spec.customTags ?? {}).flatMap(([name, { literal, header, environment }]): TracingSettings["tags"] => {
    if (literal !== undefined) return [{ name, value: { kind: "literal", text: literal.value, fallback: null } }];
    if (header !== undefined) return [{ name, value: { kind: "header", text: header.name.toLowerCase(), fallback: header.defaultValue ?? null } }];
    return environment === undefined ? [] : [{ name, value: { kind: "environment", text: environment.name, fallback: environment.defaultValue ?? null } }];
  });
  return {
    disabled: spec.disableSpanReporting ?? false, collectors: names === undefined ? null : collectors(names, [...at, "providers"], view, report),
    sampling: spec.randomSamplingPercentage === undefined || spec.randomSamplingPercentage === null ? null : spec.randomSamplingPercentage / 100, tags,
  };
}

function loggingSettings(spec: LoggingSpec, at: FieldPath, view: View, report: Report): AccessLogSettings {
  const names = spec.providers?.map(({ name }) => name);
  // The kind's own check let through what this parses.
  const parsed = spec.filter === undefined ? null : parseAccessLogFilter(spec.filter.expression);
  return { disabled: spec.disabled ?? false, sinks: names === undefined ? null : sinks(names, [...at, "providers"], view, report), conditions: parsed?.ok === true ? parsed.value : [] };
}

function metricsOverrides({ overrides, reportingInterval }: MetricsSpec, index: number, report: Report): MetricsOverride[] {
  if (reportingInterval !== undefined) report("info", "not_supported", ["spec", "metrics", index, "reportingInterval"], "not taken: metrics are read when they are asked for");
  return (overrides ?? []).map(({ match, disabled, tagOverrides }, at): MetricsOverride => {
    const removeTags: string[] = [];
    const setTags: [string, string][] = [];
    for (const [name, { operation = "UPSERT", value = "" }] of Object.entries(tagOverrides ?? {})) {
      if (operation === "REMOVE") removeTags.push(name);
      else if (/^'[^']*'$|^"[^"]*"$/.test(value)) setTags.push([name, value.slice(1, -1)]);
      else report("warning", "not_supported", ["spec", "metrics", index, "overrides", at, "tagOverrides", name, "value"], `found ${JSON.stringify(value)}, expected a fixed text in quotes inside the value; the label stays as it is`);
    }
    return { metric: match?.customMetric ?? METRIC_NAMES[match?.metric ?? "ALL_METRICS"] ?? null, disabled: disabled ?? false, removeTags, setTags };
  });
}

function collectors(names: readonly string[], at: FieldPath, view: View, report: Report): OtlpCollector[] {
  return names.flatMap((name, index) => {
    const provider = view.ask((world) => world.provider(name));
    const spec = provider?.opentelemetry;
    if (spec === undefined) {
      report("error", "unresolved_reference", [...at, index], `found the provider ${JSON.stringify(name)}, which is no opentelemetry provider of a MeshConfig; no spans are sent to it`);
      return [];
    }
    const grpc = spec.http === undefined;
    const timeout = grpc ? spec.grpc?.timeout : spec.http?.timeout;
    const headers = (grpc ? spec.grpc?.initialMetadata : spec.http?.headers) ?? [];
    return collector({ name, protocol: grpc ? "grpc" : "http", service: spec.service, port: Number(spec.port), path: spec.http?.path ?? "", timeoutMs: timeout === undefined ? COLLECTOR_TIMEOUT_MS : durationMs(timeout), headers }, [...at, index], view, report);
  });
}

interface CollectorSpec {
  readonly name: string;
  readonly protocol: "grpc" | "http";
  readonly service: string;
  readonly port: number;
  readonly path: string;
  readonly timeoutMs: number;
  readonly headers: readonly { readonly name: string; readonly value: string }[];
}

function collector(spec: CollectorSpec, at: FieldPath, view: View, report: Report): OtlpCollector[] {
  const host = providerHost(spec.service, view);
  if (host === null || !host.ports.some(({ number }) => number === spec.port)) {
    report("error", "unresolved_reference", at, `found the provider ${JSON.stringify(spec.name)} at ${spec.service}:${spec.port}, which no Service or ServiceEntry has; nothing is sent to it`);
    return [];
  }
  return [{ ...spec, service: host.service, headers: spec.headers.map(({ name, value }) => [name.toLowerCase(), value] as const) }];
}

function sinks(names: readonly string[], at: FieldPath, view: View, report: Report): LogSink[] {
  return names.flatMap((name, index): LogSink[] => {
    const provider = view.ask((world) => world.provider(name));
    if (provider === null && name === STANDARD_OUTPUT) return [{ kind: "standardOutput", format: null }];
    const sink = provider === null ? null : logSink(provider, [...at, index], view, report);
    if (sink === null && name !== PROMETHEUS) report("error", "unresolved_reference", [...at, index], `found the provider ${JSON.stringify(name)}, which takes no log lines; nothing is written to it`);
    return sink ?? [];
  });
}

function logSink({ name, envoyFileAccessLog: file, envoyOtelAls: otlp }: ProviderSpec, at: FieldPath, view: View, report: Report): LogSink[] | null {
  if (file !== undefined) {
    const { text, labels } = file.logFormat ?? {};
    return [{ kind: "standardOutput", format: text !== undefined ? { kind: "text", line: text } : labels !== undefined ? { kind: "json", fields: Object.entries(labels) } : null }];
  }
  if (otlp === undefined) return null;
  return collector({ name, protocol: "grpc", service: otlp.service, port: Number(otlp.port), path: "", timeoutMs: COLLECTOR_TIMEOUT_MS, headers: [] }, at, view, report).map((one) => ({ kind: "otlp", collector: one }));
}
