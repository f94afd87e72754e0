// One ztunnel of this node, at its end of the ZDS socket: its hello, then one message at a time, each with its answer. Which messages, and
// to whom, is zds-server.ts's.

import { create, fromBinary, toBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { err, ok, type Result } from "../core/result.ts";
import { sendWithDescriptors } from "../net/fd-passing.ts";
import { errnoName } from "../net/libc.ts";
import { WorkloadRequestSchema, WorkloadResponseSchema, ZdsHelloSchema } from "../wire/protobuf/istio/workload/zds/zds_pb.ts";

/** The contract's own: a ztunnel answers at once, whatever it has to wait for itself. */
export const ANSWER_MS = 5_000;
const VERSION = 1;

export type ZdsMessage = MessageInitShape<typeof WorkloadRequestSchema>;

interface Queued {
  readonly message: ZdsMessage;
  /** Asked for when the message's turn has come; null when the namespace has been let go of meanwhile. */
  readonly namespaceFd: (() => number | null) | null;
  readonly settle: (outcome: Result<void, string>) => void;
}

export class ZtunnelConnection {
  readonly #fd: number;
  readonly #end: () => void;
  readonly #onHello: () => void;
  readonly #queue: Queued[] = [];
  #inFlight: Queued | null = null;
  #timer: ReturnType<typeof setTimeout> | null;
  #greeted = false;
  #closed: string | null = null;

  /** @param fd of the socket, which stays the caller's; `end` closes it. */
  constructor(options: { readonly fd: number; readonly end: () => void; readonly onHello: () => void }) {
    this.#fd = options.fd;
    this.#end = options.end;
    this.#onHello = options.onHello;
    this.#timer = setTimeout(() => this.close(`it has not said hello in ${ANSWER_MS / 1000} s`), ANSWER_MS);
  }

  /** Resolves with the ztunnel's answer: done, or why not. */
  send(message: ZdsMessage, namespaceFd: (() => number | null) | null = null): Promise<Result<void, string>> {
    if (this.#closed !== null) return Promise.resolve(err(this.#closed));
    return new Promise((settle) => {
      this.#queue.push({ message, namespaceFd, settle });
      this.#next();
    });
  }

  /** One packet from the ztunnel. */
  received(packet: Uint8Array): void {
    if (this.#closed !== null) return;
    try {
      if (!this.#greeted) {
        const { version } = fromBinary(ZdsHelloSchema, packet);
        if (version !== VERSION) return this.close(`it speaks version ${version} of ZDS, wanted ${VERSION}`);
        this.#greeted = true;
        this.#clearTimer();
        this.#onHello();
        return this.#next();
      }
      const { payload } = fromBinary(WorkloadResponseSchema, packet);
      const answered = this.#inFlight;
      if (payload.case !== "ack" || answered === null) return this.close("it sent something that is no answer");
      this.#inFlight = null;
      this.#clearTimer();
      answered.settle(payload.value.error === "" ? ok(undefined) : err(payload.value.error));
    } catch (cause) {
      return this.close(`it sent a packet that is not understood: ${cause instanceof Error ? cause.message : String(cause)}`);
    }
    this.#next();
  }

  /** Everything that waits for an answer gets `why`. Idempotent. */
  close(why: string): void {
    if (this.#closed !== null) return;
    this.#closed = why;
    this.#clearTimer();
    this.#end();
    const waiting = [...(this.#inFlight === null ? [] : [this.#inFlight]), ...this.#queue.splice(0)];
    this.#inFlight = null;
    for (const { settle } of waiting) settle(err(why));
  }

  get closedBecause(): string | null {
    return this.#closed;
  }

  #next(): void {
    while (this.#greeted && this.#inFlight === null && this.#closed === null) {
      const queued = this.#queue.shift();
      if (queued === undefined) return;
      const fd = queued.namespaceFd === null ? null : queued.namespaceFd();
      if (queued.namespaceFd !== null && fd === null) {
        queued.settle(err("the pod is gone"));
        continue;
      }
      const bytes = toBinary(WorkloadRequestSchema, create(WorkloadRequestSchema, queued.message));
      const sent = sendWithDescriptors(this.#fd, bytes, fd === null ? [] : [fd]);
      if (sent < 0) {
        queued.settle(err(`the ztunnel cannot be told: ${errnoName(sent)}`));
        return this.close(`sending failed: ${errnoName(sent)}`);
      }
      this.#inFlight = queued;
      this.#timer = setTimeout(() => this.close(`it has not answered in ${ANSWER_MS / 1000} s`), ANSWER_MS);
    }
  }

  #clearTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
