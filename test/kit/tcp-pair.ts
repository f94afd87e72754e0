// Two connected TCP sockets on loopback as bare descriptors, for the tests of what works below the runtime's sockets.

import { AF_INET, accept, bind, close, connect, getsockname, listen, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, socket } from "../../src/net/libc.ts";
import type { IpAddress } from "../../src/core/ip.ts";
import { encodeSockaddr } from "../../src/net/socket-address.ts";

/** Neither waits in any call. The caller closes both. */
export function tcpPair(): [number, number] {
  const listener = checked("socket", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  checked("bind", bind(listener, encodeSockaddr({ ip: "127.0.0.1" as IpAddress, port: 0 })));
  checked("listen", listen(listener, 1));
  const address = new Uint8Array(16);
  checked("getsockname", getsockname(listener, address));
  const near = checked("socket", socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // In progress: on loopback the connection is there before accept looks.
  connect(near, address);
  const far = checked("accept", accept(listener));
  close(listener);
  return [near, far];
}

function checked(call: string, result: number): number {
  if (result < 0) throw new Error(`${call}: ${result}`);
  return result;
}
