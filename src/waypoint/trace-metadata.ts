// What goes along with a question that is asked on behalf of a request, so that its trace and its logs hang together.

import type { HttpFields } from "../wire/http/fields.ts";
import type { HeaderList } from "../wire/http/header-list.ts";

const NAMES = ["x-request-id", "traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"] as const;

export function traceMetadata(fields: HttpFields): HeaderList {
  const list: HeaderList = [];
  for (const name of NAMES) {
    const value = fields.value(name);
    if (value !== undefined) list.push(name, value);
  }
  return list;
}
