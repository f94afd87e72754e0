// The filter of an access log: of the CEL that Istio takes, the comparisons that people write, joined by &&.
//   response.code >= 400 && response.duration > duration("1s") && random() < 0.1

import { err, ok, type Result } from "../core/result.ts";
import type { AccessLogCondition } from "../mesh/l7/telemetry.ts";
import { parseDuration } from "./durations.ts";

const STATUS = /^response\.code\s*(>=|<=|==|!=|>|<)\s*([1-5][0-9]{2})$/;
const SLOW = /^(?:response|request)\.(?:total_)?duration\s*>=?\s*duration\(\s*["']([^"']+)["']\s*\)$/;
const SAMPLE = /^random\(\)\s*<\s*(0|1|0?\.[0-9]{1,9}|1\.0+)$/;
const EXPECTED = 'expected comparisons joined by &&: response.code >= 400, response.duration > duration("1s"), random() < 0.1';

export function parseAccessLogFilter(expression: string): Result<readonly AccessLogCondition[], string> {
  const conditions: AccessLogCondition[] = [];
  for (const part of expression.split("&&").map((text) => text.trim())) {
    const condition = parseComparison(part);
    if (condition === null) return err(EXPECTED);
    conditions.push(condition);
  }
  return ok(conditions);
}

function parseComparison(text: string): AccessLogCondition | null {
  const status = STATUS.exec(text);
  if (status !== null) return { kind: "status", compare: status[1] as ">=", value: Number(status[2]) };
  const sample = SAMPLE.exec(text);
  if (sample !== null) return { kind: "sample", fraction: Number(sample[1]) };
  const slow = SLOW.exec(text);
  const value = slow === null ? null : parseDuration(slow[1]!);
  return value === null ? null : { kind: "slowerThanMs", value };
}
