// Giving the place of this process away: a successor may come from now on, and SIGUSR2 starts one. What is handed over is its owner's to
// say; the exchange is handover.ts.

import { join } from "node:path";
import { HANDOVER_SOCKET, HandoverServer } from "./handover.ts";
import type { NamedSocket } from "./inherited-sockets.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Logger } from "./logger.ts";
import { startSuccessor } from "./replace.ts";
import { LOCK_NAME } from "./succession.ts";

export interface GiveAwayOptions {
  readonly state: string;
  readonly role: string;
  readonly lifecycle: Lifecycle;
  readonly log: Logger;
  /** Every socket that the successor is to serve. From here on nothing of them changes, until `thaw`. */
  readonly offer: () => readonly NamedSocket[];
  /** The successor did not come up: all goes on as before. */
  readonly thaw: () => void;
  readonly lockFd: number;
  /** False while somebody else may write what this process keeps on disk. */
  readonly setWritable: (writable: boolean) => void;
}

/** From now on a successor may come. Null when the socket cannot be made: said in the log, and the process works without. */
export function awaitSuccessor(options: GiveAwayOptions): HandoverServer | null {
  const { offer, thaw, lifecycle, log, lockFd, setWritable } = options;
  const server = HandoverServer.listen({
    path: join(options.state, HANDOVER_SOCKET),
    role: options.role,
    offer: () => {
      if (lifecycle.reason !== null) return null;
      setWritable(false);
      const sockets = [...offer(), { name: LOCK_NAME, fd: lockFd }];
      log.info("another process asks for our place", { sockets: sockets.length });
      return sockets;
    },
    onHandedOver: (successorPid) => lifecycle.requestStop({ message: `process ${successorPid} has taken our place`, successorPid, exitStatus: 0 }),
    onFailed: (why) => {
      if (lifecycle.reason === null) {
        setWritable(true);
        thaw();
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
    const started = startSuccessor();
    if (!started.ok) return void log.error("no process can be started in our place; this one goes on", { error: started.error });
    starting = true;
    const { pid, exited } = started.value;
    log.info("starting a process in our place", { pid });
    void exited.then((status) => {
      starting = false;
      if (lifecycle.reason === null) log.error("the process started in our place ended; this one goes on", { pid, status });
    });
  });
}
