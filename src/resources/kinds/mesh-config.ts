// weft.dev MeshConfig: the providers that AuthorizationPolicy (CUSTOM) and Telemetry name. The fields are those of Istio's
// MeshConfig.extensionProviders; there they stand in a file of the control plane, here in a resource, checked like any other.

import { z } from "zod";
import { admits, boundedRecord, exactlyOneOf, NAMED_ITEMS } from "../admission.ts";
import { collectable } from "../collectable.ts";
import { show } from "../diagnostic.ts";
import { positiveDuration } from "../durations.ts";
import { headerName, headerValue, httpStatus, pathText, TOKEN } from "../http-values.ts";
import { LIST_MAX } from "../limits.ts";
import { port } from "../object-meta.ts";
import { defineKind, type ResourceOfKind } from "../resource.ts";

const BODY_BYTES_MAX = 1024 * 1024;

/** Of one mesh. */
const PROVIDERS_MAX = 128;
const HEADERS_MAX = 64;
const LOG_FIELDS_MAX = 128;
const STDOUT = "/dev/stdout";
const STATUS_TEXT = /^[2-5][0-9]{2}$/;
const PORT_TEXT = /^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$/;
const DEFAULTS = ["tracing", "accessLogging", "metrics"] as const;
const PROVIDERS = ["envoyExtAuthzGrpc", "envoyExtAuthzHttp", "opentelemetry", "envoyOtelAls", "envoyFileAccessLog", "prometheus"] as const;

const schemas = collectable(() => {
  /** Istio's pages write it in quotes too. */
  const portOrText = z.string().regex(PORT_TEXT, { error: "expected a port from 1 to 65535" }).or(port).meta({ pattern: PORT_TEXT.source, minimum: 1, maximum: 65535 });
  /** `NAMESPACE/HOST` or a host. */
  const service = z.string().regex(/^([a-z0-9-]{1,63}\/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/, { error: "expected a host name, or NAMESPACE/HOST" }).max(317);
  /** A name; `*` at its end stands for any rest. */
  const headerPattern = z.string().regex(/^[A-Za-z0-9!#$%&'+\-.^_`|~]+\*?$|^\*$/, { error: "expected a header name; a * at its end stands for any rest" }).max(256);
  const headerPatterns = z.array(headerPattern).max(LIST_MAX).optional();
  const authorizer = {
    service, port: portOrText, timeout: positiveDuration.optional(), failOpen: z.boolean().optional(), statusOnError: z.string().regex(STATUS_TEXT, { error: 'expected a status in quotes, e.g. "403"' }).or(httpStatus).meta({ pattern: STATUS_TEXT.source, minimum: 200, maximum: 599 }).optional(),
    includeRequestBodyInCheck: z.strictObject({ maxRequestBytes: z.int().min(1).max(BODY_BYTES_MAX).optional(), allowPartialMessage: z.boolean().optional(), packAsBytes: z.boolean().optional() }).optional(),
    clearRouteCache: z.boolean().optional(),
  };
  const extAuthzHttp = z.strictObject({
    ...authorizer, pathPrefix: pathText.optional(), includeRequestHeadersInCheck: headerPatterns, includeHeadersInCheck: headerPatterns, includeAdditionalHeadersInCheck: boundedRecord(headerName, headerValue, { max: HEADERS_MAX, keys: TOKEN, message: "expected names of headers" }).optional(),
    headersToUpstreamOnAllow: headerPatterns, headersToDownstreamOnDeny: headerPatterns, headersToDownstreamOnAllow: headerPatterns,
  });
  const collectorHeaders = z.array(z.strictObject({ name: headerName, value: headerValue })).max(64).optional();
  const opentelemetry = z.strictObject({
    service, port: portOrText, maxTagLength: z.int().min(0).optional(), http: z.strictObject({ path: pathText, timeout: positiveDuration.optional(), headers: collectorHeaders }).optional(),
    grpc: z.strictObject({ timeout: positiveDuration.optional(), initialMetadata: collectorHeaders }).optional(),
  }).meta(admits({ rule: "!has(self.http) || !has(self.grpc)", message: "found http beside grpc, expected one of them" }));
  const texts = boundedRecord(z.string().min(1).max(256), z.string().max(4096), { max: LOG_FIELDS_MAX, keys: /^.{1,256}$/, message: "expected names of at most 256 characters" });
  const fileAccessLog = z.strictObject({
    path: z.string().max(4096).meta({ enum: [STDOUT] }).optional(), logFormat: z.strictObject({ text: z.string().min(1).max(16_384).optional(), labels: texts.optional() }).refine(({ text, labels }) => (text === undefined) !== (labels === undefined), { error: "expected text or labels" })
      .meta(admits({ rule: "has(self.text) != has(self.labels)", message: "expected text or labels" })).optional(),
  });
  const provider = exactlyOneOf(z.strictObject({
    name: z.string().min(1).max(253), envoyExtAuthzGrpc: z.strictObject(authorizer).optional(), envoyExtAuthzHttp: extAuthzHttp.optional(), opentelemetry: opentelemetry.optional(),
    envoyOtelAls: z.strictObject({ service, port: portOrText, logName: z.string().max(253).optional() }).optional(), envoyFileAccessLog: fileAccessLog.optional(), prometheus: z.strictObject({}).optional(),
  }), PROVIDERS, [{ rule: "!(self.name in ['prometheus', 'envoy'])", message: "found a name that is taken: prometheus and envoy are there by themselves" }]);
  const names = z.array(z.string().min(1).max(253)).max(16).optional();
  const spec = z.strictObject({ extensionProviders: z.array(provider).max(PROVIDERS_MAX).meta(NAMED_ITEMS).optional(), defaultProviders: z.strictObject({ tracing: names, accessLogging: names, metrics: names }).optional() })
    .meta(admits(...DEFAULTS.map((field) => ({
      rule: `!has(self.defaultProviders) || !has(self.defaultProviders.${field}) || self.defaultProviders.${field}.all(name, name in ['prometheus', 'envoy'] || (has(self.extensionProviders) && self.extensionProviders.exists(one, one.name == name)))`,
      message: `found a name in defaultProviders.${field} which none of extensionProviders is called`,
    }))));
  return { extAuthzHttp, provider, spec };
});
export type ProviderSpec = z.output<ReturnType<typeof schemas>["provider"]>;
export type AuthorizerSpec = z.output<ReturnType<typeof schemas>["extAuthzHttp"]>;

export const meshConfigKind = defineKind({
  kind: "MeshConfig",
  group: "weft.dev",
  versions: ["v1alpha1"],
  namespaced: true,
  spec: () => schemas().spec,
  check({ spec }, report) {
    const seen = new Set<string>(["prometheus", "envoy"]);
    (spec.extensionProviders ?? []).forEach((one, index) => {
      const at = ["spec", "extensionProviders", index];
      if (seen.has(one.name)) report("error", "conflict", [...at, "name"], `found ${show(one.name)} again, or a name that is taken; each provider once`);
      seen.add(one.name);
      const file = one.envoyFileAccessLog?.path;
      if (file !== undefined && file !== STDOUT) report("error", "not_supported", [...at, "envoyFileAccessLog", "path"], `found ${show(file)}, expected ${STDOUT}: log lines go to the standard output`);
      if (one.opentelemetry?.http !== undefined && one.opentelemetry.grpc !== undefined) report("error", "conflict", [...at, "opentelemetry", "grpc"], "found it beside http, expected one of them");
    });
    for (const field of DEFAULTS) {
      (spec.defaultProviders?.[field] ?? []).forEach((name, index) => {
        if (!seen.has(name)) report("error", "bad_value", ["spec", "defaultProviders", field, index], `found ${show(name)}, which none of extensionProviders is called`);
      });
    }
  },
});

export type MeshConfigResource = ResourceOfKind<typeof meshConfigKind>;
