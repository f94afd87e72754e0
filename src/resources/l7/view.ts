// One resource's look on the world, and the memory of what was seen through it.

import type { DiagnosticCode, FieldPath, Severity } from "../diagnostic.ts";
import { sameItems } from "../namespace-resources.ts";
import type { Report } from "../resource.ts";
import type { TextReference, World } from "./world.ts";

type Probe = (world: World) => unknown;

/** What was asked, and what the answers depend on. */
export interface Notes {
  /** Parts of the world, each by its name. */
  readonly parts: Set<string>;
  /** Secrets and ConfigMaps that were asked for, whether they are there or not, by kind, namespace and name. */
  readonly references: Map<string, TextReference>;
}

export class View {
  readonly #world: World;
  readonly reads: { readonly probe: Probe; readonly answer: unknown }[] = [];
  readonly notes: Notes = { parts: new Set(), references: new Map() };

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

/** What was made of one resource, which holds as long as what it asked about has the same answers. */
export interface Seen<T> {
  readonly value: T;
  readonly remarks: readonly Remark[];
  readonly references: ReadonlyMap<string, TextReference>;
  readonly reads: View["reads"];
  /** Parts of the world that the answers depend on. */
  readonly parts: ReadonlySet<string>;
}

export function look<T>(world: World, make: (view: View, report: Report) => T): Seen<T> {
  const view = new View(world);
  const remarks: Remark[] = [];
  const value = make(view, (severity, code, path, message) => remarks.push({ severity, code, path, message }));
  return { value, remarks, references: view.notes.references, reads: view.reads, parts: view.notes.parts };
}

/**
 * Asks its questions again.
 * @returns what the same answers depend on now; null where one is another.
 */
export function partsOfSameAnswers({ reads }: Seen<unknown>, world: World): ReadonlySet<string> | null {
  const notes: Notes = { parts: new Set(), references: new Map() };
  return reads.every(({ probe, answer }) => sameAnswer(world.asked(probe, notes), answer)) ? notes.parts : null;
}

function sameAnswer(a: unknown, b: unknown): boolean {
  return Array.isArray(a) && Array.isArray(b) ? sameItems(a, b) : a === b;
}
