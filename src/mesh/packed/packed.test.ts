// Packed records: what goes in comes out, whatever is put in the place of what.

import { describe, expect, test } from "bun:test";
import { policy, provenance, RandomMesh, service, uid, workload } from "../../../test/kit/mesh-records.ts";
import type { WorkloadUid } from "../../core/brand.ts";
import { seededRandom } from "../../core/ports.ts";
import { emptyDelta, type Workload } from "../records.ts";
import { MeshStore } from "../store.ts";
import { PackReader, PackWriter } from "./bytes.ts";
import { HashIndex } from "./hash-index.ts";
import { PackedRows } from "./packed-rows.ts";
import { type FoundWorkload, policyShape, type RecordShape, serviceShape, workloadShape } from "./record-codecs.ts";
import { packEach, RecordTable, unpackEach } from "./record-table.ts";

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
  test("comes to the same as the one that it was made of", () => {
    const mesh = new RandomMesh(seededRandom(11));
    const [plain, packed] = [new MeshStore(), new MeshStore()];
    for (let i = 0; i < 200; i++) {
      const delta = mesh.delta();
      const { packed: bytes, ...change } = plain.apply(delta);
      expect(packed.applyPacked(bytes)).toEqual(change);
    }
    expect([packed.counts(), [...packed.workloads()], [...packed.services()], [...packed.policies()]]).toEqual([plain.counts(), [...plain.workloads()], [...plain.services()], [...plain.policies()]]);
  });

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

  test("of everything, in parts, makes an equal store", () => {
    const [whole, copy] = [new MeshStore(), new MeshStore()];
    const [workloads, services] = [Array.from({ length: 7 }, (_, i) => workload({ name: `w${i}` })), Array.from({ length: 3 }, (_, i) => service({ name: `s${i}` }))];
    whole.apply({ workloads, services, policies: [policy({ name: "p" })], removedWorkloads: [workloads[2]!.uid], removedServices: [], removedPolicies: [] });
    const parts = [...whole.packedParts(2)];
    expect(parts.map((part) => [[...unpackEach(policyShape, part.policies)].length, [...unpackEach(serviceShape, part.services)].length, [...unpackEach(workloadShape, part.workloads)].length]))
      .toEqual([[1, 0, 0], [0, 2, 0], [0, 1, 0], [0, 0, 2], [0, 0, 2], [0, 0, 2]]);
    for (const part of parts) copy.applyPacked(part);
    expect([copy.counts(), [...copy.workloads()], [...copy.services()], [...copy.policies()]]).toEqual([whole.counts(), [...whole.workloads()], [...whole.services()], [...whole.policies()]]);
  });
});
