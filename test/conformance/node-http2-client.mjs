// A client by Node's own HTTP/2 (nghttp2) against our server on the port given. Prints one JSON line. Runs under node or bun.
import { createHash, randomFillSync } from "node:crypto";
import { connect } from "node:http2";

/** Eight at once stay below the 10 MB that both runtimes' clients hold per session. */
const BODY_BYTES = 1_000_000;
const session = connect(`http://127.0.0.1:${process.argv[2]}`, { settings: { initialWindowSize: 200_000 } });

const digest = (bytes) => createHash("sha256").update(bytes).digest("hex");

function exchange(headers, body, options = {}) {
  return new Promise((resolve, reject) => {
    const stream = session.request(headers, { endStream: body === null, waitForTrailers: options.trailers !== undefined });
    const parts = [];
    let status = 0;
    let trailers = null;
    if (options.trailers !== undefined) stream.on("wantTrailers", () => stream.sendTrailers(options.trailers));
    stream.on("response", (fields) => (status = fields[":status"]));
    stream.on("trailers", (fields) => (trailers = { ...fields }));
    stream.on("data", (chunk) => parts.push(chunk));
    stream.on("end", () => resolve({ status, bytes: Buffer.concat(parts), trailers }));
    stream.on("error", reject);
    if (body !== null) stream.end(body);
  });
}

try {
  const get = await exchange({ ":path": "/" }, null);
  const bodies = Array.from({ length: 8 }, () => randomFillSync(Buffer.alloc(BODY_BYTES)));
  const posts = await Promise.all(bodies.map((body) => exchange({ ":method": "POST", ":path": "/echo" }, body)));
  const tunnel = await exchange({ ":method": "CONNECT", ":authority": "198.18.0.1:80" }, bodies[0]);
  const trailers = await exchange({ ":method": "POST", ":path": "/echo" }, Buffer.from("x"), { trailers: { "x-t": "1" } });
  const many = await Promise.all(Array.from({ length: 500 }, (_, i) => exchange({ ":method": "POST", ":path": `/${i}` }, Buffer.from(`body ${i}`))));
  console.log(
    JSON.stringify({
      getBytes: get.bytes.length,
      getStatus: get.status,
      echoed: posts.filter((post, i) => digest(post.bytes) === digest(bodies[i])).length,
      tunnelled: digest(tunnel.bytes) === digest(bodies[0]),
      trailers: trailers.trailers,
      many: many.filter((one, i) => one.status === 200 && one.bytes.toString() === `body ${i}`).length,
    }),
  );
} catch (error) {
  console.log(JSON.stringify({ error: String(error) }));
}
session.close();
