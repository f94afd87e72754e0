// What is told of the requests to one service: its Telemetry resources over the settings of the role, compiled once for each change of
// the configuration. A request keeps the one it began with.

import type { EffectiveTelemetry } from "../mesh/l7/merge-telemetry.ts";
import type { AccessLogCondition, LogSink, OtlpCollector, TracingSettings } from "../mesh/l7/telemetry.ts";
import { fieldsOf } from "./log-condition.ts";
import { compileLogFormat, defaultLogFormat, type LogFormatter, type LogOptions } from "./log-format.ts";
import { compileMetricsShape, type MetricsShape } from "./metrics-shape.ts";
import type { TraceSettings } from "./request-trace.ts";

/** A tag from outside is cut at this; Istio's own limit. */
export const TAG_CHARS_MAX = 256;

/** What holds where Telemetry resources say nothing. */
export interface RoleTelemetry {
  readonly accessLog: "off" | "text" | "json";
  /** Share of the requests without an error that is logged; those with one always are. */
  readonly accessLogSample: number;
  /** Queries may hold what no log should: they are left out unless asked for. */
  readonly logOptions: LogOptions;
  /** Where spans go; empty for nowhere. */
  readonly collectors: readonly OtlpCollector[];
  readonly sampling: number;
  /** A variable of this process, for tags. */
  readonly environment: (name: string) => string | undefined;
}

export interface TracingPlan extends TraceSettings {
  readonly collectors: readonly OtlpCollector[];
  /** The same for every request. */
  readonly fixedTags: readonly (readonly [name: string, text: string])[];
  readonly headerTags: readonly { readonly name: string; readonly field: string; readonly fallback: string | null }[];
}

export type CompiledSink =
  | { readonly kind: "standardOutput"; readonly format: LogFormatter }
  | { readonly kind: "otlp"; readonly collector: OtlpCollector };

export interface LogPlan {
  readonly sinks: readonly CompiledSink[];
  readonly conditions: readonly AccessLogCondition[];
  /** Of requests without an error; 1 where Telemetry resources decide. */
  readonly cleanSample: number;
}

export interface ServiceTelemetry {
  /** Null: no spans are reported. */
  readonly tracing: TracingPlan | null;
  /** Null: no log. */
  readonly log: LogPlan | null;
  /** Null: nothing is changed. */
  readonly metrics: MetricsShape | null;
  /** Names of the fields that the record must still have at its end, in lower case. */
  readonly requestFields: readonly string[];
  readonly responseFields: readonly string[];
  /** Parts of formats that say nothing here, e.g. an unknown command; for the role's log. */
  readonly problems: readonly string[];
}

export function compileTelemetry(effective: EffectiveTelemetry, role: RoleTelemetry): ServiceTelemetry {
  const requestFields = new Set<string>();
  const responseFields = new Set<string>();
  const problems: string[] = [];
  const formatter = (sink: Extract<LogSink, { kind: "standardOutput" }>): LogFormatter => {
    const compiled = sink.format === null ? defaultLogFormat(role.accessLog === "json" ? "json" : "text", role.logOptions) : compileLogFormat(sink.format, role.logOptions);
    for (const name of compiled.requestFields) requestFields.add(name);
    for (const name of compiled.responseFields) responseFields.add(name);
    problems.push(...compiled.problems);
    return compiled;
  };
  const log = logPlan(effective, role, formatter);
  for (const name of fieldsOf(log?.conditions ?? [], "request")) requestFields.add(name);
  for (const name of fieldsOf(log?.conditions ?? [], "response")) responseFields.add(name);
  const tracing = tracingPlan(effective.tracing, role);
  for (const { field } of tracing?.headerTags ?? []) requestFields.add(field);
  if (tracing !== null || log?.sinks.some(({ kind }) => kind === "otlp") === true) requestFields.add("user-agent");
  return { tracing, log, metrics: compileMetricsShape(effective.metrics), requestFields: [...requestFields], responseFields: [...responseFields], problems };
}

function logPlan({ accessLog }: EffectiveTelemetry, role: RoleTelemetry, formatter: (sink: Extract<LogSink, { kind: "standardOutput" }>) => LogFormatter): LogPlan | null {
  if (accessLog === null && role.accessLog === "off" || accessLog?.disabled === true) return null;
  const sinks = accessLog?.sinks ?? [{ kind: "standardOutput", format: null } as const];
  if (sinks.length === 0) return null;
  return {
    sinks: sinks.map((sink) => (sink.kind === "otlp" ? sink : { kind: "standardOutput", format: formatter(sink) })),
    conditions: accessLog?.conditions ?? [], cleanSample: accessLog === null ? role.accessLogSample : 1,
  };
}

function tracingPlan(settings: TracingSettings | null, role: RoleTelemetry): TracingPlan | null {
  const collectors = settings?.collectors ?? role.collectors;
  if (collectors.length === 0 || settings?.disabled === true) return null;
  const fixedTags: [string, string][] = [];
  const headerTags: { name: string; field: string; fallback: string | null }[] = [];
  for (const { name, value } of settings?.tags ?? []) {
    if (value.kind === "header") headerTags.push({ name, field: value.text, fallback: value.fallback });
    const text = value.kind === "literal" ? value.text : value.kind === "environment" ? role.environment(value.text) ?? value.fallback : null;
    if (text !== null) fixedTags.push([name, text.slice(0, TAG_CHARS_MAX)]);
  }
  return { collectors, sampling: settings?.sampling ?? role.sampling, fixedTags, headerTags };
}

/** Compiled once for each configuration: what the store returns stays the same object until it changes. */
export class TelemetryCompiler {
  readonly #role: RoleTelemetry;
  readonly #compiled = new WeakMap<EffectiveTelemetry, ServiceTelemetry>();

  constructor(role: RoleTelemetry) {
    this.#role = role;
  }

  of(effective: EffectiveTelemetry): ServiceTelemetry {
    let compiled = this.#compiled.get(effective);
    if (compiled === undefined) this.#compiled.set(effective, (compiled = compileTelemetry(effective, this.#role)));
    return compiled;
  }
}
