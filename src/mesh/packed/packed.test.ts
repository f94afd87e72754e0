// Packed records: what goes in comes out, whatever is put in the place of what.

import { describe, expect, test } from "bun:test";
import { policy, provenance, RandomMesh, service, uid, workload } from "../../../test/kit/mesh-records.ts";
import { namespacedName, type WorkloadUid } from "../../core/brand.ts";
import { seededRandom } from "../../core/ports.ts";
import { emptyDelta, type Workload } from "../records.ts";
import { MeshStore } from "../store.ts";
import { PackReader, PackWriter } from "./bytes.ts";
import { HashIndex } from "./hash-index.ts";
import { PackedRows, type RowsNews } from "./packed-rows.ts";
import { type FoundWorkload, policyShape, type RecordShape, serviceShape, workloadShape } from "./record-codecs.ts";
import { packEach, RecordTable, unpackEach } from "./record-table.ts";

const NO_NEWS: RowsNews = { blocks: [], emptied: [], placed: new Uint32Array(0), removed: [] };

const read = (write: (to: PackWriter) => void): PackReader => {
  const to = new PackWriter();
  write(to);
  return new PackReader().from(Buffer.from(to.take()), 0);
};

describe("values", () => {
  test("numbers of every length come back, and what is none is a fault of ours", () => {
    for (const value of [0, 1, 127, 128, 16_383, 16_384, 65_535, 2 ** 31, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER]) expect(read((to) => to.uint(value)).uint()).toBe(value);
    for (const value of [-1, 0.5, Number.NaN, 2 ** 53]) expect(() => new PackWriter().uint(value)).toThrow("whole number");
  });

  test("texts come back, of any alphabet and length", () => {
    for (const value of ["", "a", "shop/web", "ü", "a日本", "x".repeat(127), "é".repeat(5_000), "y".repeat(100_000)]) expect(read((to) => to.text(value)).text()).toBe(value);
  });

  test("follow each other without a gap", () => {
    const from = read((to) => {
      to.text("ü");
      to.uint(300);
      to.bytes(new Uint8Array([1, 2]));
      to.text("end");
    });
    expect([from.text(), from.uint(), [...from.bytes()], from.text()]).toEqual(["ü", 300, [1, 2], "end"]);
  });
});

/** Packed and unpacked again, what they are found by apart. */
function roundTrip<K extends string, T extends I, I>(shape: RecordShape<K, T, I>, records: readonly T[]): { records: T[]; found: I[] } {
  const all = new PackWriter();
  for (const { packed } of packEach(shape, records)) all.bytes(packed);
  const given = [...unpackEach(shape, all.own())];
  return { records: given.map(({ record }) => record()), found: given.map(({ found }) => found) };
}

describe("records", () => {
  test("come back equal, with all their fields, and what they are found by without the rest", () => {
    for (let seed = 0; seed < 500; seed++) {
      const mesh = new RandomMesh(seededRandom(seed));
      const [workloads, services, policies] = [mesh.some(4, () => mesh.workload()), mesh.some(4, () => mesh.service()), mesh.some(4, () => mesh.policy())];
      expect(roundTrip(workloadShape, workloads), `seed ${seed}`).toEqual({
        records: workloads, found: workloads.map(({ uid: own, network, addresses, hostNetwork, services: of }) => ({ uid: own, network, addresses, hostNetwork, services: of })),
      });
      expect(roundTrip(serviceShape, services), `seed ${seed}`).toEqual({ records: services, found: services.map(({ namespace, hostname, addresses }) => ({ namespace, hostname, addresses })) });
      expect(roundTrip(policyShape, policies), `seed ${seed}`).toEqual({ records: policies, found: policies.map(({ namespace, name, scope }) => ({ namespace, name, scope })) });
    }
  });

  test("keep where they were read from, and that they were read from nowhere", () => {
    const at = { ...provenance("WorkloadEntry", "shop", "a"), source: "shop.yaml:12" };
    const { records: [from, without] } = roundTrip(workloadShape, [workload({ name: "a", provenance: at }), workload({ name: "b" })]);
    expect([from?.provenance, Object.hasOwn(without!.provenance, "source")]).toEqual([at, false]);
  });
});

describe("a table", () => {
  const tableOf = (): RecordTable<WorkloadUid, Workload, FoundWorkload> => new RecordTable(workloadShape);
  const put = (table: ReturnType<typeof tableOf>, record: Workload, remember = false): void => {
    for (const given of packEach(workloadShape, [record])) table.put(given, table.row(record.uid), remember);
  };

  test("is a Map, whatever its history", () => {
    for (let seed = 0; seed < 3; seed++) {
      const random = seededRandom(seed);
      const mesh = new RandomMesh(random);
      const [table, model] = [tableOf(), new Map<WorkloadUid, Workload>()];
      for (let i = 0; i < 1_500; i++) {
        // Long enough names that blocks fill, become past, and are emptied.
        const id = uid(`Kubernetes//Pod/shop/w${mesh.below(300)}`);
        if (mesh.chance(0.3)) {
          const row = table.row(id);
          expect(row >= 0).toBe(model.delete(id));
          if (row >= 0) table.remove(row);
        } else {
          const record = { ...mesh.workload(), uid: id, node: "n".repeat(mesh.below(2_000)) };
          put(table, record, mesh.chance(0.2));
          model.set(id, record);
        }
        if (i % 500 === 499) expect(new Map([...table].sort()), `seed ${seed}`).toEqual(new Map([...model].sort()));
        const asked = uid(`Kubernetes//Pod/shop/w${mesh.below(300)}`);
        expect([table.get(asked), table.has(asked), table.size], `seed ${seed}`).toEqual([model.get(asked), model.has(asked), model.size]);
      }
    }
  });

  test("gives the same object to who asks again, until the record changes", () => {
    const table = tableOf();
    put(table, workload({ name: "a" }));
    const first = table.get(uid("Kubernetes//Pod/shop/a"))!;
    expect(table.get(first.uid)).toBe(first);
    put(table, workload({ name: "a", version: "v2" }));
    expect(table.get(first.uid)?.version).toBe("v2");
  });

  test("of many records holds few as objects", () => {
    const table = tableOf();
    for (let i = 0; i < 3_000; i++) put(table, workload({ name: `w${i}` }));
    const rows = Array.from({ length: 3_000 }, (_, i) => table.row(uid(`Kubernetes//Pod/shop/w${i}`)));
    for (const row of rows) table.at(row);
    expect(rows.filter((row) => table.remembers(row)).length).toBe(1_024);
    expect(table.get(uid("Kubernetes//Pod/shop/w0"))?.name).toBe("w0");
  });
});

test("rows that come and go do not make the blocks grow", () => {
  const rows = new PackedRows();
  const held: number[] = [];
  const random = seededRandom(7);
  for (let i = 0; i < 20_000; i++) {
    if (held.length === 200) rows.remove(held.splice(Math.floor(random.next() * held.length), 1)[0]!);
    held.push(rows.add(new Uint8Array(200 + Math.floor(random.next() * 400)).fill(i)));
  }
  const blocks = new Set(held.map((row) => rows.bytesOf(row)));
  expect(held.reduce((sum, row) => sum + rows.lengthOf(row), 0) * 2 + 2 * 65_536).toBeGreaterThan([...blocks].reduce((sum, { length }) => sum + length, 0));
  expect(rows.size).toBe(200);
});

test("an index finds the rows of a hash among others that collide with it, whatever came and went", () => {
  const index = new HashIndex();
  const model: [hash: number, row: number][] = [];
  const random = seededRandom(3);
  // Few hashes, and such that begin their search at one place.
  const hashOf = (): number => Math.floor(random.next() * 20) * 2 ** 17;
  const rowsOf = (hash: number): number[] => {
    const rows: number[] = [];
    index.find(hash, (row) => {
      rows.push(row);
      return false;
    });
    return rows.sort((a, b) => a - b);
  };
  for (let i = 0; i < 4_000; i++) {
    if (model.length > 0 && random.next() < 0.48) {
      const [[hash, row] = [0, 0]] = model.splice(Math.floor(random.next() * model.length), 1);
      index.remove(hash, row);
    } else {
      model.push([hashOf(), i]);
      index.add(...model.at(-1)!);
    }
    const hash = hashOf();
    expect(rowsOf(hash)).toEqual(model.filter(([of]) => of === hash).map(([, row]) => row).sort((a, b) => a - b));
  }
});

describe("a packed delta", () => {
  test("has nothing of what was there already", () => {
    const store = new MeshStore();
    const mesh = { ...emptyDelta, workloads: [workload({ name: "a" }), workload({ name: "b" })], services: [service({ name: "s" })], policies: [policy({ name: "p" })] };
    store.apply(mesh);
    const untouched = store.apply(mesh);
    expect([untouched.workloadsChanged.size, untouched.servicesChanged.size, untouched.policiesChanged]).toEqual([0, 0, false]);
    expect([untouched.packed.workloads.length, untouched.packed.services.length, untouched.packed.policies.length]).toEqual([0, 0, 0]);
    const one = store.apply({ ...mesh, workloads: [workload({ name: "a" }), workload({ name: "b", version: "v2" })] });
    expect([[...one.workloadsChanged], [...unpackEach(workloadShape, one.packed.workloads)].map(({ found }) => found.uid)]).toEqual([[uid("Kubernetes//Pod/shop/b")], [uid("Kubernetes//Pod/shop/b")]]);
  });
});

describe("a store that follows another", () => {
  const everything = (store: MeshStore): unknown => ({
    counts: store.counts(),
    workloads: [...store.workloads()].sort((a, b) => (a.uid < b.uid ? -1 : 1)),
    services: [...store.services()].sort((a, b) => (a.hostname + a.namespace < b.hostname + b.namespace ? -1 : 1)),
    policies: [...store.policies()].sort((a, b) => (a.namespace + a.name < b.namespace + b.name ? -1 : 1)),
    endpoints: [...store.services()].map(({ namespace, hostname }) => store.endpoints(namespacedName(namespace, hostname)).map(({ workload: { uid: of }, ports }) => [of, ports]).sort()).sort(),
    owners: [...store.workloads()].flatMap(({ network, addresses }) => addresses.map((address) => store.workloadByAddress(network, address)?.uid)).sort(),
  });

  test("comes to the same, told of each change or of several together", () => {
    for (let seed = 0; seed < 6; seed++) {
      const random = seededRandom(seed);
      const mesh = new RandomMesh(random);
      const [owner, each, some] = [new MeshStore({ followed: true }), new MeshStore(), new MeshStore()];
      const [toldEach, toldSome] = [new Set<string>(), new Set<string>()];
      for (let i = 0; i < 400; i++) {
        const delta = mesh.delta();
        // So large that blocks fill, become past, and are emptied.
        const workloads = delta.workloads.map((one) => ({ ...one, node: "n".repeat(mesh.below(3_000)) }));
        const { packed: _, ...change } = owner.apply({ ...delta, workloads });
        if (seed % 2 === 0) {
          const news = owner.news();
          // As it crosses to a thread: what is shared stays so.
          if (news !== null) {
            const followed = each.follow(structuredClone(news));
            for (const name of followed.workloadsChanged) toldEach.add(name);
            expect([followed.policiesChanged && !change.policiesChanged, [...followed.workloadsChanged].filter((name) => !change.workloadsChanged.has(name))], `seed ${seed}, change ${i}`).toEqual([false, []]);
          }
          if (i % 80 === 79) expect(everything(each), `seed ${seed}, change ${i}`).toEqual(everything(owner));
        } else if (i % 7 === 6) {
          const news = owner.news();
          if (news !== null) for (const name of some.follow(structuredClone(news)).workloadsChanged) toldSome.add(name);
          if (i % 70 === 69) expect(everything(some), `seed ${seed}, change ${i}`).toEqual(everything(owner));
        }
      }
    }
  });

  test("has the records in the memory of the other, and lets go of what is past there", () => {
    const [owner, follower] = [new MeshStore({ followed: true }), new MeshStore()];
    const large = (name: string, version: number) => workload({ name, node: "n".repeat(10_000), version: String(version) });
    const ids = new Set<number>();
    let held = 0;
    for (let version = 0; version < 60; version++) {
      owner.apply({ ...emptyDelta, workloads: Array.from({ length: 8 }, (_, i) => large(`w${i}`, version)) });
      const { workloads } = owner.news()!;
      for (const { id } of workloads.blocks) ids.add(id);
      for (const id of workloads.emptied) expect(ids.delete(id)).toBe(true);
      follower.follow({ workloads, sequences: new Uint32Array(8), services: NO_NEWS, policies: NO_NEWS });
      held = Math.max(held, ids.size);
    }
    // 80 KB that change: as much again may be past, and there is a block that is being filled.
    expect(held).toBeLessThanOrEqual(6);
    expect([...follower.workloads()].map(({ version }) => version)).toEqual(new Array(8).fill("59"));
    expect(owner.news()).toBeNull();
  });

  test("of a name that goes and comes back elsewhere keeps the one that is there", () => {
    const [owner, follower] = [new MeshStore({ followed: true }), new MeshStore()];
    const [a, b, c] = [workload({ name: "a" }), workload({ name: "b" }), workload({ name: "c" })];
    owner.apply({ ...emptyDelta, workloads: [a, b], services: [service({ name: "s" })] });
    follower.follow(owner.news()!);
    owner.apply({ ...emptyDelta, removedWorkloads: [a.uid, b.uid], removedServices: [namespacedName("shop", "s.shop.svc.cluster.local")] });
    // The rows of both are free, and taken in another order.
    owner.apply({ ...emptyDelta, workloads: [a, b, c], services: [service({ name: "t" }), service({ name: "s" })] });
    const { workloadsRemoved } = follower.follow(owner.news()!);
    expect([...workloadsRemoved].sort()).toEqual([a.uid, b.uid]);
    expect([...follower.workloads()].map(({ name }) => name).sort()).toEqual(["a", "b", "c"]);
    expect([follower.workload(a.uid)?.name, follower.endpointSet(namespacedName("shop", "s.shop.svc.cluster.local"))?.name, follower.counts()]).toEqual(["a", namespacedName("shop", "s.shop.svc.cluster.local"), owner.counts()]);
  });
});
