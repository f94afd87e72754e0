import { describe, expect, test } from "bun:test";
import { LENGTH_UNKNOWN } from "../http/content-length.ts";
import { ListFields } from "../http/fields.ts";
import type { HeaderList } from "../http/header-list.ts";
import type { Http1Error } from "./errors.ts";
import { DEFAULT_LIMITS, type Http1Limits } from "./limits.ts";
import { Http1ServerConnection, type Http1ServerHandler, type Http1ServerOptions, type ServerExchange } from "./server-connection.ts";

// ── A client made of bytes ──────────────────────────────────────────────────────────────────────────────────────────────────

class Harness implements Http1ServerHandler {
  readonly events: string[] = [];
  readonly exchanges: ServerExchange[] = [];
  readonly connection: Http1ServerConnection;
  error: Http1Error | null = null;
  whenRequest: (exchange: ServerExchange) => void = () => {};
  whenBody: (exchange: ServerExchange) => void = () => {};

  constructor(limits: Partial<Http1Limits> = {}, options: Partial<Http1ServerOptions> = {}) {
    this.connection = new Http1ServerConnection({ handler: this, limits: { ...DEFAULT_LIMITS, ...limits }, ...options });
  }

  onRequest(exchange: ServerExchange): void {
    this.exchanges.push(exchange);
    const { target } = exchange;
    const list: HeaderList = [];
    exchange.fields.appendTo(list);
    this.events.push(`request ${exchange.method} ${target.host?.text ?? "-"} ${target.path}${target.query}${exchange.hasBody ? ` body=${exchange.contentLength}` : ""}${list.length > 0 ? ` [${list.join("|")}]` : ""}`);
    this.whenRequest(exchange);
  }
  onBody(exchange: ServerExchange, bytes: Uint8Array): void {
    this.events.push(`body ${Buffer.from(bytes).toString("latin1")}`);
    this.whenBody(exchange);
  }
  onRequestEnd(_: ServerExchange, trailers: HeaderList): void {
    this.events.push(`end${trailers.length > 0 ? ` [${trailers.join("|")}]` : ""}`);
  }
  onSendable(): void {
    this.events.push("sendable");
  }
  onAborted(_: ServerExchange, error: Http1Error | null): void {
    this.events.push(`aborted ${error?.code ?? "transport"}`);
  }
  onClosed(): void {
    this.events.push("closed");
  }
  onError(error: Http1Error): void {
    this.error = error;
    this.events.push(`error ${error.code}`);
  }
  onOutput(): void {}
  onWantsInput(wanted: boolean): void {
    this.events.push(wanted ? "read" : "stop reading");
  }
  onFinished(): void {
    this.events.push("finished");
  }

  feed(...parts: string[]): this {
    for (const part of parts) this.connection.receive(Buffer.from(part, "latin1"));
    return this;
  }

  heard(): string[] {
    return this.events.splice(0);
  }

  sent(): string {
    const { output } = this.connection;
    const text = Buffer.from(output.peek()).toString("latin1");
    if (output.pendingBytes > 0) output.consume(output.pendingBytes);
    return text;
  }

  answer(status = 200, body = "ok", fields: readonly string[] = []): void {
    const exchange = this.exchanges.at(-1)!;
    this.connection.respond(exchange, { status, fields: ListFields.of(fields), contentLength: body.length }, body === "");
    if (body === "") return;
    this.connection.sendBody(exchange, Buffer.from(body));
    this.connection.endBody(exchange);
  }
}

const answering = (limits: Partial<Http1Limits> = {}, options: Partial<Http1ServerOptions> = {}): Harness => {
  const harness = new Harness(limits, options);
  harness.whenRequest = () => harness.answer();
  return harness;
};

const OK = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const OK_CLOSE = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
const GET = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

// ── What is refused ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const head = (...lines: string[]): string => `${["GET / HTTP/1.1", "Host: web", ...lines].join("\r\n")}\r\n\r\n`;
const post = (...lines: string[]): string => `${["POST / HTTP/1.1", "Host: web", ...lines].join("\r\n")}\r\n\r\n`;
const chunked = (body: string): string => `${post("Transfer-Encoding: chunked")}${body}`;

const REFUSED: readonly (readonly [what: string, input: string, status: number, code: string])[] = [
  ["a length and an encoding", `${post("Content-Length: 6", "Transfer-Encoding: chunked")}0\r\n\r\nG`, 400, "lengthAndEncoding"],
  ["an encoding and a length", `${post("Transfer-Encoding: chunked", "Content-Length: 6")}0\r\n\r\nG`, 400, "lengthAndEncoding"],
  ["two equal lengths", post("Content-Length: 5", "Content-Length: 5"), 400, "severalContentLengths"],
  ["two different lengths", post("Content-Length: 5", "content-length: 6"), 400, "severalContentLengths"],
  ["a list of lengths", post("Content-Length: 5, 5"), 400, "badContentLength"],
  ["a signed length", post("Content-Length: +5"), 400, "badContentLength"],
  ["a negative length", post("Content-Length: -5"), 400, "badContentLength"],
  ["a hexadecimal length", post("Content-Length: 0x5"), 400, "badContentLength"],
  ["a length with a space inside", post("Content-Length: 1 5"), 400, "badContentLength"],
  ["a length with a letter", post("Content-Length: 5a"), 400, "badContentLength"],
  ["a length with a fraction", post("Content-Length: 5.0"), 400, "badContentLength"],
  ["a length above 2^53", post("Content-Length: 9007199254740993"), 400, "badContentLength"],
  ["a length above 2^64", post("Content-Length: 18446744073709551621"), 400, "badContentLength"],
  ["an empty length", post("Content-Length:"), 400, "badContentLength"],
  ["a length of digits that are not ASCII", post("Content-Length: \u00b2"), 400, "badContentLength"],
  ["another coding", post("Transfer-Encoding: gzip"), 501, "unknownTransferEncoding"],
  ["another coding before chunked", post("Transfer-Encoding: gzip, chunked"), 501, "unknownTransferEncoding"],
  ["another coding after chunked", post("Transfer-Encoding: chunked, gzip"), 501, "unknownTransferEncoding"],
  ["identity", post("Transfer-Encoding: identity"), 400, "badTransferEncoding"],
  ["chunked twice in one line", post("Transfer-Encoding: chunked, chunked"), 400, "badTransferEncoding"],
  ["chunked twice in two lines", post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), 400, "badTransferEncoding"],
  ["an encoding over two lines", post("Transfer-Encoding: chunked", "Transfer-Encoding: identity"), 400, "badTransferEncoding"],
  ["chunked with a trailing comma", post("Transfer-Encoding: chunked,"), 400, "badTransferEncoding"],
  ["chunked with a parameter", post("Transfer-Encoding: chunked;q=1"), 400, "badTransferEncoding"],
  ["chunked in quotes", post('Transfer-Encoding: "chunked"'), 400, "badTransferEncoding"],
  ["a tab after chunked, which some readers take for part of it", post("Transfer-Encoding: chunked\t"), 400, "badTransferEncoding"],
  ["a tab before chunked", post("Transfer-Encoding:\tchunked"), 400, "badTransferEncoding"],
  ["a tab after a length", post("Content-Length: 5 \t"), 400, "badContentLength"],
  ["an empty encoding", post("Transfer-Encoding:"), 400, "badTransferEncoding"],
  ["a word that looks like chunked", post("Transfer-Encoding: xchunked"), 501, "unknownTransferEncoding"],
  ["chunked behind a vertical tab", post("Transfer-Encoding: \u000bchunked"), 400, "badFieldValue"],
  ["chunked behind a form feed", post("Transfer-Encoding: \u000cchunked"), 400, "badFieldValue"],
  ["an encoding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "encodingInHttp10"],
  ["an encoding whose name has a space before the colon", post("Transfer-Encoding : chunked"), 400, "badFieldName"],
  ["an encoding whose name has a control byte", post("Transfer-Encoding\u0001: chunked"), 400, "badFieldName"],
  ["a chunk size above 2^53", chunked("ffffffffffffff\r\n"), 413, "chunkTooLarge"],
  ["a chunk size above 2^64", chunked("10000000000000005\r\n"), 413, "chunkTooLarge"],
  ["leading zeros without end", chunked("0".repeat(1000)), 400, "badChunk"],
  ["a negative chunk size", chunked("-1\r\n"), 400, "badChunk"],
  ["a chunk size with 0x", chunked("0x5\r\nhello\r\n"), 400, "badChunk"],
  ["a chunk size with an underscore", chunked("1_0\r\n"), 400, "badChunk"],
  ["no chunk size", chunked("\r\n"), 400, "badChunk"],
  ["no chunk size, only an extension", chunked(";a\r\n"), 400, "badChunk"],
  ["white space before a chunk size", chunked(" 5\r\nhello\r\n"), 400, "badChunk"],
  ["white space after a chunk size", chunked("5 \r\nhello\r\n"), 400, "badChunk"],
  ["white space inside a chunk size", chunked("5 5\r\nhello\r\n"), 400, "badChunk"],
  ["a chunk size line that ends in LF", chunked("5\nhello\r\n"), 400, "badChunk"],
  ["a chunk size line that ends in CR", chunked("5\rhello\r\n"), 400, "badChunk"],
  ["an extension with a bare LF", chunked("5;a\nb\r\nhello\r\n"), 400, "badChunk"],
  ["an extension with a bare CR", chunked("5;a\rb\r\nhello\r\n"), 400, "badChunk"],
  ["an extension with NUL", chunked("5;a=\u0000\r\nhello\r\n"), 400, "badChunk"],
  ["extensions by the megabyte in one chunk", chunked(`5;${"a".repeat(5000)}`), 400, "chunkExtensionFlood"],
  ["extensions by the megabyte over many chunks", chunked("1;aaaaaaaaaaaaaaaa\r\nx\r\n".repeat(1000)), 400, "chunkExtensionFlood"],
  ["a chunk longer than its size", chunked("5\r\nhello!\r\n"), 400, "badChunk"],
  ["a chunk without CRLF", chunked("5\r\nhello0\r\n\r\n"), 400, "badChunk"],
  ["a chunk that ends in LF", chunked("5\r\nhello\n0\r\n\r\n"), 400, "badChunk"],
  ["a chunk that ends in CR", chunked("5\r\nhello\rx"), 400, "badChunk"],
  ["a last chunk that ends in LF", chunked("0\r\n\n"), 400, "bareLineEnd"],
  ["a last chunk without an empty line", chunked("0\r\nGET / HTTP/1.1\r\n"), 400, "badFieldName"],
  ["trailers that frame", chunked("0\r\nContent-Length: 5\r\n\r\n"), 400, "badTrailer"],
  ["trailers that frame by encoding", chunked("0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400, "badTrailer"],
  ["trailers that name a host", chunked("0\r\nHost: other\r\n\r\n"), 400, "badTrailer"],
  ["trailers that authorise", chunked("0\r\nAuthorization: x\r\n\r\n"), 400, "badTrailer"],
  ["too many trailers", chunked(`0\r\n${"a: b\r\n".repeat(65)}\r\n`), 431, "trailersTooLarge"],
  ["trailers too large", chunked(`0\r\na: ${"b".repeat(17_000)}\r\n\r\n`), 431, "trailersTooLarge"],
  ["a folded field", head("X: a", " b"), 400, "foldedField"],
  ["a field folded by a tab", head("X: a", "\tb"), 400, "foldedField"],
  ["white space before the first field", "GET / HTTP/1.1\r\n Host: web\r\n\r\n", 400, "foldedField"],
  ["space before the colon", head("X : a"), 400, "badFieldName"],
  ["tab before the colon", head("X\t: a"), 400, "badFieldName"],
  ["no colon", head("X"), 400, "badFieldName"],
  ["no name", head(": a"), 400, "badFieldName"],
  ["a name with a bracket", head("X(: a"), 400, "badFieldName"],
  ["a name with a quote", head('X": a'), 400, "badFieldName"],
  ["a name with a byte above ASCII", head("X\u00e9: a"), 400, "badFieldName"],
  ["a name with NUL", head("X\u0000: a"), 400, "badFieldName"],
  ["NUL in a value", head("X: a\u0000b"), 400, "badFieldValue"],
  ["DEL in a value", head("X: a\u007fb"), 400, "badFieldValue"],
  ["a control byte in a value", head("X: a\u0001b"), 400, "badFieldValue"],
  ["a bare CR in a value", head("X: a\rb"), 400, "bareLineEnd"],
  ["CR CR LF", "GET / HTTP/1.1\r\nHost: web\r\r\n\r\n", 400, "bareLineEnd"],
  ["a bare LF after a field", "GET / HTTP/1.1\r\nHost: web\nX: a\r\n\r\n", 400, "bareLineEnd"],
  ["a bare LF after the request line", "GET / HTTP/1.1\nHost: web\r\n\r\n", 400, "bareLineEnd"],
  ["a bare LF as the empty line", "GET / HTTP/1.1\r\nHost: web\r\n\n", 400, "bareLineEnd"],
  ["LF alone everywhere", "GET / HTTP/1.1\nHost: web\n\n", 400, "bareLineEnd"],
  ["a head too large", head(...Array.from({ length: 40 }, (_, i) => `X-${i}: ${"a".repeat(2000)}`)), 431, "headTooLarge"],
  ["a field line too long", head(`X: ${"a".repeat(33_000)}`), 431, "headTooLarge"],
  ["ten thousand fields", head(...Array.from({ length: 10_000 }, () => "a:")), 431, "tooManyFields"],
  ["a request line too long", `GET /${"a".repeat(17_000)} HTTP/1.1\r\n`, 414, "targetTooLong"],
  ["a request line without end", `GET /${"a".repeat(100_000)}`, 414, "targetTooLong"],
  ["a method too long", `${"A".repeat(40)} / HTTP/1.1\r\nHost: web\r\n\r\n`, 501, "methodTooLong"],
  ["a method in lower case", "get / HTTP/1.1\r\nHost: web\r\n\r\n", 400, "badMethod"],
  ["a method that is no token", "G(T / HTTP/1.1\r\nHost: web\r\n\r\n", 400, "badMethod"],
  ["no method", " / HTTP/1.1\r\nHost: web\r\n\r\n", 400, "badMethod"],
  ["two spaces after the method", "GET  / HTTP/1.1\r\nHost: web\r\n\r\n", 400, "badTarget"],
  ["two spaces before the version", "GET /  HTTP/1.1\r\nHost: web\r\n\r\n", 400, "badStartLine"],
  ["a tab for a space", "GET\t/ HTTP/1.1\r\nHost: web\r\n\r\n", 400, "badMethod"],
  ["a space at the end of the request line", "GET / HTTP/1.1 \r\nHost: web\r\n\r\n", 400, "badStartLine"],
  ["no version (HTTP/0.9)", "GET /\r\n\r\n", 400, "badTarget"],
  ["HTTP/2.0", "GET / HTTP/2.0\r\nHost: web\r\n\r\n", 505, "badVersion"],
  ["HTTP/1.2", "GET / HTTP/1.2\r\nHost: web\r\n\r\n", 505, "badVersion"],
  ["HTTP/0.9 by name", "GET / HTTP/0.9\r\nHost: web\r\n\r\n", 505, "badVersion"],
  ["HTTP/1.10", "GET / HTTP/1.10\r\nHost: web\r\n\r\n", 400, "badStartLine"],
  ["another protocol", "GET / ICE/1.0\r\nHost: web\r\n\r\n", 400, "badStartLine"],
  ["http in lower case", "GET / http/1.1\r\nHost: web\r\n\r\n", 400, "badStartLine"],
  ["TLS", "\u0016\u0003\u0001\u0000\u00a5", 400, "badMethod"],
  ["many empty lines", "\r\n\r\n\r\nGET / HTTP/1.1\r\n", 400, "badStartLine"],
  ["no Host", "GET / HTTP/1.1\r\n\r\n", 400, "noHost"],
  ["two Hosts", head("Host: web"), 400, "severalHosts"],
  ["two Hosts that differ", head("Host: other"), 400, "severalHosts"],
  ["an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "badHost"],
  ["a Host with user information", "GET / HTTP/1.1\r\nHost: a@web\r\n\r\n", 400, "badHost"],
  ["a Host with port 0", "GET / HTTP/1.1\r\nHost: web:0\r\n\r\n", 400, "badHost"],
  ["a Host with a zone", "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", 400, "badHost"],
  ["a Host with a path", "GET / HTTP/1.1\r\nHost: web/a\r\n\r\n", 400, "badHost"],
  ["a Host that is a list", "GET / HTTP/1.1\r\nHost: web, other\r\n\r\n", 400, "badHost"],
  ["a Host unlike the target", "GET http://other/ HTTP/1.1\r\nHost: web\r\n\r\n", 400, "hostMismatch"],
  ["a fragment", "GET /a#b HTTP/1.1\r\nHost: web\r\n\r\n", 400, "badTarget"],
  ["%00", "GET /%00 HTTP/1.1\r\nHost: web\r\n\r\n", 400, "badTarget"],
  ["another expectation", post("Content-Length: 5", "Expect: 200-ok"), 417, "unknownExpectation"],
  ["Connection that is no list of names", head("Connection: a b"), 400, "badConnection"],
  ["Connection that takes Content-Length away", post("Content-Length: 5", "Connection: content-length"), 400, "badConnection"],
  ["Connection that takes Host away", head("Connection: close, Host"), 400, "badConnection"],
  ["Connection that takes Authorization away", head("Connection: authorization"), 400, "badConnection"],
  ["CONNECT with a body", "CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\nContent-Length: 5\r\n\r\nhello", 400, "unexpectedBody"],
  ["CONNECT with chunks", "CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "unexpectedBody"],
  ["CONNECT to no port", "CONNECT web HTTP/1.1\r\nHost: web\r\n\r\n", 400, "badTarget"],
  ["CONNECT to port 0", "CONNECT web:0 HTTP/1.1\r\nHost: web\r\n\r\n", 400, "badTarget"],
  ["CONNECT to a path", "CONNECT / HTTP/1.1\r\nHost: web\r\n\r\n", 400, "badTarget"],
  ["TRACE with a body", "TRACE / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello", 400, "unexpectedBody"],
];

describe("http1 server: refused with an answer and the end of the connection", () => {
  for (const [what, input, status, code] of REFUSED) {
    test(what, () => {
      const whole = new Harness();
      whole.feed(input);
      const sent = whole.sent();
      expect(sent).toStartWith(`HTTP/1.1 ${status} `);
      expect(sent).toContain("\r\nconnection: close\r\n");
      expect(whole.error?.code).toBe(code as Http1Error["code"]);
      expect(whole.connection.counters.faults.get(code as Http1Error["code"])).toBe(1);
      expect(whole.connection.phase).toBe("finishing");
      // What follows is dropped, whatever it is.
      whole.feed(GET);
      expect(whole.exchanges.length).toBeLessThanOrEqual(1);
      expect(whole.sent()).toBe("");
      // One byte at a time comes to the same.
      const single = new Harness();
      for (const char of input) single.feed(char);
      expect(single.error?.code).toBe(code as Http1Error["code"]);
      expect(single.sent()).toStartWith(`HTTP/1.1 ${status} `);
    });
  }

  test("the answer names the fault, and what the shell adds", () => {
    const harness = new Harness({}, { errorFields: (error) => ["x-reason", error.code] });
    harness.feed("GET / HTTP/1.1\r\n\r\n");
    expect(harness.sent()).toBe("HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nx-reason: noHost\r\ncontent-length: 22\r\nconnection: close\r\n\r\nHTTP/1.1 without Host\n");
    expect(harness.heard()).toEqual(["error noHost", "finished"]);
  });

  test("no body in the answer to HEAD", () => {
    const harness = new Harness();
    harness.feed("HEAD / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\nx");
    expect(harness.sent()).toEndWith("\r\n\r\n");
  });

  test("a fault in a body that is being handled aborts the exchange; an answer already begun is cut, not completed", () => {
    const before = new Harness();
    before.feed(chunked("5\r\nhello\r\nx"));
    expect(before.heard()).toEqual(["request POST web / body=-1", "body hello", "error badChunk", "aborted badChunk", "closed", "finished"]);
    expect(before.connection.needsReset).toBe(false);

    const after = new Harness();
    after.feed(chunked("5\r\nhello\r\n"));
    after.connection.respond(after.exchanges[0]!, { status: 200, fields: ListFields.of([]), contentLength: LENGTH_UNKNOWN }, false);
    after.sent();
    after.feed("x");
    expect(after.sent()).toBe("");
    expect(after.connection.closed).toBe(true);
    expect(after.connection.needsReset).toBe(true);
    expect(after.heard().slice(-4)).toEqual(["error badChunk", "finished", "aborted badChunk", "closed"]);
  });
});

// ── What is accepted ────────────────────────────────────────────────────────────────────────────────────────────────────────

describe("http1 server: requests", () => {
  test("a request in any cut", () => {
    const input = `POST /a/%2e%2e/b?c HTTP/1.1\r\nhOST:\tWEB:80 \r\nX-A:  b c\t\r\nEmpty:\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n00A \t;z\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n${GET}`;
    const wanted = ["request POST web:80 /b?c body=-1 [x-a|b c|empty|]", "body hello", "body 0123456789", "end [x-t|1]", "closed", "request GET web /", "closed"];
    for (let size = 1; size <= input.length; size++) {
      const harness = new Harness();
      harness.whenRequest = (exchange) => {
        if (!exchange.hasBody) harness.answer();
      };
      for (let at = 0; at < input.length; at += size) {
        harness.feed(input.slice(at, at + size));
        if (harness.exchanges[0]?.requestDone === true && !harness.exchanges[0].responseStarted) harness.answer();
      }
      const heard = harness.heard();
      // Chunks may arrive in several views; what they hold is the same.
      const joined = heard.filter((event) => event.startsWith("body ")).map((event) => event.slice(5)).join("");
      expect(joined).toBe("hello0123456789");
      expect(heard.filter((event) => !event.startsWith("body ") && event !== "read" && event !== "stop reading")).toEqual(wanted.filter((event) => !event.startsWith("body ")));
      expect(harness.sent()).toBe(OK + OK);
    }
  });

  test("Content-Length", () => {
    const harness = new Harness();
    harness.feed(`${post("Content-Length: 005")}hel`, "lo");
    expect(harness.heard()).toEqual(["request POST web / body=5", "body hel", "body lo", "end"]);
    harness.answer();
    expect(harness.heard()).toEqual(["closed"]);
    expect(harness.connection.phase).toBe("idle");
  });

  test("Content-Length 0 is no body", () => {
    expect(new Harness().feed(post("Content-Length: 0")).heard()).toEqual(["request POST web /"]);
  });

  test("one empty line before a request is skipped", () => {
    const harness = answering();
    harness.feed(GET, "\r\n", GET);
    expect(harness.sent()).toBe(OK + OK);
  });

  test("the connection's own fields are not passed on, nor those that Connection names", () => {
    const harness = new Harness();
    harness.feed(head("Connection: X-Secret , close,,TE", "X-Secret: 1", "Keep-Alive: 5", "Proxy-Connection: a", "TE: gzip, trailers", "Upgrade: websocket", "HTTP2-Settings: x", "X-Kept: 2"));
    expect(harness.heard()).toEqual(["request GET web / [x-kept|2]"]);
    const exchange = harness.exchanges[0]!;
    expect(exchange.acceptsTrailers).toBe(true);
    expect(exchange.upgrade).toBeNull();
    expect(exchange.fields.has("x-secret")).toBe(false);
    harness.answer();
    expect(harness.sent()).toBe(OK_CLOSE);
  });

  test("repeated fields are one value, and every value can be had", () => {
    const harness = new Harness();
    harness.feed(head("A: 1", "Cookie: x=1", "a: 2", "Cookie: y=2"));
    const { fields } = harness.exchanges[0]!;
    expect(fields.value("a")).toBe("1, 2");
    expect(fields.values("a")).toEqual(["1", "2"]);
    expect(fields.value("cookie")).toBe("x=1; y=2");
    fields.set("a", "3");
    fields.append("b", "4");
    expect(fields.value("a")).toBe("3");
    fields.remove("cookie");
    const list: HeaderList = [];
    fields.appendTo(list);
    expect(list).toEqual(["a", "3", "b", "4"]);
    expect(() => fields.append("x", "a\r\nb")).toThrow("bytes that no field may have");
    expect(() => fields.append("connection", "close")).toThrow("for the engine");
  });

  test("kept fields outlive the chunk", () => {
    const harness = new Harness();
    harness.whenRequest = (exchange) => exchange.fields.keep();
    const chunk = Buffer.from(head("X-A: b"));
    harness.connection.receive(chunk);
    chunk.fill(0x78);
    expect(harness.exchanges[0]!.fields.value("x-a")).toBe("b");
  });
});

describe("http1 server: keeping and ending the connection", () => {
  const cases: readonly (readonly [string, string, string])[] = [
    ["1.1 stays", "GET / HTTP/1.1\r\nHost: web\r\n\r\n", OK],
    ["1.1 with close ends", "GET / HTTP/1.1\r\nHost: web\r\nConnection: Close\r\n\r\n", OK_CLOSE],
    ["1.1 with close in the second Connection ends", "GET / HTTP/1.1\r\nHost: web\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", OK_CLOSE],
    ["1.0 ends", "GET / HTTP/1.0\r\nHost: web\r\n\r\n", OK_CLOSE],
    ["1.0 with keep-alive stays", "GET / HTTP/1.0\r\nHost: web\r\nConnection: Keep-Alive\r\n\r\n", OK.replace("\r\n\r\n", "\r\nconnection: keep-alive\r\n\r\n")],
    ["1.0 with both ends", "GET / HTTP/1.0\r\nHost: web\r\nConnection: keep-alive, close\r\n\r\n", OK_CLOSE],
    ["1.0 needs no Host", "GET / HTTP/1.0\r\n\r\n", OK_CLOSE],
  ];
  for (const [what, input, wanted] of cases) {
    test(what, () => {
      const harness = answering();
      harness.feed(input);
      expect(harness.sent()).toBe(wanted);
      expect(harness.connection.finished).toBe(wanted === OK_CLOSE);
    });
  }

  test("HTTP/1.0 gets a body of unknown length to the end of the connection, and no 1xx", () => {
    const harness = new Harness();
    harness.feed("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    const exchange = harness.exchanges[0]!;
    harness.connection.inform(exchange, 103);
    harness.connection.respond(exchange, { status: 200, fields: ListFields.of([]), contentLength: LENGTH_UNKNOWN }, false);
    harness.connection.sendBody(exchange, Buffer.from("abc"));
    harness.connection.endBody(exchange, ["x", "y"]);
    expect(harness.sent()).toBe("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc");
    expect(harness.connection.finished).toBe(true);
  });

  test("chunks and trailers", () => {
    const harness = new Harness();
    harness.feed(GET);
    const exchange = harness.exchanges[0]!;
    harness.connection.respond(exchange, { status: 200, fields: ListFields.of(["x", "y"]), contentLength: LENGTH_UNKNOWN }, false);
    expect(harness.connection.sendBody(exchange, Buffer.alloc(17, "a"))).toBe(17);
    expect(harness.connection.sendBody(exchange, Buffer.alloc(0))).toBe(0);
    harness.connection.endBody(exchange, ["grpc-status", "0", "content-length", "5"]);
    expect(harness.sent()).toBe(`HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n11\r\n${"a".repeat(17)}\r\n0\r\ngrpc-status: 0\r\n\r\n`);
    expect(harness.connection.phase).toBe("idle");
  });

  for (const [method, status, wanted] of [
    ["HEAD", 200, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"],
    ["GET", 304, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"],
    ["GET", 204, "HTTP/1.1 204 No Content\r\n\r\n"],
  ] as const) {
    test(`${method} ${status} has no body, whatever is given`, () => {
      const harness = new Harness();
      harness.feed(`${method} / HTTP/1.1\r\nHost: web\r\n\r\n`);
      const exchange = harness.exchanges[0]!;
      harness.connection.respond(exchange, { status, fields: ListFields.of([]), contentLength: 5 }, false);
      expect(harness.connection.sendBody(exchange, Buffer.from("hello"))).toBe(5);
      harness.connection.endBody(exchange);
      expect(harness.sent()).toBe(wanted);
      expect(harness.connection.phase).toBe("idle");
    });
  }

  test("a body shorter than promised ends the connection, so that nobody takes it for whole", () => {
    const harness = new Harness();
    harness.feed(GET);
    const exchange = harness.exchanges[0]!;
    harness.connection.respond(exchange, { status: 200, fields: ListFields.of([]), contentLength: 5 }, false);
    harness.connection.sendBody(exchange, Buffer.from("hell"));
    harness.connection.endBody(exchange);
    expect(harness.connection.closed).toBe(true);
    expect(harness.connection.needsReset).toBe(true);
    expect(() => {
      const other = new Harness();
      other.feed(GET);
      other.connection.respond(other.exchanges[0]!, { status: 200, fields: ListFields.of([]), contentLength: 2 }, false);
      other.connection.sendBody(other.exchanges[0]!, Buffer.from("hello"));
    }).toThrow("more body than Content-Length said");
  });

  test("draining: idle ends at once, a request under way is told", () => {
    const idle = answering();
    idle.feed(GET);
    idle.heard();
    idle.connection.drain();
    expect(idle.heard()).toEqual(["finished"]);

    const busy = new Harness();
    busy.feed(GET);
    busy.connection.drain();
    busy.sent();
    busy.answer();
    expect(busy.sent()).toBe(OK_CLOSE);
    expect(busy.connection.finished).toBe(true);

    const inHead = answering();
    inHead.feed(GET.slice(0, 20));
    inHead.connection.drain();
    inHead.feed(GET.slice(20));
    expect(inHead.sent()).toBe(OK_CLOSE);
  });

  test("a client that ends its half still gets its answer", () => {
    const harness = new Harness();
    harness.feed(GET);
    harness.connection.receiveEnd();
    harness.answer();
    expect(harness.sent()).toBe(OK_CLOSE);
    expect(harness.connection.closed).toBe(true);
  });

  test("a client that ends within a head or a body is cut off", () => {
    const inHead = new Harness();
    inHead.feed("GET / HT");
    inHead.connection.receiveEnd();
    expect(inHead.heard()).toEqual(["error truncated", "finished"]);
    const inBody = new Harness();
    inBody.feed(`${post("Content-Length: 5")}hell`);
    inBody.connection.receiveEnd();
    expect(inBody.heard().slice(2)).toEqual(["error truncated", "finished", "aborted truncated", "closed"]);
    const idle = new Harness();
    idle.connection.receiveEnd();
    expect(idle.connection.closed).toBe(true);
    expect(idle.error).toBeNull();
  });

  test("deadlines: 408 for a request that does not come, silence for an idle connection", () => {
    const slow = new Harness();
    for (const char of "GET / HTTP/1.1\r\nHost") slow.feed(char);
    expect(slow.connection.phase).toBe("head");
    slow.connection.timeOut();
    expect(slow.sent()).toStartWith("HTTP/1.1 408 ");
    const body = new Harness();
    body.feed(`${post("Content-Length: 5")}h`);
    expect(body.connection.phase).toBe("body");
    body.connection.timeOut();
    expect(body.sent()).toStartWith("HTTP/1.1 408 ");
    expect(body.heard()).toContain("aborted timeout");
    const idle = new Harness();
    expect(idle.connection.phase).toBe("idle");
    idle.connection.timeOut();
    expect(idle.sent()).toBe("");
    expect(idle.connection.finished).toBe(true);
    idle.connection.timeOut();
    expect(idle.connection.closed).toBe(true);
  });

  test("the transport is gone: the exchange is told once", () => {
    const harness = new Harness();
    harness.feed(GET);
    harness.connection.transportClosed();
    harness.connection.transportClosed();
    expect(harness.heard().slice(1)).toEqual(["finished", "aborted transport", "closed"]);
    harness.answer();
    expect(harness.sent()).toBe("");
  });

  test("after the last answer what comes is dropped, up to a bound", () => {
    const harness = answering({ lingerBytesMax: 100 });
    harness.feed("GET / HTTP/1.0\r\n\r\n");
    harness.feed("x".repeat(100));
    expect(harness.connection.closed).toBe(false);
    harness.feed("x");
    expect(harness.connection.closed).toBe(true);
  });
});

describe("http1 server: pipelining and back-pressure", () => {
  test("requests behind the first wait, and are answered in order", () => {
    const harness = new Harness();
    harness.feed(GET.repeat(3));
    expect(harness.heard()).toEqual(["request GET web /", "stop reading"]);
    harness.answer(200, "1");
    harness.answer(200, "2");
    harness.answer(200, "3");
    expect(harness.heard()).toEqual(["closed", "request GET web /", "closed", "request GET web /", "read", "closed"]);
    expect(harness.sent().match(/\r\n\r\n(\d)/g)).toEqual(["\r\n\r\n1", "\r\n\r\n2", "\r\n\r\n3"]);
    expect(harness.connection.counters.pipelinedRequests).toBe(2);
  });

  test("ten thousand requests in one go: bounded, and the present one is the last", () => {
    const harness = new Harness();
    harness.feed(GET.repeat(10_000));
    harness.feed(GET.repeat(10_000));
    expect(harness.connection.counters.pipelineOverflows).toBe(1);
    harness.answer();
    expect(harness.sent()).toBe(OK_CLOSE);
    expect(harness.exchanges.length).toBe(1);
    expect(harness.connection.finished).toBe(true);
  });

  test("ten thousand requests answered at once do not recurse", () => {
    // Room for all of the answers: what is tried is the depth, not the limit.
    const harness = answering({ outputDataBytesMax: 1024 * 1024 });
    harness.feed(GET.repeat(10_000));
    expect(harness.exchanges.length).toBe(10_000);
    expect(harness.sent()).toBe(OK.repeat(10_000));
  });

  test("a client that does not read its answers is not answered further, and its requests are bounded", () => {
    const harness = answering({ outputDataBytesMax: 1000 });
    harness.feed(GET.repeat(100));
    expect(harness.connection.output.pendingBytes).toBeLessThan(1000 + OK.length);
    expect(harness.connection.wantsInput).toBe(false);
    const before = harness.exchanges.length;
    harness.sent();
    expect(harness.exchanges.length).toBeGreaterThan(before);
    while (harness.connection.output.pendingBytes > 0) harness.sent();
    expect(harness.exchanges.length).toBe(100);
    expect(harness.connection.wantsInput).toBe(true);

    const endless = answering({ outputDataBytesMax: 1000 });
    for (let i = 0; i < 200; i++) endless.feed(GET.repeat(100));
    expect(endless.connection.counters.pipelineOverflows).toBe(1);
    expect(endless.connection.finished).toBe(true);
    expect(endless.connection.output.pendingBytes).toBeLessThan(1000 + OK.length);
  });

  test("held input may come in the smallest pieces", () => {
    const harness = new Harness();
    harness.whenBody = () => harness.connection.pause();
    harness.feed(`${post("Content-Length: 100001")}x`);
    for (let i = 0; i < 100_000; i++) harness.feed("y");
    harness.whenBody = () => {};
    harness.connection.resume();
    expect(harness.heard().slice(-3)).toEqual([`body ${"y".repeat(100_000)}`, "end", "read"]);
  });

  test("pause holds the rest of the chunk, resume delivers it", () => {
    const harness = new Harness();
    harness.whenBody = () => harness.connection.pause();
    harness.feed(chunked("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"));
    expect(harness.heard()).toEqual(["request POST web / body=-1", "body a", "stop reading"]);
    harness.connection.resume();
    expect(harness.heard()).toEqual(["body bc"]);
    harness.connection.resume();
    expect(harness.heard()).toEqual(["end", "read"]);
  });

  test("a shell that does not stop reading is stopped", () => {
    const harness = new Harness({ heldBytesMax: 1000, pipelinedBytesMax: 1000 });
    harness.whenBody = () => harness.connection.pause();
    harness.feed(`${post("Content-Length: 100000")}x`);
    harness.feed("x".repeat(900));
    harness.feed("x".repeat(900));
    expect(harness.error?.code).toBe("heldOverflow");
  });

  test("a socket that is behind makes the sender wait", () => {
    const harness = new Harness({ outputDataBytesMax: 1000 });
    harness.feed(GET);
    const exchange = harness.exchanges[0]!;
    harness.connection.respond(exchange, { status: 200, fields: ListFields.of([]), contentLength: LENGTH_UNKNOWN }, false);
    expect(harness.connection.sendBody(exchange, Buffer.alloc(2000))).toBe(2000);
    expect(harness.connection.sendBody(exchange, Buffer.alloc(1))).toBe(0);
    harness.heard();
    harness.connection.output.consume(500);
    expect(harness.heard()).toEqual([]);
    harness.connection.output.consume(harness.connection.output.pendingBytes);
    expect(harness.heard()).toEqual(["sendable"]);
    expect(harness.connection.sendBody(exchange, Buffer.alloc(1))).toBe(1);
  });

  test("a million chunks of one byte are read without being kept", () => {
    const harness = new Harness();
    let bytes = 0;
    harness.onBody = (_, view) => void (bytes += view.length);
    harness.feed(post("Transfer-Encoding: chunked"));
    const part = Buffer.from("1\r\nx\r\n".repeat(10_000));
    for (let i = 0; i < 100; i++) harness.connection.receive(part);
    harness.feed("0\r\n\r\n");
    expect(bytes).toBe(1_000_000);
    expect(harness.connection.counters.chunksReceived).toBe(1_000_000);
    expect(harness.heard()).toEqual(["request POST web / body=-1", "end"]);
  });
});

describe("http1 server: early answers and Expect", () => {
  test("an answer before the body has ended: the rest is dropped and the connection goes on", () => {
    const harness = new Harness();
    harness.feed(`${post("Content-Length: 10")}hello`);
    harness.answer(403, "no");
    expect(harness.heard()).toEqual(["request POST web / body=10", "body hello", "closed"]);
    harness.feed(`world${GET}`);
    expect(harness.heard()).toEqual(["request GET web /"]);
    expect(harness.connection.counters.earlyResponses).toBe(1);
  });

  test("an answer before a body that is too long to read away ends the connection", () => {
    const harness = new Harness({ earlyDrainBytesMax: 100 });
    harness.feed(`${post("Content-Length: 1000")}hello`);
    harness.answer(403, "no");
    expect(harness.heard().slice(2)).toEqual(["closed", "finished"]);
    harness.feed(GET);
    expect(harness.exchanges.length).toBe(1);
  });

  test("chunks have the same budget", () => {
    const harness = new Harness({ earlyDrainBytesMax: 100 });
    harness.feed(chunked("5\r\nhello\r\n"));
    harness.answer(403, "no");
    harness.feed("64\r\n", "x".repeat(100), "\r\n");
    expect(harness.connection.finished).toBe(false);
    harness.feed("1\r\nx");
    expect(harness.connection.finished).toBe(true);
  });

  test("100-continue: asked for, sent, then the body", () => {
    const harness = new Harness();
    harness.feed(post("Content-Length: 5", "Expect: 100-Continue"));
    const exchange = harness.exchanges[0]!;
    expect(exchange.expectsContinue).toBe(true);
    expect(exchange.fields.has("expect")).toBe(false);
    harness.connection.inform(exchange, 100);
    expect(harness.sent()).toBe("HTTP/1.1 100 Continue\r\n\r\n");
    harness.feed("hello");
    harness.answer();
    expect(harness.sent()).toBe(OK);
  });

  test("100-continue refused: the body may or may not come, so the connection ends", () => {
    const harness = new Harness();
    harness.feed(post("Content-Length: 27", "Expect: 100-continue"));
    harness.answer();
    expect(harness.sent()).toBe(OK_CLOSE);
    harness.feed(GET);
    expect(harness.exchanges.length).toBe(1);
  });

  test("an expectation without a body, and one in HTTP/1.0, is none", () => {
    const harness = new Harness();
    harness.feed(head("Expect: 100-continue"));
    expect(harness.exchanges[0]!.expectsContinue).toBe(false);
    const old = new Harness();
    old.feed("POST / HTTP/1.0\r\nHost: web\r\nContent-Length: 5\r\nExpect: anything\r\n\r\nhello");
    expect(old.exchanges[0]!.expectsContinue).toBe(false);
    expect(old.error).toBeNull();
  });
});

describe("http1 server: tunnels", () => {
  const UPGRADE = head("Connection: Upgrade", "Upgrade: WebSocket");
  const CONNECT = "CONNECT web:443 HTTP/1.1\r\nHost: web:443\r\n\r\n";
  const NONE = ListFields.of([]);

  test("Upgrade: bytes before the 101 wait for it", () => {
    const harness = new Harness();
    harness.feed(`${UPGRADE}early`);
    const exchange = harness.exchanges[0]!;
    expect(exchange.upgrade).toBe("websocket");
    expect(harness.heard()).toEqual(["request GET web /", "stop reading"]);
    harness.connection.respond(exchange, { status: 101, fields: NONE, contentLength: LENGTH_UNKNOWN }, false);
    expect(harness.sent()).toBe("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    expect(harness.heard()).toEqual(["body early", "read"]);
    harness.feed("GET / HTTP/1.1\r\n\r\n");
    expect(harness.heard()).toEqual(["body GET / HTTP/1.1\r\n\r\n"]);
    expect(harness.connection.sendBody(exchange, Buffer.from("raw"))).toBe(3);
    expect(harness.sent()).toBe("raw");
    expect(harness.connection.phase).toBe("tunnel");
  });

  test("Upgrade answered with 200: an ordinary exchange, and what came early is no request", () => {
    const harness = answering();
    harness.whenRequest = () => {};
    harness.feed(`${UPGRADE}${GET}`);
    harness.answer();
    expect(harness.sent()).toBe(OK_CLOSE);
    expect(harness.exchanges.length).toBe(1);
    for (const first of [UPGRADE, CONNECT]) {
      const atOnce = answering();
      if (first === CONNECT) atOnce.whenRequest = () => atOnce.answer(403);
      atOnce.feed(`${first}${GET}`);
      expect(atOnce.exchanges.length, "answered inside the callback").toBe(1);
      expect(atOnce.sent()).toContain("connection: close");
    }
    const polite = answering();
    polite.feed(UPGRADE);
    polite.feed(GET);
    expect(polite.sent()).toBe(OK + OK);
  });

  test("h2c, a choice of protocols, Upgrade with a body, without Connection, in HTTP/1.0: no upgrade", () => {
    for (const input of [
      head("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
      head("Connection: Upgrade", "Upgrade: websocket, h2c"),
      head("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"),
      head("Upgrade: websocket"),
      post("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 1"),
      "GET / HTTP/1.0\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ]) {
      const harness = new Harness();
      harness.feed(input);
      expect(harness.exchanges[0]!.upgrade, input).toBeNull();
      expect(harness.exchanges[0]!.fields.has("upgrade")).toBe(false);
      expect(harness.exchanges[0]!.fields.has("http2-settings")).toBe(false);
    }
  });

  test("101 to a request that asked for nothing throws: ours to prevent", () => {
    const harness = new Harness();
    harness.feed(GET);
    expect(() => harness.connection.respond(harness.exchanges[0]!, { status: 101, fields: NONE, contentLength: LENGTH_UNKNOWN }, false)).toThrow("asks for no other protocol");
  });

  test("CONNECT: early data waits for the 2xx; refused, it is dropped", () => {
    const granted = new Harness();
    granted.feed(`${CONNECT}hello`);
    granted.connection.respond(granted.exchanges[0]!, { status: 200, fields: NONE, contentLength: LENGTH_UNKNOWN }, false);
    expect(granted.sent()).toBe("HTTP/1.1 200 OK\r\n\r\n");
    expect(granted.heard()).toEqual(["request CONNECT web:443 ", "stop reading", "body hello", "read"]);

    const refused = new Harness();
    refused.feed(`${CONNECT}${GET}`);
    refused.answer(403, "");
    expect(refused.sent()).toBe("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    expect(refused.exchanges.length).toBe(1);
  });

  test("each half of a tunnel ends by itself", () => {
    const peerFirst = new Harness();
    peerFirst.feed(CONNECT);
    const exchange = peerFirst.exchanges[0]!;
    peerFirst.connection.respond(exchange, { status: 200, fields: NONE, contentLength: LENGTH_UNKNOWN }, false);
    peerFirst.heard();
    peerFirst.connection.receiveEnd();
    expect(peerFirst.heard()).toEqual(["end"]);
    peerFirst.connection.sendBody(exchange, Buffer.from("last"));
    peerFirst.connection.endBody(exchange);
    expect(peerFirst.heard()).toEqual(["finished", "closed"]);
    expect(peerFirst.connection.closed).toBe(true);
    expect(peerFirst.connection.needsReset).toBe(false);

    const usFirst = new Harness();
    usFirst.feed(CONNECT);
    usFirst.connection.respond(usFirst.exchanges[0]!, { status: 200, fields: NONE, contentLength: LENGTH_UNKNOWN }, false);
    usFirst.heard();
    usFirst.connection.endBody(usFirst.exchanges[0]!);
    usFirst.feed("still");
    usFirst.connection.receiveEnd();
    expect(usFirst.heard()).toEqual(["finished", "body still", "end", "closed"]);
  });

  test("a FIN that came before the tunnel was granted is told after what came before it", () => {
    const harness = new Harness();
    harness.feed(`${CONNECT}hello`);
    harness.connection.receiveEnd();
    harness.heard();
    harness.connection.respond(harness.exchanges[0]!, { status: 200, fields: NONE, contentLength: LENGTH_UNKNOWN }, false);
    expect(harness.heard()).toEqual(["body hello", "read", "end"]);
  });
});
