// Listening sockets that share their ports (SO_REUSEPORT) with those of a process that goes on, before ours are closed. The kernel gives
// each new connection to one socket of the group for good, from its SYN on: closing that socket resets the connection, whether its
// handshake is still under way or it has just been queued. So nothing new is given to ours for a while, and only then are they closed.

import { ptr } from "bun:ffi";
import { close, F_DUPFD_CLOEXEC, fcntl, setIntOption, setOption, SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF, SO_DETACH_REUSEPORT_BPF, SOL_SOCKET } from "./libc.ts";

/**
 * How long nothing new is given to listeners before they close. Longer than the kernel's first retransmission in a handshake, in either
 * direction (1 s): by then, each that began before has ended.
 */
export const RETREAT_MS = 1_500;

/** `struct sock_filter`: operation, jump if true, jump if false, operand. */
type Instruction = readonly [code: number, whenTrue: number, whenFalse: number, operand: number];
const INSTRUCTION_BYTES = 8;
const LOAD_BYTE = 0x30;
const AND = 0x54;
const JUMP_IF_EQUAL = 0x15;
const RETURN = 0x06;

const TCP_FLAGS_OFFSET = 13;
const TCP_SYN = 0x02;
const TCP_ACK = 0x10;
const WHOLE_PACKET = 0xffff_ffff;

/** First packets of a connection are dropped: whoever sent one sends it again after a second. */
const NO_FIRST_PACKETS: readonly Instruction[] = [
  [LOAD_BYTE, 0, 0, TCP_FLAGS_OFFSET],
  [AND, 0, 0, TCP_SYN | TCP_ACK],
  [JUMP_IF_EQUAL, 0, 1, TCP_SYN],
  [RETURN, 0, 0, 0],
  [RETURN, 0, 0, WHOLE_PACKET],
];

/** Our listening descriptors of one address and port; borrowed. */
export interface RetreatingGroup {
  readonly fds: readonly number[];
  /**
   * Where the sockets of others stand in the group: all before ours, or all after. A socket that is closed has the group's last one put in
   * its place: with more than two processes in a group nobody can say (listener-place.ts).
   */
  readonly others: "first" | "last";
}

export class ListenerRetreat {
  /** Of our own: the sockets stay in their groups until the last of them is closed, whoever else closes its descriptor meanwhile. */
  readonly #groups: readonly (readonly number[])[];

  private constructor(groups: readonly (readonly number[])[]) {
    this.#groups = groups;
  }

  /** From here on the kernel gives every new connection to a socket of the others, where there is one; else to ours as before. */
  static begin(groups: Iterable<RetreatingGroup>): ListenerRetreat {
    const held: number[][] = [];
    for (const { fds, others } of groups) {
      const own = fds.map((fd) => fcntl(fd, F_DUPFD_CLOEXEC, 0)).filter((fd) => fd >= 0);
      held.push(own);
      // An index outside the group means: by hash, as without a program.
      if (own.length > 0) attach(own[0]!, SO_ATTACH_REUSEPORT_CBPF, [[RETURN, 0, 0, others === "first" ? 0 : own.length]]);
    }
    return new ListenerRetreat(held);
  }

  /** Before our listeners are closed: what they are given in spite of all comes again, to another. */
  seal(): void {
    for (const fd of this.#groups.flat()) attach(fd, SO_ATTACH_FILTER, NO_FIRST_PACKETS);
  }

  /** After everyone else has closed them. The sockets that stay share the connections among themselves again. */
  end(): void {
    for (const fds of this.#groups) {
      if (fds.length > 0) setIntOption(fds[0]!, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0);
      for (const fd of fds) close(fd);
    }
  }
}

/** The kernel takes a copy. A refusal (no memory for it) leaves things as they were: connections may be reset, as they were always. */
function attach(fd: number, option: number, instructions: readonly Instruction[]): void {
  const program = new DataView(new ArrayBuffer(instructions.length * INSTRUCTION_BYTES));
  for (const [i, [code, whenTrue, whenFalse, operand]] of instructions.entries()) {
    program.setUint16(i * INSTRUCTION_BYTES, code, true);
    program.setUint8(i * INSTRUCTION_BYTES + 2, whenTrue);
    program.setUint8(i * INSTRUCTION_BYTES + 3, whenFalse);
    program.setUint32(i * INSTRUCTION_BYTES + 4, operand, true);
  }
  const bytes = new Uint8Array(program.buffer);
  // `struct sock_fprog`: the number of instructions, and where they are.
  const header = new DataView(new ArrayBuffer(16));
  header.setUint16(0, instructions.length, true);
  header.setBigUint64(8, BigInt(ptr(bytes)), true);
  setOption(fd, SOL_SOCKET, option, new Uint8Array(header.buffer));
  bytes.fill(0); // alive until here: the kernel read it by its address
}
