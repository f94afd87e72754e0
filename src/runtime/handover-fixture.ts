// A process of its own for handover.test.ts: keeps a TCP listener, or takes one over. Tells its parent what happened, one word a line.

import { AF_INET, bind, listen, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, socket } from "../net/libc.ts";
import { encodeSockaddr } from "../net/socket-address.ts";
import { parseIp } from "../core/ip.ts";
import { HandoverServer, takeOver } from "./handover.ts";

const [, , mode, path, portText] = process.argv as [string, string, string, string, string];
const port = Number(portText);
const say = (line: string): void => void process.stdout.write(`${line}\n`);

function serve(fd: number, name: string): { stop(): void } {
  const options = { fd, socket: { open: (s: { end(data: string): void }) => s.end(name), data() {} } };
  const server = Bun.listen(options as unknown as Parameters<typeof Bun.listen>[0]);
  return { stop: () => server.stop(false) };
}

if (mode === "old") {
  const fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (bind(fd, encodeSockaddr({ ip: parseIp("127.0.0.1")!, port })) < 0 || listen(fd, 16) < 0) throw new Error("bind");
  const server = serve(fd, "old");
  const handover = HandoverServer.listen({
    path, role: "test", readyMs: 5000,
    offer: () => Array.from({ length: 450 }, (_, i) => ({ name: `w${i}.outbound`, fd })),
    onHandedOver: () => {
      say("handed over");
      server.stop();
    },
    onFailed: (why) => say(`failed: ${why}`),
  });
  if (!handover.ok) throw new Error(handover.error);
  say("listening");
} else {
  const taken = await takeOver({ path, role: "test" });
  if (!taken.ok || taken.value === null) throw new Error(taken.ok ? "nobody there" : taken.error.message);
  say(`received ${taken.value.sockets.length} ${taken.value.sockets.at(-1)!.name}`);
  if (mode === "dies") process.kill(process.pid, "SIGKILL");
  serve(taken.value.sockets[0]!.fd, "new");
  const ready = await taken.value.ready();
  say(ready.ok ? ready.value : `not released: ${ready.error}`);
}
