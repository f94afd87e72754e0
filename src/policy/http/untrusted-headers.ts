// Headers that a client may not bring along, because somebody behind would believe them: what proxies tell each other, what this mesh
// writes itself, and the method by another name where rules look at methods.

import type { AccessSet } from "../../mesh/l7/l7-store.ts";

export interface HeaderTrust {
  /** The caller has proved an identity of this mesh. */
  readonly fromMesh: boolean;
  /** Some rule that applies looks at the method: then a second way to say it is a way around the rule. */
  readonly methodsMatter: boolean;
}

/** From anybody: ours to write. */
const OURS = /^x-weft-/;
const OURS_BY_NAME = new Set(["x-forwarded-client-cert", "x-istio-attributes"]);

/** From outside: only a proxy of ours may say it, and it says it anew. */
const FROM_PROXIES = /^x-(?:envoy|forwarded|original|rewrite)-|^x-(?:real-ip|client-ip|cluster-client-ip|original-url|rewrite-url)$|^(?:true-client-ip|cf-connecting-ip|forwarded)$/;

const METHOD_OVERRIDES = new Set(["x-http-method-override", "x-http-method", "x-method-override"]);

/** True for a header to be taken out before anything reads it. @param name lower case. */
export function isUntrusted(name: string, { fromMesh, methodsMatter }: HeaderTrust): boolean {
  return OURS.test(name) || OURS_BY_NAME.has(name) || !fromMesh && FROM_PROXIES.test(name) || methodsMatter && METHOD_OVERRIDES.has(name);
}

const TESTS = [false, true].map((fromMesh) => [false, true].map((methodsMatter) => (name: string) => isUntrusted(name, { fromMesh, methodsMatter })));

/** `isUntrusted` for one client: the same function each time. */
export function untrustedTest({ fromMesh, methodsMatter }: HeaderTrust): (name: string) => boolean {
  return TESTS[Number(fromMesh)]![Number(methodsMatter)]!;
}

/** Whether any policy of the set, dry runs left out, tells methods apart. */
export function looksAtMethods({ policies }: AccessSet): boolean {
  return policies.some(({ dryRun, rules }) => !dryRun && rules.some(({ clauses }) => clauses.some(({ matches }) => matches.some(({ methods, notMethods }) => methods.length + notMethods.length > 0))));
}
