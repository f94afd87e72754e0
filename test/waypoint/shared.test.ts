// One waypoint for several namespaces, in a namespace of its own: whom it takes, whose routes hold for whom, and whose policies.
//
//   infra: the waypoint    shop: the service web (v1, v2)    team, guest: clients    team: a service of its own (v3)

import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type AccessFields, documents, entryYaml, Mesh, namespaceYaml, serve } from "../kit/mesh.ts";
import { unsealed } from "../kit/box.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { describeUnless, firstReason, needsProgram } from "../kit/skip.ts";
import { until } from "../kit/until.ts";

setDefaultTimeout(60_000);

const [WEB, V1, V2, V3, GUARDED, OWN] = ["198.18.250.20", "198.18.250.21", "198.18.250.22", "198.18.250.23", "198.18.250.24", "198.18.250.25"];
const IN_FORCE_MS = 15_000;
const USES = { "istio.io/use-waypoint": "wp", "istio.io/use-waypoint-namespace": "infra" };

const object = (apiVersion: string, kind: string, namespace: string, name: string, spec: object, labels: object = {}): string => JSON.stringify({ apiVersion, kind, metadata: { name, namespace, labels }, spec });
const service = (namespace: string, name: string, vip: string, selector: object, labels: object = {}): string =>
  object("v1", "Service", namespace, name, { clusterIP: vip, selector, ports: [{ name: "http", port: 80, targetPort: 8080 }] }, labels);
const gateway = (namespaces: object): string =>
  object("gateway.networking.k8s.io/v1", "Gateway", "infra", "wp", { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE", allowedRoutes: { namespaces } }] });
const route = (namespace: string, name: string, rules: readonly object[]): string =>
  object("gateway.networking.k8s.io/v1", "HTTPRoute", namespace, name, { parentRefs: [{ group: "", kind: "Service", namespace: "shop", name: "web", port: 80 }], rules });
const policy = (namespace: string, name: string, spec: object): string => object("security.istio.io/v1", "AuthorizationPolicy", namespace, name, spec);
const grant = (namespace: string, service: string): string =>
  object("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", "shop", `for-${namespace}`, { from: [{ group: "gateway.networking.k8s.io", kind: "HTTPRoute", namespace }], to: [{ group: "", kind: "Service", name: service }] });
const toService = (name: string, namespace?: string): object => ({ name, port: 80, ...(namespace === undefined ? {} : { namespace }) });
const prefix = (value: string): object => ({ path: { type: "PathPrefix", value } });

describeUnless(firstReason(unsealed, needsProgram("curl")))("a waypoint that several namespaces share", () => {
  let network: MeshNetwork;
  let mesh: Mesh;
  let east: Node;
  let west: Node;
  const clients = {} as Record<"team" | "guest", Workload>;

  /** Status, reason and the server that answered, e.g. `200 v1`, `403 access_denied`. */
  async function get(from: "team" | "guest", path = "/", host: string = WEB): Promise<string> {
    const { stdout } = await clients[from].run(["curl", "-sS", "--max-time", "5", "-w", "\n%{http_code} %header{x-weft-reason}", `http://${host}${path}`]);
    const [body = "", status = ""] = [stdout.slice(0, stdout.lastIndexOf("\n")), stdout.slice(stdout.lastIndexOf("\n") + 1)];
    return status.startsWith("200") ? `200 ${body.split(" ")[0]}` : status.trim();
  }
  const gets = (from: "team" | "guest", path: string, wanted: string, host: string = WEB): Promise<string> => {
    let last = "";
    return until(() => `${from} to get ${wanted} from ${path}, not ${last}; ${mesh.agent(east).log.slice(-3000)}`, IN_FORCE_MS, async () => {
      last = await get(from, path, host);
      return last === wanted;
    }).then(() => wanted);
  };
  const requests = (): AccessFields[] => mesh.agent(east).requestsSoFar();
  const files = new Set<string>();
  const write = (name: string, ...yaml: readonly string[]): void => {
    files.add(name);
    mesh.write(name, documents(...yaml));
  };

  beforeAll(async () => {
    network = MeshNetwork.create();
    [east, west] = [network.node("east"), network.node("west")];
    const [waypoint, v1, v2, v3] = [east.workload("waypoint"), east.workload("v1"), west.workload("v2"), west.workload("v3")];
    clients.team = east.workload("team-client");
    clients.guest = west.workload("guest-client");
    mesh = Mesh.create({ nodes: [east, west] });
    await Promise.all([v1, v2, v3].map((place) => serve(place, "http", 8080, place.name)));
    mesh.write("base.yaml", documents(
      ...["infra", "shop", "team", "guest", "istio-system"].map((name) => namespaceYaml(name, true)),
      entryYaml(waypoint, { namespace: "infra", labels: { "networking.istio.io/tunnel": "http", "gateway.networking.k8s.io/gateway-name": "wp" } }),
      ...[v1, v2].map((place) => entryYaml(place, { labels: { role: "web" } })), entryYaml(v3, { namespace: "team" }),
      entryYaml(clients.team, { namespace: "team" }), entryYaml(clients.guest, { namespace: "guest" }),
      service("shop", "web", WEB, { role: "web" }, USES), service("shop", "v1", V1, { app: "v1" }), service("shop", "v2", V2, { app: "v2" }), service("shop", "guarded", GUARDED, { app: "v2" }, USES), service("guest", "own", OWN, { app: "nobody" }, USES), service("team", "v3", V3, { app: "v3" }),
    ));
    mesh.write("gateway.yaml", gateway({ from: "Selector", selector: { matchLabels: { "istio.io/dataplane-mode": "ambient" } } }));
    await mesh.start();
    await mesh.agent(east).logged(/the waypoint infra\/wp as .* serves/);
    await until("an answer through it", IN_FORCE_MS, async () => /^200 v[12]$/.test(await get("guest")) && requests().some(({ cluster }) => cluster === "shop/web.shop.svc.cluster.local:80"));
  });

  afterEach(() => {
    for (const name of files) mesh.remove(name);
    files.clear();
  });

  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
    await network?.[Symbol.asyncDispose]();
  });

  test("it knows callers of every namespace, and a namespace that it does not take is not served around it", async () => {
    await until("a line of each client", IN_FORCE_MS, async () => {
      await Promise.all([get("team"), get("guest")]);
      const seen = new Set(requests().map((line) => line["src.identity"]));
      return ["team/sa/team-client", "guest/sa/guest-client"].every((name) => seen.has(`spiffe://cluster.local/ns/${name}`));
    });
    try {
      mesh.write("gateway.yaml", gateway({ from: "Same" }));
      await gets("guest", "/", "000");
      for (let i = 0; i < 5; i++) expect(await get("guest", "/around")).toBe("000");
    } finally {
      mesh.write("gateway.yaml", gateway({ from: "All" }));
    }
    const { log } = await until("it is served again, and its line", IN_FORCE_MS, async () => {
      const agent = mesh.agent(east);
      return /^200 v[12]$/.test(await get("guest", "/again")) && agent.log.includes('"GET /again ') ? agent : null;
    });
    // Lines stand in the order of the requests.
    expect(log).not.toContain('"GET /around ');
  });

  describe("routes", () => {
    test("a route beside the service holds for everybody; one of another namespace for callers from there alone, whom the first one does not reach", async () => {
      write("producer.yaml", route("shop", "web", [{ matches: [prefix("/v2")], backendRefs: [toService("v2")] }, { backendRefs: [toService("v1")] }]));
      await Promise.all([gets("team", "/", "200 v1"), gets("guest", "/", "200 v1"), gets("guest", "/v2", "200 v2")]);
      write("consumer.yaml", route("team", "mine", [{ matches: [prefix("/mine")], backendRefs: [toService("v3")] }]));
      await gets("team", "/mine", "200 v3");
      expect(await get("guest", "/mine")).toBe("200 v1");
      // What its own route does not match is not the producer's to answer for it.
      expect(await get("team", "/v2")).toBe("404 route_not_found");
      expect(await get("guest", "/v2")).toBe("200 v2");
      const line = await until("its line", IN_FORCE_MS, () => requests().find(({ path, cluster }) => path === "/mine" && cluster === "team/v3.team.svc.cluster.local:80"));
      expect(line).toMatchObject({ status: "200", "src.identity": "spiffe://cluster.local/ns/team/sa/team-client" });
      mesh.remove("consumer.yaml");
      await gets("team", "/v2", "200 v2");
    });

    test("a consumer's route may send to the service itself, and to others of its namespace that grant it", async () => {
      write("consumer.yaml", route("team", "theirs", [{ matches: [prefix("/v2")], backendRefs: [toService("v2", "shop")] }, { backendRefs: [toService("web", "shop")], filters: [{ type: "ResponseHeaderModifier", responseHeaderModifier: { set: [{ name: "x-weft-reason", value: "mine" }] } }] }]));
      await gets("team", "/v2", "500 backend_invalid");
      expect(await get("team")).toMatch(/^200 v[12]$/);
      write("grant.yaml", grant("team", "v2"));
      await gets("team", "/v2", "200 v2");
    });

    test("no route leads past the policies of a service that the same waypoint guards, unless its owner grants it", async () => {
      const judged = documents(
        policy("shop", "only-shop", { targetRefs: [{ group: "", kind: "Service", name: "guarded" }], action: "ALLOW", rules: [{ from: [{ source: { namespaces: ["shop"] } }] }] }),
        // Its endpoints trust the waypoint, which has judged who may.
        policy("shop", "only-waypoint", { selector: { matchLabels: { app: "v2" } }, action: "ALLOW", rules: [{ from: [{ source: { principals: ["cluster.local/ns/infra/sa/waypoint"] } }] }] }));
      write("judged.yaml", judged);
      await gets("guest", "/", "403 access_not_allowed", GUARDED);
      const viaOwn = (spec: object): string => object("gateway.networking.k8s.io/v1", "HTTPRoute", "guest", "via-own", { parentRefs: [{ group: "", kind: "Service", name: "own", port: 80 }], ...spec });
      write("attack.yaml", viaOwn({ rules: [{ backendRefs: [toService("guarded", "shop")] }] }));
      await gets("guest", "/", "500 backend_invalid", OWN);
      // Nor to the same pods by a service that stands before no waypoint: they trust it.
      write("attack.yaml", viaOwn({ rules: [{ matches: [prefix("/pods")], backendRefs: [toService("v2", "shop")] }] }));
      await gets("guest", "/pods", "500 backend_invalid", OWN);
      // Nor beside the service that is meant, as the second of its parents.
      write("attack.yaml", viaOwn({ parentRefs: [{ group: "", kind: "Service", name: "own", port: 80 }, { group: "", kind: "Service", name: "guarded", namespace: "shop", port: 80 }], rules: [{ matches: [prefix("/both")], backendRefs: [toService("guarded", "shop")] }] }));
      await gets("guest", "/both", "500 backend_invalid", OWN);
      // Nor by Istio's kind of route.
      write("attack.yaml", object("networking.istio.io/v1", "VirtualService", "guest", "via-own", { hosts: ["own.guest.svc.cluster.local"], http: [{ route: [{ destination: { host: "guarded.shop.svc.cluster.local", port: { number: 80 } } }] }] }));
      await gets("guest", "/", "500 backend_invalid", OWN);
      // Nor as a copy: the request itself goes where it may.
      write("attack.yaml", viaOwn({ rules: [{ backendRefs: [toService("v3", "team")], filters: [{ type: "RequestMirror", requestMirror: { backendRef: toService("guarded", "shop") } }] }] }));
      await gets("guest", "/copied", "200 v3", OWN);
      expect((await mesh.agent(east).admin("GET", "/config_dump")).includes('"kind":"mirror"')).toBe(false);
      write("attack.yaml", viaOwn({ rules: [{ backendRefs: [toService("guarded", "shop")] }] }));
      write("grant.yaml", grant("guest", "guarded"));
      await gets("guest", "/", "200 v2", OWN);
    });

    test("a route of a third namespace changes nothing for anybody who is not there", async () => {
      write("guest.yaml", route("guest", "mine", [{ filters: [{ type: "RequestRedirect", requestRedirect: { hostname: "elsewhere.example" } }] }]));
      await gets("guest", "/", "302 redirect");
      expect(await get("team")).toMatch(/^200 v[12]$/);
    });
  });

  describe("policies", () => {
    const denies = (paths: readonly string[]): object => ({ action: "DENY", rules: [{ to: [{ operation: { paths } }] }] });
    const onService = { group: "", kind: "Service", name: "web" };
    const onGateway = { group: "gateway.networking.k8s.io", kind: "Gateway", name: "wp" };

    test("the service's namespace says who may use the service, by the caller's own identity", async () => {
      write("service.yaml", policy("shop", "team-only", { targetRefs: [onService], action: "ALLOW", rules: [{ from: [{ source: { namespaces: ["team"] } }] }] }));
      await gets("guest", "/", "403 access_not_allowed");
      expect(await get("team")).toMatch(/^200 v[12]$/);
      // Another service behind nobody is not touched by it.
      expect(await get("guest", "/", V1)).toBe("200 v1");
    });

    test("the waypoint's namespace says what may pass it, of all services behind it", async () => {
      write("gateway-policy.yaml", policy("infra", "no-admin", { targetRefs: [onGateway], ...denies(["/admin*"]) }));
      await Promise.all([gets("team", "/admin/1", "403 access_denied"), gets("guest", "/admin/1", "403 access_denied")]);
      expect(await get("guest")).toMatch(/^200 v[12]$/);
    });

    test("the root namespace says so of every waypoint of a class", async () => {
      write("class-policy.yaml", policy("istio-system", "no-root", { targetRefs: [{ group: "gateway.networking.k8s.io", kind: "GatewayClass", name: "weft-waypoint" }], ...denies(["/root*"]) }));
      await gets("guest", "/root", "403 access_denied");
      expect(await get("team", "/")).toMatch(/^200 v[12]$/);
    });

    test("nobody else says anything: a policy that names another namespace's Service or Gateway is not in force, and said to be not", async () => {
      const from = mesh.agent(east).mark();
      write("foreign.yaml",
        policy("guest", "their-service", { targetRefs: [{ ...onService, namespace: "shop" }], ...denies(["/*"]) }), policy("guest", "same-name", { targetRefs: [onService], ...denies(["/*"]) }),
        policy("shop", "their-gateway", { targetRefs: [{ ...onGateway, namespace: "infra" }], ...denies(["/*"]) }), policy("guest", "class", { targetRefs: [{ group: "gateway.networking.k8s.io", kind: "GatewayClass", name: "weft-waypoint" }], ...denies(["/*"]) }),
        // In force as the last of them: then the others have been looked at.
        policy("infra", "mark", { targetRefs: [onGateway], ...denies(["/mark"]) }));
      await gets("guest", "/mark", "403 access_denied");
      expect([await get("guest"), await get("team")]).toEqual([expect.stringMatching(/^200 v[12]$/), expect.stringMatching(/^200 v[12]$/)]);
      for (const name of ["guest/their-service", "guest/same-name", "shop/their-gateway", "guest/class"]) await mesh.agent(east).logged(new RegExp(`AuthorizationPolicy ${name}.*(not enforced there|expected a target of its own namespace)`), from);
    });

    test("a deny of either side holds against an allow of the other", async () => {
      write("both.yaml", policy("shop", "all", { targetRefs: [onService], action: "ALLOW", rules: [{}] }), policy("infra", "no-guest", { targetRefs: [onGateway], action: "DENY", rules: [{ from: [{ source: { namespaces: ["guest"] } }] }] }));
      await gets("guest", "/", "403 access_denied");
      expect(await get("team")).toMatch(/^200 v[12]$/);
    });
  });
});
