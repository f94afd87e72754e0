// Which Services of a namespace a workload with given labels is an endpoint of. Thousands of Services with one selector would make as many
// endpoints of each workload, in every agent of the mesh: beyond a bound a workload is no endpoint of the rest, so that nothing is sent
// for them to it, and whoever wrote them is told.

import type { ServiceResource } from "./kinds/service.ts";
import type { Labels } from "./object-meta.ts";
import type { Placed } from "./resource.ts";
import { SelectorIndex } from "./selector.ts";

/** Services of one workload, the first by name: each is kept by every agent. No cluster that is known has a tenth of it. */
export const MEMBERSHIPS_MAX = 256;

export interface SelectedServices {
  /** In the order of their names. */
  readonly held: readonly ServiceResource[];
  /** Names of those that come after. */
  readonly beyond: readonly string[];
}

const NOTHING: readonly string[] = [];

export class ServiceSelection {
  readonly #index = new SelectorIndex<Placed<ServiceResource>>();
  /** By the labels as they are kept: those of one Deployment's pods are one object. */
  readonly #found = new WeakMap<Labels, SelectedServices>();

  constructor(services: readonly Placed<ServiceResource>[]) {
    for (const placed of services) {
      const selector = placed.resource.spec.selector ?? {};
      // A service without a selector has no workloads by itself; its endpoints come from an EndpointSlice.
      if (Object.keys(selector).length > 0) this.#index.add(selector, placed);
    }
  }

  of(labels: Labels): SelectedServices {
    const known = this.#found.get(labels);
    if (known !== undefined) return known;
    const all = this.#index.selecting(labels).map(({ resource }) => resource).sort((a, b) => (a.name < b.name ? -1 : 1));
    const found: SelectedServices = { held: all.slice(0, MEMBERSHIPS_MAX), beyond: all.length > MEMBERSHIPS_MAX ? all.slice(MEMBERSHIPS_MAX).map(({ name }) => name) : NOTHING };
    this.#found.set(labels, found);
    return found;
  }
}

/** For whoever wrote a Service that is left out. @param workload e.g. `Pod shop/web-1`. */
export const leftOut = (workload: string, among: string): string =>
  `${workload} is an endpoint of ${MEMBERSHIPS_MAX} Services that come before by name, which is as many as one may have: it is none of ${among}, and nothing is sent to it for it`;
