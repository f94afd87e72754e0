// Whether this data thread may take on one more connection: descriptors of the process, and memory for slow readers. Asked once for each
// accepted socket, before anything is done for it, so that what is there already is not harmed.

import type { DescriptorLimit } from "../net/descriptor-limit.ts";
import type { ByteBudget } from "./byte-budget.ts";

export class Admission {
  readonly #descriptors: DescriptorLimit;
  readonly #budget: ByteBudget;

  constructor(descriptors: DescriptorLimit, budget: ByteBudget) {
    this.#descriptors = descriptors;
    this.#budget = budget;
  }

  /** Why a socket just accepted as `fd` must be closed again; null when it is welcome. */
  refusal(fd: number): string | null {
    const { limit, acceptBelow } = this.#descriptors;
    if (fd >= acceptBelow) return `this process has nearly all of its ${limit} descriptors in use (LimitNOFILE, ulimit -n)`;
    if (this.#budget.full) return `the ${this.#budget.limitBytes} bytes for slow readers are used up (--buffer-limit)`;
    return null;
  }

  /** True when a socket just made as `fd` for a connection already let in must be closed: the last ones are for the agent itself. */
  exhausted(fd: number): boolean {
    return fd >= this.#descriptors.dialBelow;
  }
}
