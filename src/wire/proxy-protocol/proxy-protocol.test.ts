import { describe, expect, test } from "bun:test";
import vectors from "../../../test/vectors/hbone/proxy.json";
import { formatSocketAddress, parseSocketAddress } from "../../core/ip.ts";
import { parseSpiffeId, SPIFFE_ID_BYTES_MAX } from "../../core/spiffe.ts";
import { crc32c } from "./crc32c.ts";
import { decodeProxyHeader } from "./decode.ts";
import type { ProxyHeader } from "./header.ts";
import { decodeProxyV2, encodeProxyV2, PROXY_V2_BYTES_MAX } from "./v2.ts";

const bytesOf = (hex: string): Uint8Array => Uint8Array.fromHex(hex);
const spiffe = (text: string | null) => (text === null ? null : parseSpiffeId(text)!.id);

/** In the vectors' words. */
function described(header: ProxyHeader): unknown {
  if (header.kind !== "proxied") return header;
  return { kind: "proxied", source: formatSocketAddress(header.source), destination: formatSocketAddress(header.destination), identity: header.sourceIdentity };
}

const readable = [
  ...vectors.encoded.map(({ name, hex, source, destination, identity }) => ({ name, hex, header: { kind: "proxied", source, destination, identity } })),
  ...vectors.decoded,
];

describe("PROXY header", () => {
  for (const vector of vectors.encoded) {
    test(`sends ${vector.name}`, () => {
      const sent = encodeProxyV2({ source: parseSocketAddress(vector.source)!, destination: parseSocketAddress(vector.destination)!, sourceIdentity: spiffe(vector.identity) });
      expect(sent.toHex()).toBe(vector.hex);
    });
  }

  for (const vector of readable) {
    test(`reads ${vector.name}, whole and cut anywhere`, () => {
      const bytes = bytesOf(`${vector.hex}0d0a0d0a`);
      const end = bytes.length - 4;
      for (let length = 0; length < end; length++) {
        const part = decodeProxyHeader(bytes.subarray(0, length));
        expect(part.kind).toBe("need");
        if (part.kind === "need") {
          expect(part.bytes).toBeGreaterThan(0);
          expect(length + part.bytes).toBeLessThanOrEqual(end);
        }
      }
      const whole = decodeProxyHeader(bytes);
      if (whole.kind !== "header") throw new Error(JSON.stringify(whole));
      expect(described(whole.header)).toEqual(vector.header);
      expect(whole.rest.buffer).toBe(bytes.buffer);
      expect(whole.rest.toHex()).toBe("0d0a0d0a");
    });
  }

  for (const vector of vectors.malformed) {
    test(`refuses ${vector.name}, and no later byte mends it`, () => {
      const bytes = bytesOf(vector.hex);
      let refusedAt = -1;
      for (let length = 0; length <= bytes.length; length++) {
        const kind = decodeProxyHeader(bytes.subarray(0, length)).kind;
        expect(kind).not.toBe("header");
        if (kind === "malformed" && refusedAt < 0) refusedAt = length;
        if (refusedAt >= 0) expect(kind).toBe("malformed");
      }
      expect(refusedAt).toBeGreaterThan(0);
      const more = new Uint8Array(bytes.length + 8);
      more.set(bytes);
      expect(decodeProxyHeader(more).kind).toBe("malformed");
    });
  }

  test("a second header is left in the rest: it is the peer's bytes", () => {
    const once = bytesOf(vectors.encoded[0]!.hex);
    const twice = new Uint8Array([...once, ...once]);
    const read = decodeProxyV2(twice);
    expect(read.kind === "header" && read.rest.length).toBe(once.length);
  });

  test("the longest SPIFFE ID fits", () => {
    const prefix = "spiffe://td/ns/a/sa/";
    const identity = spiffe(prefix + "b".repeat(SPIFFE_ID_BYTES_MAX - prefix.length));
    const sent = encodeProxyV2({ source: parseSocketAddress("[2001:db8::1]:1")!, destination: parseSocketAddress("[2001:db8::2]:2")!, sourceIdentity: identity });
    expect(sent.length).toBeLessThanOrEqual(PROXY_V2_BYTES_MAX);
    const read = decodeProxyV2(sent);
    expect(read.kind === "header" && read.header.kind === "proxied" && read.header.sourceIdentity).toBe(identity!);
  });

  test("the checksum is CRC-32C", () => expect(crc32c(new TextEncoder().encode("123456789"))).toBe(0xe3069283));
});
