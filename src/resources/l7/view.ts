// One resource's look on the world, and the memory of what was seen through it.

import type { DiagnosticCode, FieldPath, Severity } from "../diagnostic.ts";
import { sameItems } from "../namespace-resources.ts";
import type { Placed, Report, ResourceOf } from "../resource.ts";
import type { TextReference, World } from "./world.ts";

type Probe = (world: World) => unknown;

/** What was asked, and what the answers depend on. */
export interface Notes {
  /** Parts of the world, each by its name, with the version that was looked at. */
  readonly parts: Map<string, number>;
  /** Secrets and ConfigMaps that were asked for, whether they are there or not, by kind, namespace and name. */
  readonly references: Map<string, TextReference>;
}

export class View {
  readonly #world: World;
  readonly reads: { readonly probe: Probe; readonly answer: unknown }[] = [];
  readonly notes: Notes = { parts: new Map(), references: new Map() };

  constructor(world: World) {
    this.#world = world;
  }

  get options(): World["options"] {
    return this.#world.options;
  }

  /** @param probe asks the world one thing; must depend on nothing else. */
  ask<T>(probe: (world: World) => T): T {
    const answer = this.#world.asked(probe, this.notes);
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
  readonly references: ReadonlyMap<string, TextReference>;
}

interface Known<T> {
  readonly reads: View["reads"];
  readonly result: Translated<T>;
  notes: Notes;
}

/** Translations of resources, each kept while the resource and all that it asked about stay as they were. */
export class Translations<R extends ResourceOf<string, unknown>, T> {
  readonly #known = new WeakMap<Placed<R>, Known<T>>();
  readonly #translate: (placed: Placed<R>, view: View, report: Report) => T;
  /** Translations done so far: what a test of reuse counts. */
  count = 0;

  constructor(translate: (placed: Placed<R>, view: View, report: Report) => T) {
    this.#translate = translate;
  }

  of(placed: Placed<R>, world: World): Translated<T> {
    const known = this.#known.get(placed);
    if (known !== undefined && (world.isAsNoted(known.notes) || stillSo(known, world))) return known.result;
    this.count++;
    const view = new View(world);
    const remarks: Remark[] = [];
    const value = this.#translate(placed, view, (severity, code, path, message) => remarks.push({ severity, code, path, message }));
    const result = { value, remarks, references: view.notes.references };
    this.#known.set(placed, { reads: view.reads, result, notes: view.notes });
    return result;
  }
}

/** Something of what it looked at is not as it was: its own questions may have the same answers. */
function stillSo<T>(known: Known<T>, world: World): boolean {
  const notes: Notes = { parts: new Map(), references: new Map() };
  if (!known.reads.every(({ probe, answer }) => sameAnswer(world.asked(probe, notes), answer))) return false;
  known.notes = notes;
  return true;
}

function sameAnswer(a: unknown, b: unknown): boolean {
  return Array.isArray(a) && Array.isArray(b) ? sameItems(a, b) : a === b;
}
