// Whose connections are judged again: all that are decided otherwise, and few besides.

import { describe, expect, test } from "bun:test";
import { delta, policy, RandomMesh, service, serviceName, workload } from "../../test/kit/mesh-records.ts";
import { namespacedName } from "../core/brand.ts";
import { seededRandom } from "../core/ports.ts";
import { MeshStore } from "../mesh/store.ts";
import { authorise } from "../policy/authorise.ts";
import { judgeInbound, judgePlaintext } from "../policy/inbound.ts";
import { Stakes } from "./stakes.ts";

test("whatever changes, nothing is decided otherwise unseen", () => {
  let otherwise = 0;
  let unasked = 0;
  for (let seed = 0; seed < 4; seed++) {
    const mesh = new RandomMesh(seededRandom(seed));
    const store = new MeshStore();
    const stakes = new Stakes(store);
    for (let i = 0; i < 20; i++) store.apply(mesh.delta());
    const connections = Array.from({ length: 20 }, () => {
      const { uid, addresses } = mesh.of([...store.workloads()]);
      const localIp = addresses[0] ?? mesh.address();
      const authority = mesh.chance(0.5) ? { kind: "address" as const, address: { ip: mesh.chance(0.7) ? localIp : mesh.anyAddress(), port: mesh.port() } } : { kind: "hostname" as const, hostname: mesh.hostname(), port: mesh.port() };
      return { uid, localIp, authority, peer: mesh.chance(0.2) ? null : mesh.identity(), sourceIp: mesh.anyAddress(), port: mesh.port() };
    });
    // What ends a connection that lives.
    const ends = ({ uid, localIp, authority, peer, sourceIp, port }: (typeof connections)[number]): readonly (boolean | null)[] => {
      const destination = store.workload(uid);
      if (destination === undefined) return [null];
      const verdict = judgeInbound(store, destination, { authority, localIp, peer });
      return [
        verdict.kind === "reject" && verdict.code === "waypoint_required", judgePlaintext(store, destination, { ip: localIp, port }).kind === "reject",
        authorise(store, destination, { peer, sourceIp, destinationIp: localIp, destinationPort: port }).allowed,
      ];
    };
    for (const { uid } of connections) stakes.concerns(uid, NOTHING);
    for (let i = 0; i < 120; i++) {
      const before = connections.map(ends);
      const change = store.apply(mesh.delta());
      const concerned = new Map([...new Set(connections.map(({ uid }) => uid))].map((uid) => [uid, stakes.concerns(uid, change)]));
      connections.forEach((connection, at) => {
        const differs = JSON.stringify(ends(connection)) !== JSON.stringify(before[at]);
        if (differs) otherwise++;
        if (concerned.get(connection.uid) !== true) unasked++;
        if (differs && store.workload(connection.uid) !== undefined) expect(concerned.get(connection.uid), `seed ${seed}, change ${i}: ${connection.uid}`).toBe(true);
      });
    }
  }
  expect([otherwise > 50, unasked > 500]).toEqual([true, true]);
});

const NOTHING = { workloadsChanged: new Set<never>(), servicesChanged: new Set<never>(), policiesChanged: false };

describe("a workload's connections", () => {
  const member = (name: string) => workload({ name, services: [{ service: serviceName(service({ name: "web" })), ports: [{ servicePort: 80, targetPort: 8080 }] }] });
  const begin = () => {
    const store = new MeshStore();
    const stakes = new Stakes(store);
    const own = member("own");
    store.apply(delta({ workloads: [own, workload({ name: "else", namespace: "bank" })], services: [service({ name: "web" })], policies: [policy({ name: "p", namespace: "bank", scope: "namespace" })] }));
    stakes.concerns(own.uid, NOTHING);
    return { store, own, concerned: (change: Parameters<MeshStore["apply"]>[0]) => stakes.concerns(own.uid, store.apply(change)) };
  };

  test("are left alone by pods and policies elsewhere", () => {
    const { concerned } = begin();
    expect([
      concerned(delta({ workloads: [workload({ name: "else", namespace: "bank", version: "v2" })] })), concerned(delta({ policies: [policy({ name: "p", namespace: "bank", scope: "namespace", action: "deny" })] })),
      concerned(delta({ removedPolicies: [namespacedName("bank", "p")] })), concerned(delta({ services: [service({ name: "other", namespace: "bank" })] })),
    ]).toEqual([false, false, false, false]);
  });

  test("are judged again for its record, its policies, its services and their endpoints, and once it has gone", () => {
    const { concerned, own } = begin();
    expect([
      concerned(delta({ workloads: [{ ...own, version: "v2" }] })), concerned(delta({ policies: [policy({ name: "own", scope: "namespace" })] })), concerned(delta({ policies: [policy({ name: "mesh", namespace: "istio-system", scope: "global" })] })),
      concerned(delta({ services: [service({ name: "web", headless: true })] })), concerned(delta({ workloads: [member("another")] })), concerned(delta({ removedWorkloads: [own.uid] })),
    ]).toEqual([true, true, true, true, true, true]);
  });

  test("are judged for every change where it or a service of its is behind a waypoint", () => {
    const { concerned, own } = begin();
    const waypoints = [{ gateway: { destination: { kind: "hostname" as const, service: namespacedName("shop", "waypoint.shop.svc.cluster.local") }, hboneMtlsPort: 15008 }, weight: 1 }];
    expect(concerned(delta({ workloads: [{ ...own, waypoints }] }))).toBe(true);
    expect(concerned(delta({ workloads: [workload({ name: "else", namespace: "bank", version: "v3" })] }))).toBe(true);
    expect(concerned(delta({ workloads: [own], services: [service({ name: "web", waypoints })] }))).toBe(true);
    expect(concerned(delta({ workloads: [workload({ name: "else", namespace: "bank", version: "v4" })] }))).toBe(true);
  });
});
