// A translation's window on the world, and the memory of what was seen through it.

import type { DiagnosticCode, FieldPath, Severity } from "../diagnostic.ts";
import type { Placed, Report, ResourceOf } from "../resource.ts";
import type { World } from "./world.ts";

type Probe = (world: World) => unknown;

export class View {
  readonly #world: World;
  readonly reads: { readonly probe: Probe; readonly answer: unknown }[] = [];

  constructor(world: World) {
    this.#world = world;
  }

  get options(): World["options"] {
    return this.#world.options;
  }

  /** @param probe asks the world one thing; must depend on nothing else. */
  ask<T>(probe: (world: World) => T): T {
    const answer = probe(this.#world);
    this.reads.push({ probe, answer });
    return answer;
  }
}

/** Something said of one resource in force. */
export interface Remark {
  readonly severity: Severity;
  readonly code: DiagnosticCode;
  readonly path: FieldPath;
  readonly message: string;
}

export interface Translated<T> {
  readonly value: T;
  readonly remarks: readonly Remark[];
}

/** Translations of resources, each kept while the resource and all that it asked about stay as they were. */
export class Translations<R extends ResourceOf<string, unknown>, T> {
  readonly #known = new WeakMap<Placed<R>, { readonly reads: View["reads"]; readonly result: Translated<T>; world: World }>();
  readonly #translate: (placed: Placed<R>, view: View, report: Report) => T;
  /** Translations done so far: what a test of reuse counts. */
  count = 0;

  constructor(translate: (placed: Placed<R>, view: View, report: Report) => T) {
    this.#translate = translate;
  }

  of(placed: Placed<R>, world: World): Translated<T> {
    const known = this.#known.get(placed);
    if (known !== undefined && (known.world === world || known.reads.every(({ probe, answer }) => sameAnswer(probe(world), answer)))) {
      known.world = world;
      return known.result;
    }
    this.count++;
    const view = new View(world);
    const remarks: Remark[] = [];
    const value = this.#translate(placed, view, (severity, code, path, message) => remarks.push({ severity, code, path, message }));
    const result = { value, remarks };
    this.#known.set(placed, { reads: view.reads, result, world });
    return result;
  }
}

function sameAnswer(a: unknown, b: unknown): boolean {
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((item, i) => item === b[i]);
  return a === b;
}
