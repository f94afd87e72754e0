import { expect, test } from "bun:test";
import { readTrace } from "../../telemetry/request-trace.ts";
import { ListFields } from "../../wire/http/fields.ts";
import { IdSource } from "../../wire/trace/ids.ts";
import { traceMetadata } from "./trace-metadata.ts";

let next = 0;
const ids = new IdSource((bytes) => bytes.fill(++next));

test("whoever is asked is a child of the request, whose own head stays as it came", () => {
  const fields = ListFields.of(["x-request-id", "r-1", "cookie", "secret"]);
  const begun = readTrace(fields, { sampling: 1 }, ids)!;
  expect(traceMetadata(fields, begun)).toEqual(["x-request-id", "r-1", "traceparent", `00-${begun.traceId}-${begun.spanId}-01`]);
  expect(fields.has("traceparent")).toBe(false);
});

test("what came unsampled, or where nothing is traced, goes along as it came", () => {
  const list = ["traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "b3", "0"];
  const fields = ListFields.of(list);
  expect(traceMetadata(fields, null)).toEqual(list);
  expect(traceMetadata(fields, readTrace(fields, { sampling: 1 }, ids))).toEqual(list);
});
