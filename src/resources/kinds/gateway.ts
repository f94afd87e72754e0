// gateway.networking.k8s.io GatewayClass and Gateway. What a Gateway means depends on its class: a waypoint, or what stands before
// another network (remote-gateway.ts); gateways of other classes are somebody else's.

import { z } from "zod";
import { parseIp } from "../../core/ip.ts";
import { WAYPOINT_FOR } from "../annotations.ts";
import { collectable } from "../collectable.ts";
import { show } from "../diagnostic.ts";
import { labelSelector } from "../label-selector.ts";
import { dnsLabel, dnsSubdomain, isDnsSubdomain, labelMap, port } from "../object-meta.ts";
import { checkRemoteGateway, isRemoteGateway, REMOTE_CLASSES } from "../remote-gateway.ts";
import { defineKind, type ResourceOfKind } from "../resource.ts";

export const WAYPOINT_CLASSES: readonly string[] = ["weft-waypoint", "istio-waypoint"];
/** Whose objects may use a waypoint. */
const NAMESPACES_FROM = ["All", "Same", "Selector", "None"] as const;
export const WAYPOINT_USES = ["service", "workload", "all", "none"] as const;
/** Protocol of a listener that takes HBONE. */
export const HBONE_PROTOCOL = "HBONE";
export const HBONE_PORT = 15008;

const schemas = collectable(() => {
  const reference = z.strictObject({ group: z.string().max(253), kind: z.string().min(1).max(63), name: dnsSubdomain, namespace: dnsLabel.optional() });
  const unused = z.unknown().optional();
  const allowedRoutes = z.strictObject({ namespaces: z.strictObject({ from: z.enum(NAMESPACES_FROM).nullish(), selector: labelSelector().nullish() }).nullish(), kinds: unused });
  const listener = z.strictObject({ name: dnsSubdomain, port, protocol: z.string().min(1).max(255), hostname: z.string().optional(), tls: unused, allowedRoutes: allowedRoutes.nullish() });
  const backendTls = z.strictObject({ clientCertificateRef: z.strictObject({ group: z.string().max(253).optional(), kind: z.string().min(1).max(63).optional(), name: dnsSubdomain, namespace: dnsLabel.optional() }).nullish() });
  const spec = z.strictObject({
    gatewayClassName: dnsSubdomain,
    listeners: z.array(listener).min(1).max(64),
    addresses: z.array(z.strictObject({ type: z.string().max(253).optional(), value: z.string().max(253).optional() })).max(16).optional(),
    infrastructure: z.strictObject({ labels: labelMap.optional(), annotations: z.record(z.string(), z.string()).optional(), parametersRef: unused }).optional(),
    // `backendTLS` is the older form. What is about traffic that enters the cluster is not a waypoint's.
    tls: z.strictObject({ backend: backendTls.nullish(), frontend: unused }).nullish(), backendTLS: backendTls.nullish(), allowedListeners: unused, defaultScope: unused,
  });
  const classSpec = z.strictObject({ controllerName: z.string().regex(/^[a-z0-9.-]+\/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+$/, { error: "expected DOMAIN/PATH" }).max(253), description: z.string().max(64).optional(), parametersRef: reference.optional() });
  return { spec, classSpec };
});

export const gatewayClassKind = defineKind({
  kind: "GatewayClass",
  group: "gateway.networking.k8s.io",
  versions: ["v1", "v1beta1"],
  namespaced: false,
  spec: () => schemas().classSpec,
  check({ name, spec }, report) {
    if (WAYPOINT_CLASSES.includes(name) && spec.parametersRef !== undefined) report("error", "not_supported", ["spec", "parametersRef"], "found parameters, which a waypoint class does not take");
  },
});

export const gatewayKind = defineKind({
  kind: "Gateway",
  group: "gateway.networking.k8s.io",
  versions: ["v1", "v1beta1"],
  namespaced: true,
  spec: () => schemas().spec,
  check(gateway, report) {
    const { spec, labels } = gateway;
    if (isRemoteGateway(gateway)) return checkRemoteGateway(gateway, report);
    if (!isWaypoint(gateway)) {
      report("warning", "unsupported_kind", ["spec", "gatewayClassName"], `found the class ${show(spec.gatewayClassName)}, expected ${[...WAYPOINT_CLASSES, ...REMOTE_CLASSES].join(", ")}; nothing was applied from it`);
      return;
    }
    const use = labels[WAYPOINT_FOR];
    if (use !== undefined && !(WAYPOINT_USES as readonly string[]).includes(use)) report("error", "bad_value", ["metadata", "labels", WAYPOINT_FOR], `found ${show(use)}, expected ${WAYPOINT_USES.join(", ")}`);
    if (!spec.listeners.some((one) => one.protocol === HBONE_PROTOCOL && one.port === HBONE_PORT)) {
      report("error", "missing_field", ["spec", "listeners"], `found no listener for ${HBONE_PROTOCOL} on port ${HBONE_PORT}, by which a waypoint is reached`);
    }
    spec.listeners.forEach((one, index) => {
      const { from, selector } = one.allowedRoutes?.namespaces ?? {};
      if (from === "Selector" && (selector === undefined || selector === null)) {
        report("error", "missing_field", ["spec", "listeners", index, "allowedRoutes", "namespaces", "selector"], "found none with from: Selector, expected the labels of the namespaces that may use the waypoint");
      }
      if (one.protocol !== HBONE_PROTOCOL) report("warning", "not_supported", ["spec", "listeners", index, "protocol"], `found ${show(one.protocol)}; a waypoint is reached by ${HBONE_PROTOCOL} alone`);
    });
    spec.addresses?.forEach(({ type = "IPAddress", value = "" }, index) => {
      const sound = type === "IPAddress" ? parseIp(value) !== null : type === "Hostname" && isDnsSubdomain(value);
      if (!sound) report("error", "bad_value", ["spec", "addresses", index], `found ${show(value)} of type ${show(type)}, expected an IPAddress or a Hostname`);
    });
  },
});

export type GatewayResource = ResourceOfKind<typeof gatewayKind>;

export const isWaypoint = (gateway: GatewayResource): boolean => WAYPOINT_CLASSES.includes(gateway.spec.gatewayClassName);
