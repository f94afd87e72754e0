// What a CA is opened with, from the settings of a role: the same whether its keys are the operator's, this machine's or shared by replicas.

import type { Clock } from "../core/ports.ts";
import { systemTimers } from "../net/timers.ts";
import type { Logger } from "../runtime/logger.ts";
import type { Settings } from "../runtime/settings.ts";
import type { CertificateAuthorityOptions } from "./certificate-authority.ts";

export function authorityOptions(settings: Settings, clock: Clock, log: Logger): Omit<CertificateAuthorityOptions, "plugIn" | "onChange"> {
  const { state, trustDomain, certificateLifetimeMs, certificateLifetimeMaxMs } = settings;
  return {
    directory: `${state}/ca`, trustDomain, clock, timers: systemTimers, leafLifetimeMs: certificateLifetimeMs, leafLifetimeMsMax: certificateLifetimeMaxMs,
    onNotice: (message) => log.warn(message),
  };
}
