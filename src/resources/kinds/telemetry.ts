// telemetry.istio.io Telemetry: traces, access logs and metrics of requests.

import { z } from "zod";
import { parseAccessLogFilter } from "../access-log-filter.ts";
import { collectable } from "../collectable.ts";
import { show } from "../diagnostic.ts";
import { positiveDuration } from "../durations.ts";
import { headerName, percentOfHundred } from "../http-values.ts";
import { LIST_MAX } from "../limits.ts";
import { attachment, checkAttachment } from "../targets.ts";
import { defineKind, type ResourceOfKind } from "../resource.ts";

const TAGS_MAX = 64;
const TAG_CHARS_MAX = 1024;

export const METRICS = [
  "ALL_METRICS", "REQUEST_COUNT", "REQUEST_DURATION", "REQUEST_SIZE", "RESPONSE_SIZE", "TCP_OPENED_CONNECTIONS", "TCP_CLOSED_CONNECTIONS", "TCP_SENT_BYTES", "TCP_RECEIVED_BYTES", "GRPC_REQUEST_MESSAGES", "GRPC_RESPONSE_MESSAGES",
] as const;

const schemas = collectable(() => {
  const providers = z.array(z.strictObject({ name: z.string().min(1).max(253) })).max(16).optional();
  const mode = z.enum(["CLIENT_AND_SERVER", "CLIENT", "SERVER"]).optional();
  const tag = z.strictObject({
    literal: z.strictObject({ value: z.string().min(1).max(TAG_CHARS_MAX) }).optional(), environment: z.strictObject({ name: z.string().min(1).max(256), defaultValue: z.string().max(TAG_CHARS_MAX).optional() }).optional(),
    header: z.strictObject({ name: headerName, defaultValue: z.string().max(TAG_CHARS_MAX).optional() }).optional(), formatter: z.strictObject({ value: z.string().min(1).max(TAG_CHARS_MAX) }).optional(),
  }).refine((value) => Object.keys(value).length === 1, { error: "expected exactly one of literal, environment and header" });
  const spec = z.strictObject({
    ...attachment,
    tracing: z.array(z.strictObject({
      match: z.strictObject({ mode }).optional(), providers, randomSamplingPercentage: percentOfHundred.nullish(), disableSpanReporting: z.boolean().nullish(), disableContextPropagation: z.boolean().nullish(),
      useRequestIdForTraceSampling: z.boolean().nullish(), enableIstioTags: z.boolean().nullish(),
      customTags: z.record(z.string().min(1).max(256), tag).refine((tags) => Object.keys(tags).length <= TAGS_MAX, { error: `expected at most ${TAGS_MAX} tags` }).optional(),
    })).max(16).optional(),
    accessLogging: z.array(z.strictObject({ match: z.strictObject({ mode }).optional(), providers, disabled: z.boolean().nullish(), filter: z.strictObject({ expression: z.string().min(1).max(1024) }).optional() })).max(16).optional(),
    metrics: z.array(z.strictObject({
      providers, reportingInterval: positiveDuration.optional(),
      overrides: z.array(z.strictObject({
        match: z.strictObject({ metric: z.enum(METRICS).optional(), customMetric: z.string().min(1).max(256).optional(), mode }).optional(), disabled: z.boolean().nullish(),
        tagOverrides: z.record(z.string().min(1).max(256), z.strictObject({ operation: z.enum(["UPSERT", "REMOVE"]).optional(), value: z.string().max(TAG_CHARS_MAX).optional() })).optional(),
      })).max(LIST_MAX).optional(),
    })).max(16).optional(),
  }).nullish();
  return { spec };
});

export const telemetryKind = defineKind({
  kind: "Telemetry",
  group: "telemetry.istio.io",
  versions: ["v1", "v1alpha1"],
  namespaced: true,
  spec: () => schemas().spec,
  check({ spec }, report) {
    checkAttachment(spec, report);
    (spec?.accessLogging ?? []).forEach(({ filter }, index) => {
      if (filter === undefined) return;
      const parsed = parseAccessLogFilter(filter.expression);
      if (!parsed.ok) report("error", "not_supported", ["spec", "accessLogging", index, "filter", "expression"], `found ${show(filter.expression)}, ${parsed.error}`);
    });
    (spec?.tracing ?? []).forEach(({ customTags }, index) => {
      for (const [name, value] of Object.entries(customTags ?? {})) {
        if (value.formatter !== undefined) report("warning", "not_supported", ["spec", "tracing", index, "customTags", name, "formatter"], "found a formatter, which is not supported; the tag is left out");
      }
    });
    (spec?.metrics ?? []).forEach(({ overrides }, index) => (overrides ?? []).forEach(({ tagOverrides }, at) => {
      for (const [name, { operation = "UPSERT", value }] of Object.entries(tagOverrides ?? {})) {
        const path = ["spec", "metrics", index, "overrides", at, "tagOverrides", name];
        if (operation === "UPSERT" && value === undefined) report("error", "missing_field", [...path, "value"], "found no value, which UPSERT needs");
        if (operation === "REMOVE" && value !== undefined) report("error", "conflict", [...path, "value"], "found a value beside REMOVE");
      }
    }));
  },
});

export type TelemetryResource = ResourceOfKind<typeof telemetryKind>;
