// A client by Node's own HTTP/1, in front of the proxy under test: prints one JSON line of what came back for each request.
import { Agent, request } from "node:http";

const port = Number(process.argv[2]);
const agent = new Agent({ keepAlive: true, maxSockets: 1 });

function ask(options, body, trailers) {
  return new Promise((resolve, reject) => {
    const seen = { interim: [] };
    const asked = request({ host: "127.0.0.1", port, agent, ...options }, (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const bytes = Buffer.concat(chunks);
        Object.assign(seen, { status: response.statusCode, headers: response.headers, trailers: response.trailers, body: bytes.length > 100 ? bytes.length : bytes.toString(), reused: asked.reusedSocket });
        resolve(seen);
      });
    });
    asked.on("information", ({ statusCode }) => seen.interim.push(statusCode));
    asked.on("error", reject);
    asked.on("upgrade", (response, socket) => {
      let text = "";
      socket.on("data", (bytes) => {
        text += bytes;
        if (text === "ping") socket.end();
      });
      socket.on("end", () => resolve({ status: response.statusCode, body: text }));
      socket.write("ping");
    });
    if (options.headers?.expect === "100-continue") asked.on("continue", () => asked.end(body));
    else {
      if (trailers !== undefined) asked.addTrailers(trailers);
      asked.end(body);
    }
  });
}

const results = [];
const big = Buffer.alloc(3_000_000, "0123456789abcdefg");
results.push(await ask({ path: "/a/../b?c", headers: { connection: "keep-alive, x-hop", "x-hop": "1" } }));
results.push(await ask({ path: "/echo", method: "POST", headers: { "content-length": 5 } }, "hello"));
results.push(await ask({ path: "/echo", method: "POST" }, big));
results.push(await ask({ path: "/known", method: "HEAD" }));
results.push(await ask({ path: "/empty" }));
results.push(await ask({ path: "/hints" }));
results.push(await ask({ path: "/trailers", headers: { te: "trailers" } }));
results.push(await ask({ path: "/echo", method: "PUT", headers: { expect: "100-continue", "content-length": 4 } }, "wait"));
results.push(await ask({ path: "/old", agent: false }));
results.push(await ask({ path: "/up", agent: false, headers: { connection: "upgrade", upgrade: "echo" } }));
console.log(JSON.stringify(results));
agent.destroy();
