// The shell of handover-protocol.ts: a unix socket in the state directory, descriptors by SCM_RIGHTS, time limits. A predecessor
// whose successor dies half-way goes on as before; a successor whose predecessor dies half-way starts from nothing.

import { renameSync, unlinkSync } from "node:fs";
import { err, ok, type Result } from "../core/result.ts";
import { closeAll, peerCredentials, receiveWithDescriptors, sendWithDescriptors } from "../net/fd-passing.ts";
import { accept, close, EAGAIN, ECONNREFUSED, EINTR, ENOENT, errnoName, SOCK_STREAM } from "../net/libc.ts";
import { connectUnix, listenUnix } from "../net/unix-socket.ts";
import {
  BATCH_MAX, encodeFrame, FrameReader, HANDOVER_VERSION, type HandoverMessage, type ListenerLabel, LISTENERS_MAX, type PredecessorState, stepPredecessor,
  stepSuccessor, type SuccessorState,
} from "./handover-protocol.ts";

/** File name in the state directory. */
export const HANDOVER_SOCKET = "handover.sock";
/** Hello, offer and descriptors take milliseconds. */
export const EXCHANGE_MS = 10_000;
/** How long the successor may take from its descriptors to being ready: configuration, certificates, data threads. */
export const READY_MS = 60_000;
/** The listener is looked at this often while idle; an exchange, this often. */
const ACCEPT_POLL_MS = 200;
const EXCHANGE_POLL_MS = 2;
const READ_BYTES = 64 * 1024;
const BACKLOG = 4;

export interface OfferedListener extends ListenerLabel {
  /** Stays the owner's; a copy is sent. */
  readonly fd: number;
}

export interface ReceivedListener extends ListenerLabel {
  /** The receiver closes it. */
  readonly fd: number;
}

export interface HandoverServerOptions {
  readonly path: string;
  readonly role: string;
  /** What there is to hand over now; asked at each request. Null refuses, e.g. while starting or stopping. */
  readonly offer: () => readonly OfferedListener[] | null;
  /** The successor serves: stop accepting and drain. Called once; nothing is handed over afterwards. */
  readonly onHandedOver: (successorPid: number) => void;
  readonly onFailed: (why: string) => void;
  readonly exchangeMs?: number;
  readonly readyMs?: number;
}

/** Waits for a successor, at a socket only the owner of the state directory can reach. */
export class HandoverServer {
  readonly #options: HandoverServerOptions;
  readonly #fd: number;
  #timer: ReturnType<typeof setInterval> | null;
  #exchange: Channel | null = null;
  #closed = false;

  private constructor(options: HandoverServerOptions, fd: number) {
    this.#options = options;
    this.#fd = fd;
    this.#timer = setInterval(() => this.#accept(), ACCEPT_POLL_MS);
    this.#timer.unref();
  }

  /** Takes the name at once, whoever had it: a predecessor has been asked before. */
  static listen(options: HandoverServerOptions): Result<HandoverServer, string> {
    const own = `${options.path}.${process.pid}`;
    removeFile(own);
    const made = listenUnix(own, SOCK_STREAM, BACKLOG);
    if ("error" in made) return err(`handover socket: ${made.error}`);
    try {
      renameSync(own, options.path);
    } catch (cause) {
      close(made.fd);
      removeFile(own);
      return err(`handover socket: ${cause instanceof Error ? cause.message : String(cause)}`);
    }
    return ok(new HandoverServer(options, made.fd));
  }

  /** @param removeName true when nobody has taken over. */
  close(removeName: boolean): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#exchange?.close();
    close(this.#fd);
    if (removeName) removeFile(this.#options.path);
  }

  #accept(): void {
    if (this.#closed) return;
    const fd = accept(this.#fd);
    if (fd < 0) return;
    if (this.#exchange !== null) {
      sendWithDescriptors(fd, encodeFrame({ kind: "refuse", why: "another process is being handed over to" }), []);
      close(fd);
      return;
    }
    const peer = peerCredentials(fd);
    if ("error" in peer || peer.uid !== process.geteuid!()) {
      close(fd);
      this.#options.onFailed(`a process of another user (${"error" in peer ? peer.error : peer.uid}) asked for the listeners`);
      return;
    }
    const channel = new Channel(fd);
    this.#exchange = channel;
    void this.#serve(channel, peer.pid).then((why) => {
      this.#exchange = null;
      channel.close();
      if (why !== null && !this.#closed) this.#options.onFailed(`process ${peer.pid}: ${why}`);
    });
  }

  /** @returns why nothing was handed over, or null. */
  async #serve(channel: Channel, pid: number): Promise<string | null> {
    let state: PredecessorState = { kind: "waiting" };
    const { role, offer, onHandedOver, exchangeMs = EXCHANGE_MS, readyMs = READY_MS } = this.#options;
    let deadline = performance.now() + exchangeMs;
    for (;;) {
      const received = await channel.receive(deadline, 0);
      if (!received.ok) return received.error;
      state = stepPredecessor(state, received.value.message, received.value.fds.length, role);
      switch (state.kind) {
        case "offered": {
          const listeners = offer();
          if (listeners === null) {
            await channel.send({ kind: "refuse", why: "this process has nothing to hand over now" }, [], deadline);
            return "asked while there was nothing to hand over";
          }
          const sent = await sendOffer(channel, listeners, deadline);
          if (!sent.ok) return sent.error;
          deadline = performance.now() + readyMs;
          break;
        }
        case "handedOver":
          onHandedOver(pid);
          await channel.send({ kind: "released" }, [], performance.now() + exchangeMs);
          this.close(false);
          return null;
        case "failed":
          await channel.send({ kind: "refuse", why: state.why }, [], deadline);
          return state.why;
        case "waiting":
          break;
      }
    }
  }
}

export interface Takeover {
  readonly listeners: readonly ReceivedListener[];
  readonly predecessorPid: number;
  /** We serve: the predecessor may go. Resolves when it has stopped accepting; an error means it is gone already, which is as good. */
  ready(): Promise<Result<void, string>>;
  /** We could not start: the predecessor goes on. Closes the listeners too. */
  abandon(): void;
}

export interface TakeoverOptions {
  readonly path: string;
  readonly role: string;
  readonly exchangeMs?: number;
}

/** Asks the running process, if there is one, for its listeners. Null when nobody is there. */
export async function takeOver(options: TakeoverOptions): Promise<Result<Takeover | null, string>> {
  const connected = connectUnix(options.path, SOCK_STREAM);
  if ("error" in connected) {
    const nobody = connected.errno === ENOENT || connected.errno === ECONNREFUSED;
    return nobody ? ok(null) : err(`handover socket: ${connected.error}`);
  }
  const channel = new Channel(connected.fd);
  const listeners: ReceivedListener[] = [];
  const result = await receiveOffer(channel, options, listeners);
  if (!result.ok) {
    closeAll(listeners.map(({ fd }) => fd));
    channel.close();
    return result;
  }
  const exchangeMs = options.exchangeMs ?? EXCHANGE_MS;
  return ok({
    listeners,
    predecessorPid: result.value,
    async ready() {
      const deadline = performance.now() + exchangeMs;
      const sent = await channel.send({ kind: "ready" }, [], deadline);
      const answer = sent.ok ? await channel.receive(deadline, 0) : sent;
      channel.close();
      if (!answer.ok) return answer;
      const state = stepSuccessor({ kind: "complete", pid: result.value }, answer.value.message, answer.value.fds.length);
      return state.kind === "released" ? ok(undefined) : err(state.kind === "failed" ? state.why : `unexpected ${answer.value.message.kind}`);
    },
    abandon() {
      closeAll(listeners.map(({ fd }) => fd));
      channel.close();
    },
  });
}

async function sendOffer(channel: Channel, listeners: readonly OfferedListener[], deadline: number): Promise<Result<void, string>> {
  if (listeners.length > LISTENERS_MAX) return err(`${listeners.length} listeners; at most ${LISTENERS_MAX} are handed over`);
  let sent = await channel.send({ kind: "offer", count: listeners.length, pid: process.pid }, [], deadline);
  for (let at = 0; sent.ok && at < listeners.length; at += BATCH_MAX) {
    const batch = listeners.slice(at, at + BATCH_MAX);
    sent = await channel.send({ kind: "batch", labels: batch.map(({ uid, port, role }) => ({ uid, port, role })) }, batch.map(({ fd }) => fd), deadline);
  }
  return sent;
}

/** @param into takes what came, also when the rest fails: the caller closes it. @returns the predecessor's pid. */
async function receiveOffer(channel: Channel, { role, exchangeMs = EXCHANGE_MS }: TakeoverOptions, into: ReceivedListener[]): Promise<Result<number, string>> {
  const deadline = performance.now() + exchangeMs;
  const asked = await channel.send({ kind: "hello", version: HANDOVER_VERSION, role, pid: process.pid }, [], deadline);
  if (!asked.ok) return asked;
  let state: SuccessorState = { kind: "asked" };
  for (;;) {
    const received = await channel.receive(deadline, BATCH_MAX);
    if (!received.ok) return received;
    const { message, fds } = received.value;
    state = stepSuccessor(state, message, fds.length);
    if (state.kind === "failed" || message.kind !== "batch") closeAll(fds);
    else message.labels.forEach((label, i) => into.push({ ...label, fd: fds[i]! }));
    if (state.kind === "failed") return err(state.why);
    if (state.kind === "complete") return ok(state.pid);
  }
}

interface Incoming {
  readonly message: HandoverMessage;
  readonly fds: readonly number[];
}

/**
 * Frames with descriptors over a non-blocking STREAM socket. Descriptors belong to the frame whose first byte they came with:
 * the kernel ends a receive at such a border, so no frame's descriptors are mixed with another's.
 */
class Channel {
  readonly #fd: number;
  readonly #reader = new FrameReader();
  readonly #into = new Uint8Array(new ArrayBuffer(READ_BYTES));
  readonly #ready: Incoming[] = [];
  #fds: number[] = [];
  #closed = false;

  constructor(fd: number) {
    this.#fd = fd;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeAll([...this.#fds, ...this.#ready.flatMap(({ fds }) => fds)]);
    close(this.#fd);
  }

  async send(message: HandoverMessage, fds: readonly number[], deadline: number): Promise<Result<void, string>> {
    let rest = encodeFrame(message);
    let attached = fds;
    while (rest.length > 0) {
      if (this.#closed) return err("the exchange was ended");
      const sent = sendWithDescriptors(this.#fd, rest, attached);
      if (sent > 0) {
        rest = rest.subarray(sent);
        attached = [];
      } else if (sent !== -EAGAIN && sent !== -EINTR) {
        return err(`the other process is gone: ${errnoName(sent)}`);
      } else if (!(await pause(deadline))) {
        return err(`the other process took nothing in time`);
      }
    }
    return ok(undefined);
  }

  async receive(deadline: number, fdsMax: number): Promise<Result<Incoming, string>> {
    for (;;) {
      const next = this.#ready.shift();
      if (next !== undefined) return ok(next);
      if (this.#closed) return err("the exchange was ended");
      const receipt = receiveWithDescriptors(this.#fd, this.#into, fdsMax);
      if (receipt.kind === "truncated") return err(receipt.message);
      const { length, fds } = receipt.received;
      this.#fds.push(...fds);
      if (length === 0) return err("the other process ended");
      if (length < 0) {
        if (length !== -EAGAIN && length !== -EINTR) return err(`the other process is gone: ${errnoName(length)}`);
        if (!(await pause(deadline))) return err("the other process said nothing in time");
        continue;
      }
      const messages = this.#reader.push(this.#into.subarray(0, length));
      if (!messages.ok) return err(`not understood: ${messages.error}`);
      for (const message of messages.value) {
        const owned = message.kind === "batch" ? this.#fds.splice(0, message.labels.length) : [];
        this.#ready.push({ message, fds: owned });
      }
      if (this.#fds.length > BATCH_MAX) return err("more descriptors than labels");
    }
  }
}

/** False when the deadline has passed. */
async function pause(deadline: number): Promise<boolean> {
  if (performance.now() >= deadline) return false;
  await new Promise<void>((resolve) => setTimeout(resolve, EXCHANGE_POLL_MS));
  return true;
}

function removeFile(path: string): void {
  try {
    unlinkSync(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw cause;
  }
}
