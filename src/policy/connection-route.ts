// Where a connection goes: TCPRoute and TLSRoute. Of TCP the first rule of the oldest route; of TLS the rule whose name is closest to the
// one that the client asks for. The backend by weight. Pure but for the dice, which are given in.

import { formatProvenance, type Provenance } from "../core/fault.ts";
import type { Random } from "../core/ports.ts";
import type { RouteSet } from "../mesh/l7/l7-store.ts";
import type { BackendTarget, ConnectionRule, Route } from "../mesh/l7/route.ts";

export type ConnectionPlan =
  /** No TCPRoute or TLSRoute decides: to the service that the client meant. */
  | { readonly kind: "unrouted" }
  | { readonly kind: "forward"; readonly target: Extract<BackendTarget, { kind: "service" }>; readonly provenance: Provenance }
  | { readonly kind: "refuse"; readonly provenance: Provenance | null; /** For a person. */ readonly why: string };

interface Entry {
  readonly route: Route;
  readonly rule: ConnectionRule;
}

interface Found extends Entry {
  readonly rank: number;
}

const UNROUTED: ConnectionPlan = Object.freeze({ kind: "unrouted" });
const EXACT = Infinity;

/** @param sni null when the client asks for no name. */
export function planConnection(set: RouteSet, sni: string | null, random: Random): ConnectionPlan {
  if (set.protocol !== "tcp" && set.protocol !== "tls") return UNROUTED;
  const entry = set.protocol === "tcp" ? entries(set)[0] : closest(set, sni);
  if (entry === undefined) {
    return set.protocol === "tcp" ? UNROUTED : { kind: "refuse", provenance: null, why: `none of the ${set.routes.length} TLSRoutes is for ${sni === null ? "a client that asks for no server name" : `the server name ${sni}`}` };
  }
  const { route, rule } = entry;
  const provenance = { ...route.provenance, fieldPath: rule.fieldPath };
  const backend = draw(rule, random);
  if (backend === null) return { kind: "refuse", provenance, why: `every backend of ${formatProvenance(provenance)} has weight 0` };
  if (backend.kind === "invalid") return { kind: "refuse", provenance, why: `the backend that was drawn cannot be used: ${backend.reason}` };
  return { kind: "forward", target: backend, provenance };
}

/** Oldest first. */
function entries({ routes }: RouteSet): Entry[] {
  return routes.flatMap((route) => (route.rules.protocol === "tcp" || route.rules.protocol === "tls" ? route.rules.rules.map((rule) => ({ route, rule })) : []));
}

/** The exact name, then the longest wildcard, then a route for every name; of equal ones the first. */
function closest(set: RouteSet, sni: string | null): Entry | undefined {
  let best: Found | undefined;
  for (const entry of entries(set)) {
    const { sni: names } = entry.rule;
    const rank = names.length === 0 ? 0 : sni === null ? -1 : Math.max(...names.map((name) => rankOf(name, sni)));
    if (rank >= 0 && (best === undefined || rank > best.rank)) best = { ...entry, rank };
  }
  return best;
}

/** -1 when it does not match. A wildcard stands for one label or several (Gateway API). */
function rankOf(pattern: string, sni: string): number {
  if (pattern === sni) return EXACT;
  if (!pattern.startsWith("*.")) return -1;
  const suffix = pattern.slice(1);
  return sni.length > suffix.length && sni.endsWith(suffix) ? suffix.length : -1;
}

function draw({ backends }: ConnectionRule, random: Random): BackendTarget | null {
  const total = backends.reduce((sum, { weight }) => sum + weight, 0);
  if (total === 0) return null;
  let left = backends.length === 1 ? 0 : random.next() * total;
  for (const { weight, target } of backends) {
    if (weight === 0) continue;
    if (left < weight) return target;
    left -= weight;
  }
  // Rounding: the last that may be drawn.
  return backends.findLast(({ weight }) => weight > 0)!.target;
}
