// What the configuration says of one service and port to clients of one namespace: routes, access, tokens. Looked up once for each
// change of the configuration, not for each request.

import type { NamespacedName } from "../../core/brand.ts";
import type { AccessSet, L7Store, RouteSet } from "../../mesh/l7/l7-store.ts";
import type { EffectiveTelemetry } from "../../mesh/l7/merge-telemetry.ts";
import type { Service } from "../../mesh/records.ts";
import { type Router, routerOf } from "../../policy/http/router.ts";
import { looksAtMethods } from "../../policy/http/untrusted-headers.ts";
import { bindRules, type BoundRule } from "../../policy/http/tokens.ts";
import type { ServiceTelemetry } from "../../telemetry/service-telemetry.ts";
import type { Client } from "../downstream/client.ts";
import { declaresGrpcWeb } from "../downstream/declared-protocol.ts";
import { isWorkloadDestination, type ServiceDirectory } from "../services/service-directory.ts";

export interface ServiceView {
  /** Of the configuration that it was made from. */
  readonly epoch: number;
  /** Null when the service is not known. */
  readonly service: Service | null;
  /** The same as metrics, logs and spans name it: none for a workload by its own address. */
  readonly toldService: Service | null;
  /** What decides about its connections and requests; of TCP and TLS the router knows nothing. */
  readonly routes: RouteSet;
  readonly router: Router;
  /** What is told of its requests. */
  readonly telemetry: ServiceTelemetry;
  /** Its port is declared for clients that may speak gRPC-Web. */
  readonly takesGrpcWeb: boolean;
  readonly access: AccessSet;
  /** Some policy tells methods apart: another way to say the method is a way around it. */
  readonly methodsMatter: boolean;
  /** Empty when no tokens are looked at. */
  readonly tokenRules: readonly BoundRule[];
}

export class ServiceViews {
  readonly #directory: ServiceDirectory;
  readonly #l7: L7Store;
  readonly #waypoint: NamespacedName;
  readonly #compile: (effective: EffectiveTelemetry) => ServiceTelemetry;
  readonly #views = new Map<string, ServiceView>();
  #epoch = 1;

  /**
   * @param waypoint `namespace/name` of the Gateway that this process is.
   * @param compile for the same telemetry the same object.
   */
  constructor(directory: ServiceDirectory, l7: L7Store, waypoint: NamespacedName, compile: (effective: EffectiveTelemetry) => ServiceTelemetry) {
    this.#directory = directory;
    this.#l7 = l7;
    this.#waypoint = waypoint;
    this.#compile = compile;
  }

  /** The stores were changed: every view is made anew when it is next asked for. */
  changed(): void {
    this.#epoch++;
    this.#views.clear();
  }

  of(client: Client): ServiceView {
    const { view } = client;
    if (view !== null && view.epoch === this.#epoch) return view;
    return (client.view = this.#find(client));
  }

  #find({ destination, source }: Client): ServiceView {
    const key = `${destination.service}:${destination.port}/${source.namespace ?? ""}`;
    const known = this.#views.get(key);
    if (known !== undefined) return known;
    const access = this.#l7.access(destination.service, this.#waypoint);
    const service = this.#directory.find(destination.service)?.service ?? null;
    const routes = this.#l7.routes(destination.service, destination.port, source.namespace);
    const view: ServiceView = {
      epoch: this.#epoch,
      service,
      toldService: isWorkloadDestination(destination.service) ? null : service,
      takesGrpcWeb: service !== null && declaresGrpcWeb(service, destination.port),
      routes,
      router: routerOf(routes),
      telemetry: this.#compile(this.#l7.telemetry(destination.service, this.#waypoint)),
      access,
      methodsMatter: looksAtMethods(access),
      tokenRules: bindRules(access.authentications),
    };
    this.#views.set(key, view);
    return view;
  }
}
