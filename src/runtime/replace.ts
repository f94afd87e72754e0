// Starts this program anew, from its file as it is now, with the arguments of this process: the new one asks for the place of this one.

import { ownArguments } from "./execute.ts";

/** Said by a service manager to this very process; the new one gets its place with the handover. */
const OURS_ALONE = ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/** @returns its pid, and its status should it end. */
export function startSuccessor(): { readonly pid: number; readonly exited: Promise<number> } {
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !OURS_ALONE.includes(name)));
  const child = Bun.spawn([process.execPath, ...ownArguments().slice(1)], { env: environment, stdio: ["ignore", "inherit", "inherit"] });
  child.unref();
  return { pid: child.pid, exited: child.exited };
}
