// What goes along with a question that is asked on behalf of a request, so that its trace and its logs hang together.

import type { RequestTrace } from "../../telemetry/request-trace.ts";
import { type HttpFields, ListFields } from "../../wire/http/fields.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";

const NAMES = ["x-request-id", "traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"] as const;

/** @param trace of the request: whoever is asked is its child. Null: what came goes along as it came. */
export function traceMetadata(fields: HttpFields, trace: RequestTrace | null): HeaderList {
  const list: HeaderList = [];
  for (const name of NAMES) {
    const value = fields.value(name);
    if (value !== undefined) list.push(name, value);
  }
  if (trace === null) return list;
  const own = new ListFields(list);
  trace.writeCopy(own);
  const written: HeaderList = [];
  own.appendTo(written);
  return written;
}
