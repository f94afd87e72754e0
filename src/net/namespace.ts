// Network namespaces: opening them, and running a few system calls inside one.

import { fstatSync, statSync } from "node:fs";
import { CLONE_NEWNET, close, errnoName, O_CLOEXEC, O_RDONLY, open, setns } from "./libc.ts";

const selfFd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

/** Opens a namespace file such as `/run/netns/web`. Returns a descriptor the caller closes, or -errno. */
export function openNamespace(path: string): number {
  return open(path, O_RDONLY | O_CLOEXEC);
}

/** Tells one namespace from another for as long as either is open: device and inode. */
export function namespaceIdentity(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}

/** The same for whatever is at a path now; null when nothing is. */
export function namespaceIdentityAt(path: string): string | null {
  const stats = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stats === undefined ? null : `${stats.dev}:${stats.ino}`;
}

export const closeNamespace = (fd: number): number => close(fd);

/** Stands for the namespace that this process is in already: nothing is entered, and no privilege is needed. */
export const OWN_NAMESPACE = -1;

/**
 * Runs `body` with this thread inside the network namespace `fd`, and comes back.
 * `body` may only make system calls: no await, no fetch, no file or name look-up, and as little allocation as possible,
 * because a helper thread that the runtime starts meanwhile would stay inside for ever.
 * A failure to come back ends the process: going on in the wrong namespace would leak traffic.
 */
export function inNamespace<R>(fd: number, body: () => R): R {
  if (fd === OWN_NAMESPACE) return body();
  if (selfFd < 0) throw new Error(`cannot open our own network namespace: ${errnoName(selfFd)}; is /proc mounted?`);
  const entered = setns(fd, CLONE_NEWNET);
  if (entered < 0) throw new Error(`setns into network namespace failed: ${errnoName(entered)}; CAP_SYS_ADMIN is needed`);
  try {
    return body();
  } finally {
    if (setns(selfFd, CLONE_NEWNET) < 0) process.abort();
  }
}
