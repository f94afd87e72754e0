// The replica that writes is killed in the middle of a burst of changes, while another controller writes statuses of the same routes: in the
// end every status is right, nobody's entries are lost, and every agent has what there is and was told again of nothing else.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { MERGE_PATCH } from "../../src/runtime/kubernetes/api.ts";
import { Relay } from "../kit/relay.ts";
import { describeUnless } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import { XdsAgent } from "../kit/xds-agent.ts";
import { type ApiServer, apply, installDefinitions, type KubeObject, needsKubernetes, pathOf, remove, startApiServer } from "./api-server.ts";
import { CONTROL_NAMESPACE, type ControlRole, startControl } from "./control-role.ts";
import { SHOWS_MS } from "./eventually.ts";
import { namespace, node, pod, service, serviceAccount, tokenFor } from "./objects.ts";

const ROUTES = 60;
const PODS = 120;
/** Pods that change in the burst; the others are what a client that comes back must not be told again. */
const CHANGED_PODS = 30;
const AGENTS = 8;
/** Of the other controller, each with routes of its own. */
const WRITERS = 4;
/** The Lease is another's after 15 s, then 60 statuses are written. */
const TAKEN_OVER_MS = 90_000;
const OURS = "weft.dev/waypoint";
const THEIRS = "example.com/ingress";

interface Entry {
  readonly controllerName: string;
  readonly conditions: readonly { readonly type: string; readonly status: string; readonly reason: string; readonly observedGeneration: number; readonly message: string }[];
}
interface Route extends KubeObject {
  readonly metadata: KubeObject["metadata"] & { readonly generation: number; readonly resourceVersion: string };
  readonly status?: { readonly parents?: readonly Entry[] };
}

/** Of an even number to a backend that is there, of an odd number to nobody; `round` is what changes. */
const route = (n: number, round: number): KubeObject => ({
  apiVersion: "gateway.networking.k8s.io/v1", kind: "HTTPRoute", metadata: { name: `route-${n}`, namespace: "shop" },
  spec: {
    parentRefs: [{ group: "gateway.networking.k8s.io", kind: "Gateway", name: "ingress" }, { group: "", kind: "Service", name: "web", port: 80 }],
    rules: [{ matches: [{ path: { type: "PathPrefix", value: `/${round}` } }], backendRefs: [{ name: (n + round) % 2 === 0 ? "web" : "nobody", port: 80 }] }],
  },
});
const web = (n: number, round = 0): KubeObject => pod(`web-${n}`, "shop", { labels: { app: "web", version: `v${round}` }, node: "node1", ip: `198.18.${1 + Math.floor(n / 200)}.${1 + (n % 200)}`, ports: [{ name: "http", containerPort: 8080 }] });

describeUnless(needsKubernetes)("the replica that writes, killed in the middle of a burst", () => {
  let server: ApiServer;
  let relay: Relay;
  const replicas: ControlRole[] = [];
  const agents: XdsAgent[] = [];

  const lease = async (): Promise<string> => {
    const answer = await server.client.request({ method: "GET", path: `/apis/coordination.k8s.io/v1/namespaces/${CONTROL_NAMESPACE}/leases/weft-control` });
    return answer.ok ? ((answer.value as { spec: { holderIdentity?: string } }).spec.holderIdentity ?? "") : "";
  };
  const read = async (n: number): Promise<Route> => {
    const answer = await server.client.request({ method: "GET", path: pathOf(route(n, 0)) });
    if (!answer.ok) throw new Error(answer.error.message);
    return answer.value as Route;
  };
  /** As another controller does it: its own entry new, all others as they were read, and only if nobody wrote in between. @returns what its entry said before; "" for none. */
  const writeTheirs = async (n: number, message: string): Promise<string> => {
    let found = "";
    await until(`${THEIRS} writes its entry of route ${n}`, SHOWS_MS, async () => {
      const { metadata: { resourceVersion, generation }, status } = await read(n);
      const entry = { parentRef: { group: "gateway.networking.k8s.io", kind: "Gateway", name: "ingress" }, controllerName: THEIRS, conditions: [{ type: "Accepted", status: "True", reason: "Accepted", message, observedGeneration: generation, lastTransitionTime: "2026-01-01T00:00:00Z" }] };
      found = (status?.parents ?? []).find(({ controllerName }) => controllerName === THEIRS)?.conditions[0]?.message ?? "";
      const parents = [...(status?.parents ?? []).filter(({ controllerName }) => controllerName !== THEIRS), entry];
      const answer = await server.client.request({ method: "PATCH", path: `${pathOf(route(n, 0))}/status`, contentType: MERGE_PATCH, body: { metadata: { resourceVersion }, status: { parents } } });
      if (!answer.ok && answer.error.code !== "api_conflict") throw new Error(answer.error.message);
      return answer.ok;
    });
    return found;
  };
  const wrongStatuses = async (round: number): Promise<string[]> => {
    const wrong: string[] = [];
    for (let n = 0; n < ROUTES; n++) {
      const { metadata: { generation }, status } = await read(n);
      const ours = (status?.parents ?? []).filter(({ controllerName }) => controllerName === OURS);
      const said = ours[0]?.conditions.map(({ type, status: is, reason, observedGeneration }) => `${type} ${is} ${reason} ${observedGeneration}`) ?? [];
      const resolved = (n + round) % 2 === 0 ? "True ResolvedRefs" : "False BackendNotFound";
      for (const wanted of [`Accepted True Accepted ${generation}`, `ResolvedRefs ${resolved} ${generation}`]) if (ours.length !== 1 || !said.includes(wanted)) wrong.push(`route-${n}: ${said.join(", ")}; wanted ${wanted}`);
    }
    return wrong;
  };

  beforeAll(async () => {
    server = await startApiServer();
    await installDefinitions(server.client);
    await apply(server.client, namespace(CONTROL_NAMESPACE), namespace("shop"), node("node1"), serviceAccount("ztunnel", CONTROL_NAMESPACE),
      pod("ztunnel-1", CONTROL_NAMESPACE, { labels: { app: "ztunnel" }, node: "node1", ip: "198.18.0.9", serviceAccount: "ztunnel" }),
      service("web", "shop", { clusterIP: "198.19.0.80", selector: { app: "web" }, ports: [{ name: "http", port: 80, targetPort: "http" }] }));
    for (let n = 0; n < PODS; n++) await apply(server.client, web(n));
    for (let n = 0; n < ROUTES; n++) await apply(server.client, route(n, 0));
    replicas.push(startControl(server, "control-1", [], "info"), startControl(server, "control-2", [], "info"));
    await Promise.all(replicas.map((replica) => replica.ready()));
    const rootsPem = await until("the roots", SHOWS_MS, async () => {
      const answer = await server.client.request({ method: "GET", path: `/api/v1/namespaces/${CONTROL_NAMESPACE}/configmaps/istio-ca-root-cert` });
      return answer.ok ? (answer.value as { data: Record<string, string> }).data["root-cert.pem"] : null;
    });
    const token = await tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "istio-ca", pod: "ztunnel-1" });
    relay = await Relay.to(replicas[0]!.port);
    for (let n = 0; n < AGENTS; n++) agents.push(new XdsAgent({ port: relay.port, serverName: `istiod.${CONTROL_NAMESPACE}.svc`, rootsPem, token, node: "node1" }));
  }, 300_000);

  afterAll(async () => {
    await Promise.all(agents.map((agent) => agent[Symbol.asyncDispose]()));
    await relay?.[Symbol.asyncDispose]();
    await Promise.all(replicas.map((replica) => replica.kill()));
    await server?.stop();
  });

  /** Sends every agent to another replica; each has then been told on a stream of its own. */
  async function allMoveTo(replica: ControlRole): Promise<void> {
    const before = agents.map(({ streams }) => streams.length);
    relay.target = replica.port;
    relay.cut();
    await until(`every agent is told by ${replica.name}`, SHOWS_MS, () => agents.every((agent, at) => agent.isTold(before[at]! + 1)));
  }

  test("statuses are right, other controllers' entries are there, and agents are told the difference alone", async () => {
    const leader = await until("somebody writes", SHOWS_MS, async () => replicas.find(({ name }) => name === holder) ?? ((holder = await lease()), null));
    const [other] = replicas.filter((replica) => replica !== leader);
    await allMoveTo(leader);
    await until("every status of before is right", SHOWS_MS, async () => (await wrongStatuses(0)).length === 0);
    const held = agents[0]!.versions;
    expect(held.size).toBeGreaterThan(PODS);

    // The burst: every route is another, a third of the pods too, and the other controller writes all the while.
    const half = Promise.withResolvers<void>();
    const burst = (async () => {
      for (let n = 0; n < ROUTES; n++) {
        await apply(server.client, route(n, 1));
        if (n < CHANGED_PODS) await apply(server.client, web(n, 1));
        if (n === ROUTES / 2) half.resolve();
      }
      await remove(server.client, web(PODS - 1));
    })();
    const written = new Map<number, string>();
    const enough = new AbortController();
    const lost: string[] = [];
    const theirs = Promise.all(Array.from({ length: WRITERS }, async (_, writer) => {
      for (let round = 1; !enough.signal.aborted; round++) {
        for (let n = writer; n < ROUTES; n += WRITERS) {
          const found = await writeTheirs(n, `round ${round}`);
          if (found !== (written.get(n) ?? "")) lost.push(`route-${n}: ${written.get(n)} was ${found === "" ? "taken away" : found}`);
          written.set(n, `round ${round}`);
        }
      }
    }));
    await Promise.race([half.promise, burst, theirs.then(() => half.promise)]);
    const streams = agents.map((agent) => agent.streams.length);
    relay.target = other!.port;
    await leader.kill();
    await Promise.race([burst, theirs.then(() => burst)]);

    // xDS does not wait for the Lease: the other replica has told everything before it writes anything.
    await until("every agent has what there is", SHOWS_MS, () => agents.every((agent, at) => agent.isTold(streams[at]! + 1) && !agent.versions.has(`Kubernetes//Pod/shop/web-${PODS - 1}`)
      && Array.from({ length: CHANGED_PODS }, (_, n) => `Kubernetes//Pod/shop/web-${n}`).every((name) => agent.versions.get(name) !== held.get(name))));
    // Each change once at most on the new stream, and the one service all these pods belong to.
    for (const agent of agents) {
      expect(agent.streams.slice(-1)[0]!.resources, "told on the new stream").toBeLessThanOrEqual(CHANGED_PODS + 1);
      expect([...agent.versions].sort()).toEqual([...agents[0]!.versions].sort());
    }
    await until(`${other!.name} writes`, TAKEN_OVER_MS, async () => (await lease()) === other!.name);
    let wrong: string[] = [];
    await until(() => `every status is right; wrong are ${wrong.slice(0, 5).join("\n")}`, TAKEN_OVER_MS, async () => (wrong = await wrongStatuses(1)).length === 0);
    enough.abort();
    await theirs;
    expect(lost).toEqual([]);
    for (let n = 0; n < ROUTES; n++) {
      const their = (await read(n)).status?.parents?.filter(({ controllerName }) => controllerName === THEIRS) ?? [];
      expect(their.map(({ conditions }) => conditions[0]?.message), `entries of another controller in route-${n}`).toEqual([written.get(n)!]);
    }
  }, 300_000);

  test("who comes to a replica that has just begun, with nothing changed, is told nothing again", async () => {
    const [fresh] = replicas.filter(({ name }) => name === holder);
    await fresh!.restart();
    await allMoveTo(fresh!);
    for (const agent of agents) {
      const { resources, removals } = agent.streams.at(-1)!;
      expect({ resources, removals }).toEqual({ resources: 0, removals: 0 });
    }
    // And a change still comes.
    await apply(server.client, web(0, 2));
    await until("the change", SHOWS_MS, () => agents.every((agent) => agent.streams.at(-1)!.resources === 1));
  }, 180_000);

  /** The replica that wrote first. */
  let holder = "";
});
