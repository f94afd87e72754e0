// gateway.networking.k8s.io BackendTLSPolicy: TLS towards a backend, with what its certificate must show.

import { z } from "zod";
import { collectable } from "../collectable.ts";
import { hostname, wildcardHostname } from "../http-values.ts";
import { dnsSubdomain } from "../object-meta.ts";
import { defineKind, type ResourceOfKind } from "../resource.ts";

const schemas = collectable(() => {
  const group = z.string().max(253);
  const kind = z.string().min(1).max(63);
  const subjectAltName = z.strictObject({ type: z.enum(["Hostname", "URI"]), hostname: wildcardHostname.optional(), uri: z.string().regex(/^[^:/?#]+:\/\/[^/?#]+/, { error: "expected an absolute URI" }).max(253).optional() })
    .refine(({ type, hostname, uri }) => (type === "Hostname" ? hostname !== undefined && uri === undefined : uri !== undefined && hostname === undefined), { error: "expected hostname for type Hostname, uri for type URI" });
  const spec = z.strictObject({
    targetRefs: z.array(z.strictObject({ group, kind, name: z.string().min(1).max(253), sectionName: dnsSubdomain.optional() })).min(1).max(16),
    validation: z.strictObject({
      hostname,
      caCertificateRefs: z.array(z.strictObject({ group, kind, name: dnsSubdomain })).max(8).optional(),
      wellKnownCACertificates: z.string().min(1).max(253).optional(),
      subjectAltNames: z.array(subjectAltName).max(5).optional(),
    }),
    options: z.record(z.string(), z.string().max(4096)).optional(),
  });
  return { spec };
});

export const backendTlsPolicyKind = defineKind({
  kind: "BackendTLSPolicy",
  group: "gateway.networking.k8s.io",
  versions: ["v1", "v1alpha3"],
  namespaced: true,
  spec: () => schemas().spec,
  check({ spec }, report) {
    const { caCertificateRefs = [], wellKnownCACertificates } = spec.validation;
    if (caCertificateRefs.length > 0 && wellKnownCACertificates !== undefined) report("error", "conflict", ["spec", "validation", "wellKnownCACertificates"], "found it beside caCertificateRefs, expected one of them");
    if (caCertificateRefs.length === 0 && wellKnownCACertificates === undefined) report("error", "missing_field", ["spec", "validation"], "found neither caCertificateRefs nor wellKnownCACertificates, expected one of them");
    const seen = new Set<string>();
    spec.targetRefs.forEach(({ group, kind, name, sectionName }, index) => {
      const key = `${group}/${kind}/${name}/${sectionName ?? ""}`;
      if (seen.has(key)) report("error", "conflict", ["spec", "targetRefs", index], `found ${name} twice with the same sectionName`);
      seen.add(key);
    });
  },
});

export type BackendTlsPolicyResource = ResourceOfKind<typeof backendTlsPolicyKind>;
