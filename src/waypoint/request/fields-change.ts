// Changes of header fields as rules ask for them, done to the fields of one message.

import type { HeaderOperation } from "../../policy/http/header-change.ts";
import type { HttpFields } from "../../wire/http/fields.ts";

export const NO_OPERATIONS: readonly HeaderOperation[] = Object.freeze([]);

export function changeFields(fields: HttpFields, operations: readonly HeaderOperation[]): void {
  for (const operation of operations) {
    switch (operation.kind) {
      case "set": fields.set(operation.name, operation.value); break;
      case "append": fields.append(operation.name, operation.value); break;
      case "remove": fields.remove(operation.name); break;
      default: operation satisfies never;
    }
  }
}
