// The server of the conformance tests: answers 200 to everything and echoes the body; a request without a body gets a fixed one.

import { encodeStaticBlock, headerValue, type Http2Connection, type Http2Stream } from "../../src/wire/http2/connection.ts";
import type { TestHandler } from "./http2-socket.ts";

const OK = encodeStaticBlock([":status", "200", "content-type", "application/octet-stream"]);
const TRAILERS = encodeStaticBlock(["x-echo", "done"]);
export const FIXED_BODY: Uint8Array = Buffer.alloc(1024, "weft ");

/** What of the body waits to be sent, and whether it ends there. */
interface Echo {
  pending: Uint8Array[];
  ended: boolean;
  trailers: boolean;
}

export const echoHandler: TestHandler = (connection) => ({
  onRequest(stream, headers, endStream) {
    const isConnect = headerValue(headers, ":method") === "CONNECT";
    const echo: Echo = { pending: [], ended: endStream, trailers: false };
    stream.user = echo;
    connection().respond(stream, OK, false);
    if (endStream && !isConnect) echo.pending.push(FIXED_BODY);
    if (endStream) pump(connection(), stream);
  },
  onData(stream, body, endStream) {
    const echo = stream.user as Echo;
    if (body.length > 0) echo.pending.push(new Uint8Array(body.view()));
    echo.ended = endStream;
    pump(connection(), stream);
  },
  onTrailers(stream) {
    const echo = stream.user as Echo;
    echo.ended = echo.trailers = true;
    pump(connection(), stream);
  },
  onSendable(stream) {
    pump(connection(), stream);
  },
  onResponse() {},
  onInformational() {},
  onReset() {},
  onClosed() {},
  onSettings() {},
  onGoaway() {},
  onPong() {},
  onFatal() {},
});

function pump(connection: Http2Connection, stream: Http2Stream): void {
  const echo = stream.user as Echo;
  while (echo.pending.length > 0) {
    const chunk = echo.pending[0]!;
    const last = echo.pending.length === 1 && echo.ended && !echo.trailers;
    const taken = connection.sendData(stream, chunk, last);
    connection.consumed(stream, Math.min(taken, stream.bufferedUnconsumedBytes));
    if (taken < chunk.length) {
      echo.pending[0] = chunk.subarray(taken);
      return;
    }
    echo.pending.shift();
    if (last) return;
  }
  if (echo.trailers) connection.sendTrailers(stream, TRAILERS);
  else if (echo.ended) connection.endStream(stream);
}
