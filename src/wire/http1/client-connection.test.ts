import { describe, expect, test } from "bun:test";
import { LENGTH_UNKNOWN } from "../http/content-length.ts";
import { ListFields } from "../http/fields.ts";
import type { HeaderList } from "../http/header-list.ts";
import { type ClientExchange, Http1ClientConnection, type Http1ClientHandler, type IncomingResponse, type OutgoingRequest, outgoingRequest } from "./client-connection.ts";
import type { Http1Error } from "./errors.ts";
import { DEFAULT_LIMITS, type Http1Limits } from "./limits.ts";
import { Http1ServerConnection, type Http1ServerHandler, type ServerExchange } from "./server-connection.ts";

// ── A server made of bytes ──────────────────────────────────────────────────────────────────────────────────────────────────

class Harness implements Http1ClientHandler {
  readonly events: string[] = [];
  readonly connection: Http1ClientConnection;
  error: Http1Error | null = null;
  whenBody: () => void = () => {};
  whenClosed: () => void = () => {};

  constructor(limits: Partial<Http1Limits> = {}) {
    this.connection = new Http1ClientConnection({ handler: this, limits: { ...DEFAULT_LIMITS, ...limits } });
  }

  onInformational(_: ClientExchange, response: IncomingResponse): void {
    this.events.push(`interim ${response.status}${shown(response)}`);
  }
  onResponse(exchange: ClientExchange, response: IncomingResponse, endStream: boolean): void {
    this.events.push(`response ${response.status} ${response.contentLength}${endStream ? " end" : ""}${exchange.isTunnel ? " tunnel" : ""}${shown(response)}`);
  }
  onBody(_: ClientExchange, bytes: Uint8Array): void {
    this.events.push(`body ${Buffer.from(bytes).toString("latin1")}`);
    this.whenBody();
  }
  onResponseEnd(_: ClientExchange, trailers: HeaderList): void {
    this.events.push(`end${trailers.length > 0 ? ` [${trailers.join("|")}]` : ""}`);
  }
  onSendable(): void {
    this.events.push("sendable");
  }
  onAborted(_: ClientExchange, error: Http1Error | null): void {
    this.events.push(`aborted ${error?.code ?? "transport"}`);
  }
  onClosed(): void {
    this.events.push("closed");
    this.whenClosed();
  }
  onError(error: Http1Error): void {
    this.error = error;
  }
  onOutput(): void {}
  onWantsInput(wanted: boolean): void {
    this.events.push(wanted ? "read" : "stop reading");
  }
  onFinished(): void {}

  request(over: Partial<OutgoingRequest> = {}, endStream = true): ClientExchange {
    const exchange = this.connection.request({ ...GET, ...over }, endStream);
    if (exchange === null) throw new Error("not reusable");
    return exchange;
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
}

function shown(response: IncomingResponse): string {
  const list: HeaderList = [];
  response.fields.appendTo(list);
  return list.length > 0 ? ` [${list.join("|")}]` : "";
}

const GET: OutgoingRequest = {
  method: "GET", target: "/", host: "web", fields: ListFields.of([]), contentLength: LENGTH_UNKNOWN, acceptsTrailers: false, expectsContinue: false, upgrade: null,
};

describe("http1 client: requests as they are written", () => {
  const cases: readonly (readonly [string, Partial<OutgoingRequest>, boolean, string])[] = [
    ["no body", { fields: ListFields.of(["x", "y"]) }, true, "GET / HTTP/1.1\r\nhost: web\r\nx: y\r\n\r\n"],
    ["POST without a body says so", { method: "POST" }, true, "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 0\r\n\r\n"],
    ["a known length", { method: "PUT", contentLength: 5 }, false, "PUT / HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\n"],
    ["chunks, trailers wanted, 100 awaited", { method: "PUT", acceptsTrailers: true, expectsContinue: true }, false, "PUT / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\nte: trailers\r\nexpect: 100-continue\r\nconnection: te\r\n\r\n"],
    ["no expectation without a body", { expectsContinue: true }, true, "GET / HTTP/1.1\r\nhost: web\r\n\r\n"],
    ["an upgrade", { upgrade: "websocket" }, true, "GET / HTTP/1.1\r\nhost: web\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"],
    ["CONNECT", { method: "CONNECT", target: "web:443", host: "web:443" }, true, "CONNECT web:443 HTTP/1.1\r\nhost: web:443\r\n\r\n"],
  ];
  for (const [what, over, endStream, wanted] of cases) {
    test(what, () => {
      const harness = new Harness();
      harness.request(over, endStream);
      expect(harness.sent()).toBe(wanted);
    });
  }

  test("what would break the line throws", () => {
    for (const over of [{ method: "GE T" }, { target: "/a b" }, { target: "/a\r\nb" }, { target: "/a#b" }, { target: "" }, { host: "a\r\nb" }, { upgrade: "a b" }]) {
      expect(() => new Harness().request(over), JSON.stringify(over)).toThrow("http1:");
    }
    expect(() => ListFields.of(["x\r\ny", "z"])).toThrow("no field name");
    expect(() => ListFields.of(["X", "z"])).toThrow("no field name");
    expect(() => ListFields.of(["x", " z"])).toThrow("no field may have");
  });
});

describe("http1 client: responses", () => {
  const cases: readonly (readonly [what: string, input: string, heard: readonly string[], reusable: boolean])[] = [
    ["a known length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\nok", ["response 200 2 [x|y]", "body ok", "end", "closed"], true],
    ["length 0", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ["response 200 0 end", "closed"], true],
    ["chunks and trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n", ["response 200 -1", "body ok", "end [x-t|1]", "closed"], true],
    ["no reason", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", ["response 200 0 end", "closed"], true],
    ["not even the space before it", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", ["response 200 0 end", "closed"], true],
    ["a reason in another alphabet", "HTTP/1.1 404 Nicht gef\u00fcnden\r\nContent-Length: 0\r\n\r\n", ["response 404 0 end", "closed"], true],
    ["a status nobody knows", "HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n", ["response 299 0 end", "closed"], true],
    ["close", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", ["response 200 0 end", "closed"], false],
    ["HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", ["response 200 0 end", "closed"], false],
    ["HTTP/1.0 with keep-alive", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", ["response 200 0 end", "closed"], true],
    ["204", "HTTP/1.1 204 No Content\r\n\r\n", ["response 204 -1 end", "closed"], true],
    ["204 that announces a body", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", ["response 204 -1 end", "closed"], false],
    ["204 with length 0", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", ["response 204 -1 end", "closed"], true],
    ["304 with the length of what is not sent", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ["response 304 5 end", "closed"], true],
    ["1xx passed on", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ["interim 103 [link|a]", "response 200 0 end", "closed"], true],
    ["hop-by-hop fields end here", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x-a\r\nX-A: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nX-B: 2\r\n\r\n", ["response 200 0 end [x-b|2]", "closed"], true],
  ];
  for (const [what, input, heard, reusable] of cases) {
    test(what, () => {
      for (let size = 1; size <= input.length; size++) {
        const harness = new Harness();
        harness.request();
        for (let at = 0; at < input.length; at += size) harness.feed(input.slice(at, at + size));
        const got = harness.heard();
        expect(got.filter((event) => !event.startsWith("body "))).toEqual(heard.filter((event) => !event.startsWith("body ")));
        expect(got.filter((event) => event.startsWith("body ")).map((event) => event.slice(5)).join("")).toBe(heard.filter((event) => event.startsWith("body ")).map((event) => event.slice(5)).join(""));
        expect(harness.connection.reusable).toBe(reusable);
        expect(harness.error).toBeNull();
      }
    });
  }

  test("HEAD: no body, whatever is announced", () => {
    for (const lines of ["Content-Length: 5", "Transfer-Encoding: chunked", "X: y"]) {
      const harness = new Harness();
      harness.request({ method: "HEAD" });
      harness.feed(`HTTP/1.1 200 OK\r\n${lines}\r\n\r\n`);
      expect(harness.heard()[0]).toContain(" end");
      expect(harness.connection.reusable).toBe(true);
    }
  });

  test("until the connection ends", () => {
    const harness = new Harness();
    harness.request();
    harness.feed("HTTP/1.1 200 OK\r\n\r\nabc", "def");
    expect(harness.heard()).toEqual(["response 200 -1", "body abc", "body def"]);
    harness.connection.receiveEnd();
    expect(harness.heard()).toEqual(["end", "closed"]);
    expect(harness.connection.closed).toBe(true);
    const reset = new Harness();
    reset.request();
    reset.feed("HTTP/1.1 200 OK\r\n\r\nabc");
    reset.connection.transportClosed();
    expect(reset.heard().slice(2)).toEqual(["aborted transport", "closed"]);
  });

  test("the fields are there until the exchange is closed", () => {
    const harness = new Harness();
    harness.request();
    let seen: string | undefined;
    harness.onResponse = (_, response) => {
      response.fields.keep();
      harness.whenClosed = () => void (seen = response.fields.value("x"));
    };
    harness.feed("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: y\r\n\r\n", "a");
    expect(seen).toBe("y");
  });
});

describe("http1 client: a server that may not be believed", () => {
  const cases: readonly (readonly [what: string, input: string, code: string])[] = [
    ["a length and an encoding", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "lengthAndEncoding"],
    ["two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "severalContentLengths"],
    ["a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "badContentLength"],
    ["another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "unknownTransferEncoding"],
    ["an encoding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "encodingInHttp10"],
    ["a folded field", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "foldedField"],
    ["a bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "bareLineEnd"],
    ["a bare CR in a value", "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", "bareLineEnd"],
    ["a control byte", "HTTP/1.1 200 OK\r\nX: a\u0000\r\n\r\n", "badFieldValue"],
    ["a control byte in the reason", "HTTP/1.1 200 O\u0000K\r\n\r\n", "badStartLine"],
    ["a bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx", "badChunk"],
    ["trailers that frame", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n", "badTrailer"],
    ["no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", "badStartLine"],
    ["HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", "badVersion"],
    ["HTTP/0.9", "<html></html>", "badStartLine"],
    ["an empty line first", "\r\nHTTP/1.1 200 OK\r\n\r\n", "badStartLine"],
    ["status 99", "HTTP/1.1 099 OK\r\n\r\n", "badStatus"],
    ["status 600", "HTTP/1.1 600 OK\r\n\r\n", "badStatus"],
    ["status of two digits", "HTTP/1.1 20 OK\r\n\r\n", "badStatus"],
    ["status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", "badStatus"],
    ["a head too large", `HTTP/1.1 200 OK\r\n${"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(100)}${`Y: ${"a".repeat(30_000)}\r\n`.repeat(3)}\r\n`, "headTooLarge"],
    ["too many fields", `HTTP/1.1 200 OK\r\n${"a:\r\n".repeat(200)}\r\n`, "tooManyFields"],
    ["101 nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "unexpectedUpgrade"],
    ["a flood of 1xx", "HTTP/1.1 100 Continue\r\n\r\n".repeat(40), "informationalFlood"],
    ["a second response", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "unexpectedBytes"],
    ["a body longer than announced", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokk", "unexpectedBytes"],
    ["bytes after the last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx", "unexpectedBytes"],
    ["204 with a body", "HTTP/1.1 204 No Content\r\n\r\nhello", "unexpectedBytes"],
    ["304 with a body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", "unexpectedBytes"],
  ];
  for (const [what, input, code] of cases) {
    test(what, () => {
      for (const cut of [input.length, 1]) {
        const harness = new Harness();
        harness.request();
        for (let at = 0; at < input.length; at += cut) harness.feed(input.slice(at, at + cut));
        expect(harness.error?.code).toBe(code as Http1Error["code"]);
        expect(harness.connection.counters.faults.get(code as Http1Error["code"])).toBe(1);
        expect(harness.connection.closed).toBe(true);
        expect(harness.connection.reusable).toBe(false);
        expect(harness.connection.request(GET, true)).toBeNull();
        expect(harness.heard().at(-1)).toBe("closed");
      }
    });
  }

  test("HEAD with a body", () => {
    const harness = new Harness();
    harness.request({ method: "HEAD" });
    harness.feed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    expect(harness.connection.closed).toBe(true);
  });

  test("bytes too many never become the answer to the next request, not even one made the moment the first ended", () => {
    const harness = new Harness();
    let next: ClientExchange | null | undefined;
    harness.whenClosed = () => void (next ??= harness.connection.request(GET, true));
    harness.request();
    harness.feed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    expect(next).toBeNull();
    expect(harness.heard()).toEqual(["response 200 2", "body ok", "end", "closed"]);
  });

  test("bytes nobody asked for break an idle connection", () => {
    const harness = new Harness();
    harness.feed("HTTP/1.1 408 Request Timeout\r\n\r\n");
    expect(harness.error?.code).toBe("unexpectedBytes");
    expect(harness.connection.reusable).toBe(false);
  });

  test("an end in the middle", () => {
    for (const [input, where] of [["", "before it answered"], ["HTTP/1.1 2", "within the response head"], ["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "within the response body"], ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n", "within the response body"]] as const) {
      const harness = new Harness();
      harness.request();
      if (input !== "") harness.feed(input);
      expect(harness.connection.answered).toBe(input !== "");
      harness.connection.receiveEnd();
      expect(harness.error?.code).toBe("truncated");
      expect(harness.error?.message).toContain(where);
      expect(harness.heard().slice(-2)).toEqual(["aborted truncated", "closed"]);
    }
  });

  test("an idle connection that the server ends is just gone", () => {
    const harness = new Harness();
    harness.connection.receiveEnd();
    expect(harness.error).toBeNull();
    expect(harness.connection.reusable).toBe(false);
  });

  test("a response before the request has ended: given whole, but the connection is spent", () => {
    const harness = new Harness();
    const exchange = harness.request({ method: "POST", contentLength: 10 }, false);
    harness.connection.sendBody(exchange, Buffer.from("hello"));
    harness.feed("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
    expect(harness.heard()).toEqual(["response 413 0 end", "closed"]);
    expect(exchange.isClosed).toBe(true);
    expect(harness.connection.sendBody(exchange, Buffer.from("world"))).toBe(0);
    expect(harness.connection.reusable).toBe(false);
    expect(harness.connection.counters.earlyResponses).toBe(1);
  });
});

test("http1 client: a request of known length has ended with its last byte, before endBody is called", () => {
  const harness = new Harness();
  const exchange = harness.request({ method: "POST", contentLength: 5 }, false);
  harness.connection.sendBody(exchange, Buffer.from("hello"));
  harness.feed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  harness.connection.endBody(exchange);
  expect(harness.connection.reusable).toBe(true);
  expect(harness.connection.counters.earlyResponses).toBe(0);
});

describe("http1 client: back-pressure, reuse, tunnels", () => {
  test("pause holds the rest, resume delivers it", () => {
    const harness = new Harness();
    harness.request();
    harness.whenBody = () => harness.connection.pause();
    harness.feed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n");
    expect(harness.heard()).toEqual(["response 200 -1", "body a", "stop reading"]);
    harness.connection.resume();
    harness.connection.resume();
    expect(harness.heard()).toEqual(["body b", "end", "closed", "read"]);
    expect(harness.connection.reusable).toBe(true);
  });

  test("an end of the connection is told after what is held", () => {
    const harness = new Harness();
    harness.request();
    harness.whenBody = () => harness.connection.pause();
    harness.feed("HTTP/1.1 200 OK\r\n\r\nabc");
    harness.feed("def");
    harness.connection.receiveEnd();
    expect(harness.heard()).toEqual(["response 200 -1", "body abc", "stop reading"]);
    harness.connection.resume();
    expect(harness.heard()).toEqual(["body def", "read", "end", "closed"]);
  });

  test("request after request on one connection", () => {
    const harness = new Harness();
    for (let i = 0; i < 3; i++) {
      const exchange = harness.request({ method: "POST" }, false);
      harness.connection.sendBody(exchange, Buffer.from("x"));
      expect(harness.connection.request(GET, true)).toBeNull();
      harness.connection.endBody(exchange, ["x-t", "1"]);
      expect(harness.sent()).toBe("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-t: 1\r\n\r\n");
      harness.feed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
      expect(harness.connection.reusable).toBe(true);
    }
  });

  test("draining", () => {
    const harness = new Harness();
    harness.request();
    harness.connection.drain();
    harness.feed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    expect(harness.heard()).toEqual(["response 200 0 end", "closed"]);
    expect(harness.connection.closed).toBe(true);
  });

  test("aborted: the connection dies, and nothing is heard after", () => {
    const harness = new Harness();
    const exchange = harness.request();
    harness.connection.abort(exchange);
    expect(harness.heard()).toEqual(["closed"]);
    harness.feed("HTTP/1.1 200 OK\r\n\r\n");
    expect(harness.heard()).toEqual([]);
  });

  test("a body shorter than its length is aborted, a longer one throws", () => {
    const harness = new Harness();
    const exchange = harness.request({ method: "POST", contentLength: 3 }, false);
    harness.connection.endBody(exchange);
    expect(harness.connection.closed).toBe(true);
    const other = new Harness();
    const second = other.request({ method: "POST", contentLength: 3 }, false);
    expect(() => other.connection.sendBody(second, Buffer.from("hello"))).toThrow("more body");
  });

  test("101 opens the tunnel; nothing can be sent before it", () => {
    const harness = new Harness();
    const exchange = harness.request({ upgrade: "websocket" });
    expect(() => harness.connection.sendBody(exchange, Buffer.from("early"))).toThrow("before it was granted");
    harness.sent();
    harness.feed("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: x\r\n\r\nframe");
    expect(harness.heard()).toEqual(["response 101 -1 tunnel [sec-websocket-accept|x]", "body frame"]);
    expect(harness.connection.sendBody(exchange, Buffer.from("raw"))).toBe(3);
    expect(harness.sent()).toBe("raw");
    harness.connection.endBody(exchange);
    harness.connection.receiveEnd();
    expect(harness.heard()).toEqual(["end", "closed"]);
  });

  test("200 is no 101: an ordinary response", () => {
    const harness = new Harness();
    const exchange = harness.request({ upgrade: "websocket" });
    harness.feed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    expect(harness.heard()).toEqual(["response 200 2", "body ok", "end", "closed"]);
    expect(exchange.isTunnel).toBe(false);
    expect(harness.connection.sendBody(exchange, Buffer.from("x"))).toBe(0);
  });

  test("101 to another protocol is refused", () => {
    const harness = new Harness();
    harness.request({ upgrade: "websocket" });
    harness.feed("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    expect(harness.error?.code).toBe("unexpectedUpgrade");
  });

  test("CONNECT: 2xx is a tunnel whatever its fields say, anything else is a response", () => {
    const harness = new Harness();
    harness.request({ method: "CONNECT", target: "web:443", host: "web:443" });
    harness.feed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nraw");
    expect(harness.heard()).toEqual(["response 200 -1 tunnel", "body raw"]);
    const refused = new Harness();
    refused.request({ method: "CONNECT", target: "web:443", host: "web:443" });
    refused.feed("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    expect(refused.heard()).toEqual(["response 403 0 end", "closed"]);
  });
});

test("http1: a request goes through both engines with its unchanged lines as they came", () => {
  const client = new Harness();
  const handler: Http1ServerHandler = {
    onRequest: (exchange: ServerExchange) => {
      exchange.fields.remove("x-b");
      exchange.fields.set("x-new", "1");
      client.connection.request(outgoingRequest(exchange), !exchange.hasBody);
    },
    onBody: () => {}, onRequestEnd: () => {}, onSendable: () => {}, onAborted: () => {}, onClosed: () => {}, onError: () => {}, onOutput: () => {}, onWantsInput: () => {}, onFinished: () => {},
  };
  const server = new Http1ServerConnection({ handler });
  server.receive(Buffer.from("GET /a/../b?q HTTP/1.1\r\nHost: Web.:80\r\nX-A: 1\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nUser-AGENT: z\r\nX-B: 2\r\nX-C:3\r\nX-D:\t4 \r\nCookie: a=1\r\n\r\n"));
  expect(client.sent()).toBe("GET /b?q HTTP/1.1\r\nhost: web:80\r\nX-A: 1\r\nUser-AGENT: z\r\nX-C: 3\r\nX-D: 4\r\nCookie: a=1\r\nx-new: 1\r\n\r\n");
});
