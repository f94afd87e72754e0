// What was found out about Envoy, and about the waypoint where that differs.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Facts } from "./description.ts";

export const RECORDED_ENDPOINTS = join(import.meta.dir, "envoy-endpoints.json");

/** By scenario. */
export type RecordedEndpoints = Record<string, { envoy: Facts; waypoint?: Facts }>;

export function readRecordedEndpoints(): RecordedEndpoints {
  return JSON.parse(readFileSync(RECORDED_ENDPOINTS, "utf8")) as RecordedEndpoints;
}
