// Listening sockets that were open before this process: given by the process that it replaces, or kept by the service manager since
// the last one ended. Each has a name that says whose it is and what it is for; who needs one asks for it by that name.

import { createHash } from "node:crypto";
import { close } from "../net/libc.ts";

export interface NamedSocket {
  /** See socketName. Several sockets may carry one name: those of several data threads on one port. */
  readonly name: string;
  readonly fd: number;
}

/** Owner of the process's own ports. */
export const PROCESS_OWNER = "process";

/** Within the service manager's rules for names (no colon, no control character, at most 255 characters). */
export function socketName(owner: string, role: string): string {
  return `${owner}.${role}`;
}

/**
 * Owner of a workload's sockets: the workload and the very namespace that they were made in, so that nobody takes sockets of a
 * namespace that has gone for those of one that came in its place.
 * @param namespaceIdentity see net/namespace.ts.
 */
export function workloadOwner(uid: string, namespaceIdentity: string): string {
  return `w${createHash("sha256").update(`${uid}\0${namespaceIdentity}`).digest("hex").slice(0, 40)}`;
}

export class InheritedSockets {
  readonly #byName = new Map<string, number[]>();
  /** A process is still serving these sockets, and holds the redirection rules that lead to them. */
  readonly shared: boolean;

  /** @param sockets owned by this object until they are taken. */
  constructor(sockets: readonly NamedSocket[], shared: boolean) {
    this.shared = shared;
    for (const { name, fd } of sockets) {
      const fds = this.#byName.get(name);
      if (fds === undefined) this.#byName.set(name, [fd]);
      else fds.push(fd);
    }
  }

  /** The sockets of a name, now the caller's; none when there is none. */
  take(name: string): number[] {
    const fds = this.#byName.get(name) ?? [];
    this.#byName.delete(name);
    return fds;
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  /** Nobody will ask for the others any more. @returns their names. */
  closeRest(): string[] {
    const names = [...this.#byName.keys()];
    for (const fds of this.#byName.values()) for (const fd of fds) close(fd);
    this.#byName.clear();
    return names;
  }
}
