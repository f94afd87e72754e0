// How a role that serves connections ends: drained to the last of them, or with its place given to a successor that serves already and
// what is left here ending by itself. One order for every such role: what judges a connection outlives it.

import { ADMIN_HANDOVER_MS, type AdminServers } from "./admin.ts";
import type { ConfigSource } from "./config-source.ts";
import type { HandoverServer } from "./handover.ts";
import type { Lifecycle, StopReason } from "./lifecycle.ts";
import type { Logger } from "./logger.ts";
import { drainMs, type Settings } from "./settings.ts";
import type { StateLock } from "./state-lock.ts";

/** What a drain may take beyond its deadline: a data thread's own comes first. */
export const DRAIN_GRACE_MS = 2_000;

export interface Leaving {
  readonly settings: Settings;
  readonly lifecycle: Lifecycle;
  readonly log: Logger;
  readonly configuration: ConfigSource;
  readonly lock: StateLock;
  readonly admin: AdminServers;
  /** Null where nobody may take this place. */
  readonly successors: HandoverServer | null;
  /** Of the process whose place this one took. Our successor knows of us alone, and takes our end for that of whoever was before. */
  readonly predecessorEnded: Promise<void>;
  /** A successor has the listening ports. Needed when something beside the connections has to be handed over. */
  readonly handOver?: () => Promise<unknown>;
  /** A drain that is under way is to end within `deadlineMs`. */
  readonly hurry: (deadlineMs: number) => void;
  /** @returns the number of connections that were closed by force. */
  readonly drain: (deadlineMs: number) => Promise<number>;
  /** No connection is judged any more: what judged them beside the configuration may go. */
  readonly judged?: () => void;
  readonly close: () => void | Promise<void>;
}

export async function leave(reason: StopReason, leaving: Leaving): Promise<void> {
  const { settings, lifecycle, log, configuration, lock, admin, successors } = leaving;
  const replaced = reason.successorPid !== null;
  const deadlineMs = replaced ? settings.handoverDrainMs : drainMs(settings);
  log.info("draining", { reason: reason.message, deadline_ms: deadlineMs });
  const endJudging = async (): Promise<void> => {
    await configuration[Symbol.asyncDispose]();
    leaving.judged?.();
  };
  let handedOver: Promise<unknown> = Promise.resolve();
  if (replaced) {
    // The successor serves. What is left here is judged by what the configuration says meanwhile.
    configuration.stopStoring();
    handedOver = Promise.all([leaving.handOver?.(), admin.stop(ADMIN_HANDOVER_MS)]);
    lifecycle.hurry.addEventListener("abort", () => leaving.hurry(drainMs(settings)), { once: true });
  } else {
    successors?.end(true);
    lock.ending();
    await endJudging();
  }
  const forced = await lifecycle.within(deadlineMs + DRAIN_GRACE_MS, leaving.drain(deadlineMs));
  log.info("drained", { closed_by_force: forced ?? "unknown" });
  if (replaced) {
    await endJudging();
    await lifecycle.within(ADMIN_HANDOVER_MS, handedOver);
    await lifecycle.within(deadlineMs, leaving.predecessorEnded);
  } else {
    await admin.stop();
  }
  await leaving.close();
  successors?.end(false);
}
