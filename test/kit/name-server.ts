// A DNS server on this box's loopback, and the resolver configuration that leads to it. The test says what names have.

import { createSocket, type Socket } from "node:dgram";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { decodeMessage } from "../../src/wire/dns/decode.ts";
import { encodeMessage } from "../../src/wire/dns/encode.ts";
import { addressRecord } from "../../src/wire/dns/message.ts";
import { RecordType, ResponseCode } from "../../src/wire/dns/types.ts";
import { ip } from "./mesh-records.ts";

export class NameServer implements AsyncDisposable {
  /** Addresses by name; a name that is not here does not exist. */
  readonly names = new Map<string, readonly string[]>();
  ttlS = 1;
  /** No answer at all. */
  silent = false;
  questions = 0;
  readonly #socket: Socket;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("message", (bytes, { address, port }) => this.#answer(bytes, address, port));
  }

  /** @param directory for the file that takes the place of /etc/resolv.conf in this box. */
  static async start(directory: string): Promise<NameServer> {
    const socket = createSocket("udp4");
    await new Promise<void>((resolve) => socket.bind(53, "127.0.0.1", resolve));
    const path = join(directory, "resolv.conf");
    writeFileSync(path, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    const { exitCode, stderr } = Bun.spawnSync(["mount", "--bind", path, "/etc/resolv.conf"]);
    if (exitCode !== 0) throw new Error(`mount: ${stderr.toString()}`);
    return new NameServer(socket);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    Bun.spawnSync(["umount", "/etc/resolv.conf"]);
    await new Promise<void>((resolve) => this.#socket.close(() => resolve()));
  }

  #answer(bytes: Uint8Array, address: string, port: number): void {
    const read = decodeMessage(bytes);
    const [question] = read.ok ? read.value.questions : [];
    if (!read.ok || question === undefined || this.silent) return;
    this.questions++;
    const name = question.name.toLowerCase().replace(/\.$/, "");
    const known = this.names.get(name);
    const records = (known ?? []).map((text) => addressRecord(question.name, ip(text), this.ttlS)).filter(({ type }) => type === question.type);
    this.#socket.send(encodeMessage({
      ...read.value, response: true, authoritative: true, recursionAvailable: true, rcode: known === undefined ? ResponseCode.NXDOMAIN : ResponseCode.NOERROR,
      answers: question.type === RecordType.A || question.type === RecordType.AAAA ? records : [], authorities: [], additionals: [],
    }), port, address);
  }
}
