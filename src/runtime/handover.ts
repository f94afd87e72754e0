// The shell of handover-protocol.ts: a unix socket in the state directory, descriptors by SCM_RIGHTS, time limits. A predecessor
// whose successor dies half-way goes on as before; a successor whose predecessor dies half-way starts from nothing.

import { renameSync, unlinkSync } from "node:fs";
import { err, ok, type Result } from "../core/result.ts";
import { closeAll, peerCredentials, receiveWithDescriptors, sendWithDescriptors } from "../net/fd-passing.ts";
import { accept, close, EAGAIN, ECONNREFUSED, EINTR, ENOENT, errnoName, SOCK_STREAM } from "../net/libc.ts";
import { connectUnix, listenUnix } from "../net/unix-socket.ts";
import {
  BATCH_MAX, encodeFrame, FrameReader, HANDOVER_VERSION, type HandoverMessage, LISTENERS_MAX, type PredecessorState, stepPredecessor,
  stepSuccessor, type SuccessorState,
} from "./handover-protocol.ts";
import type { NamedSocket } from "./inherited-sockets.ts";

/** File name in the state directory. */
export const HANDOVER_SOCKET = "handover.sock";
/** Hello, offer and descriptors take milliseconds. */
export const EXCHANGE_MS = 10_000;
/** How long the successor may take from its descriptors to being ready: configuration, certificates, data threads. */
export const READY_MS = 60_000;
/** The listener is looked at this often while idle; an exchange, this often. */
const ACCEPT_POLL_MS = 200;
const EXCHANGE_POLL_MS = 2;
/** How often a successor looks whether its predecessor has ended, and asks one that hung up. */
const ENDED_POLL_MS = 250;
const ASK_AGAIN_MS = 100;
const READ_BYTES = 64 * 1024;
const BACKLOG = 4;

export interface HandoverServerOptions {
  readonly path: string;
  readonly role: string;
  /**
   * What there is to hand over now; asked at each request. Null refuses, e.g. while starting or stopping. The descriptors stay the
   * owner's, copies are sent. What follows is `onHandedOver` or `onFailed`: until then nothing of this may change.
   */
  readonly offer: () => readonly NamedSocket[] | null;
  /** The successor serves: stop accepting and drain. Called once; nothing is handed over afterwards. */
  readonly onHandedOver: (successorPid: number) => void;
  /** The exchange came to nothing: all goes on as before. */
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
  /** Open until we end, which is how the successor hears of it. */
  #successor: Channel | null = null;
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

  /** The successor, if there is one, is told that this process has ended. @param removeName true when nobody has taken over. */
  end(removeName: boolean): void {
    this.#close(removeName);
    this.#successor?.close();
  }

  #close(removeName: boolean): void {
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
      if (channel !== this.#successor) channel.close();
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
      if (!received.ok) return received.error.message;
      state = stepPredecessor(state, received.value.message, received.value.fds.length, role);
      switch (state.kind) {
        case "offered": {
          const listeners = offer();
          if (listeners === null) {
            await channel.send({ kind: "refuse", why: "this process has nothing to hand over now" }, [], deadline);
            return "asked while there was nothing to hand over";
          }
          const sent = await sendOffer(channel, listeners, deadline);
          if (!sent.ok) return sent.error.message;
          deadline = performance.now() + readyMs;
          break;
        }
        case "handedOver":
          this.#successor = channel;
          onHandedOver(pid);
          await channel.send({ kind: "released" }, [], performance.now() + exchangeMs);
          this.#exchange = null;
          this.#close(false);
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
  /** The receiver's. */
  readonly sockets: readonly NamedSocket[];
  readonly predecessorPid: number;
  /** We serve: the predecessor may go. `released`: it has stopped accepting. `gone`: it has ended meanwhile, which is as good. */
  ready(): Promise<Result<"released" | "gone", string>>;
  /** Resolves when the predecessor has ended: its last connection with it. */
  ended(): Promise<void>;
  /** We could not start: the predecessor goes on. Whoever took the sockets closes them. */
  abandon(): void;
}

export interface TakeoverFault {
  /** `refused`: it said why. `silent`: it is there and does not answer. `broken`: what it says is not understood, or the socket cannot be used. */
  readonly kind: "refused" | "silent" | "broken";
  readonly message: string;
  /** Null when it could not be asked who it is. */
  readonly predecessorPid: number | null;
}

export interface TakeoverOptions {
  readonly path: string;
  readonly role: string;
  readonly exchangeMs?: number;
  /** For tests: another version of the handover than ours. */
  readonly version?: number;
}

/**
 * Asks the running process, if there is one, for its sockets. Null when nobody is there; a process that ends while it is asked is
 * nobody. An error is one for the operator: somebody is there, and cannot be replaced like this.
 */
export async function takeOver(options: TakeoverOptions): Promise<Result<Takeover | null, TakeoverFault>> {
  const { exchangeMs = EXCHANGE_MS } = options;
  for (;;) {
    const connected = connectUnix(options.path, SOCK_STREAM);
    if ("error" in connected) {
      const nobody = connected.errno === ENOENT || connected.errno === ECONNREFUSED;
      return nobody ? ok(null) : err({ kind: "broken", message: `handover socket: ${connected.error}`, predecessorPid: null });
    }
    const peer = peerCredentials(connected.fd);
    const channel = new Channel(connected.fd);
    const sockets: NamedSocket[] = [];
    const result = await receiveOffer(channel, { ...options, exchangeMs }, sockets);
    if (result.ok) return ok(takeoverOf(channel, sockets, result.value, exchangeMs));
    closeAll(sockets.map(({ fd }) => fd));
    channel.close();
    // It ended in the middle: then the next look finds nobody. One that goes on and hangs up is asked again until it says why.
    if (result.error.kind === "ended") await new Promise<void>((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
    else return err({ kind: result.error.kind, message: result.error.message, predecessorPid: "error" in peer ? null : peer.pid });
  }
}

function takeoverOf(channel: Channel, sockets: readonly NamedSocket[], predecessorPid: number, exchangeMs: number): Takeover {
  return {
    sockets,
    predecessorPid,
    async ready() {
      const deadline = performance.now() + exchangeMs;
      const sent = await channel.send({ kind: "ready" }, [], deadline);
      const answer = sent.ok ? await channel.receive(deadline, 0) : sent;
      if (!answer.ok) {
        channel.close();
        return answer.error.kind === "ended" ? ok("gone") : err(answer.error.message);
      }
      const state = stepSuccessor({ kind: "complete", pid: predecessorPid }, answer.value.message, answer.value.fds.length);
      if (state.kind === "released") return ok("released");
      channel.close();
      return err(state.kind === "failed" ? state.why : `unexpected ${answer.value.message.kind}`);
    },
    async ended() {
      while (!(await channel.hasEnded())) await new Promise<void>((resolve) => setTimeout(resolve, ENDED_POLL_MS).unref());
      channel.close();
    },
    abandon: () => channel.close(),
  };
}

async function sendOffer(channel: Channel, listeners: readonly NamedSocket[], deadline: number): Promise<Result<void, ChannelFault>> {
  if (listeners.length > LISTENERS_MAX) return fault("broken", `${listeners.length} sockets; at most ${LISTENERS_MAX} are handed over`);
  let sent = await channel.send({ kind: "offer", count: listeners.length, pid: process.pid }, [], deadline);
  for (let at = 0; sent.ok && at < listeners.length; at += BATCH_MAX) {
    const batch = listeners.slice(at, at + BATCH_MAX);
    sent = await channel.send({ kind: "batch", labels: batch.map(({ name }) => ({ name })) }, batch.map(({ fd }) => fd), deadline);
  }
  return sent;
}

/** @param into takes what came, also when the rest fails: the caller closes it. @returns the predecessor's pid. */
async function receiveOffer(channel: Channel, options: TakeoverOptions & { readonly exchangeMs: number }, into: NamedSocket[]): Promise<Result<number, ChannelFault | { kind: "refused"; message: string }>> {
  const deadline = performance.now() + options.exchangeMs;
  const asked = await channel.send({ kind: "hello", version: options.version ?? HANDOVER_VERSION, role: options.role, pid: process.pid }, [], deadline);
  if (!asked.ok) return asked;
  let state: SuccessorState = { kind: "asked" };
  for (;;) {
    const received = await channel.receive(deadline, BATCH_MAX);
    if (!received.ok) return received;
    const { message, fds } = received.value;
    state = stepSuccessor(state, message, fds.length);
    if (state.kind === "failed" || message.kind !== "batch") closeAll(fds);
    else message.labels.forEach(({ name }, i) => into.push({ name, fd: fds[i]! }));
    if (state.kind === "failed") return err({ kind: message.kind === "refuse" ? "refused" : "broken", message: state.why });
    if (state.kind === "complete") return ok(state.pid);
  }
}

/** `ended`: the other process is gone. `silent`: it is there. `broken`: it talks nonsense. */
interface ChannelFault {
  readonly kind: "ended" | "silent" | "broken";
  readonly message: string;
}

const fault = (kind: ChannelFault["kind"], message: string): Result<never, ChannelFault> => err({ kind, message });

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

  async send(message: HandoverMessage, fds: readonly number[], deadline: number): Promise<Result<void, ChannelFault>> {
    let rest = encodeFrame(message);
    let attached = fds;
    while (rest.length > 0) {
      if (this.#closed) return fault("broken", "the exchange was ended");
      const sent = sendWithDescriptors(this.#fd, rest, attached);
      if (sent > 0) {
        rest = rest.subarray(sent);
        attached = [];
      } else if (sent !== -EAGAIN && sent !== -EINTR) {
        return fault("ended", `the other process is gone: ${errnoName(sent)}`);
      } else if (!(await pause(deadline))) {
        return fault("silent", "the other process took nothing in time");
      }
    }
    return ok(undefined);
  }

  /** True once the other process has closed its end. */
  async hasEnded(): Promise<boolean> {
    const received = await this.receive(performance.now(), 0);
    return !received.ok && received.error.kind !== "silent";
  }

  async receive(deadline: number, fdsMax: number): Promise<Result<Incoming, ChannelFault>> {
    for (;;) {
      const next = this.#ready.shift();
      if (next !== undefined) return ok(next);
      if (this.#closed) return fault("broken", "the exchange was ended");
      const receipt = receiveWithDescriptors(this.#fd, this.#into, fdsMax);
      if (receipt.kind === "truncated") return fault("broken", receipt.message);
      const { length, fds } = receipt.received;
      this.#fds.push(...fds);
      if (length === 0) return fault("ended", "the other process ended");
      if (length < 0) {
        if (length !== -EAGAIN && length !== -EINTR) return fault("ended", `the other process is gone: ${errnoName(length)}`);
        if (!(await pause(deadline))) return fault("silent", "the other process said nothing in time");
        continue;
      }
      const messages = this.#reader.push(this.#into.subarray(0, length));
      if (!messages.ok) return fault("broken", `not understood: ${messages.error}`);
      for (const message of messages.value) {
        const owned = message.kind === "batch" ? this.#fds.splice(0, message.labels.length) : [];
        this.#ready.push({ message, fds: owned });
      }
      if (this.#fds.length > BATCH_MAX) return fault("broken", "more descriptors than labels");
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
