// What every role is given: its log, its life, its own metrics, and the world.

import type { Clock, Random } from "../core/ports.ts";
import type { ConnectionMetrics } from "../telemetry/connection-metrics.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Log } from "./logger.ts";
import type { LogWriter } from "./log-writer.ts";
import type { ServiceManager } from "./service-manager.ts";
import type { ParsedSettings, Role, Settings } from "./settings.ts";

export interface Runtime {
  readonly role: Role;
  readonly parsed: ParsedSettings;
  readonly log: Log;
  readonly logWriter: LogWriter;
  readonly lifecycle: Lifecycle;
  readonly serviceManager: ServiceManager;
  /** Counters of the main thread; data threads have their own. */
  readonly metrics: ConnectionMetrics;
  readonly clock: Clock;
  readonly random: Random;
  /** Asked of a quiet process: give back what the load that is over has left. A role with threads of its own sets it. */
  collectGarbage: () => void;
  /** Whether the service manager's watchdog is fed; a role that can tell sets it. */
  healthy: () => boolean;
}

/** A role runs until it is stopped, and returns its exit status. */
export type RoleMain = (settings: Settings, runtime: Runtime) => Promise<number>;
