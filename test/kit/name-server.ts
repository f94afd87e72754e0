// A DNS server on this box's loopback, or on a place's, and the resolver configuration that leads to it. The test says what names have.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { decodeMessage } from "../../src/wire/dns/decode.ts";
import { encodeMessage } from "../../src/wire/dns/encode.ts";
import { addressRecord } from "../../src/wire/dns/message.ts";
import { RecordType, ResponseCode } from "../../src/wire/dns/types.ts";
import { ip } from "./mesh-records.ts";
import type { Place } from "./network.ts";

export class NameServer implements AsyncDisposable {
  /** Addresses by name; a name that is not here does not exist. */
  readonly names = new Map<string, readonly string[]>();
  ttlS = 1;
  /** No answer at all. */
  silent = false;
  questions = 0;
  #close: () => void = () => {};

  private constructor() {}

  /**
   * @param directory for the file that takes the place of /etc/resolv.conf in this box.
   * @param place where it listens; left out, in this process's own namespace.
   */
  static async start(directory: string, place?: Place): Promise<NameServer> {
    const server = new NameServer();
    const listen = () => Bun.udpSocket({
      hostname: "127.0.0.1", port: 53, socket: { data: (socket, bytes, port, address) => server.#answer(bytes, (reply) => void socket.send(reply, port, address)) },
    });
    const socket = await (place === undefined ? listen() : place.inside(listen));
    server.#close = () => socket.close();
    const path = join(directory, "resolv.conf");
    writeFileSync(path, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    const { exitCode, stderr } = Bun.spawnSync(["mount", "--bind", path, "/etc/resolv.conf"]);
    if (exitCode !== 0) throw new Error(`mount: ${stderr.toString()}`);
    return server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    Bun.spawnSync(["umount", "/etc/resolv.conf"]);
    this.#close();
  }

  #answer(bytes: Uint8Array, send: (reply: Uint8Array) => void): void {
    const read = decodeMessage(bytes);
    const [question] = read.ok ? read.value.questions : [];
    if (!read.ok || question === undefined || this.silent) return;
    this.questions++;
    const name = question.name.toLowerCase().replace(/\.$/, "");
    const known = this.names.get(name);
    const records = (known ?? []).map((text) => addressRecord(question.name, ip(text), this.ttlS)).filter(({ type }) => type === question.type);
    send(encodeMessage({
      ...read.value, response: true, authoritative: true, recursionAvailable: true, rcode: known === undefined ? ResponseCode.NXDOMAIN : ResponseCode.NOERROR,
      answers: question.type === RecordType.A || question.type === RecordType.AAAA ? records : [], authorities: [], additionals: [],
    }));
  }
}
