// What resources say of the traffic to each service, merged into one; and which of several that exclude each other holds. A resource that
// comes, goes or changes costs the services that it speaks of.

import type { NamespacedName } from "../../core/brand.ts";
import type { Steps } from "../../core/steps.ts";
import { collectInto, type Placed, type ResourceDiagnostic, type ResourceOf } from "../resource.ts";
import { boundedContributions } from "./bounds.ts";
import type { Contribution } from "./contribution.ts";
import { mergeContributions, type PlacedContribution } from "./merge-contributions.ts";
import { Members, type Outcome } from "./outcome.ts";
import { lostClaims, type PlacedClaim } from "./route-conflicts.ts";
import type { Claim } from "./translate-traffic.ts";

type AnyPlaced = Placed<ResourceOf<string, unknown>>;

const claimKey = ({ service, port }: Claim): string => `${service} ${port ?? ""}`;

export class ServiceTraffic {
  readonly #outcome: Outcome;
  readonly #contributions = new Members<NamespacedName, AnyPlaced, PlacedContribution>();
  readonly #claims = new Members<string, AnyPlaced, PlacedClaim>();
  readonly #movedServices = new Set<NamespacedName>();
  readonly #movedClaims = new Set<string>();

  constructor(outcome: Outcome) {
    this.#outcome = outcome;
  }

  add(placed: AnyPlaced, contributions: readonly Contribution[], claims: readonly Claim[]): void {
    for (const contribution of contributions) {
      this.#contributions.add(contribution.service, placed, { placed, contribution });
      this.#movedServices.add(contribution.service);
    }
    for (const claim of claims) {
      this.#claims.add(claimKey(claim), placed, { placed, claim });
      this.#movedClaims.add(claimKey(claim));
    }
  }

  remove(placed: AnyPlaced, contributions: readonly Contribution[], claims: readonly Claim[]): void {
    for (const { service } of contributions) {
      this.#contributions.remove(service, placed);
      this.#movedServices.add(service);
    }
    for (const claim of claims) {
      this.#claims.remove(claimKey(claim), placed);
      this.#movedClaims.add(claimKey(claim));
    }
  }

  /** Brings everything up to date that has to do with what was added and removed. */
  *settle(): Steps<void> {
    for (const service of this.#movedServices) {
      yield;
      const diagnostics: ResourceDiagnostic[] = [];
      const policies = mergeContributions(service, boundedContributions(this.#contributions.of(service), collectInto(diagnostics)), collectInto(diagnostics));
      this.#outcome.policies(service, policies.length === 0 ? null : policies);
      this.#outcome.said(`traffic of ${service}`, diagnostics);
    }
    this.#movedServices.clear();
    for (const key of this.#movedClaims) {
      yield;
      this.#outcome.lost(`claims of ${key}`, lostClaims(this.#claims.of(key)));
    }
    this.#movedClaims.clear();
  }
}
