import { expect, test } from "bun:test";
import { Attributes, NetlinkWriter, readMessages } from "./message.ts";

test("what is written is read back, wherever the buffer has to grow", () => {
  const COUNT = 500;
  const writer = new NetlinkWriter();
  for (let i = 0; i < COUNT; i++) {
    writer.begin(i, 1, i).header(new Uint8Array(4)).u8(1, i & 0xff);
    writer.nest(2, () => writer.u8(1, i & 0xff).bytes(2, new Uint8Array(i % 7))).u32(3, i).be32(4, i).be64(5, BigInt(i)).be16(6, i).end();
  }
  const messages = readMessages(writer.finish());
  if (!messages.ok) throw new Error(messages.error.message);
  expect(messages.value).toHaveLength(COUNT);
  for (const [i, { sequence, payload }] of messages.value.entries()) {
    const read = Attributes.read(payload.subarray(4));
    if (!read.ok) throw new Error(read.error.message);
    const { value } = read;
    const nested = value.nested(2);
    expect([sequence, value.u8(1), nested?.u8(1), nested?.bytes(2)?.length, value.u32(3), value.be32(4), value.be64(5), value.bytes(6)]).toEqual([i, i & 0xff, i & 0xff, i % 7, i, i, BigInt(i), Uint8Array.of(i >> 8, i & 0xff)]);
  }
});
