import { expect, test } from "bun:test";
import { GIVEN_BACK_BYTES_MIN } from "../../core/spent-bytes.ts";
import type { ChannelUser } from "./channel.ts";
import { SocketChannel } from "./socket-channel.ts";

class Told extends SocketChannel {
  protected readonly socket = { write: () => 0, pause: () => {}, resume: () => {}, shutdown: () => {}, end: () => {}, terminate: () => {} } as never;
}

test("socket channel: a large chunk is the user's for the call, and is given back after it", () => {
  const channel = new Told();
  const seen: number[] = [];
  channel.user = { onBytes: (chunk) => void seen.push(chunk.length), onWritable() {}, onPeerEnd() {}, onChannelClosed() {} } satisfies ChannelUser;
  const chunk = Buffer.alloc(GIVEN_BACK_BYTES_MIN, 1);
  channel.data(chunk);
  expect(seen).toEqual([GIVEN_BACK_BYTES_MIN]);
  expect(chunk.length).toBe(0);
});
