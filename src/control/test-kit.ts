// A log for tests that nobody reads.

import { parseLogFilter } from "../runtime/log-filter.ts";
import { descriptorSink, LogWriter } from "../runtime/log-writer.ts";
import { Log, type Logger } from "../runtime/logger.ts";

export function quietLogger(): Logger {
  const filter = parseLogFilter("off");
  if (!filter.ok) throw new Error(filter.error);
  const writer = new LogWriter({ sink: descriptorSink(2), onDropped: () => {}, droppedLine: () => "" });
  return new Log({ writer, clock: { monotonicMs: () => 0, wallMs: () => 0 }, format: "text", filter: filter.value }).scope("test");
}
