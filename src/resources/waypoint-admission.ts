// Which namespaces a waypoint takes: `allowedRoutes` of the Gateway's listener for HBONE, as Istio reads it. Without it, its own alone:
// a waypoint holds the keys and secrets of what is behind it, and works for whoever is.

import type { Resource } from "./kinds.ts";
import { type GatewayResource, HBONE_PORT, HBONE_PROTOCOL, isWaypoint } from "./kinds/gateway.ts";
import { selectsLabels } from "./label-selector.ts";
import type { Labels } from "./object-meta.ts";
import type { Placed } from "./resource.ts";

export interface GatewayName {
  readonly namespace: string;
  readonly name: string;
}

const NO_LABELS: Labels = {};
const keyOf = ({ namespace, name }: GatewayName): string => `${namespace}/${name}`;

export class WaypointAdmission {
  readonly #gateways = new Map<string, GatewayResource>();
  readonly #byNamespace = new Map<string, GatewayResource[]>();
  readonly #services: ReadonlySet<string>;
  readonly #labels = new Map<string, Labels>();
  readonly #bySelector: GatewayResource[] = [];
  readonly #byAll: string;

  /**
   * @param resources Gateways and Namespaces count.
   * @param services `namespace/name` of every Service: looked at whenever it is asked.
   */
  constructor(resources: Iterable<Placed<Resource>>, services: ReadonlySet<string>) {
    this.#services = services;
    const open: string[] = [];
    for (const { resource } of resources) {
      if (resource.kind === "Namespace") this.#labels.set(resource.name, resource.labels);
      else if (resource.kind === "Gateway" && isWaypoint(resource)) {
        this.#gateways.set(keyOf(resource), resource);
        const there = this.#byNamespace.get(resource.namespace);
        if (there === undefined) this.#byNamespace.set(resource.namespace, [resource]);
        else there.push(resource);
        const { from } = namespacesOf(resource);
        if (from === "All") open.push(keyOf(resource));
        if (from === "Selector") this.#bySelector.push(resource);
      }
    }
    this.#byAll = open.sort().join(" ");
  }

  /** Whether an object of the namespace `from` may use the waypoint. Where there is no Gateway there is nobody to say that it takes others. */
  allows(waypoint: GatewayName, from: string): boolean {
    const gateway = this.#gateways.get(keyOf(waypoint));
    if (gateway === undefined) return from === waypoint.namespace;
    const { from: which, selector } = namespacesOf(gateway);
    switch (which) {
      case "All": return true;
      case "Same": return from === gateway.namespace;
      case "None": return false;
      case "Selector": return selector !== undefined && selector !== null && selectsLabels(selector, this.#labels.get(from) ?? NO_LABELS);
    }
  }

  /** Whether there is such a waypoint, or a service that stands for one. */
  has(waypoint: GatewayName): boolean {
    return this.#gateways.has(keyOf(waypoint)) || this.#services.has(keyOf(waypoint));
  }

  /** Everything of this that matters to one namespace, as a text: equal for equal answers. */
  keyFor(namespace: string): string {
    const selecting = this.#bySelector.filter((gateway) => this.allows(gateway, namespace)).map(keyOf).sort();
    const closed = (this.#byNamespace.get(namespace) ?? []).filter((gateway) => !this.allows(gateway, namespace)).map(keyOf).sort();
    return `${this.#byAll};${selecting.join(" ")};${closed.join(" ")}`;
  }
}

type Namespaces = { readonly from: "All" | "Same" | "Selector" | "None"; readonly selector?: Parameters<typeof selectsLabels>[0] | null | undefined };

/** Of the first listener for HBONE, as the others reach nobody. */
function namespacesOf({ spec }: GatewayResource): Namespaces {
  const listener = spec.listeners.find(({ protocol, port }) => protocol === HBONE_PROTOCOL && port === HBONE_PORT);
  const namespaces = listener?.allowedRoutes?.namespaces;
  return { from: namespaces?.from ?? "Same", selector: namespaces?.selector };
}
