// What passes on a link, seen from an AF_PACKET socket: packets with their payloads, and whether given bytes were among them.
// Proof of absence needs every packet, so a witness that lost one refuses to answer.

import { type IpAddress, ipFromBytes, type SocketAddress } from "../../src/core/ip.ts";
import { AF_PACKET, bind, close, EAGAIN, EINTR, errnoName, getOption, MSG_DONTWAIT, recv, setIntOption, SO_RCVBUFFORCE, SOCK_CLOEXEC, SOCK_RAW, socket, SOL_SOCKET } from "../../src/net/libc.ts";
import { must, NamespaceLinks } from "../../src/net/links.ts";
import { inNamespace } from "../../src/net/namespace.ts";

const ETH_P_ALL = 0x0003;
const SOL_PACKET = 263;
const PACKET_STATISTICS = 6;
const ETHERNET_HEADER_BYTES = 14;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const IPPROTO_TCP = 6;
const IPPROTO_UDP = 17;

/** Kernel queue between two readings, and how often it is read. */
const QUEUE_BYTES = 64 * 1024 * 1024;
const READ_EVERY_MS = 10;
/** Segments pass a veth unsplit, so a "packet" can be as large as a segmentation offload allows. */
const PACKET_BYTES_MAX = 512 * 1024;
/** Payload kept; past this the witness has lost sight and says so. */
const KEPT_BYTES_MAX = 256 * 1024 * 1024;

export interface WitnessedPacket {
  readonly protocol: "tcp" | "udp";
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
  /** What TCP or UDP carries; empty for a bare ACK. */
  readonly payload: Uint8Array;
}

export class WireWitness implements Disposable {
  readonly #fd: number;
  readonly #packets: WitnessedPacket[] = [];
  readonly #buffer = new Uint8Array(PACKET_BYTES_MAX);
  readonly #timer: ReturnType<typeof setInterval>;
  #keptBytes = 0;
  #lost = 0;
  #closed = false;

  private constructor(fd: number) {
    this.#fd = fd;
    this.#timer = setInterval(() => this.#read(), READ_EVERY_MS);
    this.#timer.unref();
  }

  /** Starts watching a link of a namespace, both directions. */
  static on(namespaceFd: number, linkName: string): WireWitness {
    using links = must(NamespaceLinks.open(namespaceFd));
    const address = packetAddress(must(links.find(linkName)).index);
    // Protocol 0 until bound: otherwise packets of other links would slip in first.
    const fd = inNamespace(namespaceFd, () => socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    if (fd < 0) throw new Error(`cannot watch ${linkName}: ${errnoName(fd)}`);
    if (setIntOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, QUEUE_BYTES) < 0) setIntOption(fd, SOL_SOCKET, 8, QUEUE_BYTES);
    const bound = bind(fd, address);
    if (bound < 0) {
      close(fd);
      throw new Error(`cannot watch ${linkName}: ${errnoName(bound)}`);
    }
    return new WireWitness(fd);
  }

  /** Every TCP and UDP packet so far, in order. Throws when one was missed. */
  packets(): readonly WitnessedPacket[] {
    this.#read();
    if (this.#lost > 0) throw new Error(`the witness missed ${this.#lost} packets: what it did not see it cannot deny`);
    return this.#packets;
  }

  /** True when any flow, in one direction, carried these bytes in the clear; packet borders do not hide them. */
  saw(bytes: string | Uint8Array): boolean {
    const wanted = Buffer.from(typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes);
    return [...this.#flows().values()].some((payloads) => Buffer.concat(payloads).includes(wanted));
  }

  /** Payload bytes to or from a port. */
  bytesOnPort(port: number): number {
    return this.packets()
      .filter((packet) => packet.source.port === port || packet.destination.port === port)
      .reduce((sum, packet) => sum + packet.payload.length, 0);
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    close(this.#fd);
  }

  #flows(): Map<string, Uint8Array[]> {
    const flows = new Map<string, Uint8Array[]>();
    for (const { protocol, source, destination, payload } of this.packets()) {
      const key = `${protocol} ${source.ip} ${source.port} ${destination.ip} ${destination.port}`;
      const flow = flows.get(key);
      if (flow === undefined) flows.set(key, [payload]);
      else flow.push(payload);
    }
    return flows;
  }

  #read(): void {
    if (this.#closed) return;
    for (;;) {
      const length = recv(this.#fd, this.#buffer, MSG_DONTWAIT);
      if (length === -EINTR) continue;
      if (length === -EAGAIN) break;
      if (length < 0) throw new Error(`the witness cannot read: ${errnoName(length)}`);
      this.#keep(this.#buffer.subarray(0, length));
    }
    // struct tpacket_stats: packets, drops; reading resets both.
    const statistics = new Uint8Array(8);
    if (getOption(this.#fd, SOL_PACKET, PACKET_STATISTICS, statistics) === 8) this.#lost += new DataView(statistics.buffer).getUint32(4, true);
  }

  #keep(frame: Uint8Array): void {
    const packet = readPacket(frame);
    if (packet === null) return;
    if (this.#keptBytes + packet.payload.length > KEPT_BYTES_MAX) {
      this.#lost += 1;
      return;
    }
    this.#keptBytes += packet.payload.length;
    this.#packets.push(packet);
  }
}

/** struct sockaddr_ll */
function packetAddress(linkIndex: number): Uint8Array {
  const bytes = new Uint8Array(20);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, ETH_P_ALL, false);
  view.setInt32(4, linkIndex, true);
  return bytes;
}

/** Null for what is neither TCP nor UDP (ARP, neighbour discovery). The payload is a copy. */
function readPacket(frame: Uint8Array): WitnessedPacket | null {
  if (frame.length < ETHERNET_HEADER_BYTES) return null;
  const type = (frame[12]! << 8) | frame[13]!;
  const packet = frame.subarray(ETHERNET_HEADER_BYTES);
  if (type === ETHERTYPE_IPV4 && packet.length >= 20) {
    const headerBytes = (packet[0]! & 0x0f) * 4;
    const total = (packet[2]! << 8) | packet[3]!;
    // Zero: a segment too large for the field, whole in the frame.
    const end = total === 0 ? packet.length : Math.min(total, packet.length);
    return readSegment(packet[9]!, ipFromBytes(packet.subarray(12, 16)), ipFromBytes(packet.subarray(16, 20)), packet.subarray(headerBytes, end));
  }
  if (type === ETHERTYPE_IPV6 && packet.length >= 40) {
    const length = (packet[4]! << 8) | packet[5]!;
    const end = length === 0 ? packet.length : Math.min(40 + length, packet.length);
    return readSegment(packet[6]!, ipFromBytes(packet.subarray(8, 24)), ipFromBytes(packet.subarray(24, 40)), packet.subarray(40, end));
  }
  return null;
}

function readSegment(protocol: number, source: IpAddress, destination: IpAddress, segment: Uint8Array): WitnessedPacket | null {
  if ((protocol !== IPPROTO_TCP && protocol !== IPPROTO_UDP) || segment.length < 8) return null;
  const headerBytes = protocol === IPPROTO_UDP ? 8 : (segment[12] ?? 0) >> 2;
  return {
    protocol: protocol === IPPROTO_UDP ? "udp" : "tcp",
    source: { ip: source, port: (segment[0]! << 8) | segment[1]! },
    destination: { ip: destination, port: (segment[2]! << 8) | segment[3]! },
    payload: segment.slice(headerBytes),
  };
}
