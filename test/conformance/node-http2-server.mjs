// A server by Node's own HTTP/2 (nghttp2), for our client to talk to. Prints its port. Runs under node or bun.
import { createServer } from "node:http2";

const server = createServer({ settings: { enableConnectProtocol: true, maxConcurrentStreams: 50 } });
server.on("stream", (stream, headers) => {
  stream.on("error", () => {});
  if (headers[":authority"] === "reset.test:1") {
    stream.respond({ ":status": 200 });
    stream.close(8);
    return;
  }
  if (headers[":method"] === "CONNECT") {
    stream.respond({ ":status": 200 });
    stream.pipe(stream);
    return;
  }
  if (headers[":path"] === "/hints") stream.additionalHeaders({ ":status": 103, link: "</a>" });
  if (headers[":path"] === "/trailers") {
    stream.respond({ ":status": 200, "content-type": "text/plain" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end("body");
    return;
  }
  stream.respond({ ":status": 200, "x-method": headers[":method"] });
  stream.pipe(stream);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
