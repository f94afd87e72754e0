// What an operator lays over the objects of a waypoint (`parametersRef`): maps are joined, lists of named things by their names, null
// takes a field away, anything else replaces. The part of Kubernetes' strategic merge that such overlays use.

import { isJson, type Json } from "../json.ts";

export function overlay(base: unknown, over: unknown): unknown {
  if (isJson(base) && isJson(over)) {
    const merged: Record<string, unknown> = { ...base };
    for (const [key, value] of Object.entries(over)) {
      if (value === null) delete merged[key];
      else merged[key] = Object.hasOwn(merged, key) ? overlay(merged[key], value) : value;
    }
    return merged;
  }
  if (Array.isArray(base) && Array.isArray(over) && isNamedList(base) && isNamedList(over)) {
    const merged = [...base];
    for (const item of over) {
      const at = merged.findIndex((one) => one["name"] === item["name"]);
      const laid = at < 0 ? item : overlay(merged[at], item);
      if (!isJson(laid)) continue;
      if (at < 0) merged.push(laid);
      else merged[at] = laid;
    }
    return merged;
  }
  return over;
}

function isNamedList(list: readonly unknown[]): list is Json[] {
  return list.length > 0 && list.every((item) => isJson(item) && typeof item["name"] === "string");
}
