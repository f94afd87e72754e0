import { describe, expect, test } from "bun:test";
import { type IpAddress, parseIp } from "../core/ip.ts";
import { AF_INET6 } from "./libc.ts";
import { decodeSockaddr, encodeSockaddr } from "./socket-address.ts";

const ip = (text: string): IpAddress => parseIp(text)!;

describe("socket addresses", () => {
  test.each([
    ["IPv4", { ip: ip("198.18.1.2"), port: 8080 }, 16], ["IPv6", { ip: ip("2001:db8::2"), port: 65535 }, 28], ["link-local, with its link", { ip: ip("fe80::2"), port: 1, scope: 0x0102_0304 }, 28],
    ["link-local, with the last link there can be", { ip: ip("fe80::2"), port: 1, scope: 0xffff_ffff }, 28],
  ] as const)("%s: what was written is read back", (_, address, length) => {
    const bytes = encodeSockaddr(address);
    expect(bytes.length).toBe(length);
    expect(decodeSockaddr(bytes, bytes.length)).toEqual(address);
  });

  test("without a link there is no scope", () => expect(Object.keys(decodeSockaddr(encodeSockaddr({ ip: ip("2001:db8::2"), port: 1 }), 28)!)).toEqual(["ip", "port"]));

  test("IPv4 for an IPv6 socket is written mapped, and read back as IPv4", () => {
    const bytes = encodeSockaddr({ ip: ip("198.18.1.2"), port: 80 }, AF_INET6);
    expect(bytes.subarray(8, 24).toHex()).toBe("00000000000000000000ffffc6120102");
    expect(decodeSockaddr(bytes, 28)).toEqual({ ip: ip("198.18.1.2"), port: 80 });
  });

  test("another family, or too little of it, is nothing", () => {
    const bytes = encodeSockaddr({ ip: ip("2001:db8::2"), port: 80 });
    expect(decodeSockaddr(bytes, 27)).toBeNull();
    expect(decodeSockaddr(bytes.subarray(0, 20), 28)).toBeNull();
    expect(decodeSockaddr(new Uint8Array(28).fill(1), 28)).toBeNull();
  });
});
