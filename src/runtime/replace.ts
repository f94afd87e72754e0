// Starts this program anew, from its file as it is now, with the arguments of this process: the new one asks for the place of this one.

import { err, ok, type Result } from "../core/result.ts";
import { ownArguments } from "./execute.ts";

/** Said by a service manager to this very process; the new one gets its place with the handover. */
const OURS_ALONE = ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/**
 * Where our file was when we started. Later the kernel tells where that very file is: nowhere, once another one has been put in its place,
 * or under the name to which it was moved out of the way.
 */
const PROGRAM = process.execPath;

export interface Successor {
  readonly pid: number;
  /** Its status, should it end. */
  readonly exited: Promise<number>;
}

/** @returns why none could be started: no file is there, or it cannot be executed. */
export function startSuccessor(): Result<Successor, string> {
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !OURS_ALONE.includes(name)));
  try {
    const child = Bun.spawn([PROGRAM, ...ownArguments().slice(1)], { env: environment, stdio: ["ignore", "inherit", "inherit"] });
    child.unref();
    return ok({ pid: child.pid, exited: child.exited });
  } catch (error) {
    return err(`${PROGRAM} cannot be started: ${error instanceof Error ? error.message : String(error)}`);
  }
}
