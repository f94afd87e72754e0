// What one client is told, and in which order.

import { describe, expect, test } from "bun:test";
import { namespacedName } from "../../core/brand.ts";
import { seededRandom } from "../../core/ports.ts";
import { atOnce } from "../../core/steps.ts";
import { evaluate } from "../../resources/test-kit.ts";
import { ip, member, policy, RandomMesh, service, uid, workload } from "../../../test/kit/mesh-records.ts";
import { ModelClient, PublishedMesh } from "../../../test/kit/published-mesh.ts";
import { L7_CODECS } from "../l7/kinds.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, readAddress } from "../resource.ts";
import type { ClientView } from "../serving.ts";
import { NAME_CHARS_MAX, NAMES_MAX, Session, UNKNOWN_TYPES_MAX } from "./session.ts";
import { World } from "./world.ts";

const A = "Kubernetes//Pod/shop/a";
const B = "Kubernetes//Pod/shop/b";
const WEB = "shop/web.shop.svc.cluster.local";
const NODE: ClientView = { kind: "node", node: "node-1" };

function begin(view: ClientView = NODE): { mesh: PublishedMesh; world: World; client: (from?: ModelClient) => ModelClient; session: Session } {
  const world = new World((message) => {
    throw new Error(message);
  });
  let session = new Session(world, view, () => 7);
  return {
    mesh: new PublishedMesh(), world, session,
    client: (from) => {
      const model = new ModelClient(session, from?.held ?? new Map());
      session = new Session(world, view, () => 7);
      return model;
    },
  };
}

describe("a client of everything", () => {
  test("waits for the first state, and gets an empty answer where there is nothing", () => {
    const { mesh, world, client } = begin();
    const model = client();
    model.subscribe(ADDRESS_TYPE);
    model.subscribe(AUTHORIZATION_TYPE);
    expect(model.take()).toBeNull();
    world.publish(mesh.change({ workloads: [workload({ name: "a" })] }));
    expect(model.takeAll()).toEqual(["Authorization", `Address +${A}`]);
  });

  test("is told of what changed alone, and of what is gone last", () => {
    const { mesh, world, client } = begin();
    const model = client();
    model.subscribe(ADDRESS_TYPE);
    model.subscribe(AUTHORIZATION_TYPE);
    world.publish(mesh.change({ workloads: [workload({ name: "a" }), workload({ name: "b" })], services: [service({ name: "web" })], policies: [policy({ name: "p" })] }));
    expect(model.takeAll()).toEqual(["Authorization +shop/p", `Address +${A},${B},${WEB}`]);
    world.publish(mesh.change({ workloads: [workload({ name: "a", capacity: 2 })], policies: [policy({ name: "q" })], removedWorkloads: [uid(B)], removedPolicies: [namespacedName("shop", "p")] }));
    expect(model.takeAll()).toEqual(["Authorization +shop/q", `Address +${A}`, `Address -${B}`, "Authorization -shop/p"]);
    expect(model.takeAll()).toEqual([]);
  });

  test("is told nothing of a record that is what it was", () => {
    const { mesh, world, client } = begin();
    const model = client();
    model.subscribe(ADDRESS_TYPE);
    world.publish(mesh.change({ workloads: [workload({ name: "a" })] }));
    model.takeAll();
    const same = workload({ name: "a" });
    world.publish(mesh.change({ workloads: [{ ...same, provenance: { ...same.provenance, resourceVersion: "2" } }] }));
    expect(model.takeAll()).toEqual([]);
  });

  test("that comes back is told of the difference alone, removals too", () => {
    const { mesh, world, client } = begin();
    const first = client();
    first.subscribe(ADDRESS_TYPE);
    world.publish(mesh.change({ workloads: [workload({ name: "a" }), workload({ name: "b" })], services: [service({ name: "web" })] }));
    first.takeAll();
    world.publish(mesh.change({ workloads: [workload({ name: "a", capacity: 3 })], removedWorkloads: [uid(B)] }));
    atOnce(world.addresses.forgetRemoved(world.state));
    const again = client(first);
    again.subscribe(ADDRESS_TYPE);
    expect(again.takeAll()).toEqual([`Address +${A}`, `Address -${B}`]);
    const third = client(again);
    third.subscribe(ADDRESS_TYPE);
    expect(third.takeAll()).toEqual(["Address"]);
  });

  test("is told whole states alone, at whatever step of publishing one it asks", () => {
    const { mesh, world, client } = begin();
    const model = client();
    model.subscribe(ADDRESS_TYPE);
    const names = Array.from({ length: 200 }, (_, i) => `w${i}`);
    const publish = (delta: Parameters<typeof mesh.change>[0]): string[] => {
      const told: string[] = [];
      const steps = world.publishing(mesh.change(delta));
      do told.push(...[model.take()].filter((one) => one !== null)); while (steps.next().done !== true);
      return [...told, "published", ...model.takeAll()].map((one) => one.replaceAll(/[^+-]+(,[^,+-]+)+/g, (list) => `${list.split(",").length}`));
    };
    expect(publish({ workloads: names.map((name) => workload({ name })) })).toEqual(["published", "Address +200"]);
    expect(publish({ workloads: names.map((name) => workload({ name, capacity: 2 })), services: [service({ name: "web" })], removedWorkloads: [] })).toEqual(["published", "Address +201"]);
    expect(publish({ removedWorkloads: names.map((name) => uid(`Kubernetes//Pod/shop/${name}`)) })).toEqual(["published", "Address -200"]);
    // By name too, for which what is asked for is found as it is.
    const byName = client();
    byName.subscribe(ADDRESS_TYPE, { subscribe: [WEB], unsubscribe: ["*"] });
    const states: (string | null)[] = [];
    const steps = world.publishing(mesh.change({ workloads: names.map((name) => workload({ name, services: member({ [WEB]: { 80: 8080 } }) })), services: [service({ name: "web", vips: ["198.19.0.9"] })] }));
    do states.push(byName.take()); while (steps.next().done !== true);
    expect([...states, ...byName.takeAll()].filter((one) => one !== null).map((one) => one.split(",").length)).toEqual([1, 201]);
  });

  test("that confirms late is told what there is by then, once", () => {
    const { mesh, world, session } = begin();
    const model = new ModelClient(session);
    model.subscribe(ADDRESS_TYPE);
    world.publish(mesh.change({ workloads: [workload({ name: "a" })] }));
    const outgoing = session.next()!;
    for (let capacity = 2; capacity < 100; capacity++) world.publish(mesh.change({ workloads: [workload({ name: "a", capacity }), workload({ name: `gone-${capacity}` })] }));
    for (let capacity = 2; capacity < 100; capacity++) world.publish(mesh.change({ removedWorkloads: [uid(`Kubernetes//Pod/shop/gone-${capacity}`)] }));
    expect(session.next()).toBeNull();
    model.answer(outgoing, "ack");
    const told = model.takeAll();
    expect(told[0]).toBe(`Address +${A}`);
    expect(told.length).toBe(2);
  });

  test("that refuses is noted, with its reason, until it takes something", () => {
    const { mesh, world, session } = begin();
    const model = new ModelClient(session);
    model.subscribe(ADDRESS_TYPE);
    world.publish(mesh.change({ workloads: [workload({ name: "a" })] }));
    model.take({ reject: `${A}: tunnel_protocol` });
    expect(session.types).toEqual([{ typeUrl: ADDRESS_TYPE, subscription: "everything", sentState: 1, ackedState: 0, resourceCount: 1, rejected: { message: `${A}: tunnel_protocol`, state: 1, atMs: 7 } }]);
    expect(model.take()).toBeNull();
    world.publish(mesh.change({ workloads: [workload({ name: "a", capacity: 2 })] }));
    model.takeAll();
    expect(session.types[0]).toMatchObject({ ackedState: 2, rejected: null });
  });

  test("gets an answer for a name on top, known or not", () => {
    const { mesh, world, client } = begin();
    const model = client();
    model.subscribe(ADDRESS_TYPE);
    world.publish(mesh.change({ workloads: [workload({ name: "a" })] }));
    model.takeAll();
    model.ask(ADDRESS_TYPE, [A, "shop/nowhere"]);
    expect(model.takeAll()).toEqual([`Address +${A}`, "Address -shop/nowhere"]);
  });

  test("ends up with exactly what there is, whatever happens between (300 random histories)", () => {
    for (let seed = 0; seed < 300; seed++) {
      const random = new RandomMesh(seededRandom(seed));
      const { mesh, world, client } = begin();
      let model = client();
      model.subscribe(ADDRESS_TYPE);
      model.subscribe(AUTHORIZATION_TYPE);
      for (let step = random.below(20); step >= 0; step--) {
        world.publish(mesh.change(random.delta()));
        for (let take = random.below(4); take > 0; take--) model.take();
        if (random.chance(0.1)) {
          atOnce(world.addresses.forgetRemoved(world.state));
          atOnce(world.policies.forgetRemoved(world.state));
          model = client(model);
          model.subscribe(ADDRESS_TYPE);
          model.subscribe(AUTHORIZATION_TYPE);
        }
      }
      model.takeAll();
      const addresses = Object.fromEntries([...world.addresses.all()].map(({ name, version }) => [name, version]));
      expect(Object.fromEntries(model.held.get(ADDRESS_TYPE) ?? []), `seed ${seed}`).toEqual(addresses);
      expect(new Set(model.held.get(AUTHORIZATION_TYPE)?.keys()), `seed ${seed}`).toEqual(new Set(mesh.mesh.policies.keys()));
    }
  });

  test("never has a workload that names a policy it does not have, however slowly it takes what it is told", () => {
    let seen = 0;
    for (let seed = 0; seed < 300; seed++) {
      const random = new RandomMesh(seededRandom(seed));
      const { mesh, world, client } = begin();
      const model = client();
      model.subscribe(ADDRESS_TYPE);
      model.subscribe(AUTHORIZATION_TYPE);
      const named = (n: number): Parameters<PublishedMesh["change"]>[0] => ({
        policies: [policy({ name: `p${n}`, scope: "workload" })], workloads: [workload({ name: "a", authorizationPolicies: [namespacedName("shop", `p${n}`)] })],
        removedPolicies: n === 0 ? [] : [namespacedName("shop", `p${n - 1}`)],
      });
      const check = (): void => {
        const content = model.contents.get(A);
        const read = content === undefined ? null : readAddress(content);
        const names = read?.ok === true && read.value.kind === "workload" ? read.value.workload.authorizationPolicies : [];
        for (const name of names) expect(model.held.get(AUTHORIZATION_TYPE)?.has(name), `seed ${seed}: ${name} of ${A}`).toBe(true);
        seen += names.length;
      };
      world.publish(mesh.change(named(0)));
      model.takeAll();
      for (let n = 1; n < 10; n++) {
        world.publish(mesh.change(named(n)));
        while (random.chance(0.6) && model.take() !== null) check();
      }
      while (model.take() !== null) check();
    }
    expect(seen).toBeGreaterThan(1000);
  });
});

describe("a client that asks", () => {
  const onDemand = (extra: object = {}) => ({ subscribe: ["*"], unsubscribe: ["*"], ...extra });
  const pods = [
    workload({ name: "a", addresses: [ip("198.18.0.1")], services: member({ [WEB]: { 80: 8080 } }) }),
    workload({ name: "b", addresses: [ip("198.18.0.2")], node: "node-2", services: member({ [WEB]: { 80: 8080 } }) }),
    workload({ name: "c", addresses: [ip("198.18.0.3"), ip("2001:db8::3")], node: "node-2" }),
  ];

  test("is told of its own node and of what it asks for: by address, by virtual address, by host name, by uid", () => {
    const { mesh, world, client } = begin();
    world.publish(mesh.change({ workloads: pods, services: [service({ name: "web", vips: ["198.19.0.1"] })] }));
    const model = client();
    model.subscribe(ADDRESS_TYPE, onDemand());
    expect(model.takeAll()).toEqual([`Address +${A}`]);
    model.ask(ADDRESS_TYPE, ["/198.18.0.3"]);
    expect(model.takeAll()).toEqual(["Address +/198.18.0.3,Kubernetes//Pod/shop/c"]);
    model.ask(ADDRESS_TYPE, ["/198.19.0.1"]);
    expect(model.takeAll()).toEqual([`Address +/198.19.0.1,${B},${WEB}`]);
    model.ask(ADDRESS_TYPE, [WEB]);
    expect(model.takeAll()).toEqual([`Address +${WEB}`]);
    model.ask(ADDRESS_TYPE, [B]);
    expect(model.takeAll()).toEqual([`Address +${B}`]);
    // Each address of one workload is a name of its own, in whatever spelling it was asked for.
    model.ask(ADDRESS_TYPE, ["/2001:db8::3", "/2001:0DB8:0::0003"]);
    expect(model.takeAll()).toEqual(["Address +/2001:0DB8:0::0003,/2001:db8::3"]);
  });

  test("is answered when there is no such thing, and told when there is", () => {
    const { mesh, world, client } = begin();
    world.publish(mesh.change({ workloads: pods.slice(0, 1) }));
    const model = client();
    model.subscribe(ADDRESS_TYPE, onDemand());
    model.takeAll();
    model.ask(ADDRESS_TYPE, ["/198.18.0.3", "shop/nowhere", "nonsense"]);
    expect(model.takeAll()).toEqual(["Address -/198.18.0.3,nonsense,shop/nowhere"]);
    world.publish(mesh.change({ workloads: pods }));
    expect(model.takeAll()).toEqual(["Address +/198.18.0.3,Kubernetes//Pod/shop/c"]);
    world.publish(mesh.change({ removedWorkloads: [uid("Kubernetes//Pod/shop/c")] }));
    expect(model.takeAll()).toEqual(["Address -/198.18.0.3,Kubernetes//Pod/shop/c"]);
  });

  test("follows the endpoints of a service it asked for, and what it gave up no more", () => {
    const { mesh, world, client } = begin();
    world.publish(mesh.change({ workloads: pods.slice(0, 1), services: [service({ name: "web" })] }));
    const model = client();
    model.subscribe(ADDRESS_TYPE, onDemand());
    model.ask(ADDRESS_TYPE, [WEB]);
    model.takeAll();
    world.publish(mesh.change({ workloads: pods }));
    expect(model.takeAll()).toEqual([`Address +${B}`]);
    model.ask(ADDRESS_TYPE, [], [WEB]);
    world.publish(mesh.change({ workloads: [{ ...pods[1]!, capacity: 4 }] }));
    expect(model.takeAll()).toEqual([`Address -${B}`]);
  });

  test("that comes back with what it has is told of the difference", () => {
    const { mesh, world, client } = begin();
    world.publish(mesh.change({ workloads: pods }));
    const first = client();
    first.subscribe(ADDRESS_TYPE, onDemand());
    first.ask(ADDRESS_TYPE, ["/198.18.0.3"]);
    first.takeAll();
    world.publish(mesh.change({ workloads: [{ ...pods[2]!, capacity: 4 }] }));
    const again = client(first);
    again.subscribe(ADDRESS_TYPE, onDemand());
    expect(again.takeAll()).toEqual(["Address +/198.18.0.3,Kubernetes//Pod/shop/c"]);
  });

  test("may not ask for more than is kept for it", () => {
    const { world, mesh, client } = begin();
    world.publish(mesh.change({}));
    const model = client();
    expect(model.subscribe(ADDRESS_TYPE, onDemand())).toBeNull();
    expect(model.ask(ADDRESS_TYPE, ["x".repeat(NAME_CHARS_MAX + 1)])?.code).toBe("too_many_names");
    expect(model.ask(ADDRESS_TYPE, Array.from({ length: NAMES_MAX + 1 }, (_, i) => `shop/${i}`))?.code).toBe("too_many_names");
  });
});

describe("a waypoint", () => {
  const of = (namespace: string, secret: string): string => `apiVersion: v1
kind: Namespace
metadata: {name: ${namespace}, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: wp}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: ${namespace}}
spec: {clusterIP: ${secret === "one" ? "198.19.0.1" : "198.19.0.2"}, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: back, namespace: ${namespace}, labels: {istio.io/use-waypoint: none}}
spec: {clusterIP: ${secret === "one" ? "198.19.1.1" : "198.19.1.2"}, selector: {app: back}, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: ${namespace}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: ${namespace}}
spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{backendRefs: [{name: back, port: 80}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: back, namespace: ${namespace}}
spec: {host: back.${namespace}.svc.cluster.local, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 7}}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guard, namespace: ${namespace}}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: wp}], rules: [{to: [{operation: {paths: [/${secret}]}}]}]}
`;

  const world = (): { world: World; told: (gateway: string) => string[] } => {
    const evaluation = evaluate([of("one", "one"), of("two", "two")].join("---\n"));
    expect(evaluation.diagnostics.filter(({ severity }) => severity === "error")).toEqual([]);
    const made = new World((message) => {
      throw new Error(message);
    });
    made.publish(evaluation);
    return {
      world: made,
      told: (gateway) => {
        const model = new ModelClient(new Session(made, { kind: "waypoint", gateway: gateway as never }, () => 0));
        for (const { typeUrl } of Object.values(L7_CODECS)) expect(model.subscribe(typeUrl)).toBeNull();
        return model.takeAll();
      },
    };
  };

  test("is told what holds there and where its routes lead, access before routes", () => {
    expect(world().told("one/wp")).toEqual([
      "RequestPolicy +one/guard", "RequestAuthentication", "LoginPolicy", "TelemetryPolicy", "WorkloadLabels", "TrafficPolicies +one/back.one.svc.cluster.local", "Route +HTTPRoute/one/web", "Waypoint +one/wp",
    ]);
  });

  test("is told nothing of another's, nor of one that is not there", () => {
    expect(world().told("two/wp").join(" ")).not.toContain("one/");
    expect(world().told("three/wp")).toEqual(["RequestPolicy", "RequestAuthentication", "LoginPolicy", "TelemetryPolicy", "WorkloadLabels", "TrafficPolicies", "Route", "Waypoint"]);
  });

  test("a node is refused its types, and anybody a type that is not there", () => {
    const { world: made } = world();
    const node = new ModelClient(new Session(made, NODE, () => 0));
    expect(node.subscribe(L7_CODECS.routes.typeUrl)).toMatchObject({ code: "not_for_nodes" });
    expect(node.subscribe("type.googleapis.com/envoy.config.listener.v3.Listener")).toMatchObject({ code: "unknown_type" });
  });

  test("a type of ours that is not known here is a newer client's: there is none of it, and the others are told", () => {
    const { mesh, world: made, client } = begin();
    const newer = client();
    const typeOf = (n: number): string => `type.googleapis.com/weft.l8.v1.Kind${n}`;
    expect([newer.subscribe(typeOf(0)), newer.subscribe(ADDRESS_TYPE)]).toEqual([null, null]);
    made.publish(mesh.change({ workloads: [workload({ name: "a" })] }));
    expect(newer.takeAll()).toEqual([`Address +${A}`, "Kind0"]);
    made.publish(mesh.change({ removedWorkloads: [uid(A)] }));
    expect(newer.takeAll()).toEqual([`Address -${A}`]);
    for (let n = 1; n < UNKNOWN_TYPES_MAX; n++) expect(newer.subscribe(typeOf(n))).toBeNull();
    expect(newer.subscribe(typeOf(UNKNOWN_TYPES_MAX))).toMatchObject({ code: "unknown_type" });
  });

  test("hears of changes of its own, and of nobody else's", () => {
    const made = new World((message) => {
      throw new Error(message);
    });
    const mesh = new PublishedMesh();
    const { mesh: records, l7 } = evaluate([of("one", "one"), of("two", "two")].join("---\n"));
    made.publish(mesh.change({ services: [...records.services.values()] }, l7));
    const model = new ModelClient(new Session(made, { kind: "waypoint", gateway: namespacedName("one", "wp") }, () => 0));
    model.subscribe(L7_CODECS.routes.typeUrl);
    model.takeAll();
    const [mine, theirs] = ["HTTPRoute/one/web", "HTTPRoute/two/web"].map((id) => l7.routes.get(id)!);
    made.publish(mesh.change({}, { routes: new Map([[mine!.id, mine!]]) }));
    expect(model.takeAll()).toEqual([]);
    made.publish(mesh.change({}, { routes: new Map([[theirs!.id, theirs!]]) }));
    expect(model.takeAll()).toEqual([`Route -${mine!.id}`]);
    made.publish(mesh.change({}, { routes: new Map([[mine!.id, mine!]]) }));
    const [web] = [...records.services.values()].filter(({ hostname }) => hostname === "web.one.svc.cluster.local");
    expect(model.takeAll()).toEqual([`Route +${mine!.id}`]);
    made.publish(mesh.change({ services: [{ ...web!, waypoints: [] }] }));
    expect(model.takeAll()).toEqual([`Route -${mine!.id}`]);
  });
});
