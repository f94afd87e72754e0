// A log for what a test runs in its own process: says nothing, or what the filter in TEST_LOG lets through.

import { systemClock } from "../../src/core/ports.ts";
import { parseLogFilter } from "../../src/runtime/log-filter.ts";
import { descriptorSink, LogWriter } from "../../src/runtime/log-writer.ts";
import { Log, type Logger } from "../../src/runtime/logger.ts";

export function quietLog(scope = "test"): Logger {
  const filter = parseLogFilter(process.env["TEST_LOG"] ?? "off");
  if (!filter.ok) throw new Error(filter.error);
  return new Log({ writer: new LogWriter({ sink: descriptorSink(2), onDropped: () => {}, droppedLine: () => "" }), clock: systemClock, format: "text", filter: filter.value }).scope(scope);
}
