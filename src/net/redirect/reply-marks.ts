// Whether replies of an application find their way back to us by the mark of its own socket: an accepted socket takes over the mark of
// the packet that opened it, and what the kernel answers by itself (a refusal) carries the mark of what it answers. Then connections that
// we open from a client's address need no connection tracking, which is a tenth of what a short connection costs.
// Only in a workload's own namespace: on a host other programs mark packets too, and their listeners would inherit those marks.

import { readSysctl, writeSysctl } from "../links.ts";

/** All must be on. The first is for IPv4 and IPv6 alike. */
const SETTINGS = ["net.ipv4.tcp_fwmark_accept", "net.ipv4.fwmark_reflect", "net.ipv6.fwmark_reflect"] as const;

/** Switches it on. Returns why it is not on afterwards, or null; without it replies are found by connection tracking, as ever. */
export function enableReplyMarks(namespaceFd: number): string | null {
  for (const name of SETTINGS) {
    if (isOn(namespaceFd, name)) continue;
    const failed = writeSysctl(namespaceFd, name, "1");
    if (failed < 0 && !isOn(namespaceFd, name)) return `${name} cannot be set (is /proc/sys read-only?)`;
  }
  return null;
}

/** Back to the kernel's defaults, when nobody is left who marks. */
export function disableReplyMarks(namespaceFd: number): void {
  for (const name of SETTINGS) if (isOn(namespaceFd, name)) writeSysctl(namespaceFd, name, "0");
}

export function replyMarksEnabled(namespaceFd: number): boolean {
  return SETTINGS.every((name) => isOn(namespaceFd, name));
}

/** What is not there at all (a kernel without IPv6) need not be on. */
function isOn(namespaceFd: number, name: string): boolean {
  const value = readSysctl(namespaceFd, name);
  return value === "1" || (value === null && name.startsWith("net.ipv6."));
}

/** While the settings are not on they are looked at again this often: another agent, or a person, may switch them on. */
const LOOK_AGAIN_MS = 10_000;

/** The mark for connections that we open towards applications of one namespace from their clients' addresses. */
export class ApplicationMark {
  readonly #namespaceFd: number;
  readonly #tracked: number;
  readonly #untracked: number;
  #enabled = false;
  #lookedMs = Number.NEGATIVE_INFINITY;

  /** @param tracked our packet mark, for a namespace where replies are found by connection tracking. @param untracked the connection mark. */
  constructor(namespaceFd: number, { tracked, untracked }: { readonly tracked: number; readonly untracked: number }) {
    this.#namespaceFd = namespaceFd;
    this.#tracked = tracked;
    this.#untracked = untracked;
  }

  at(nowMs: number): number {
    if (!this.#enabled && nowMs - this.#lookedMs >= LOOK_AGAIN_MS) {
      this.#lookedMs = nowMs;
      this.#enabled = replyMarksEnabled(this.#namespaceFd);
    }
    return this.#enabled ? this.#untracked : this.#tracked;
  }
}
