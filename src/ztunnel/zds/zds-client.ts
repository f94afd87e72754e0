// The ztunnel's end of ZDS: a SEQPACKET socket of the node's CNI agent, one message a packet, each answered before the next comes, and a
// network namespace beside each workload that is added. An answer says that the listeners stand, or why they do not; then they are tried
// again here, whatever the CNI agent does.

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { WorkloadUid } from "../../core/brand.ts";
import type { Random } from "../../core/ports.ts";
import { err, ok, type Result } from "../../core/result.ts";
import type { Timers } from "../../net/timers.ts";
import type { LocalWorkload } from "../../mesh/local-workload.ts";
import { closeAll, receiveWithDescriptors, sendWithDescriptors } from "../../net/fd-passing.ts";
import { close, EAGAIN, EINTR, errnoName, SOCK_SEQPACKET } from "../../net/libc.ts";
import { namespaceIdentity } from "../../net/namespace.ts";
import { onReadable } from "../../net/readable.ts";
import { connectUnix } from "../../net/unix-socket.ts";
import { type AddWorkload, type WorkloadRequest, WorkloadRequestSchema, WorkloadResponseSchema, ZdsHelloSchema } from "../../wire/protobuf/istio/workload/zds/zds_pb.ts";
import type { AttachFailure } from "../workload-attacher.ts";
import { type PodName, ZdsWorkloads } from "./zds-workloads.ts";

const ZDS_VERSION = 1;
/** The contract has 1024; names of the greatest length fit. */
const MESSAGE_BYTES_MAX = 4096;
/** More than one is no message of the contract; some room, so that what is too much is seen and closed. */
const DESCRIPTORS_MAX = 8;
/** The CNI agent waits 5 s for an answer. */
export const ANSWER_MS = 4_000;
export const RETRY_FIRST_MS = 10;
export const RETRY_MS_MAX = 15_000;
/** A namespace that was let go of is held open this long: its workload is still on its way out. */
const HOLD_MS = 10_000;
const UID_CHARS_MAX = 256;
/** Namespaces and names of Kubernetes: what a SPIFFE ID and a uid of the mesh can hold. */
const POD_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

export interface ZdsClientOptions {
  readonly path: string;
  /** Of the uids of pods in the mesh. */
  readonly clusterId: string;
  /** The captured workloads of this node, all of them. */
  readonly setLocalWorkloads: (workloads: readonly LocalWorkload[]) => void;
  /** What becomes of a workload that was set: null when its listeners stand. */
  readonly attachment: (uid: WorkloadUid) => Promise<AttachFailure | null>;
  /** Whether a workload that is attached has its certificate: null when it has, else why not, soon and without being asked again. */
  readonly certificate: (uid: WorkloadUid) => Promise<string | null>;
  readonly onEvent: (event: ZdsEvent) => void;
  readonly random: Random;
  readonly timers: Timers;
}

export type ZdsEvent =
  | { readonly kind: "connected" }
  | { readonly kind: "disconnected"; readonly reason: string; readonly retryMs: number }
  /** Every workload of the node was told. */
  | { readonly kind: "snapshot"; readonly workloads: number }
  | { readonly kind: "added"; readonly uid: string; readonly failure: string | null }
  | { readonly kind: "removed"; readonly uid: string }
  | { readonly kind: "refused"; readonly reason: string };

export class ZdsClient {
  readonly #options: ZdsClientOptions;
  readonly #workloads: ZdsWorkloads;
  readonly #into = new Uint8Array(MESSAGE_BYTES_MAX);
  #fd = -1;
  #unwatch: (() => void) | null = null;
  #cancelRetry: (() => void) | null = null;
  #retryMs = RETRY_FIRST_MS;
  /** An answer is owed: nothing more is read before it is given. */
  #answering = false;
  #closed = false;

  constructor(options: ZdsClientOptions) {
    this.#options = options;
    this.#workloads = new ZdsWorkloads(options.clusterId);
  }

  start(): void {
    if (this.#closed) return;
    const connected = connectUnix(this.#options.path, SOCK_SEQPACKET);
    if ("error" in connected) return this.#lost(connected.error);
    this.#fd = connected.fd;
    this.#answering = false;
    this.#workloads.begin();
    const hello = sendWithDescriptors(this.#fd, toBinary(ZdsHelloSchema, create(ZdsHelloSchema, { version: ZDS_VERSION })), []);
    if (hello < 0) return this.#lost(`hello: ${errnoName(hello)}`);
    this.#options.onEvent({ kind: "connected" });
    // Descriptors cannot be had from the runtime's own sockets.
    this.#unwatch = onReadable(this.#fd, () => this.#receive());
  }

  /** Hears nothing more. The namespaces that were told stay open, as their workloads are known by these paths for as long as they are served. */
  disconnect(): void {
    this.#closed = true;
    this.#disconnect();
    this.#cancelRetry?.();
  }

  /** After the last connection of a workload that was told: a descriptor's number is soon another's. */
  close(): void {
    this.disconnect();
    closeAll(this.#workloads.descriptors);
  }

  #lost(reason: string): void {
    this.#disconnect();
    if (this.#closed) return;
    const retryMs = this.#retryMs * (0.5 + this.#options.random.next() / 2);
    this.#retryMs = Math.min(RETRY_MS_MAX, this.#retryMs * 2);
    this.#options.onEvent({ kind: "disconnected", reason, retryMs: Math.round(retryMs) });
    this.#cancelRetry = this.#options.timers.after(retryMs, () => this.start());
  }

  #disconnect(): void {
    this.#unwatch?.();
    this.#unwatch = null;
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }

  #receive(): void {
    while (this.#fd >= 0 && !this.#answering) {
      const receipt = receiveWithDescriptors(this.#fd, this.#into, DESCRIPTORS_MAX);
      if (receipt.kind === "truncated") return this.#protocolError(receipt.message);
      const { length, fds } = receipt.received;
      if (length === -EAGAIN) return;
      if (length === -EINTR) continue;
      if (length <= 0) {
        closeAll(fds);
        return this.#lost(length === 0 ? "it has closed the connection" : errnoName(length));
      }
      this.#retryMs = RETRY_FIRST_MS;
      this.#answering = true;
      void this.#answer(this.#fd, this.#take(this.#into.slice(0, length), fds));
    }
  }

  /** Gives the answer when it is there, and goes on reading. */
  async #answer(fd: number, outcome: Promise<Result<null, string>> | null): Promise<void> {
    if (outcome === null) return; // The connection has been given up.
    const result = await outcome;
    if (this.#fd !== fd) return;
    const bytes = toBinary(WorkloadResponseSchema, create(WorkloadResponseSchema, { payload: { case: "ack", value: { error: result.ok ? "" : result.error } } }));
    const sent = sendWithDescriptors(fd, bytes, []);
    this.#answering = false;
    if (sent < 0) return this.#lost(`answering: ${errnoName(sent)}`);
    this.#receive();
  }

  /** @param fds ours to close. @returns null when the connection was given up. */
  #take(bytes: Uint8Array, fds: readonly number[]): Promise<Result<null, string>> | null {
    const message = readRequest(bytes);
    const wanted = message?.payload.case === "add" ? 1 : 0;
    if (message === null || fds.length !== wanted) {
      closeAll(fds);
      this.#protocolError(message === null ? `a message of ${bytes.length} bytes that is none of ZDS` : `${fds.length} descriptors beside ${message.payload.case ?? "an empty message"}, wanted ${wanted}`);
      return null;
    }
    const { payload } = message;
    switch (payload.case) {
      case "add":
        return this.#add(payload.value, fds[0]!);
      case "keep":
        this.#workloads.keep(payload.value.uid);
        return Promise.resolve(ok(null));
      case "del":
        return Promise.resolve(this.#remove(payload.value.uid));
      case "snapshotSent":
        return Promise.resolve(this.#snapshot());
      case undefined:
        return Promise.resolve(err("the message has no payload that is known"));
    }
  }

  async #add({ uid, workloadInfo: pod, running }: AddWorkload, fd: number): Promise<Result<null, string>> {
    const wrong = wrongNames(uid, pod);
    if (wrong !== null || pod === undefined) {
      close(fd);
      this.#options.onEvent({ kind: "refused", reason: wrong ?? "a workload without its name" });
      return err(wrong ?? "the workload has no workload_info");
    }
    const added = this.#workloads.add(uid, { namespace: pod.namespace, name: pod.name }, { fd, identity: namespaceIdentity(fd) });
    this.#tell();
    if (added.close !== null) this.#closeLater(added.close);
    const outcome = await this.#outcome(added.workload, running);
    this.#options.onEvent({ kind: "added", uid, failure: outcome.ok ? null : outcome.error });
    return outcome;
  }

  /** @param running what goes on well outside joins when nothing is missing; what starts is served as it is, and its connections wait. */
  async #outcome(uid: WorkloadUid, running: boolean): Promise<Result<null, string>> {
    const late = Promise.withResolvers<"late">();
    const cancel = this.#options.timers.after(ANSWER_MS, () => late.resolve("late"));
    const failure = await Promise.race([this.#options.attachment(uid), late.promise]);
    const missing = failure === null && running ? await Promise.race([this.#options.certificate(uid), late.promise]) : null;
    cancel();
    if (failure === "late") return err(`${uid} is not attached after ${ANSWER_MS} ms; it is still being tried`);
    if (failure !== null) return err(`${uid} cannot be attached (${failure.step}): ${failure.message}; it is tried again`);
    return missing === null ? ok(null) : err(`${uid} can join when it has a certificate: ${missing === "late" ? `there is none after ${ANSWER_MS} ms` : missing}`);
  }

  #remove(uid: string): Result<null, string> {
    const fd = this.#workloads.remove(uid);
    if (fd === null) return ok(null);
    this.#tell();
    this.#closeLater(fd);
    this.#options.onEvent({ kind: "removed", uid });
    return ok(null);
  }

  #snapshot(): Result<null, string> {
    const gone = this.#workloads.snapshot();
    if (gone.length > 0) this.#tell();
    for (const fd of gone) this.#closeLater(fd);
    this.#options.onEvent({ kind: "snapshot", workloads: this.#workloads.size });
    return ok(null);
  }

  #tell(): void {
    this.#options.setLocalWorkloads(this.#workloads.localWorkloads);
  }

  #closeLater(fd: number): void {
    this.#options.timers.after(HOLD_MS, () => close(fd));
  }

  #protocolError(reason: string): void {
    this.#options.onEvent({ kind: "refused", reason });
    this.#lost(`it sent ${reason}`);
  }
}

function readRequest(bytes: Uint8Array): WorkloadRequest | null {
  try {
    return fromBinary(WorkloadRequestSchema, bytes);
  } catch {
    return null; // Told as a protocol error, with its length.
  }
}

function wrongNames(uid: string, pod: PodName | undefined): string | null {
  if (uid === "" || uid.length > UID_CHARS_MAX) return `a uid of ${uid.length} characters, wanted 1 to ${UID_CHARS_MAX}`;
  if (pod === undefined) return `workload ${uid} comes without its name`;
  if (!POD_NAME.test(pod.namespace) || !POD_NAME.test(pod.name)) return `workload ${uid} is named ${JSON.stringify(`${pod.namespace}/${pod.name}`.slice(0, 300))}, wanted names as Kubernetes has them`;
  return null;
}
