// docs/resilience.md tells the defaults; this holds it to them.

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { DEFAULT_SETTINGS } from "../../../test/kit/upstreams.ts";
import { BASE_EJECTION_MS, CONSECUTIVE_5XX, UNLIMITED } from "./defaults.ts";
import { RETRY_BUDGET_DEFAULT } from "./settings.ts";

const s = (ms: number): string => (ms === 0 ? "none" : `${ms / 1000} s`);
const count = (n: number): string => (n === UNLIMITED ? "none" : `${n}`);
const share = (n: number): string => `${n * 100} %`;
const { outliers, limits, retry, timeouts, balancing } = DEFAULT_SETTINGS;
const retryBudget = RETRY_BUDGET_DEFAULT;

const DEFAULTS: Readonly<Record<string, string>> = {
  balancing: balancing.kind,
  "ejection: connect failures in a row": count(outliers.consecutiveConnectFailures),
  "ejection: 5xx in a row, once configured": count(CONSECUTIVE_5XX),
  "ejection: interval": s(outliers.intervalMs),
  "ejection: first time, once configured": s(BASE_EJECTION_MS),
  "ejection: longest": s(outliers.ejectionMaxMs),
  "ejection: largest share": share(outliers.ejectedShareMax),
  "panic threshold": share(outliers.panicThreshold),
  retries: count(retry.attempts),
  "back-off, base": `${retry.backoffBaseMs} ms`,
  "back-off, bound": `${retry.backoffMaxMs} ms`,
  "retry budget: share": share(retryBudget.fraction),
  "retry budget: interval": s(retryBudget.intervalMs),
  "retry budget: in any case": count(retryBudget.retriesMin),
  "timeout of a request": s(timeouts.requestMs),
  "stream idle": s(timeouts.streamIdleMs),
  "connect timeout": s(limits.connectTimeoutMs),
  "idle connection": s(limits.idleTimeoutMs),
  connections: count(limits.connectionsMax),
  "waiting requests": count(limits.pendingRequestsMax),
  "requests under way": count(limits.activeRequestsMax),
  "retries under way": count(limits.activeRetriesMax),
};

test("docs/resilience.md names every default, and as it is", () => {
  const text = readFileSync(join(import.meta.dir, "../../../docs/resilience.md"), "utf8");
  const rows = text.slice(text.indexOf("## Defaults")).split("\n").filter((line) => line.startsWith("| ") && !line.startsWith("| setting"));
  expect(Object.fromEntries(rows.map((line) => line.split("|").slice(1, 3).map((cell) => cell.trim())))).toEqual(DEFAULTS);
});
