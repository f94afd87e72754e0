// That a large cluster is read and evaluated without anybody else having to wait, and that nothing is handed on but whole states.

import { describe, expect, test } from "bun:test";
import { type Clock, systemClock, systemRandom } from "../../core/ports.ts";
import { ok } from "../../core/result.ts";
import { parseTrustDomain } from "../../core/spiffe.ts";
import { systemTimers } from "../../net/timers.ts";
import type { ClusterEvaluation } from "../../resources/cluster/cluster-set.ts";
import type { Api } from "../../runtime/kubernetes/api.ts";
import { quietLog } from "../../../test/kit/quiet-log.ts";
import { ClusterSource } from "./cluster-source.ts";

const PODS = 5_000;
const SERVICES = 1_000;
const RULES = 1_000;
const NAMESPACES = 100;
/** Of this thread's own work between two turns of others: a slice, and what one object or collection may add. */
const WORK_MS_MAX = 50;
const PAGE = 500;

type Json = Readonly<Record<string, unknown>>;
const at = (i: number): string => `ns-${i % NAMESPACES}`;
const ip = (i: number): string => `198.18.${i >> 8}.${i & 255}`;
const meta = (name: string, namespace: string, more: Json = {}): Json => ({ name, namespace, resourceVersion: "1", creationTimestamp: "2026-01-01T00:00:00Z", ...more });

const MADE: Readonly<Record<string, (i: number) => Json>> = {
  namespaces: (i) => ({ metadata: { name: `ns-${i}`, resourceVersion: "1", labels: {} } }),
  pods: (i) => ({ metadata: meta(`pod-${i}`, at(i), { uid: `u${i}`, labels: { app: `app-${i % SERVICES}` } }), spec: { nodeName: "n", serviceAccountName: "a", containers: [] }, status: { phase: "Running", podIP: ip(i), podIPs: [{ ip: ip(i) }], conditions: [] } }),
  services: (i) => ({ metadata: meta(`app-${i}`, at(i)), spec: { clusterIP: `198.19.${i >> 8}.${i & 255}`, selector: { app: `app-${i}` }, ports: [{ name: "http", port: 80 }] } }),
  httproutes: (i) => ({ metadata: meta(`app-${i}`, at(i)), spec: { parentRefs: [{ group: "", kind: "Service", name: `app-${i}` }], rules: [{ backendRefs: [{ name: `app-${i}`, port: 80 }] }] } }),
  authorizationpolicies: (i) => ({ metadata: meta(`app-${i}`, at(i)), spec: { selector: { matchLabels: { app: `app-${i}` } }, action: "ALLOW", rules: [{ from: [{ source: { namespaces: [at(i)] } }] }] } }),
};
const COUNTS: Readonly<Record<string, number>> = { namespaces: NAMESPACES, pods: PODS, services: SERVICES, httproutes: RULES, authorizationpolicies: RULES };

/** Every list in pages, each made when it is asked for; watches that say nothing. */
function api(share: number): Api {
  return {
    async request({ path, query = {} }) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      const plural = path.split("/").at(-1)!;
      const count = Math.ceil((COUNTS[plural] ?? 0) * share);
      const from = Number(query["continue"] ?? 0);
      const to = Math.min(count, from + PAGE);
      return ok({ metadata: { resourceVersion: "1", ...(to < count ? { continue: String(to) } : {}) }, items: Array.from({ length: to - from }, (_, k) => MADE[plural]!(from + k)) });
    },
    watch: ({ signal }) => new Promise((resolve) => signal!.addEventListener("abort", () => resolve(ok(undefined)))),
  } as Api;
}

/** Milliseconds of processor time of this thread. */
const threadMs = (): number => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
};

interface Seen {
  readonly evaluation: ClusterEvaluation;
  /** Most of this thread's time between two turns of somebody else. */
  readonly worstMs: number;
}

async function firstEvaluation(clock: Clock, share = 1): Promise<Seen> {
  let worstMs = 0;
  let lastMs = threadMs();
  let stop = false;
  const probe = (): void => {
    const nowMs = threadMs();
    worstMs = Math.max(worstMs, nowMs - lastMs);
    lastMs = nowMs;
    if (!stop) setImmediate(probe);
  };
  const evaluated = Promise.withResolvers<ClusterEvaluation>();
  const source = new ClusterSource({
    api: api(share), clock, random: systemRandom, timers: systemTimers, log: quietLog(), namespaces: [], onObject: () => {}, onEvaluated: evaluated.resolve,
    options: { node: "", clusterId: "Kubernetes", clusterDomain: "cluster.local", trustDomain: parseTrustDomain("cluster.local")!, network: "", rootNamespace: "istio-system", serviceCidrs: [] },
  });
  source.start();
  setImmediate(probe);
  const evaluation = await evaluated.promise;
  // The probe's next turn, which sees how long the last one was.
  await new Promise<void>((resolve) => setImmediate(() => setImmediate(resolve)));
  stop = true;
  await source.stop();
  return { evaluation, worstMs };
}

describe("a cluster of five thousand pods", () => {
  test("is read and evaluated with turns for everybody else in between", async () => {
    // The schema of each kind is made with its first object, which is no matter of how many there are.
    await firstEvaluation(systemClock, 0.1);
    const { evaluation, worstMs } = await firstEvaluation(systemClock);
    expect([evaluation.mesh.workloads.size, evaluation.mesh.services.size, evaluation.mesh.policies.size, evaluation.l7.routes.size]).toEqual([PODS, SERVICES, RULES, RULES]);
    expect(worstMs).toBeLessThan(WORK_MS_MAX);
  }, 120_000);

  test("is not, when it is never left: the measure can tell", async () => {
    // A clock that stands still ends no slice.
    const { worstMs } = await firstEvaluation({ ...systemClock, monotonicMs: () => 0 });
    expect(worstMs).toBeGreaterThan(WORK_MS_MAX);
  }, 120_000);
});
