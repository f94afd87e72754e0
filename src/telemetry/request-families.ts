// The metrics of requests that Istio has, with its labels. They share their labels, so they are kept as one set of counters for each
// combination, beside the families of metric-families.ts.

import { CONNECTION_LABEL_NAMES } from "./connection-labels.ts";
import { type Bounds, REQUEST_MS, REQUEST_SIZE_BYTES } from "./histogram.ts";

export const REQUEST_FAMILIES = {
  istio_requests_total: { type: "counter", bounds: null, help: "Requests that have ended" },
  istio_request_duration_milliseconds: { type: "histogram", bounds: REQUEST_MS, help: "From the first byte of a request to the last of its answer" },
  istio_request_bytes: { type: "histogram", bounds: REQUEST_SIZE_BYTES, help: "Body of a request" },
  istio_response_bytes: { type: "histogram", bounds: REQUEST_SIZE_BYTES, help: "Body of an answer" },
  istio_request_messages_total: { type: "counter", bounds: null, help: "gRPC messages from clients" },
  istio_response_messages_total: { type: "counter", bounds: null, help: "gRPC messages to clients" },
} as const satisfies Readonly<Record<string, { readonly type: "counter" | "histogram"; readonly bounds: Bounds | null; readonly help: string }>>;

export type RequestFamilyName = keyof typeof REQUEST_FAMILIES;
export const REQUEST_FAMILY_NAMES: readonly RequestFamilyName[] = [
  "istio_requests_total", "istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes", "istio_request_messages_total", "istio_response_messages_total",
];

/** In the order in which a key has their values: those of a connection first, then those of the answer. */
export const REQUEST_LABEL_NAMES: readonly string[] = [...CONNECTION_LABEL_NAMES, "response_code", "grpc_response_status", "response_flags"];
