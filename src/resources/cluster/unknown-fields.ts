// Fields that we do not know, in objects of an API server. Kubernetes' own kinds grow fields that are none of our affair: they are left
// out. In a policy or a route one may be what makes the difference: such an object is not read at all, which its status says.

import { schemaFaultsOf } from "../check-object.ts";
import type { Kind } from "../kinds.ts";

/** Fields left out of one object; more of them are no newer version but something else. */
const DROPPED_MAX = 64;

const mayGrow = (kind: Kind): boolean => kind.group === "" || kind.kind === "Gateway" || kind.kind === "GatewayClass";

/** @returns a copy of the object without them; null when they are not all that is wrong with it, or may not be left out. */
export function withoutUnknownFields(value: Readonly<Record<string, unknown>>, definition: Kind): Readonly<Record<string, unknown>> | null {
  if (!mayGrow(definition)) return null;
  const faults = schemaFaultsOf(value, definition);
  if (faults.length === 0 || faults.length > DROPPED_MAX || faults.some(({ code }) => code !== "unknown_field")) return null;
  const object = structuredClone(value);
  for (const { path } of faults) drop(object, path);
  return object;
}

function drop(object: unknown, path: readonly (string | number)[]): void {
  let at = object;
  for (const step of path.slice(0, -1)) {
    if (at === null || typeof at !== "object") return;
    at = Reflect.get(at, step);
  }
  if (at !== null && typeof at === "object") Reflect.deleteProperty(at, path.at(-1)!);
}
