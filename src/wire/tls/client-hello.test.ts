import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { readServerName } from "./client-hello.ts";

const u16 = (n: number): number[] => [n >> 8, n & 255];
const block16 = (bytes: readonly number[]): number[] => [...u16(bytes.length), ...bytes];
const ascii = (text: string): number[] => [...Buffer.from(text, "latin1")];
const extension = (type: number, bytes: readonly number[]): number[] => [...u16(type), ...block16(bytes)];
const serverName = (name: string, type = 0): number[] => extension(0, block16([type, ...block16(ascii(name))]));

function hello(extensions: readonly number[] | null, fields: { readonly session?: number } = {}): number[] {
  const body = [3, 3, ...new Array<number>(32).fill(7), fields.session ?? 0, ...new Array<number>(fields.session ?? 0).fill(1), ...block16([0x13, 0x01]), 1, 0, ...(extensions === null ? [] : block16(extensions))];
  return [1, 0, ...block16(body)];
}
const records = (message: readonly number[], size = 16_384): Uint8Array => {
  const out: number[] = [];
  for (let at = 0; at < message.length; at += size) out.push(22, 3, 1, ...block16(message.slice(at, at + size)));
  return Uint8Array.from(out);
};

const SAMPLE = hello([...extension(43, [2, 3, 4]), ...serverName("Shop.Example"), ...extension(16, [0, 3, 2, 104, 50])], { session: 32 });

describe("the server name of a ClientHello", () => {
  test("is found behind other extensions, in lower case and without the last dot", () => {
    expect(readServerName(records(SAMPLE))).toEqual({ kind: "clientHello", name: "shop.example" });
    expect(readServerName(records(hello(serverName("a.b."))))).toEqual({ kind: "clientHello", name: "a.b" });
  });

  test.each([1, 3, 40, 100])("is found in records of %i bytes", (size) => expect(readServerName(records(SAMPLE, size))).toEqual({ kind: "clientHello", name: "shop.example" }));

  test("needs the whole message, and no byte more", () => {
    const bytes = records(SAMPLE, 50);
    for (let length = 0; length < bytes.length; length++) expect(readServerName(bytes.subarray(0, length))).toEqual({ kind: "incomplete" });
    expect(readServerName(Uint8Array.from([...bytes, 1, 2, 3]))).toEqual({ kind: "clientHello", name: "shop.example" });
  });

  test("may be absent", () => {
    for (const extensions of [null, [], extension(43, [2, 3, 4])]) expect(readServerName(records(hello(extensions)))).toEqual({ kind: "clientHello", name: null });
  });

  test("of what a real client sends", async () => {
    const { connect } = await import("node:tls");
    const { createServer } = await import("node:net");
    const got = await new Promise<Uint8Array>((resolve) => {
      const server = createServer((socket) => {
        socket.on("error", () => {});
        socket.once("data", (chunk) => {
          resolve(Uint8Array.from(chunk as Buffer));
          socket.destroy();
          server.close();
        });
      }).listen(0, "127.0.0.1", () => {
        const { port } = server.address() as { port: number };
        connect({ host: "127.0.0.1", port, servername: "db.shop.example" }).on("error", () => {});
      });
    });
    expect(readServerName(got)).toEqual({ kind: "clientHello", name: "db.shop.example" });
  });

  test.each([
    ["HTTP", ascii("GET / HTTP/1.1")], ["an alert", [21, 3, 3, 0, 2, 1, 0]], ["a ServerHello", [...records([2, 0, 0, 1, 0])]], ["an empty record", [22, 3, 1, 0, 0]], ["a record that is too large", [22, 3, 1, 0xff, 0xff]],
    ["another version", [22, 9, 1, 0, 5]], ["a message that is too large", [22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff]], ["a cut list", [...records(hello(extension(0, [0, 9, 0, 0, 2, 97])))]],
    ["a name with a space", [...records(hello(serverName("a b")))]], ["an empty name", [...records(hello(serverName("")))]], ["no host name among the names", [...records(hello(serverName("a", 7)))]],
    ["an extension longer than the rest", [...records(hello([0, 9, 0, 99, 1]))]],
  ])("is not read from %s", (_, bytes) => expect(readServerName(Uint8Array.from(bytes)).kind).toBe("other"));

  test("never reads outside, whatever comes", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(200), fc.nat(255), (noise, at, value) => {
      expect(["incomplete", "clientHello", "other"]).toContain(readServerName(noise).kind);
      const broken = records(SAMPLE);
      broken[at % broken.length] = value;
      expect(["incomplete", "clientHello", "other"]).toContain(readServerName(broken).kind);
    }), { numRuns: 5_000 });
  });
});
