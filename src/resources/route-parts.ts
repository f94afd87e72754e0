// What the routes of the Gateway API share: references to parents and backends, filters, session persistence.
// The Gateway API's own bounds hold where a larger one would cost every request.

import { z } from "zod";
import { collectable } from "./collectable.ts";
import { gatewayDuration, gatewayDurationMs } from "./durations.ts";
import type { FieldPath } from "./diagnostic.ts";
import { changedHeaderName, headerName, headerValue, hostname, isToken, METHODS, pathFault, pathText } from "./http-values.ts";
import { dnsLabel, dnsSubdomain, port } from "./object-meta.ts";
import type { Report } from "./resource.ts";

export const GATEWAY_GROUP = "gateway.networking.k8s.io";

const HEADERS_MAX = 16;
const PATH_REPLACEMENT_CHARS_MAX = 1024;
const ORIGIN = /^\*$|^https?:\/\/((\*\.)?([a-zA-Z0-9-]+\.)*[a-zA-Z0-9-]+|\*)(:[0-9]{1,5})?$/;
const alone = (values: readonly string[]): boolean => !values.includes("*") || values.length === 1;
const ALONE = { error: "found * beside others, expected it alone" };
const CORS_LIST_MAX = 64;
const AUTH_HEADERS_MAX = 64;

/** One field for each type: `type` names the field that must be there, and no other may. */
const FILTER_FIELDS = {
  RequestHeaderModifier: "requestHeaderModifier", ResponseHeaderModifier: "responseHeaderModifier", RequestMirror: "requestMirror", RequestRedirect: "requestRedirect", URLRewrite: "urlRewrite",
  CORS: "cors", ExternalAuth: "externalAuth", ExtensionRef: "extensionRef",
} as const;
const REPEATABLE = new Set(["RequestMirror", "ExtensionRef"]);
export const FILTERS_MAX = 16;

export const routeParts = collectable(() => {
  const group = z.string().max(253);
  const kindName = z.string().regex(/^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$/, { error: "expected the name of a kind" }).max(63);
  const parentRef = z.strictObject({ group: group.optional(), kind: kindName.optional(), name: dnsSubdomain, namespace: dnsLabel.optional(), port: port.optional(), sectionName: dnsSubdomain.optional() });
  const backendFields = { group: group.optional(), kind: kindName.optional(), name: z.string().min(1).max(253), namespace: dnsLabel.optional(), port: port.optional() };
  const backendObject = z.strictObject(backendFields);
  const weight = z.int().min(0).max(1_000_000);
  const plainBackendRef = z.strictObject({ ...backendFields, weight: weight.optional() });
  const namedValue = z.strictObject({ name: changedHeaderName, value: headerValue });
  const headerModifier = z.strictObject({ set: z.array(namedValue).max(HEADERS_MAX).optional(), add: z.array(namedValue).max(HEADERS_MAX).optional(), remove: z.array(changedHeaderName).max(HEADERS_MAX).optional() });
  const replacement = z.string().max(PATH_REPLACEMENT_CHARS_MAX);
  const pathModifier = z.strictObject({ type: z.enum(["ReplaceFullPath", "ReplacePrefixMatch"]), replaceFullPath: replacement.optional(), replacePrefixMatch: replacement.optional() });
  const cors = z.strictObject({
    allowOrigins: z.array(z.string().regex(ORIGIN, { error: "expected an origin such as https://shop.example, https://*.shop.example or *" }).max(253)).max(CORS_LIST_MAX).refine(alone, ALONE).optional(),
    allowMethods: z.array(z.enum([...METHODS, "*"])).max(METHODS.length).refine(alone, ALONE).optional(),
    allowHeaders: z.array(headerName).max(CORS_LIST_MAX).refine(alone, ALONE).optional(),
    exposeHeaders: z.array(headerName).max(CORS_LIST_MAX).optional(),
    allowCredentials: z.boolean().optional(),
    maxAge: z.int().min(1).max(2_147_483_647).optional(),
  });
  const mirror = z.strictObject({
    backendRef: backendObject, percent: z.int().min(0).max(100).optional(),
    fraction: z.strictObject({ numerator: z.int().min(0), denominator: z.int().min(1).optional() }).refine(({ numerator, denominator = 100 }) => numerator <= denominator, { error: "expected a numerator of at most the denominator" }).optional(),
  }).refine(({ percent, fraction }) => percent === undefined || fraction === undefined, { error: "found percent beside fraction, expected one of them" });
  const externalAuth = z.strictObject({
    protocol: z.enum(["HTTP", "GRPC"]), backendRef: backendObject,
    grpc: z.strictObject({ allowedHeaders: z.array(headerName).max(AUTH_HEADERS_MAX).optional() }).optional(),
    http: z.strictObject({ path: pathText.optional(), allowedHeaders: z.array(headerName).max(AUTH_HEADERS_MAX).optional(), allowedResponseHeaders: z.array(headerName).max(AUTH_HEADERS_MAX).optional() }).optional(),
    forwardBody: z.strictObject({ maxSize: z.int().min(0).max(1 << 20).optional() }).optional(),
  }).refine(({ protocol, grpc, http }) => (protocol === "GRPC" ? http === undefined : grpc === undefined), { error: "expected the settings of its own protocol alone" });
  const extensionRef = z.strictObject({ group, kind: kindName, name: z.string().min(1).max(253) });
  const redirect = z.strictObject({ scheme: z.enum(["http", "https"]).optional(), hostname: hostname.optional(), path: pathModifier.optional(), port: port.optional(), statusCode: z.literal([301, 302, 303, 307, 308]).optional() });
  const filterParts = { requestHeaderModifier: headerModifier.optional(), responseHeaderModifier: headerModifier.optional(), requestMirror: mirror.optional(), extensionRef: extensionRef.optional() };
  const httpFilter = z.strictObject({
    type: z.enum(["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS", "ExternalAuth", "ExtensionRef"]),
    ...filterParts, requestRedirect: redirect.optional(), urlRewrite: z.strictObject({ hostname: hostname.optional(), path: pathModifier.optional() }).optional(), cors: cors.optional(), externalAuth: externalAuth.optional(),
  });
  const grpcFilter = z.strictObject({ type: z.enum(["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"]), ...filterParts });
  const httpBackendRef = z.strictObject({ ...backendFields, weight: weight.optional(), filters: z.array(httpFilter).max(FILTERS_MAX).optional() });
  const grpcBackendRef = z.strictObject({ ...backendFields, weight: weight.optional(), filters: z.array(grpcFilter).max(FILTERS_MAX).optional() });
  const tokenName = z.string().refine(isToken, { error: "expected a name of letters, digits and !#$%&'*+-.^_`|~" });
  /** The present form (`cookie`, `header`), and the one before it (`sessionName`, `idleTimeout`, `cookieConfig`). */
  const sessionPersistence = z.strictObject({
    sessionName: tokenName.max(128).optional(), absoluteTimeout: gatewayDuration.optional(), idleTimeout: gatewayDuration.optional(), type: z.enum(["Cookie", "Header"]).optional(),
    cookie: z.strictObject({ name: tokenName.optional(), path: z.string().max(1024).optional(), lifetimeType: z.enum(["Permanent", "Session"]).optional() }).optional(),
    header: z.strictObject({ name: headerName }).optional(),
    cookieConfig: z.strictObject({ lifetimeType: z.enum(["Permanent", "Session"]).optional() }).optional(),
  });
  return { parentRef, backendObject, plainBackendRef, headerModifier, pathModifier, cors, httpFilter, grpcFilter, httpBackendRef, grpcBackendRef, sessionPersistence };
});
export type ParentRef = z.output<ReturnType<typeof routeParts>["parentRef"]>;
export type BackendObject = z.output<ReturnType<typeof routeParts>["backendObject"]>;
export type HeaderModifier = z.output<ReturnType<typeof routeParts>["headerModifier"]>;
export type PathModifier = z.output<ReturnType<typeof routeParts>["pathModifier"]>;
export type CorsSpec = z.output<ReturnType<typeof routeParts>["cors"]>;
export type HttpFilter = z.output<ReturnType<typeof routeParts>["httpFilter"]>;
export type BackendRef = BackendObject & { readonly weight?: number | undefined; readonly filters?: readonly HttpFilter[] | undefined };
export type SessionPersistenceSpec = z.output<ReturnType<typeof routeParts>["sessionPersistence"]>;

export function checkSessionPersistence(spec: SessionPersistenceSpec | undefined, at: FieldPath, report: Report): void {
  if (spec === undefined) return;
  const isHeader = spec.type === "Header";
  const permanent = spec.cookie?.lifetimeType === "Permanent" || spec.cookieConfig?.lifetimeType === "Permanent";
  if (permanent && spec.absoluteTimeout === undefined) report("error", "missing_field", [...at, "absoluteTimeout"], "found no absoluteTimeout, which a permanent cookie needs");
  if (isHeader && (spec.cookie ?? spec.cookieConfig) !== undefined) report("error", "conflict", [...at, spec.cookie === undefined ? "cookieConfig" : "cookie"], "found settings of a cookie beside type Header");
  if (!isHeader && spec.header !== undefined) report("error", "conflict", [...at, "header"], "found settings of a header, which type: Header needs");
  if (isHeader && spec.header === undefined && spec.sessionName === undefined) report("error", "missing_field", [...at, "header"], "found no header, which type Header needs");
  if (spec.cookie?.path !== undefined && pathFault(spec.cookie.path) !== null) report("error", "bad_value", [...at, "cookie", "path"], pathFault(spec.cookie.path)!);
  for (const field of ["absoluteTimeout", "idleTimeout"] as const) {
    if (spec[field] !== undefined && gatewayDurationMs(spec[field]) === 0) report("error", "bad_value", [...at, field], "found a duration of zero; leave the field out for no limit");
  }
}

/** What holds across parent references: several to one object must say apart which part of it they mean. */
export function checkParentRefs(refs: readonly ParentRef[], at: FieldPath, report: Report): void {
  const seen = new Map<string, ParentRef[]>();
  refs.forEach((ref, index) => {
    const key = `${ref.group ?? GATEWAY_GROUP}/${ref.kind ?? "Gateway"}/${ref.namespace ?? ""}/${ref.name}`;
    const others = seen.get(key) ?? [];
    const same = others.find((other) => other.port === ref.port && other.sectionName === ref.sectionName);
    const whole = [ref, ...others].find((one) => one.port === undefined && one.sectionName === undefined);
    if (same !== undefined) report("error", "conflict", [...at, index], `found ${ref.name} twice with the same port and sectionName`);
    else if (others.length > 0 && whole !== undefined) report("error", "conflict", [...at, index], `found ${ref.name} several times; each of them needs a port or a sectionName`);
    seen.set(key, [...others, ref]);
  });
}

/** Rules that hold across the filters of one rule or backend. `prefixMatch` is true when exactly one match is by path prefix. */
export function checkFilters(filters: readonly HttpFilter[], at: FieldPath, prefixMatch: boolean, report: Report): void {
  const seen = new Set<string>();
  filters.forEach((filter, index) => {
    const wanted = FILTER_FIELDS[filter.type];
    if (filter[wanted] === undefined) report("error", "missing_field", [...at, index, wanted], `found no ${wanted}, which a filter of type ${filter.type} needs`);
    for (const field of Object.values(FILTER_FIELDS)) {
      if (field !== wanted && filter[field] !== undefined) report("error", "conflict", [...at, index, field], `found ${field} in a filter of type ${filter.type}`);
    }
    if (seen.has(filter.type) && !REPEATABLE.has(filter.type)) report("error", "conflict", [...at, index, "type"], `found ${filter.type} twice; only RequestMirror may be repeated`);
    seen.add(filter.type);
    for (const field of ["requestRedirect", "urlRewrite"] as const) checkPathModifier(filter[field]?.path, [...at, index, field, "path"], prefixMatch, report);
    for (const field of ["requestHeaderModifier", "responseHeaderModifier"] as const) checkModifier(filter[field], [...at, index, field], report);
  });
  if (seen.has("RequestRedirect") && seen.has("URLRewrite")) report("error", "conflict", at, "found a redirect beside a rewrite, expected one of them");
}

function checkModifier(modifier: HeaderModifier | undefined, at: FieldPath, report: Report): void {
  const seen = new Set<string>();
  for (const field of ["set", "add", "remove"] as const) {
    (modifier?.[field] ?? []).forEach((entry, index) => {
      const name = (typeof entry === "string" ? entry : entry.name).toLowerCase();
      if (seen.has(`${field} ${name}`)) report("error", "conflict", [...at, field, index], `found ${name} twice`);
      seen.add(`${field} ${name}`);
    });
  }
}

function checkPathModifier(path: PathModifier | undefined, at: FieldPath, prefixMatch: boolean, report: Report): void {
  if (path === undefined) return;
  const [wanted, other] = path.type === "ReplaceFullPath" ? (["replaceFullPath", "replacePrefixMatch"] as const) : (["replacePrefixMatch", "replaceFullPath"] as const);
  const value = path[wanted];
  if (value === undefined) report("error", "missing_field", [...at, wanted], `found no ${wanted}, which type ${path.type} needs`);
  if (path[other] !== undefined) report("error", "conflict", [...at, other], `found ${other} beside type ${path.type}`);
  // The replacement of a prefix may be empty, which is the root.
  if (value !== undefined && !(value === "" && path.type === "ReplacePrefixMatch")) {
    const fault = pathFault(value);
    if (fault !== null) report("error", "bad_value", [...at, wanted], fault);
  }
  if (path.type === "ReplacePrefixMatch" && !prefixMatch) report("error", "conflict", [...at, "type"], "found ReplacePrefixMatch, which needs exactly one match, of type PathPrefix");
}

export function checkRuleNames(rules: readonly { readonly name?: string | undefined }[], at: FieldPath, report: Report): void {
  const seen = new Set<string>();
  rules.forEach(({ name }, index) => {
    if (name === undefined) return;
    if (seen.has(name)) report("error", "conflict", [...at, index, "name"], `found the rule name ${name} twice`);
    seen.add(name);
  });
}
