// A node's side of a handover, in both roles: coming up in the place of a running process, and giving the place away.
//
//   successor     sockets and lock, first of all  →  everything up, with them  →  ready  →  released: rules, admin ports  →  serves
//   predecessor   offer, and nothing changes any more  →  ready: stops accepting, drains  |  failed: as before

import { join } from "node:path";
import { err, ok, type Result } from "../core/result.ts";
import { HANDOVER_SOCKET, HandoverServer, READY_MS, type Takeover } from "../runtime/handover.ts";
import type { NamedSocket } from "../runtime/inherited-sockets.ts";
import type { Lifecycle } from "../runtime/lifecycle.ts";
import type { Logger } from "../runtime/logger.ts";
import { startSuccessor } from "../runtime/replace.ts";
import { LOCK_NAME } from "../runtime/succession.ts";
import type { NodeAgent } from "./node-agent.ts";

/** A successor gives up this long before its predecessor loses patience with it, and says why. */
const SETTLE_MS_MAX = READY_MS - 10_000;

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

export interface GiveAwayOptions {
  readonly state: string;
  readonly role: string;
  readonly agent: NodeAgent;
  readonly lifecycle: Lifecycle;
  readonly log: Logger;
  /** The process's own sockets. */
  readonly processSockets: () => readonly NamedSocket[];
  readonly lockFd: number;
  /** False while somebody else may write what this process keeps on disk. */
  readonly setWritable: (writable: boolean) => void;
}

/** From now on a successor may come. Null when the socket cannot be made: said in the log, and the node works without. */
export function awaitSuccessor(options: GiveAwayOptions): HandoverServer | null {
  const { agent, lifecycle, log, processSockets, lockFd, setWritable } = options;
  const server = HandoverServer.listen({
    path: join(options.state, HANDOVER_SOCKET),
    role: options.role,
    offer: () => {
      if (lifecycle.reason !== null) return null;
      setWritable(false);
      const sockets = [...agent.offer(), ...processSockets(), { name: LOCK_NAME, fd: lockFd }];
      log.info("another process asks for our place", { sockets: sockets.length });
      return sockets;
    },
    onHandedOver: (successorPid) => lifecycle.requestStop({ message: `process ${successorPid} has taken our place`, successorPid, exitStatus: 0 }),
    onFailed: (why) => {
      if (lifecycle.reason === null) {
        setWritable(true);
        agent.thaw();
      }
      log.warn("the handover came to nothing, this process goes on", { reason: why });
    },
  });
  if (!server.ok) {
    log.warn("no successor can take over from this process", { reason: server.error });
    return null;
  }
  offerReplacement(lifecycle, log);
  return server.value;
}

/** SIGUSR2 starts the program anew; the new process then asks for our place. */
function offerReplacement(lifecycle: Lifecycle, log: Logger): void {
  let starting = false;
  lifecycle.onReplace(() => {
    if (starting || lifecycle.reason !== null) return;
    starting = true;
    const { pid, exited } = startSuccessor();
    log.info("starting a process in our place", { pid });
    void exited.then((status) => {
      starting = false;
      if (lifecycle.reason === null) log.error("the process started in our place ended; this one goes on", { pid, status });
    });
  });
}
