// A server by Node's own HTTP/1 (llhttp), behind the proxy under test. Prints its port.
import { createServer } from "node:http";

const server = createServer((request, response) => {
  const { url } = request;
  if (url === "/hints") response.writeEarlyHints({ link: "</a>; rel=preload" });
  if (url === "/empty") return response.writeHead(204).end();
  if (url === "/known") return response.writeHead(200, { "content-length": 5 }).end("known");
  if (url === "/old") {
    response.useChunkedEncodingByDefault = false;
    response.setHeader("connection", "close");
    return response.end("to the end");
  }
  if (url === "/trailers") {
    response.writeHead(200, { trailer: "x-t" });
    response.write("body");
    response.addTrailers({ "x-t": "1" });
    return response.end();
  }
  response.writeHead(200, { "x-method": request.method, "x-url": url, "x-hop": String(request.headers["x-hop"]), "x-connection": String(request.headers.connection) });
  request.pipe(response);
});
server.on("checkContinue", (request, response) => {
  response.writeContinue();
  request.pipe(response);
});
server.on("upgrade", (request, socket) => {
  socket.on("error", () => {});
  socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
  socket.pipe(socket);
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
