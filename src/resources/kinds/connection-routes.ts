// gateway.networking.k8s.io TCPRoute and TLSRoute: connections by port, or by the name that TLS asks for.

import { z } from "zod";
import { parseIp } from "../../core/ip.ts";
import { collectable } from "../collectable.ts";
import { wildcardHostname } from "../http-values.ts";
import { BACKENDS_MAX, ROUTE_RULES_MAX } from "../limits.ts";
import { dnsSubdomain } from "../object-meta.ts";
import { defineKind, type ResourceOfKind } from "../resource.ts";
import { checkParentRefs, checkRuleNames, routeParts } from "../route-parts.ts";

const SNI_MAX = 1024;
const schemas = collectable(() => {
  const { parentRef, plainBackendRef } = routeParts();
  const rules = z.array(z.strictObject({ name: dnsSubdomain.optional(), backendRefs: z.array(plainBackendRef).min(1).max(BACKENDS_MAX) })).min(1).max(ROUTE_RULES_MAX);
  const common = { parentRefs: z.array(parentRef).max(32).optional(), useDefaultGateways: z.enum(["All", "None"]).optional(), rules };
  const tls = z.strictObject({
    ...common, hostnames: z.array(wildcardHostname.refine((text) => parseIp(text) === null, { error: "expected a host name; TLS names no addresses" })).min(1).max(SNI_MAX).optional(),
  });
  return { tcp: z.strictObject(common), tls };
});

export const tcpRouteKind = defineKind({
  kind: "TCPRoute",
  group: "gateway.networking.k8s.io",
  versions: ["v1", "v1alpha2"],
  namespaced: true,
  spec: () => schemas().tcp,
  check({ spec }, report) {
    checkParentRefs(spec.parentRefs ?? [], ["spec", "parentRefs"], report);
    checkRuleNames(spec.rules, ["spec", "rules"], report);
    if (spec.rules.length > 1) report("warning", "conflict", ["spec", "rules", 1], "found several rules; a TCP connection always goes by the first");
  },
});

export const tlsRouteKind = defineKind({
  kind: "TLSRoute",
  group: "gateway.networking.k8s.io",
  versions: ["v1", "v1alpha3", "v1alpha2"],
  namespaced: true,
  spec: () => schemas().tls,
  check({ spec }, report) {
    checkParentRefs(spec.parentRefs ?? [], ["spec", "parentRefs"], report);
    checkRuleNames(spec.rules, ["spec", "rules"], report);
  },
});

export type TcpRouteResource = ResourceOfKind<typeof tcpRouteKind>;
export type TlsRouteResource = ResourceOfKind<typeof tlsRouteKind>;
