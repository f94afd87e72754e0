import { expect, test } from "bun:test";
import { tcpPair } from "../../test/kit/tcp-pair.ts";
import { close, EAGAIN, MSG_DONTWAIT, MSG_NOSIGNAL, recv, send } from "./libc.ts";
import { Splicer } from "./splice.ts";

const pattern = (bytes: number): Uint8Array => new Uint8Array(bytes).map((_, i) => (i * 31 + (i >>> 11)) & 0xff);

/** Reads until nothing more is there. */
function readAll(fd: number): Uint8Array {
  const parts: Uint8Array[] = [];
  for (;;) {
    const part = new Uint8Array(256 * 1024);
    const got = recv(fd, part, MSG_DONTWAIT);
    if (got <= 0) return Buffer.concat(parts);
    parts.push(part.subarray(0, got));
  }
}

/** Writes until no more is taken; returns the bytes taken. */
function writeAll(fd: number, bytes: Uint8Array): number {
  let at = 0;
  while (at < bytes.length) {
    const taken = send(fd, bytes.subarray(at), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (taken === -EAGAIN) break;
    at += taken;
  }
  return at;
}

function setUp() {
  const splicer = Splicer.open()!;
  const [sender, from] = tcpPair();
  const [to, receiver] = tcpPair();
  return {
    splicer, sender, from, to, receiver,
    [Symbol.dispose]() {
      splicer.close();
      for (const fd of [sender, from, to, receiver]) close(fd);
    },
  };
}

test("splice: what waits in one socket is in the other, in order and whole", () => {
  using at = setUp();
  const bytes = pattern(300_000);
  const sent = writeAll(at.sender, bytes);
  const spliced = at.splicer.move(at.from, at.to, 1 << 30);
  expect(spliced).toEqual({ moved: sent, left: null });
  expect(Buffer.from(readAll(at.receiver)).equals(bytes.subarray(0, sent))).toBe(true);
});

test("splice: what a full socket does not take comes back, and what it took is not in it", () => {
  using at = setUp();
  const bytes = pattern(64 * 1024 * 1024);
  let [sent, moved] = [0, 0];
  let left: Uint8Array | null = null;
  while (left === null) {
    const before = sent;
    sent += writeAll(at.sender, bytes.subarray(sent));
    const spliced = at.splicer.move(at.from, at.to, 1 << 30);
    moved += spliced.moved;
    left = spliced.left;
    if (sent === before && spliced.moved === 0) throw new Error(`neither full nor moving after ${moved} bytes`);
  }
  expect(left.length).toBeGreaterThan(0);
  expect(Buffer.from(left).equals(bytes.subarray(moved, moved + left.length))).toBe(true);
  // The pipe is empty again: the next bytes are those that follow.
  const received = [readAll(at.receiver)];
  const next = at.splicer.move(at.from, at.to, 1);
  received.push(readAll(at.receiver));
  const got = Buffer.concat(received);
  expect(got.subarray(0, moved).equals(bytes.subarray(0, moved))).toBe(true);
  const resumedAt = moved + left.length;
  expect(got.subarray(moved).equals(bytes.subarray(resumedAt, resumedAt + next.moved))).toBe(true);
});

test("splice: it stops soon after its share, and at the end of the first socket", () => {
  using at = setUp();
  writeAll(at.sender, pattern(200_000));
  expect(at.splicer.move(at.from, at.to, 1).moved).toBeGreaterThan(0);
  while (at.splicer.move(at.from, at.to, 1).moved > 0) {}
  expect(at.splicer.move(at.from, at.to, 1 << 20)).toEqual({ moved: 0, left: null });
});

test("splice: a socket that is gone is no fault of the call", () => {
  using at = setUp();
  expect(at.splicer.move(-1, at.to, 1 << 20)).toEqual({ moved: 0, left: null });
  const sent = writeAll(at.sender, pattern(1000));
  expect(at.splicer.move(at.from, -1, 1 << 20).left?.length).toBe(sent);
});
