// One TCP connection of an application to the DNS proxy: questions may be pipelined, answers go out as they are ready
// (RFC 7766). Every buffer has a bound; a client that does not read, or does not ask, is closed.

import type { PlainEnd, PlainSocket } from "../../tunnel/endpoint-socket.ts";
import type { DnsLimits } from "./limits.ts";
import { frame, FrameReader } from "./tcp-frames.ts";

export interface TcpClientOwner {
  /** @param query one message, valid during the call. `reply` is called at most once, at any time; null drops the question. */
  onQuery(query: Uint8Array, reply: (message: Uint8Array | null) => void): void;
  onSlowReader(): void;
  onClosed(client: TcpClient): void;
}

export class TcpClient implements PlainEnd {
  readonly #limits: DnsLimits;
  readonly #owner: TcpClientOwner;
  readonly #reader = new FrameReader();
  #socket: PlainSocket | null = null;
  #unsent: Uint8Array[] = [];
  #unsentBytes = 0;
  #underWay = 0;
  #paused = false;
  /** The client has sent all it will. */
  #ended = false;
  #closed = false;
  #idle: ReturnType<typeof setTimeout> | null = null;

  constructor(limits: DnsLimits, owner: TcpClientOwner) {
    this.#limits = limits;
    this.#owner = owner;
  }

  onOpen(socket: PlainSocket): void {
    this.#socket = socket;
    this.#restartIdle();
  }

  onData(chunk: Uint8Array): void {
    if (this.#closed) return;
    this.#reader.push(chunk);
    this.#readOn();
  }

  onDrain(): void {
    this.#flush();
    this.#endWhenDone();
  }

  onEnd(): void {
    this.#ended = true;
    this.#endWhenDone();
  }

  onClose(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#unsent = [];
    this.#owner.onClosed(this);
  }

  destroy(): void {
    const socket = this.#socket;
    this.onClose();
    socket?.terminate();
  }

  #readOn(): void {
    while (!this.#closed) {
      if (this.#underWay >= this.#limits.tcpPipelineMax) return this.#pause(true);
      const query = this.#reader.next();
      if (query === null) break;
      this.#underWay++;
      this.#restartIdle();
      let answered = false;
      this.#owner.onQuery(query, (message) => {
        if (answered) return;
        answered = true;
        this.#answer(message);
      });
    }
    if (!this.#closed) this.#pause(false);
  }

  #answer(message: Uint8Array | null): void {
    this.#underWay--;
    if (this.#closed) return;
    if (message !== null) {
      this.#unsent.push(frame(message));
      this.#unsentBytes += message.length;
      this.#flush();
      if (this.#unsentBytes > this.#limits.tcpUnsentBytesMax) {
        this.#owner.onSlowReader();
        return this.destroy();
      }
    }
    this.#restartIdle();
    // Questions that wait in the reader; not from inside the loop that reads them.
    if (this.#paused) queueMicrotask(() => this.#readOn());
    this.#endWhenDone();
  }

  #flush(): void {
    const socket = this.#socket;
    while (socket !== null && !this.#closed && this.#unsent.length > 0) {
      const first = this.#unsent[0]!;
      const written = Math.max(0, socket.write(first));
      this.#unsentBytes -= written;
      if (written < first.length) {
        this.#unsent[0] = first.subarray(written);
        return;
      }
      this.#unsent.shift();
    }
    if (this.#unsent.length === 0) this.#unsentBytes = 0;
  }

  #pause(wanted: boolean): void {
    if (this.#paused === wanted || this.#socket === null) return;
    this.#paused = wanted;
    if (wanted) this.#socket.pause();
    else this.#socket.resume();
  }

  #endWhenDone(): void {
    if (this.#ended && !this.#closed && !this.#paused && this.#underWay === 0 && this.#unsent.length === 0) this.#socket?.end();
  }

  #restartIdle(): void {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = this.#closed ? null : setTimeout(() => this.#onIdle(), this.#limits.tcpIdleMs);
  }

  /** Waiting for us is not idling; not taking what we sent is. */
  #onIdle(): void {
    if (this.#underWay > 0) this.#restartIdle();
    else this.destroy();
  }
}
