import { afterEach, expect, test } from "bun:test";
import { until } from "../../test/kit/until.ts";
import { sendWithDescriptors, receiveWithDescriptors } from "./fd-passing.ts";
import { accept, close, EAGAIN, SOCK_SEQPACKET } from "./libc.ts";
import { onReadable } from "./readable.ts";
import { connectUnix, listenUnix } from "./unix-socket.ts";

const closers: (() => void)[] = [];
afterEach(() => {
  for (const run of closers.splice(0).reverse()) run();
});

function pair(name: string): { readonly ours: number; readonly theirs: number } {
  const listener = listenUnix(`@weft-readable-${process.pid}-${name}`, SOCK_SEQPACKET, 1);
  if ("error" in listener) throw new Error(listener.error);
  const ours = connectUnix(`@weft-readable-${process.pid}-${name}`, SOCK_SEQPACKET);
  if ("error" in ours) throw new Error(ours.error);
  const theirs = accept(listener.fd);
  close(listener.fd);
  closers.push(() => close(ours.fd), () => close(theirs));
  return { ours: ours.fd, theirs };
}

/** Everything there is, as a number of messages. */
function drain(fd: number): number {
  const into = new Uint8Array(64);
  for (let count = 0; ; count++) {
    const receipt = receiveWithDescriptors(fd, into, 1);
    if (receipt.kind === "truncated") throw new Error(receipt.message);
    if (receipt.received.length === -EAGAIN) return count;
    if (receipt.received.length <= 0) return count;
  }
}

test("a descriptor is looked at when something can be read, among others, and no longer when it is let go of", async () => {
  const [first, second] = [pair("a"), pair("b")];
  const got = { first: 0, second: 0 };
  const looks = { first: 0 };
  sendWithDescriptors(first.theirs, new Uint8Array([1]), []);
  const endFirst = onReadable(first.ours, () => {
    looks.first++;
    got.first += drain(first.ours);
  });
  closers.push(endFirst, onReadable(second.ours, () => void (got.second += drain(second.ours))));
  await until(() => "what was there before", 5_000, () => got.first === 1);
  for (let i = 0; i < 20; i++) {
    const startMs = performance.now();
    sendWithDescriptors(first.theirs, new Uint8Array([2]), []);
    sendWithDescriptors(second.theirs, new Uint8Array([3]), []);
    await until(() => "both", 5_000, () => got.first === 2 + i && got.second === 1 + i);
    // Not by the look that comes every second.
    if (performance.now() - startMs < 500) continue;
    throw new Error(`message ${i} was seen after ${performance.now() - startMs} ms`);
  }
  endFirst();
  const before = looks.first;
  sendWithDescriptors(first.theirs, new Uint8Array([4]), []);
  sendWithDescriptors(second.theirs, new Uint8Array([5]), []);
  await until(() => "the other", 5_000, () => got.second === 21);
  expect(looks.first).toBe(before);
});
