// Which of two resources is the older: it wins every conflict. Without dates, the first by name.

import { compareText } from "../../core/compare-text.ts";
import { type Placed, type ResourceOf, sourceOf } from "../resource.ts";

type AnyPlaced = Placed<ResourceOf<string, unknown>>;

/** For resources without a creation time, and ones that cannot be read as a time: younger than all others. */
const YOUNGEST_MS = Number.MAX_SAFE_INTEGER;

/** Milliseconds since 1970. */
export function createdMs(resource: ResourceOf<string, unknown>): number {
  const ms = resource.creationTimestamp === "" ? Number.NaN : Date.parse(resource.creationTimestamp);
  return Number.isNaN(ms) ? YOUNGEST_MS : ms;
}

export function byAge(a: AnyPlaced, b: AnyPlaced): number {
  return compareAges(ageOf(a), ageOf(b));
}

/** Many of them, each time read once. */
export function sortedByAge<R extends ResourceOf<string, unknown>>(all: readonly Placed<R>[]): Placed<R>[] {
  return all.map((placed) => ({ placed, ...ageOf(placed) })).sort(compareAges).map(({ placed }) => placed);
}

interface Age {
  readonly ms: number;
  readonly name: string;
  readonly kind: string;
}

const ageOf = (placed: AnyPlaced): Age => ({ ms: createdMs(placed.resource), name: nameOf(placed), kind: placed.resource.kind });
const compareAges = (a: Age, b: Age): number => a.ms - b.ms || compareText(a.name, b.name) || compareText(a.kind, b.kind);

export const nameOf = ({ resource }: AnyPlaced): string => `${resource.namespace}/${resource.name}`;
/** `DestinationRule shop/web (web.yaml:3)`: for messages that name another resource. */
export const describePlaced = (placed: AnyPlaced): string => `${placed.resource.kind} ${nameOf(placed)} (${sourceOf(placed)})`;
