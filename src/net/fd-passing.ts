// Descriptors over unix sockets (SCM_RIGHTS), for STREAM, SEQPACKET and DGRAM. What is received is close-on-exec, and closed here
// whenever the caller does not get it. Structs are laid out for 64-bit little-endian Linux: msghdr 56 bytes, iovec 16, cmsghdr 16.

import { ptr } from "bun:ffi";
import { close, errnoName, getOption, MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_NOSIGNAL, recvmsg, sendmsg, SOL_SOCKET } from "./libc.ts";

/** SCM_MAX_FD of the kernel: more in one message is EINVAL. */
export const DESCRIPTORS_PER_MESSAGE_MAX = 253;

const SCM_RIGHTS = 1;
const SO_PEERCRED = 17;
const MSGHDR_BYTES = 56;
const CMSGHDR_BYTES = 16;
const MSG_CTRUNC = 0x08;
const MSG_TRUNC = 0x20;

/**
 * Sends `bytes` (at least one) with `fds` attached to the first of them. Never waits.
 * @returns bytes taken (for a STREAM perhaps not all; the descriptors went with the first), or -errno.
 */
export function sendWithDescriptors(socket: number, bytes: Uint8Array, fds: readonly number[]): number {
  if (bytes.length === 0) throw new Error("descriptors travel with at least one byte");
  if (fds.length > DESCRIPTORS_PER_MESSAGE_MAX) throw new Error(`${fds.length} descriptors in one message; ${DESCRIPTORS_PER_MESSAGE_MAX} is the kernel's limit`);
  const message = new Message(bytes, fds.length);
  message.putDescriptors(fds);
  return sendmsg(socket, message.header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

export interface Received {
  /** 0 at the end of a STREAM or SEQPACKET, or -errno; -EAGAIN when nothing is there. */
  readonly length: number;
  /** The caller owns and closes them. */
  readonly fds: readonly number[];
}

export type Receipt = { readonly kind: "received"; readonly received: Received } | { readonly kind: "truncated"; readonly message: string };

/**
 * Receives into `into`. A message whose data or descriptors did not fit is reported as truncated, with nothing left open.
 * @param fdsMax descriptors expected at most; more is truncation.
 */
export function receiveWithDescriptors(socket: number, into: Uint8Array, fdsMax: number): Receipt {
  const message = new Message(into, fdsMax);
  const length = recvmsg(socket, message.header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (length < 0) return { kind: "received", received: { length, fds: [] } };
  const fds = message.takeDescriptors();
  const flags = message.flags;
  if ((flags & (MSG_CTRUNC | MSG_TRUNC)) !== 0 || fds.length > fdsMax) {
    closeAll(fds);
    return { kind: "truncated", message: (flags & MSG_TRUNC) !== 0 ? `a message longer than ${into.length} bytes` : `more than ${fdsMax} descriptors in one message` };
  }
  return { kind: "received", received: { length, fds } };
}

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** Who connected to, or listens on, the other end, as the kernel noted it then. */
export function peerCredentials(socket: number): PeerCredentials | { readonly error: string } {
  const ucred = new Int32Array(3);
  const length = getOption(socket, SOL_SOCKET, SO_PEERCRED, new Uint8Array(ucred.buffer));
  if (length < 0) return { error: errnoName(length) };
  return { pid: ucred[0]!, uid: ucred[1]! >>> 0, gid: ucred[2]! >>> 0 };
}

export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) close(fd);
}

/**
 * A msghdr over one buffer and room for descriptors. Borrow for one call. Memory whose address the kernel gets is made from an
 * ArrayBuffer: asking a small typed array for its `buffer` later would move it.
 */
class Message {
  readonly header = new Uint8Array(new ArrayBuffer(MSGHDR_BYTES));
  readonly #iovec = new BigUint64Array(2);
  readonly #control: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array, descriptorsMax: number) {
    this.#control = new Uint8Array(new ArrayBuffer(descriptorsMax === 0 ? 0 : CMSGHDR_BYTES + Math.ceil((descriptorsMax * 4) / 8) * 8));
    this.#view = new DataView(this.header.buffer);
    this.#iovec[0] = BigInt(ptr(bytes));
    this.#iovec[1] = BigInt(bytes.length);
    this.#view.setBigUint64(16, BigInt(ptr(this.#iovec)), true);
    this.#view.setBigUint64(24, 1n, true);
    if (descriptorsMax > 0) this.#view.setBigUint64(32, BigInt(ptr(this.#control)), true);
    this.#view.setBigUint64(40, BigInt(this.#control.length), true);
  }

  putDescriptors(fds: readonly number[]): void {
    if (fds.length === 0) return;
    const control = new DataView(this.#control.buffer);
    control.setBigUint64(0, BigInt(CMSGHDR_BYTES + 4 * fds.length), true);
    control.setInt32(8, SOL_SOCKET, true);
    control.setInt32(12, SCM_RIGHTS, true);
    fds.forEach((fd, i) => control.setInt32(CMSGHDR_BYTES + 4 * i, fd, true));
  }

  takeDescriptors(): number[] {
    const controlLength = Number(this.#view.getBigUint64(40, true));
    const control = new DataView(this.#control.buffer);
    const fds: number[] = [];
    for (let at = 0; at + CMSGHDR_BYTES <= controlLength; ) {
      const length = Number(control.getBigUint64(at, true));
      if (length < CMSGHDR_BYTES || at + length > this.#control.length) break;
      if (control.getInt32(at + 8, true) === SOL_SOCKET && control.getInt32(at + 12, true) === SCM_RIGHTS) {
        for (let fdAt = at + CMSGHDR_BYTES; fdAt + 4 <= at + length; fdAt += 4) fds.push(control.getInt32(fdAt, true));
      }
      at += Math.ceil(length / 8) * 8;
    }
    return fds;
  }

  get flags(): number {
    return this.#view.getInt32(48, true);
  }
}
