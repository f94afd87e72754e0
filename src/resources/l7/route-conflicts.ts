// Routes that hold for the same clients of the same port, of kinds that exclude each other: the Gateway API's order says which holds.
// The store decides in the same way; here the others are told.

import type { NamespacedName } from "../../core/brand.ts";
import type { Route } from "../../mesh/l7/route.ts";
import { type FieldPath, formatFieldPath } from "../diagnostic.ts";
import type { Placed, ReportFor, ResourceOf } from "../resource.ts";
import { byAge, describePlaced } from "./age.ts";
import type { Claim } from "./translate-traffic.ts";

export interface AttachedRoute {
  readonly routeId: string;
  readonly placed: Placed<ResourceOf<string, unknown>>;
  readonly rules: Route["rules"];
  readonly service: NamespacedName;
  readonly port: number | null;
  readonly clientNamespace: string | null;
  /** Where it is attached, e.g. `spec.parentRefs[0]`. */
  readonly path: FieldPath;
}

/** A parent of a route that does not hold there at all. */
export interface LostParent {
  readonly placed: Placed<ResourceOf<string, unknown>>;
  readonly path: FieldPath;
  readonly message: string;
}

/** The first excludes those after it. A VirtualService's HTTP rules stand behind those of the Gateway API. */
function rank({ rules }: AttachedRoute): number {
  switch (rules.protocol) {
    case "grpc": return 0;
    case "http": return rules.precedence === "gatewayApi" ? 1 : 2;
    case "tls": return 3;
    case "tcp": return 4;
  }
}

/** Of several VirtualServices for one host, and several TCPRoutes for one port, the older come first: often the younger have no say left. */
function reportFollowers(members: readonly AttachedRoute[], said: Set<string>, reportFor: ReportFor): void {
  if (members.length < 2) return;
  const ordered = members.filter(({ rules, placed }) => rules.protocol === "tcp" || placed.resource.kind === "VirtualService").sort((a, b) => byAge(a.placed, b.placed));
  for (const [index, one] of ordered.entries()) {
    const before = ordered.find((other, at) => at < index && rank(other) === rank(one) && other.placed !== one.placed && (other.port === null || one.port === null || other.port === one.port));
    if (before === undefined) continue;
    const key = `${describePlaced(one.placed)} after ${describePlaced(before.placed)} ${one.service}`;
    if (said.has(key)) continue;
    said.add(key);
    reportFor(one.placed)("warning", "conflict", one.path, `${describePlaced(before.placed)} holds for ${one.service} too and is older: its rules are tried first`);
  }
}

const nameOfRank = ({ placed, rules }: AttachedRoute): string => (placed.resource.kind === "VirtualService" ? `${rules.protocol} of a VirtualService` : placed.resource.kind);

export function findConflicts(attached: Iterable<AttachedRoute>, reportFor: ReportFor): LostParent[] {
  const scopes = new Map<string, AttachedRoute[]>();
  for (const one of attached) {
    const key = `${one.service} ${one.clientNamespace ?? ""}`;
    const scope = scopes.get(key);
    if (scope === undefined) scopes.set(key, [one]);
    else scope.push(one);
  }
  const lost: LostParent[] = [];
  const said = new Set<string>();
  for (const members of scopes.values()) {
    reportFollowers(members, said, reportFor);
    const first = rank(members[0]!);
    if (members.every((member) => rank(member) === first)) continue;
    const ordered = [...members].sort((a, b) => rank(a) - rank(b) || byAge(a.placed, b.placed));
    for (const loser of ordered) {
      // A resource does not exclude its own other rules.
      const winner = ordered.find((other) => rank(other) < rank(loser) && other.placed !== loser.placed && (other.port === null || loser.port === null || other.port === loser.port));
      if (winner === undefined) continue;
      const whole = winner.port === null || winner.port === loser.port;
      const message = `${describePlaced(winner.placed)} holds for ${loser.service}${winner.port === null ? "" : `:${winner.port}`}, and ${nameOfRank(winner)} comes before ${nameOfRank(loser)}`;
      const key = `${describePlaced(loser.placed)} ${formatFieldPath(loser.path)} ${message}`;
      if (said.has(key)) continue;
      said.add(key);
      reportFor(loser.placed)("warning", "conflict", loser.path, whole ? `not in force: ${message}` : `not in force there: ${message}`);
      if (whole) lost.push({ placed: loser.placed, path: loser.path, message });
    }
  }
  return lost;
}

export interface PlacedClaim {
  readonly placed: Placed<ResourceOf<string, unknown>>;
  readonly claim: Claim;
}

/** Policies of one kind, of which one alone can hold for a port: the older does (Gateway API, policy attachment). */
export function lostClaims(all: readonly PlacedClaim[]): LostParent[] {
  const keyOf = ({ claim }: PlacedClaim): string => `${claim.service} ${claim.port ?? ""}`;
  const oldest = new Map<string, PlacedClaim>();
  for (const one of all) {
    const known = oldest.get(keyOf(one));
    if (known === undefined || byAge(one.placed, known.placed) < 0) oldest.set(keyOf(one), one);
  }
  return all.flatMap((one) => {
    const { placed, claim } = one;
    const winner = oldest.get(keyOf(one))!;
    if (winner.placed === placed) return [];
    return [{ placed, path: claim.path, message: `${describePlaced(winner.placed)} holds for ${claim.service}${claim.port === null ? "" : `:${claim.port}`} and is older` }];
  });
}
