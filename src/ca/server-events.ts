// What a CA's port tells, as lines of the log.

import { unreachable } from "../core/result.ts";
import type { Logger } from "../runtime/logger.ts";
import type { CaServerEvent } from "./server.ts";

export function logCaEvent(log: Logger, event: CaServerEvent): void {
  switch (event.kind) {
    case "issued":
      return log.info("certificate issued", { identity: event.spiffeId, caller: event.caller, serial: event.serialHex, until: new Date(event.notAfterMs).toISOString() });
    case "refused":
      return log.warn(event.message, { code: event.code, caller: event.caller });
    case "serverCertificate":
      return log.debug("own certificate renewed", { until: new Date(event.notAfterMs).toISOString() });
    default:
      return unreachable(event);
  }
}
