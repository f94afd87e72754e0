// One process at a time for each state directory: an advisory lock on a file in it, which the kernel lets go of when its holder ends,
// however it ends. A successor is given the lock itself (the descriptor), so that there is no moment in which nobody has it.

import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { err, ok, type Result } from "../core/result.ts";
import { EAGAIN, errnoName, flock, LOCK_EX, LOCK_NB } from "../net/libc.ts";

const FILE = "lock";
/** A process that is ending is waited for: its drain, and a little. */
const ENDING_MS_MAX = 60_000;
/** Between the end of a process and the kernel's letting go of its lock. */
const CRASHED_MS_MAX = 1_000;
const POLL_MS = 50;

export class StateLock {
  readonly fd: number;
  readonly #role: string;

  private constructor(fd: number, role: string) {
    this.fd = fd;
    this.#role = role;
    this.#note("running");
  }

  /**
   * Takes the lock; waits only for a holder that is ending.
   * @param directory the state directory, made when missing.
   */
  static async take(directory: string, role: string): Promise<Result<StateLock, string>> {
    let fd: number;
    try {
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      fd = openSync(join(directory, FILE), "a+", 0o600);
    } catch (cause) {
      return err(`cannot use the state directory ${directory}: ${cause instanceof Error ? cause.message : String(cause)}`);
    }
    const startedMs = performance.now();
    for (;;) {
      const locked = flock(fd, LOCK_EX | LOCK_NB);
      if (locked >= 0) return ok(new StateLock(fd, role));
      const holder = readFileSync(join(directory, FILE), "utf8").trim();
      const waitedMs = performance.now() - startedMs;
      if (locked !== -EAGAIN || waitedMs >= (holder.endsWith("ending") ? ENDING_MS_MAX : CRASHED_MS_MAX)) {
        closeSync(fd);
        if (locked !== -EAGAIN) return err(`cannot lock ${join(directory, FILE)}: ${errnoName(locked)}`);
        return err(`the state directory ${directory} is in use by another weft (process ${holder || "unknown"}): stop it first, or start with --handover, which takes its place without losing a connection; a second node on this machine needs a --state of its own`);
      }
      await Bun.sleep(POLL_MS);
    }
  }

  /** With the descriptor that the predecessor handed over. */
  static handedOver(fd: number, role: string): StateLock {
    return new StateLock(fd, role);
  }

  /** Who starts now may wait for us. */
  ending(): void {
    this.#note("ending");
  }

  release(): void {
    closeSync(this.fd);
  }

  /** For the message of who finds it locked. */
  #note(what: "running" | "ending"): void {
    ftruncateSync(this.fd);
    writeSync(this.fd, `${process.pid} ${this.#role} ${what}\n`);
  }
}
