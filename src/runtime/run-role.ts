// Makes the runtime of a role, runs it, and ends the process in order: the last log line is written, whatever happened.

import { systemClock, systemRandom } from "../core/ports.ts";
import { ConnectionMetrics } from "../telemetry/connection-metrics.ts";
import { sealEmbeddedProgram } from "./embedded-program.ts";
import { handleSignals, Lifecycle } from "./lifecycle.ts";
import { parseLogFilter } from "./log-filter.ts";
import { descriptorSink, fileSink, LogWriter, writeLastWords } from "./log-writer.ts";
import { formatLine, Log } from "./logger.ts";
import type { RoleMain, Runtime } from "./runtime.ts";
import { ServiceManager } from "./service-manager.ts";
import { trimWhenIdle } from "./resident-memory.ts";
import { type ParsedSettings, type Role } from "./settings.ts";
import { COMMIT, VERSION } from "./version.ts";

export const EXIT_FAILURE = 1;
/** What was asked for is not understood: sysexits' EX_USAGE, which the unit takes as a reason not to restart. */
export const EXIT_USAGE = 64;

/** The last lines may take this long to be written. */
const LOG_FLUSH_MS = 1_000;

export async function runRole(role: Role, parsed: ParsedSettings, load: () => Promise<RoleMain>): Promise<number> {
  const runtime = tryCreateRuntime(role, parsed);
  if (runtime === null) return EXIT_FAILURE;
  sealEmbeddedProgram();
  const log = runtime.log.scope("weft");
  using _signals = handleSignals(runtime.lifecycle);
  followReadiness(runtime);
  const fatal = (error: unknown) => {
    writeLastWords(formatLine(parsed.settings.logFormat, Date.now(), "error", "weft", "unexpected error, ending", { error: describe(error) }));
    process.exit(EXIT_FAILURE);
  };
  process.on("uncaughtException", fatal);
  process.on("unhandledRejection", fatal);
  log.info("starting", { role, version: VERSION, commit: COMMIT, pid: process.pid, state: parsed.settings.state });
  for (const warning of parsed.warnings) log.warn(warning);
  let status = EXIT_FAILURE;
  try {
    const run = await load();
    status = await run(parsed.settings, runtime);
    log.info("ended", { status });
  } catch (error) {
    // A plain Error was thrown with words for the operator; any other kind is a mistake of ours, and its stack is wanted.
    const forOperator = error instanceof Error && error.constructor === Error;
    log.error("could not go on", { error: forOperator ? error.message : describe(error) });
    if (forOperator) log.debug("it was thrown at", { stack: error.stack });
  }
  runtime.serviceManager.stopWatchdog();
  await Promise.all([runtime.logWriter.flush(LOG_FLUSH_MS), runtime.serviceManager.flush(LOG_FLUSH_MS)]);
  return status;
}

function tryCreateRuntime(role: Role, parsed: ParsedSettings): Runtime | null {
  try {
    return createRuntime(role, parsed);
  } catch (error) {
    writeLastWords(`weft ${role}: cannot open the log file ${parsed.settings.logFile}: ${error instanceof Error ? error.message : String(error)}\n`);
    return null;
  }
}

function createRuntime(role: Role, parsed: ParsedSettings): Runtime {
  const { settings } = parsed;
  const filter = parseLogFilter(settings.log);
  if (!filter.ok) throw new Error(`log filter was checked and is bad: ${filter.error}`);
  const clock = systemClock;
  const metrics = new ConnectionMetrics();
  const dropped = metrics.cell("weft_log_lines_dropped_total", { where: "writer" });
  const logWriter = new LogWriter({
    sink: settings.logFile === null ? descriptorSink(2) : fileSink(settings.logFile),
    onDropped: (count) => void (dropped.value += count),
    droppedLine: (count) => formatLine(settings.logFormat, clock.wallMs(), "warn", "weft", "log lines were dropped: they came faster than they could be written", { count }),
  });
  const log = new Log({ writer: logWriter, clock, format: settings.logFormat, filter: filter.value });
  const managerLog = log.scope("weft.service");
  const serviceManager = new ServiceManager(process.env, (message) => managerLog.warn(message));
  return { role, parsed, log, logWriter, lifecycle: new Lifecycle(), serviceManager, metrics, clock, random: systemRandom, collectGarbage: () => {}, healthy: () => true };
}

/** The service manager learns that we are ready when the first task set has been done, and that we stop when we do. */
function followReadiness(runtime: Runtime): void {
  const { lifecycle, serviceManager, log, clock } = runtime;
  const logger = log.scope("weft");
  let announced = false;
  lifecycle.readiness.onChange((ready, before) => {
    if (lifecycle.stop.aborted) return;
    if (ready && !before && !announced) {
      announced = true;
      serviceManager.ready();
      serviceManager.startWatchdog(() => runtime.healthy());
      logger.info("ready");
      trimWhenIdle(() => clock.monotonicMs(), () => runtime.collectGarbage());
    } else if (ready && !before) {
      logger.info("ready again");
    } else if (!ready && before && announced) {
      logger.warn("not ready any more", { pending: lifecycle.readiness.tasks.join("; ") });
    }
    const { tasks, remarks } = lifecycle.readiness;
    serviceManager.status([ready ? "ready" : `waiting for ${tasks.join("; ")}`, ...remarks].join("; "));
  });
  lifecycle.stop.addEventListener("abort", () => {
    const { message, successorPid } = lifecycle.reason!;
    logger.info("stopping", { reason: message });
    if (successorPid !== null) {
      // The service goes on, in another process.
      serviceManager.stopWatchdog();
      serviceManager.mainPid(successorPid);
      return;
    }
    serviceManager.stopping();
    serviceManager.status(`stopping: ${message}`);
  });
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
