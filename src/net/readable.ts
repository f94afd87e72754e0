// Readiness of descriptors that the runtime's own loop does not watch: of sockets on which descriptors come. The kernel says by SIGIO that
// something can be read (fcntl(2), O_ASYNC), and the process sleeps until then; looking every few milliseconds would take a hundredth of a processor.

import { F_GETFL, F_SETFL, F_SETOWN, fcntl, O_ASYNC } from "./libc.ts";

/** Where the kernel does not signal: how often it is looked. */
const POLL_MS = 10;
/** Where it does: for a signal that was lost nobody waits longer than this. */
const LOOK_MS = 1_000;

const watchers = new Set<() => void>();
let listening = false;

/**
 * Calls `look` soon after something can be read from `fd`, and now and then besides; at once where it can be read already.
 * @param fd non-blocking; whoever looks reads until there is nothing left.
 * @returns ends it. The descriptor is still the caller's to close.
 */
export function onReadable(fd: number, look: () => void): () => void {
  watchers.add(look);
  const timer = setInterval(look, signalled(fd) ? LOOK_MS : POLL_MS);
  queueMicrotask(() => {
    if (watchers.has(look)) look();
  });
  return () => {
    watchers.delete(look);
    clearInterval(timer);
  };
}

/** A signal does not say of which descriptor it is. Without a listener it would end the process: the one there is stays. */
function signalled(fd: number): boolean {
  if (!listening) {
    process.on("SIGIO", () => {
      for (const look of [...watchers]) look();
    });
    listening = true;
  }
  const flags = fcntl(fd, F_GETFL, 0);
  return flags >= 0 && fcntl(fd, F_SETOWN, process.pid) >= 0 && fcntl(fd, F_SETFL, flags | O_ASYNC) >= 0;
}
