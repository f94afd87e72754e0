// Faults that bring in one page. For a page of a file that is in the page cache the kernel maps its fifteen neighbours as well, which
// doubles or trebles what a process keeps resident when it needs a little of a large program. There is no switch for that for one
// process, but the kernel leaves it out where userfaultfd watches a mapping for writes; of a mapping that nobody can write to there is
// nothing to watch, and no handler is needed (UFFD_FEATURE_WP_ASYNC, Linux 6.7). See userfaultfd(2), ioctl_userfaultfd(2).

import { close, ioctl, O_CLOEXEC, O_NONBLOCK, userfaultfd } from "../net/libc.ts";

/** Faults of this process in user mode only: what needs no privilege. */
const UFFD_USER_MODE_ONLY = 1;
const UFFD_API = 0xaan;
const UFFD_FEATURE_WP_ASYNC = 1n << 15n;
const UFFDIO_API = 0xc018_aa3f;
const UFFDIO_REGISTER = 0xc020_aa00;
const UFFDIO_REGISTER_MODE_WP = 2n;

export class SinglePageFaults {
  /** Holds the registrations for as long as it is open. */
  readonly #fd: number;
  /** Bytes by start. */
  readonly #covered = new Map<number, number>();

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Null where the kernel is older, or a seccomp filter forbids it: things stay as they are. */
  static open(): SinglePageFaults | null {
    const fd = userfaultfd(O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (fd < 0) return null;
    // struct uffdio_api: api, features, ioctls
    if (ioctl(fd, UFFDIO_API, new BigUint64Array([UFFD_API, UFFD_FEATURE_WP_ASYNC, 0n])) === 0) return new SinglePageFaults(fd);
    close(fd);
    return null;
  }

  /** For a whole mapping of a file that is not writable. Done once for each; one that is refused is left as it is. */
  cover(start: number, bytes: number): void {
    if (this.#covered.get(start) === bytes) return;
    this.#covered.set(start, bytes);
    // struct uffdio_register: start, length, mode, ioctls
    ioctl(this.#fd, UFFDIO_REGISTER, new BigUint64Array([BigInt(start), BigInt(bytes), UFFDIO_REGISTER_MODE_WP, 0n]));
  }

  /** Faults are as before. */
  close(): void {
    this.#covered.clear();
    close(this.#fd);
  }
}
