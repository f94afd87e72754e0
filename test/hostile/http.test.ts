// The HTTP lists of docs/bad-input.md through a running waypoint: what two readers of a message could read differently never gets from a
// client to a server of either HTTP, nor from a server to a client; and what is left of it never becomes the next one's message.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout } from "bun:test";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { Flag, FrameType } from "../../src/wire/http2/frames.ts";
import { headerValue } from "../../src/wire/http2/headers.ts";
import { item } from "../kit/bad-input.ts";
import { data, frame, Http2Peer } from "../kit/http2-peer.ts";
import { until } from "../kit/until.ts";
import { type Backend, backend2, RawClient } from "../kit/waypoint.ts";
import { ownAddresses, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(60_000);

const [ONE, TWO] = ["198.18.7.1", "198.18.7.2"];
/** To a server that speaks HTTP/1.1, and to one that speaks HTTP/2. */
const [TO_HTTP1, TO_HTTP2] = [8080, 8082];
const PORTS = [TO_HTTP1, TO_HTTP2];
const MALFORMED = "weft_request_malformed_total";
/** What all of this may add to the waypoint's memory. */
const GROWTH_BYTES_MAX = 96 * 1024 * 1024;
const SERVICE = (name: string, ip: string, port: string): string => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec: { clusterIP: ${ip}, selector: { app: ${name} }, ports: [{ name: ${port}, port: 80, targetPort: http }] }
---
`;
const ENTRY = (name: string, address: string, port: number): string => `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: ${name}, namespace: shop }
spec: { address: ${address}, ports: { http: ${port} }, labels: { app: ${name} }, serviceAccount: web }
---
`;
const REST = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: no-admin, namespace: shop }
spec:
  targetRefs: [{ group: "", kind: Service, name: one }, { group: "", kind: Service, name: two }]
  action: DENY
  rules: [{ to: [{ operation: { paths: ["/admin", "/admin/*"] } }] }]
`;

/** An HTTP/1.1 server that keeps every byte, and answers each head with what was prepared for its path. */
class Witness1 implements AsyncDisposable {
  heard = "";
  connections = 0;
  readonly answers = new Map<string, string>();
  readonly #sockets = new Set<Socket>();
  #server: Server | null = null;
  port = 0;

  async start(): Promise<void> {
    this.#server = createServer((socket) => {
      this.connections++;
      this.#sockets.add(socket);
      let unread = "";
      socket.on("error", () => {});
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("data", (bytes) => {
        const text = bytes.toString("latin1");
        this.heard += text;
        unread += text;
        for (let end = unread.indexOf("\r\n\r\n"); end >= 0; end = unread.indexOf("\r\n\r\n")) {
          const path = /^[A-Z]+ ([^ ]+) HTTP/.exec(unread)?.[1] ?? "";
          unread = unread.slice(end + 4);
          socket.write(Buffer.from(this.answers.get(path) ?? `HTTP/1.1 200 OK\r\ncontent-length: ${path.length}\r\n\r\n${path}`, "latin1"));
        }
      });
    });
    await new Promise<void>((resolve) => this.#server!.listen(0, ONE, resolve));
    this.port = (this.#server.address() as AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server?.close();
  }
}

/** HPACK without tables and without any check: each field as a literal of its own. Names and values below 127 bytes. */
function literals(fields: readonly (readonly [name: string, value: string])[]): Uint8Array {
  return Buffer.concat(fields.map(([name, value]) => Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name, "latin1"), Buffer.from([value.length]), Buffer.from(value, "latin1")])));
}

/** A request whose fields nobody has looked at. */
const unchecked = (stream: number, fields: readonly (readonly [string, string])[], endStream = true): Uint8Array => frame(FrameType.headers, Flag.endHeaders | (endStream ? Flag.endStream : 0), stream, literals(fields));

/** How a stream ended: its status with our reason, or RST_STREAM, or the connection's GOAWAY. */
async function outcomeOf(peer: Http2Peer, stream: number): Promise<string> {
  const fields = await peer.answer(stream);
  return fields === null ? await peer.status(stream) : `answered ${headerValue(fields, ":status") ?? ""} ${headerValue(fields, "x-weft-reason") ?? ""}`.trim();
}

let one: Witness1;
let two: Backend;
let waypoint: WaypointProcess;
let restingBytes = 0;

beforeAll(async () => {
  ownAddresses([ONE, TWO]);
  one = new Witness1();
  await one.start();
  two = await backend2((stream, headers) => {
    stream.respond({ ":status": 200 });
    stream.resume();
    stream.end(String(headers[":path"]));
  }, TWO);
  waypoint = await WaypointProcess.start({
    yaml: { "shop.yaml": [`${WAYPOINT_YAML}\n---\n`, SERVICE("one", "198.18.250.1", "http"), SERVICE("two", "198.18.250.2", "http2"), ENTRY("one", ONE, one.port), ENTRY("two", TWO, two.port), REST].join("") },
    flags: ["--serve", `127.0.0.1:${TO_HTTP1}=shop/one.shop.svc.cluster.local:80,127.0.0.1:${TO_HTTP2}=shop/two.shop.svc.cluster.local:80`],
  });
  for (const port of PORTS) expect((await fetch(`http://127.0.0.1:${port}/warm`)).status).toBe(200);
  restingBytes = waypoint.residentBytes();
}, 60_000);

afterAll(async () => {
  await waypoint?.[Symbol.asyncDispose]();
  await one?.[Symbol.asyncDispose]();
  await two?.[Symbol.asyncDispose]();
});

/** Everything that either server was told. */
const told = (): string => one.heard + JSON.stringify(two.seen);

const honest = async (port: number): Promise<string> => (await fetch(`http://127.0.0.1:${port}/honest`)).text();

/** Each form gets its status, in a connection that ends with it; no server hears of it or of what came behind it. */
async function refused(forms: readonly (readonly [request: string, status: number])[], reason = "bad_request"): Promise<void> {
  const before = await waypoint.metric(MALFORMED);
  for (const port of PORTS) {
    for (const [request, status] of forms) {
      const client = new RawClient(port).send(`${request}GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n`);
      const answer = await client.closed();
      if (!answer.startsWith(`HTTP/1.1 ${status} `) || !answer.includes(`x-weft-reason: ${reason}`) || answer.split(/HTTP\/1\.1 \d/).length !== 2) throw new Error(`${JSON.stringify(request.slice(0, 200))}: wanted one answer, ${status} ${reason}, got ${JSON.stringify(answer)}`);
    }
    expect(await honest(port)).toBe("/honest");
  }
  expect(told()).not.toMatch(/smuggled|refused/);
  await until("the counter to move", 8_000, async () => (await waypoint.metric(MALFORMED)) - before >= forms.length * PORTS.length || null);
}

const post = (fields: string, body = ""): string => `POST /refused HTTP/1.1\r\nHost: web\r\n${fields}\r\n${body}`;
const get = (fields: string, target = "/refused"): string => `GET ${target} HTTP/1.1\r\nHost: web\r\n${fields}\r\n`;

describe("from HTTP/1 clients", () => {
  item("lengths that two readers could read differently", () => refused([
    ...["5\r\nContent-Length: 6", "5\r\nContent-Length: 5", "5, 5", "+5", "-5", " 5 5", "0x5", "5.0", "9007199254740993", "99999999999999999999", "", "5;a", "\u00b25", "5,"].map((value): [string, number] => [post(`Content-Length: ${value}\r\n`, "hello"), 400]),
    [post("Content-Length:\t5\r\n", "hello"), 400], [post("Content-Length : 5\r\n", "hello"), 400],
  ]));

  item("a length and an encoding at once", () => refused([
    [post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400], [post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 400], [post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", "0\r\n\r\n"), 400],
  ]));

  item("encodings that are not exactly chunked", () => refused([
    ...["gzip, chunked", "xchunked", "chunked, gzip"].map((value): [string, number] => [post(`Transfer-Encoding: ${value}\r\n`, "0\r\n\r\n"), 501]),
    ...["chunked\r\nTransfer-Encoding: chunked", "chunked,", ", chunked", "chunked, chunked", "\u000bchunked", "chun\tked", "\tchunked", "\"chunked\"", "identity", ""].map((value): [string, number] => [post(`Transfer-Encoding: ${value}\r\n`, "0\r\n\r\n"), 400]),
    [post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), 400], [post("Transfer-Encoding: chunked\r\n x\r\n", "0\r\n\r\n"), 400], [`POST /refused HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
  ]));

  item("fields that some servers would read as others", () => refused([
    [get("X: a\r\n b\r\n"), 400], [get(" X: a\r\n"), 400], [get("X : a\r\n"), 400], [get("X\u0000: a\r\n"), 400], [get("X: a\u0000b\r\n"), 400], [get("X: a\rb\r\n"), 400], [get("X: a\nY: b\r\n"), 400], [get("(X): a\r\n"), 400], [get(": a\r\n"), 400],
    [get("no colon\r\n"), 400], [get("X: \u0001\r\n"), 400], [get("Connection: content-length\r\nContent-Length: 0\r\n"), 400], [get("Connection: host\r\n"), 400], [get("Connection: transfer-encoding\r\n"), 400],
  ]));

  item("hosts that are none, several, or not the target's", () => refused([
    ["GET /refused HTTP/1.1\r\n\r\n", 400], [get("Host: other\r\n"), 400], [get("Host: web\r\n"), 400], ["GET http://other/refused HTTP/1.1\r\nHost: web\r\n\r\n", 400],
    ...["user@web", "web:0", "web:99999", "[fe80::1%25eth0]", "web/path", "web web", "web,other", "", "010.0.0.1"].map((host): [string, number] => [`GET /refused HTTP/1.1\r\nHost: ${host}\r\n\r\n`, 400]),
  ]));

  item("request lines that two readers could read differently", () => refused([
    [get("", "/refused#x"), 400], [get("", "/refused\tx"), 400], [get("", "/refused x"), 400], [get("", "refused"), 400], [get("", "*"), 400], ["GET  /refused HTTP/1.1\r\nHost: web\r\n\r\n", 400], ["GET /refused HTTP/1.1 \r\nHost: web\r\n\r\n", 400],
    ["G@T /refused HTTP/1.1\r\nHost: web\r\n\r\n", 400], ["GET /refused HTTP/2.0\r\nHost: web\r\n\r\n", 505], ["GET /refused\r\n", 400], [get("", "/a%00b"), 400], [get("", "/a%zz"), 400], [get("", "/%c0%af"), 400],
  ]));

  item("chunks that are none", async () => {
    const before = one.heard.length;
    const counted = await waypoint.metric(MALFORMED);
    for (const body of ["5 \r\nhello\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "-1\r\n", "\r\n", "g\r\n", "5\nhello\r\n0\r\n\r\n", "5\r\nhelloXX0\r\n\r\n", "ffffffffffffffff\r\n", "5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n", "5\r\nhello\r\n0\r\nX : y\r\n\r\n", `${"0".repeat(100_000)}5\r\nhello`, `5;${"a".repeat(100_000)}\r\nhello`]) {
      const client = new RawClient(TO_HTTP1).send(`POST /chunks HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n${body}GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n`);
      const answer = await client.closed();
      // The witness answers as soon as it has a head: either is right, so long as nothing comes after it.
      if (answer.split(/HTTP\/1\.1 \d/).length > 2) expect({ body: body.slice(0, 60), answer }).toEqual({ body: "one answer at most", answer: "" });
      expect(await honest(TO_HTTP1)).toBe("/honest");
    }
    await until("the counter to move", 8_000, async () => (await waypoint.metric(MALFORMED)) > counted || null);
    expect(one.heard.slice(before)).not.toContain("smuggled");
    expect(one.heard.slice(before)).not.toContain("\r\n0\r\n\r\n");
  });

  item("Upgrade to HTTP/2 in the clear, and bytes behind an Upgrade", async () => {
    const client = new RawClient(TO_HTTP1).send("GET /h2c HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n");
    expect(await client.until("/h2c")).toStartWith("HTTP/1.1 200 ");
    client.destroy();
    expect(/GET \/h2c HTTP[^]*?\r\n\r\n/.exec(one.heard)![0].toLowerCase()).not.toMatch(/upgrade|http2-settings/);
    // The server answers 200 to the Upgrade: what came behind it is another request of the client's, with all its rules, and no bytes of a tunnel.
    const other = new RawClient(TO_HTTP1).send("GET /up HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /admin HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    const answers = await other.closed();
    expect(answers).toStartWith("HTTP/1.1 200 ");
    expect(one.heard).not.toContain("/admin");
  });

  item("a denied path in every spelling", async () => {
    for (const port of PORTS) {
      for (const path of ["/admin", "/%61dmin", "/x/../admin", "/x/%2e%2e/admin", "/./admin", "/admin/", "/x\\..\\admin", "/..;/admin", "/admin?x", "//../admin", "/admin/./x", "/%2e/admin"]) {
        const answer = await new RawClient(port).send(`GET ${path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n`).closed();
        if (!/^HTTP\/1\.1 403 .*x-weft-reason: access_denied/s.test(answer)) expect({ path, answer }).toEqual({ path, answer: "403" });
      }
    }
    expect(told()).not.toContain("admin");
    await until("the denials to be counted", 8_000, async () => (await waypoint.metric("weft_request_answers_total", { reason: "access_denied" })) >= 24 || null);
  });
});

describe("from HTTP/2 clients", () => {
  const request = (...more: readonly (readonly [string, string])[]): readonly (readonly [string, string])[] => [[":method", "POST"], [":scheme", "http"], [":path", "/refused"], [":authority", "web"], ...more];
  const instead = (name: string, value: string): readonly (readonly [string, string])[] => request().map(([key, was]) => [key, key === name ? value : was] as const);
  const forms: readonly (readonly (readonly [string, string])[])[] = [
    request(["x", "a\r\nx-injected: 1"]), request(["x", "a\nb"]), request(["x", "a\u0000b"]), request(["x\r\ny", "a"]), request(["x y", "a"]), request(["X", "a"]), request(["x:", "a"]), request(["", "a"]),
    request(["transfer-encoding", "chunked"]), request(["connection", "close"]), request(["upgrade", "h2c"]), request(["keep-alive", "1"]), request(["te", "gzip"]),
    request(["content-length", "5"], ["content-length", "5"]), request(["content-length", "+5"]), request(["content-length", "5, 5"]), request(["host", "other"]), request(["host", "web"], ["host", "web"]),
    instead(":path", "/refused HTTP/1.1\r\nhost: x\r\n\r\nGET /smuggled"), instead(":path", "/refused x"), instead(":path", "/refused#x"), instead(":path", ""), instead(":path", "refused"), instead(":path", "*"),
    instead(":method", "GET /smuggled HTTP/1.1"), instead(":method", ""), instead(":method", "post"), instead(":authority", "web\r\nx: y"), instead(":authority", "u@web"), instead(":authority", "web web"), instead(":scheme", "http://x"), instead(":scheme", "ftp"),
    [...request(), [":path", "/again"]], [[":method", "GET"], [":scheme", "http"], [":authority", "web"]], request([":status", "200"]), [["x", "a"], ...request()],
  ];

  item("header lists that would be another message in HTTP/1", async () => {
    for (const port of PORTS) {
      for (const fields of forms) {
        using client = await Http2Peer.plain(port);
        client.write(unchecked(1, fields));
        const outcome = await outcomeOf(client, 1);
        if (!/^(reset 1|answered 400 bad_request|goaway 1)$/.test(outcome)) expect({ port, fields, outcome }).toEqual({ port, fields, outcome: "reset 1, goaway 1 or bad_request" });
      }
      expect(await honest(port)).toBe("/honest");
    }
    expect(told()).not.toMatch(/smuggled|refused|injected/);
  });

  item("a body longer or shorter than its content-length", async () => {
    for (const port of PORTS) {
      for (const [length, body] of [["5", "hello GET /smuggled HTTP/1.1\r\nhost: web\r\n\r\n"], ["50", "hello"], ["0", "GET /smuggled HTTP/1.1\r\nhost: web\r\n\r\n"]] as const) {
        const fields = request(["content-length", length]).map(([name, value]) => [name, name === ":path" ? "/held" : value] as const);
        using client = await Http2Peer.plain(port);
        client.write(unchecked(1, fields, false), data(1, body, true));
        expect(await outcomeOf(client, 1)).toMatch(/^(reset 1|answered 200)$/);
        expect(await honest(port)).toBe("/honest");
      }
    }
    expect(told()).not.toContain("smuggled");
  });
});

describe("from servers", () => {
  const answered = async (path: string): Promise<string> => new RawClient(TO_HTTP1).send(`GET ${path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n`).closed();

  item("answers that two readers could read differently", async () => {
    const answers = [
      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
      "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nX: a\u0000b\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "HTTP/1.1 099 No\r\n\r\n", "HTTP/1.1 2000 No\r\n\r\n", "HTTP/3.0 200 OK\r\n\r\n",
      "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", `${"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(2_000)}`, `HTTP/1.1 200 OK\r\nX: ${"a".repeat(300_000)}\r\n\r\n`, "garbage\r\n\r\n",
    ];
    for (const [i, answer] of answers.entries()) {
      one.answers.set(`/bad/${i}`, answer);
      const got = await answered(`/bad/${i}`);
      const last = got.slice(got.lastIndexOf("HTTP/1.1 "));
      if (!/^HTTP\/1\.1 502 /.test(last)) expect({ answer: answer.slice(0, 80), got: got.slice(0, 200) }).toEqual({ answer: answer.slice(0, 80), got: "502" });
      expect(await honest(TO_HTTP1)).toBe("/honest");
    }
    await until("the answers to be counted", 8_000, async () => (await waypoint.metric("weft_request_answers_total", { reason: "upstream_protocol" })) >= answers.length || null);
  });

  item("an answer behind the answer is nobody's", async () => {
    const poison = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    for (const [i, first] of ["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nabcd", "HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"].entries()) {
      one.answers.set(`/poison/${i}`, first + poison);
      expect(await answered(`/poison/${i}`)).not.toContain("poison");
      for (let n = 0; n < 3; n++) expect(await honest(TO_HTTP1)).toBe("/honest");
    }
  });
});

describe("all of the above", () => {
  item("the waypoint is as it was before", async () => {
    expect(waypoint.residentBytes() - restingBytes).toBeLessThan(GROWTH_BYTES_MAX);
    for (const port of PORTS) expect(await honest(port)).toBe("/honest");
    expect(waypoint.process.exitCode).toBeNull();
    expect(waypoint.log).not.toMatch(/"level":"(fatal|panic)"/);
  });
});
