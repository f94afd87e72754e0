// gateway.networking.k8s.io Gateway. What it means depends on its class; the one of the L4 mesh stands before another network
// (remote-gateway.ts).

import { z } from "zod";
import { dnsSubdomain, labelMap, port } from "../object-meta.ts";
import { checkRemoteGateway, isRemoteGateway, REMOTE_CLASSES } from "../remote-gateway.ts";
import { defineKind, type ResourceOfKind } from "../resource.ts";

/** What matters to gateways at the edge alone. */
const unused = z.unknown().optional();
const listener = z.strictObject({ name: dnsSubdomain, port, protocol: z.string().min(1).max(255), hostname: z.string().optional(), tls: unused, allowedRoutes: unused });

const spec = z.strictObject({
  gatewayClassName: dnsSubdomain,
  listeners: z.array(listener).min(1).max(64),
  addresses: z.array(z.strictObject({ type: z.string().max(253).optional(), value: z.string().max(253).optional() })).max(16).optional(),
  infrastructure: z.strictObject({ labels: labelMap.optional(), annotations: z.record(z.string(), z.string()).optional(), parametersRef: unused }).optional(),
  allowedListeners: unused, backendTLS: unused, defaultScope: unused, tls: unused,
});

export const gatewayKind = defineKind({
  kind: "Gateway",
  group: "gateway.networking.k8s.io",
  versions: ["v1", "v1beta1"],
  namespaced: true,
  spec,
  check(gateway, report) {
    if (isRemoteGateway(gateway)) return checkRemoteGateway(gateway, report);
    report("warning", "unsupported_kind", ["spec", "gatewayClassName"], `Gateway of class ${gateway.spec.gatewayClassName} is not supported by this role yet, nothing was applied from it; expected ${REMOTE_CLASSES.join(" or ")}`);
  },
});

export type GatewayResource = ResourceOfKind<typeof gatewayKind>;
