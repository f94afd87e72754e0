import { expect, test } from "bun:test";
import { until } from "../../../test/kit/until.ts";
import type { IpAddress } from "../../core/ip.ts";
import { AF_INET, close, connect, EAGAIN, EINPROGRESS, getsockname, MSG_DONTWAIT, recv, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, socket } from "../../net/libc.ts";
import { listenTcp } from "../../net/listen.ts";
import { listenOn, type PlainChannel } from "./plain-channel.ts";

test("a listener that stops: who the kernel has accepted for it by then is served", async () => {
  const fd = listenTcp({ namespaceFd: null, at: { ip: "127.0.0.1" as IpAddress, port: 0 }, mark: 0, keepalive: null, shared: true });
  const address = new Uint8Array(16);
  getsockname(fd, address);
  const accepted: PlainChannel[] = [];
  const listener = listenOn(fd, (channel) => void accepted.push(channel));
  // No turn of the loop between the two: nobody has accepted it yet.
  const client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  expect([0, -EINPROGRESS]).toContain(connect(client, address));
  listener.stop();
  try {
    const channel = await until("the queued connection", 5_000, () => accepted[0]);
    expect(recv(client, new Uint8Array(1), MSG_DONTWAIT)).toBe(-EAGAIN);
    channel.destroy();
    expect(accepted).toHaveLength(1);
  } finally {
    close(client);
  }
});
