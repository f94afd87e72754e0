import { closeSync, fstatSync, mkdtempSync, openSync, readdirSync, readSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "bun:test";
import { dlopen, ptr } from "bun:ffi";
import { close, EAGAIN, fcntl, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_SEQPACKET, SOCK_STREAM } from "./libc.ts";
import { closeAll, DESCRIPTORS_PER_MESSAGE_MAX, peerCredentials, receiveWithDescriptors, sendWithDescriptors } from "./fd-passing.ts";
import { connectUnix, listenUnix, unixAddress } from "./unix-socket.ts";

const { symbols } = dlopen("libc.so.6", { socketpair: { args: ["i32", "i32", "i32", "ptr"], returns: "i32" } });
const F_GETFD = 1;
const FD_CLOEXEC = 1;

function pair(type: number): [number, number] {
  const fds = new Int32Array(2);
  expect(symbols.socketpair(1, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ptr(fds))).toBe(0);
  return [fds[0]!, fds[1]!];
}

const folder = mkdtempSync(join(tmpdir(), "weft-fd-"));
writeFileSync(join(folder, "a"), "first");
writeFileSync(join(folder, "b"), "second");
afterAll(() => rmSync(folder, { recursive: true }));

const openDescriptors = (): number => readdirSync("/proc/self/fd").length;
const text = (bytes: Uint8Array, length: number): string => new TextDecoder().decode(bytes.subarray(0, length));

describe.each([["stream", SOCK_STREAM], ["seqpacket", SOCK_SEQPACKET], ["datagram", SOCK_DGRAM]] as const)("%s", (_name, type) => {
  test("descriptors arrive in order, usable and close-on-exec", () => {
    const [left, right] = pair(type);
    const files = ["a", "b"].map((name) => openSync(join(folder, name), "r"));
    expect(sendWithDescriptors(left, new TextEncoder().encode("hello"), files)).toBe(5);
    const into = new Uint8Array(64);
    const receipt = receiveWithDescriptors(right, into, 4);
    if (receipt.kind !== "received") throw new Error(receipt.message);
    expect(text(into, receipt.received.length)).toBe("hello");
    const contents = receipt.received.fds.map((fd) => {
      expect(files).not.toContain(fd);
      expect(fcntl(fd, F_GETFD, 0) & FD_CLOEXEC).toBe(FD_CLOEXEC);
      const bytes = new Uint8Array(16);
      return text(bytes, readSync(fd, bytes, 0, 16, 0));
    });
    expect(contents).toEqual(["first", "second"]);
    closeAll([...receipt.received.fds, left, right]);
    for (const file of files) closeSync(file);
  });

  test("a message without descriptors, and an empty socket, are told apart", () => {
    const [left, right] = pair(type);
    const into = new Uint8Array(8);
    expect(receiveWithDescriptors(right, into, 1)).toEqual({ kind: "received", received: { length: -EAGAIN, fds: [] } });
    sendWithDescriptors(left, new Uint8Array([7]), []);
    expect(receiveWithDescriptors(right, into, 0)).toEqual({ kind: "received", received: { length: 1, fds: [] } });
    closeAll([left, right]);
  });

  test("more descriptors than expected is an error, and none is left open", () => {
    const [left, right] = pair(type);
    const file = openSync(join(folder, "a"), "r");
    sendWithDescriptors(left, new Uint8Array([1]), Array.from({ length: 9 }, () => file));
    const before = openDescriptors();
    expect(receiveWithDescriptors(right, new Uint8Array(8), 3).kind).toBe("truncated");
    expect(openDescriptors()).toBe(before);
    closeAll([left, right]);
    closeSync(file);
  });
});

test("an oversized packet is an error and its descriptors are closed", () => {
  const [left, right] = pair(SOCK_SEQPACKET);
  const file = openSync(join(folder, "a"), "r");
  sendWithDescriptors(left, new Uint8Array(100), [file]);
  const before = openDescriptors();
  expect(receiveWithDescriptors(right, new Uint8Array(10), 1)).toMatchObject({ kind: "truncated" });
  expect(openDescriptors()).toBe(before);
  closeAll([left, right]);
  closeSync(file);
});

test("as many as the kernel allows go in one message, one more is refused here", () => {
  const [left, right] = pair(SOCK_SEQPACKET);
  const file = openSync(join(folder, "a"), "r");
  const many = Array.from({ length: DESCRIPTORS_PER_MESSAGE_MAX }, () => file);
  expect(sendWithDescriptors(left, new Uint8Array([1]), many)).toBe(1);
  const receipt = receiveWithDescriptors(right, new Uint8Array(1), DESCRIPTORS_PER_MESSAGE_MAX);
  if (receipt.kind !== "received") throw new Error(receipt.message);
  expect(receipt.received.fds).toHaveLength(DESCRIPTORS_PER_MESSAGE_MAX);
  for (const fd of receipt.received.fds) fstatSync(fd);
  closeAll(receipt.received.fds);
  expect(() => sendWithDescriptors(left, new Uint8Array([1]), [...many, file])).toThrow("the kernel's limit");
  closeAll([left, right]);
  closeSync(file);
});

test("the other end's user is what the kernel says", () => {
  const path = join(folder, "socket");
  const listener = listenUnix(path, SOCK_STREAM, 4);
  if ("error" in listener) throw new Error(listener.error);
  const client = connectUnix(path, SOCK_STREAM);
  if ("error" in client) throw new Error(client.error);
  expect(peerCredentials(client.fd)).toMatchObject({ pid: process.pid, uid: process.getuid!() });
  closeAll([client.fd, listener.fd]);
  expect(connectUnix(path, SOCK_STREAM)).toMatchObject({ error: `${path}: ECONNREFUSED` });
  expect(close(-1)).toBeLessThan(0);
});

test("a path that does not fit is refused, an abstract name has no NUL at its end", () => {
  expect(unixAddress("/".padEnd(108, "x"))).toBeNull();
  expect(unixAddress("")).toBeNull();
  expect(unixAddress("a\0b")).toBeNull();
  expect([...unixAddress("@n")!]).toEqual([1, 0, 0, 110]);
});
