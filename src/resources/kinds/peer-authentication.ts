// security.istio.io PeerAuthentication: whether a workload takes plain text. A ztunnel knows no such thing, so, as istiod does,
// it becomes a DENY policy for connections without a principal, attached to each workload it decides for.

import { z } from "zod";
import { namespacedName, type NamespacedName } from "../../core/brand.ts";
import type { AuthorizationPolicy, PolicyMatch } from "../../mesh/records.ts";
import { collectable } from "../collectable.ts";
import type { FieldPath } from "../diagnostic.ts";
import { labelMap, type Labels } from "../object-meta.ts";
import { defineKind, type Placed, provenanceOf, type ReportFor, type ResourceOfKind, sourceOf } from "../resource.ts";
import { selects } from "../selector.ts";
import { emptyMatch } from "./authorization-policy.ts";

const MODES = ["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] as const;
/** The schema keeps it bounded: one rule lists all ports. */
const PORTS_MAX = 256;

const schemas = collectable(() => {
  const mtls = z.strictObject({ mode: z.enum(MODES).optional() });
  const portKey = z.string().regex(/^[1-9][0-9]{0,4}$/).refine((text) => Number(text) <= 65535, { error: "expected a port number 1..65535" });
  const spec = z.strictObject({
    selector: z.strictObject({ matchLabels: labelMap.nullish() }).nullish(),
    mtls: mtls.nullish(),
    portLevelMtls: z.record(portKey, mtls).refine((ports) => Object.keys(ports).length <= PORTS_MAX, { error: `expected at most ${PORTS_MAX} ports` }).nullish(),
  }).nullish();
  return { spec };
});

export const peerAuthenticationKind = defineKind({
  kind: "PeerAuthentication",
  group: "security.istio.io",
  versions: ["v1", "v1beta1"],
  namespaced: true,
  spec: () => schemas().spec,
  check(resource, report) {
    if (peerSelector(resource) === null && Object.keys(resource.spec?.portLevelMtls ?? {}).length > 0) {
      report("error", "conflict", ["spec", "portLevelMtls"], "found ports without a selector; ports can be told apart only for selected workloads");
    }
    const disabled: FieldPath[] = [];
    if (resource.spec?.mtls?.mode === "DISABLE") disabled.push(["spec", "mtls", "mode"]);
    for (const [port, { mode }] of Object.entries(resource.spec?.portLevelMtls ?? {})) if (mode === "DISABLE") disabled.push(["spec", "portLevelMtls", port, "mode"]);
    for (const path of disabled) report("warning", "not_supported", path, "found DISABLE: tunnels between captured workloads always use mutual TLS; treated as PERMISSIVE, plain text is accepted");
  },
});

export type PeerAuthenticationResource = ResourceOfKind<typeof peerAuthenticationKind>;
type PlacedPeer = Placed<PeerAuthenticationResource>;

/** Labels it selects by; null for one that holds for its whole namespace, or mesh. */
export function peerSelector(resource: PeerAuthenticationResource): Labels | null {
  const labels = resource.spec?.selector?.matchLabels ?? {};
  return Object.keys(labels).length === 0 ? null : labels;
}

/** Those of one namespace, and the mesh's, in order of precedence. */
export interface PeerAuthentications {
  /** The mesh-wide one, from the root namespace. */
  readonly mesh: PlacedPeer | null;
  readonly namespace: PlacedPeer | null;
  /** With a selector; oldest first, the first that selects decides. */
  readonly selecting: readonly PlacedPeer[];
}

/** Oldest first, as Istio resolves conflicts; without dates, by name. */
export function byAge(a: PlacedPeer, b: PlacedPeer): number {
  const [left, right] = [a.resource, b.resource];
  if (left.creationTimestamp !== right.creationTimestamp) {
    if (left.creationTimestamp === "") return 1;
    if (right.creationTimestamp === "") return -1;
    return left.creationTimestamp < right.creationTimestamp ? -1 : 1;
  }
  return left.name < right.name ? -1 : left.name > right.name ? 1 : 0;
}

/** The one that decides among several of equal rank. The others are not in force, which is reported. */
export function oldest(peers: readonly PlacedPeer[], reportFor: ReportFor): PlacedPeer | null {
  const [first, ...others] = [...peers].sort(byAge);
  for (const other of others) {
    reportFor(other)("warning", "conflict", ["metadata", "name"], `not in force: ${first!.resource.namespace}/${first!.resource.name} (${sourceOf(first!)}) holds for the same workloads and comes first`);
  }
  return first ?? null;
}

interface Effective {
  readonly strict: boolean;
  /** Which one said so; null when none did and plain text is accepted. */
  readonly from: PlacedPeer | null;
}

/** The policies of a namespace's PeerAuthentications; `attached` tells which of them holds for given labels. */
export interface ConvertedPeers {
  readonly policies: readonly AuthorizationPolicy[];
  attached(labels: Labels): NamespacedName | null;
}

export function convertPeerAuthentications(peers: PeerAuthentications): ConvertedPeers {
  const policies = new Map<NamespacedName, AuthorizationPolicy>();
  const inherited = override(override({ strict: false, from: null }, peers.mesh), peers.namespace);
  const attach = (policy: AuthorizationPolicy): NamespacedName => {
    const name = namespacedName(policy.namespace, policy.name);
    policies.set(name, policy);
    return name;
  };
  const whole = (effective: Effective): NamespacedName | null => (effective.strict && effective.from !== null ? attach(denyPlaintext(effective.from, {}, "spec.mtls")) : null);
  const forAll = whole(inherited);
  const forSelected = peers.selecting.map((placed) => {
    const effective = override(inherited, placed);
    return { selector: peerSelector(placed.resource) ?? {}, name: portException(placed, effective, attach) ?? whole(effective) };
  });
  return {
    policies: [...policies.values()],
    attached(labels) {
      const chosen = forSelected.find(({ selector }) => selects(selector, labels));
      return chosen === undefined ? forAll : chosen.name;
    },
  };
}

function override(inherited: Effective, placed: PlacedPeer | null): Effective {
  const mode = placed?.resource.spec?.mtls?.mode ?? "UNSET";
  return mode === "UNSET" ? inherited : { strict: mode === "STRICT", from: placed };
}

/** The policy of a PeerAuthentication whose ports differ from what holds otherwise; null when none does. */
function portException(placed: PlacedPeer, effective: Effective, attach: (policy: AuthorizationPolicy) => NamespacedName): NamespacedName | null {
  const differing = Object.entries(placed.resource.spec?.portLevelMtls ?? {})
    .filter(([, { mode = "UNSET" }]) => mode !== "UNSET" && (mode === "STRICT") !== effective.strict)
    .map(([port]) => Number(port))
    .sort((a, b) => a - b);
  if (differing.length === 0) return null;
  return attach(denyPlaintext(placed, effective.strict ? { notDestinationPorts: differing } : { destinationPorts: differing }, "spec.portLevelMtls"));
}

/** The underscore keeps its name apart from every AuthorizationPolicy's. The prefix is istiod's. */
function denyPlaintext(placed: PlacedPeer, ports: Partial<PolicyMatch>, fieldPath: string): AuthorizationPolicy {
  const { namespace, name } = placed.resource;
  return {
    name: `converted_peer_authentication_${name}`,
    namespace,
    scope: "workload",
    action: "deny",
    dryRun: false,
    rules: [{ clauses: [{ matches: [{ ...emptyMatch, notPrincipals: [{ kind: "presence" }], ...ports }] }], fieldPath }],
    provenance: provenanceOf(placed, fieldPath),
  };
}
