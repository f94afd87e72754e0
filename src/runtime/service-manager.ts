// Talks to the service manager (systemd): readiness, status, watchdog and stored descriptors, one datagram each. Without a manager
// every call does nothing. No external program, no library: sd_notify(3) is a unix datagram.

import { closeAll, DESCRIPTORS_PER_MESSAGE_MAX, sendWithDescriptors } from "../net/fd-passing.ts";
import { close, EAGAIN, errnoName, F_DUPFD_CLOEXEC, fcntl, SOCK_DGRAM } from "../net/libc.ts";
import { connectUnix } from "../net/unix-socket.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** What waits while the manager's queue is full (a few hundred messages, ten where nobody raised the limit), and how often it is tried. */
const WAITING_MAX = 50_000;
const RETRY_MS = 10;
/** SD_LISTEN_FDS_START. */
const FIRST_PASSED_FD = 3;

export class ServiceManager {
  readonly #path: string | null;
  readonly #onError: (message: string) => void;
  readonly watchdogMs: number | null;
  #watchdog: ReturnType<typeof setInterval> | null = null;
  /** In order. The descriptors are copies: the originals may be closed meanwhile, and their numbers be others'. */
  readonly #waiting: { readonly text: string; readonly fds: readonly number[] }[] = [];
  #retry: ReturnType<typeof setTimeout> | null = null;

  constructor(environment: Environment, onError: (message: string) => void = () => {}) {
    const path = environment["NOTIFY_SOCKET"] ?? "";
    this.#path = path.startsWith("/") || path.startsWith("@") ? path : null;
    this.#onError = onError;
    this.watchdogMs = watchdogOf(environment);
  }

  get present(): boolean {
    return this.#path !== null;
  }

  ready(): void {
    this.#notify("READY=1");
  }

  /** The manager waits for the next `ready`. */
  reloading(): void {
    this.#notify(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
  }

  stopping(): void {
    this.#notify("STOPPING=1");
  }

  /** @param text shown by `systemctl status`; one line. */
  status(text: string): void {
    this.#notify(`STATUS=${text.replace(/[\x00-\x1f]/g, " ").slice(0, 512)}`);
  }

  /** Another process of ours is the service from now on; NotifyAccess=all or exec lets it speak. */
  mainPid(pid: number): void {
    this.#notify(`MAINPID=${pid}`);
  }

  /** How much longer stopping takes, beyond the manager's own limit. */
  extendTimeout(ms: number): void {
    this.#notify(`EXTEND_TIMEOUT_USEC=${Math.round(ms * 1000)}`);
  }

  /** Feeds the watchdog while `healthy` says so, at half its period. Nothing without WATCHDOG_USEC. */
  startWatchdog(healthy: () => boolean): void {
    if (this.watchdogMs === null || this.#watchdog !== null) return;
    const feed = () => {
      if (healthy()) this.#notify("WATCHDOG=1");
    };
    feed();
    this.#watchdog = setInterval(feed, this.watchdogMs / 2);
    this.#watchdog.unref();
  }

  stopWatchdog(): void {
    if (this.#watchdog !== null) clearInterval(this.#watchdog);
    this.#watchdog = null;
  }

  /** Has the manager keep a copy of the descriptors, to be handed to the next process under `name`. */
  storeDescriptors(name: string, fds: readonly number[]): void {
    if (!/^[\x21-\x39\x3b-\x7e]{1,255}$/.test(name)) throw new Error(`not a name for stored descriptors: ${JSON.stringify(name)}`);
    for (let i = 0; i < fds.length; i += DESCRIPTORS_PER_MESSAGE_MAX) {
      // FDPOLL=0: an error that is pending on a UDP socket is no reason to let go of it.
      this.#notify(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, fds.slice(i, i + DESCRIPTORS_PER_MESSAGE_MAX));
    }
  }

  removeDescriptors(name: string): void {
    this.#notify(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  /** Resolves when nothing waits any more, or the time is up: call it before the process ends. */
  async flush(timeoutMs: number): Promise<void> {
    const endMs = performance.now() + timeoutMs;
    while (this.#waiting.length > 0 && performance.now() < endMs) await Bun.sleep(RETRY_MS);
  }

  #notify(text: string, fds: readonly number[] = []): void {
    if (this.#path === null) return;
    if (this.#waiting.length === 0 && this.#send(this.#path, text, fds)) return;
    if (this.#waiting.length >= WAITING_MAX) return this.#onError(`service manager: it has taken nothing for a while, ${JSON.stringify(text)} is not told`);
    this.#waiting.push({ text, fds: fds.map((fd) => fcntl(fd, F_DUPFD_CLOEXEC, 0)).filter((fd) => fd >= 0) });
    this.#retry ??= setTimeout(() => this.#sendWaiting(), RETRY_MS);
  }

  #sendWaiting(): void {
    this.#retry = null;
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (!this.#send(this.#path!, next.text, next.fds)) {
        this.#retry = setTimeout(() => this.#sendWaiting(), RETRY_MS);
        return;
      }
      closeAll(next.fds);
      this.#waiting.shift();
    }
  }

  /** False when it is to be tried again. */
  #send(path: string, text: string, fds: readonly number[]): boolean {
    const connected = connectUnix(path, SOCK_DGRAM);
    if ("error" in connected) {
      this.#onError(`service manager: ${connected.error}`);
      return true;
    }
    const sent = sendWithDescriptors(connected.fd, new TextEncoder().encode(text), fds);
    close(connected.fd);
    if (sent < 0 && sent !== -EAGAIN) this.#onError(`service manager: ${errnoName(sent)}`);
    return sent !== -EAGAIN;
  }
}

export interface PassedDescriptor {
  readonly fd: number;
  readonly name: string;
}

/** Descriptors the manager passed at the start (LISTEN_FDS); none unless they are meant for this very process. */
export function passedDescriptors(environment: Environment, pid: number): PassedDescriptor[] {
  if (environment["LISTEN_PID"] !== String(pid)) return [];
  const count = environment["LISTEN_FDS"] ?? "";
  if (!/^[1-9]\d{0,4}$/.test(count)) return [];
  const names = (environment["LISTEN_FDNAMES"] ?? "").split(":");
  return Array.from({ length: Number(count) }, (_, i) => ({ fd: FIRST_PASSED_FD + i, name: names[i] ?? "unknown" }));
}

function watchdogOf(environment: Environment): number | null {
  const usec = environment["WATCHDOG_USEC"] ?? "";
  const pid = environment["WATCHDOG_PID"];
  if (!/^[1-9]\d{0,15}$/.test(usec) || (pid !== undefined && pid !== "" && pid !== String(process.pid))) return null;
  return Number(usec) / 1000;
}
