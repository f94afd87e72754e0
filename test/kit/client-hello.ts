// A ClientHello as the platform's own TLS makes it, as bytes: for peers that send it by hand.

import { Duplex } from "node:stream";
import tls from "node:tls";

/** Of TLS 1.3, with ALPN h2: one record. */
export async function clientHello(): Promise<Buffer> {
  const { promise, resolve } = Promise.withResolvers<Buffer>();
  const pipe = new Duplex({ read() {}, write: (chunk: Buffer, _encoding, done) => (resolve(chunk), done()) });
  const client = tls.connect({ socket: pipe as never, ALPNProtocols: ["h2"], minVersion: "TLSv1.3" });
  client.on("error", () => {});
  const hello = await promise;
  client.destroy();
  return hello;
}
