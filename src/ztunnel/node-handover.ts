// A node's side of a handover, in both roles: coming up in the place of a running process, and giving the place away.
//
//   successor     sockets and lock, first of all  →  everything up, with them  →  ready  →  released: rules, admin ports  →  serves
//   predecessor   offer, and nothing changes any more  →  ready: stops accepting, drains  |  failed: as before

import { err, ok, type Result } from "../core/result.ts";
import { READY_MS, type Takeover } from "../runtime/handover.ts";
import type { Logger } from "../runtime/logger.ts";
import type { NodeAgent } from "./node-agent.ts";

/** A successor gives up this long before its predecessor loses patience with it, and says why. */
export const SETTLE_MS_MAX = READY_MS - 10_000;

/** Resolves when every workload that the predecessor serves is served here too; with the reason when that takes too long. */
export async function settled(agent: NodeAgent, changed: () => Promise<void>, timeoutMs = SETTLE_MS_MAX): Promise<Result<void, string>> {
  const late = Promise.withResolvers<"late">();
  const timer = setTimeout(() => late.resolve("late"), timeoutMs);
  try {
    while (agent.unsettled !== null) {
      if ((await Promise.race([changed(), late.promise])) === "late") return err(`not ready after ${timeoutMs} ms: ${agent.unsettled ?? "unknown"}`);
    }
    return ok(undefined);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Takes the place of the predecessor. An error: it goes on as before, and this process must end.
 * @returns resolves when the predecessor has ended.
 */
export async function takePlace(takeover: Takeover, agent: NodeAgent, log: Logger): Promise<Result<{ readonly ended: Promise<void> }, string>> {
  const released = await takeover.ready();
  if (!released.ok) return released;
  agent.claimRules();
  if (released.value === "gone") {
    agent.predecessorEnded();
    log.warn("took the place of a process that ended meanwhile", { predecessor: takeover.predecessorPid });
    return ok({ ended: Promise.resolve() });
  }
  log.info("took the place of the running process, which ends when its connections have", { predecessor: takeover.predecessorPid });
  const ended = takeover.ended().then(() => {
    agent.predecessorEnded();
    log.info("the predecessor has ended", { predecessor: takeover.predecessorPid });
  });
  return ok({ ended });
}
