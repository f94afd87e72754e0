// Changes to headers as a list of operations in the order in which they are done, checked once when the rule is compiled.

import type { HeaderChange } from "../../mesh/l7/route.ts";
import { isName, isValue } from "../../wire/http/field-bytes.ts";
import { isConnectionSpecific } from "../../wire/http/fields.ts";
import { wireText } from "./wire-text.ts";

/** `name` is in lower case. `append` adds a further field. */
export type HeaderOperation =
  | { readonly kind: "set" | "append"; readonly name: string; readonly value: string }
  | { readonly kind: "remove"; readonly name: string };

export interface CompiledHeaderChange {
  readonly operations: readonly HeaderOperation[];
  /** The change sets the host, which is no field to us; null when it does not. */
  readonly host: string | null;
  readonly problems: readonly string[];
}

export function compileHeaderChange(change: HeaderChange, side: "request" | "response"): CompiledHeaderChange {
  const operations: HeaderOperation[] = [];
  const problems: string[] = [];
  let host: string | null = null;
  const write = (kind: "set" | "append", [written, text]: readonly [string, string]): void => {
    const name = written.toLowerCase();
    const value = wireText(text);
    if (side === "request" && (name === "host" || name === ":authority")) host = value;
    else if (!isChangeable(name)) problems.push(`header ${JSON.stringify(written)} cannot be changed by a rule`);
    else if (!isValue(value)) problems.push(`header ${name}: ${JSON.stringify(value)} has characters that no header may have`);
    else operations.push({ kind, name, value });
  };
  for (const pair of change.set) write("set", pair);
  for (const pair of change.add) write("append", pair);
  for (const written of change.remove) {
    const name = written.toLowerCase();
    if (isChangeable(name)) operations.push({ kind: "remove", name });
    else problems.push(`header ${JSON.stringify(written)} cannot be removed by a rule`);
  }
  return { operations, host, problems };
}

/** The engines decide what belongs to the framing or the connection; a rule that changed it would break both. @param name lower case. */
export function isChangeable(name: string): boolean {
  return isName(name) && !name.startsWith(":") && !isConnectionSpecific(name) && name !== "trailer";
}
