import { describe, expect, test } from "bun:test";
import { LENGTH_UNKNOWN } from "./content-length.ts";
import { ListFields } from "./fields.ts";
import type { HeaderList } from "./header-list.ts";
import { requestFromHttp2, requestToHttp2, responseFromHttp2, responseToHttp2 } from "./http2-message.ts";
import type { HttpRequest } from "./message.ts";

const read = (list: readonly string[], endStream = true): HttpRequest => {
  const request = requestFromHttp2(list, { endStream, pathNormalisation: "base" });
  if (!request.ok) throw new Error(`${request.error.code}: ${request.error.message}`);
  return request.value;
};
const refusal = (list: readonly string[]): string => {
  const request = requestFromHttp2(list, { endStream: true, pathNormalisation: "base" });
  return request.ok ? "taken" : request.error.code;
};
const fieldsOf = (request: { readonly fields: HttpRequest["fields"] }): HeaderList => {
  const list: HeaderList = [];
  request.fields.appendTo(list);
  return list;
};

const GET = [":method", "GET", ":scheme", "https", ":authority", "Web.:443", ":path", "/a/../b?c"];

describe("HTTP/2 to a message", () => {
  test("target, host and facts out of the fields; cookie crumbs joined", () => {
    const request = read([...GET, "cookie", "a=1", "te", "trailers", "x-a", "b", "cookie", "c=2", "content-length", "5", "expect", "100-continue"], false);
    expect(request.method).toBe("GET");
    expect(request.target).toMatchObject({ scheme: "https", path: "/b", query: "?c" });
    expect(request.target.host?.text).toBe("web:443");
    expect(fieldsOf(request)).toEqual(["cookie", "a=1; c=2", "x-a", "b"]);
    expect(request).toMatchObject({ contentLength: 5, hasBody: true, acceptsTrailers: true, expectsContinue: true, upgrade: null });
  });

  test("without a body nothing is expected or counted", () => {
    expect(read([...GET, "expect", "100-continue"])).toMatchObject({ hasBody: false, contentLength: 0, expectsContinue: false });
  });

  test("Host stands in for :authority", () => {
    expect(read([":method", "GET", ":scheme", "http", ":path", "/", "host", "web"]).target.host?.name).toBe("web");
  });

  test("CONNECT, and extended CONNECT", () => {
    expect(read([":method", "CONNECT", ":authority", "web:443"], false).target).toMatchObject({ scheme: null, path: "", query: "" });
    const socket = read([":method", "CONNECT", ":protocol", "WebSocket", ":scheme", "https", ":authority", "web", ":path", "/chat"], false);
    expect(socket.upgrade).toBe("websocket");
    expect(socket.target.path).toBe("/chat");
  });

  test("refused", () => {
    const with_ = (name: string, value: string): string[] => GET.map((text, i) => (GET[i - 1] === name ? value : text));
    expect(refusal(with_(":authority", "user@web"))).toBe("badHost");
    expect(refusal(with_(":authority", "web:0"))).toBe("badHost");
    expect(refusal(with_(":authority", ""))).toBe("badHost");
    expect(refusal([":method", "GET", ":scheme", "http", ":path", "/"])).toBe("badHost");
    expect(refusal(with_(":scheme", "ftp"))).toBe("badTarget");
    expect(refusal(with_(":path", "/%00"))).toBe("badTarget");
    expect(refusal(with_(":method", "get"))).toBe("badTarget");
    expect(refusal([":method", "CONNECT", ":authority", "web"])).toBe("badTarget");
  });
});

describe("a message to HTTP/2", () => {
  test("a request there and back", () => {
    const list = [":method", "POST", ":scheme", "http", ":path", "/a?b", ":authority", "web:80", "x-a", "b", "content-length", "5", "te", "trailers", "expect", "100-continue"];
    expect(requestToHttp2(read(list, false), "https")).toEqual(list);
  });

  test("an upgrade becomes an extended CONNECT", () => {
    const request = { ...read([":method", "GET", ":scheme", "http", ":authority", "web", ":path", "/chat"]), upgrade: "websocket" };
    expect(requestToHttp2(request, "http")).toEqual([":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/chat", ":authority", "web"]);
  });

  test("CONNECT has neither scheme nor path", () => {
    expect(requestToHttp2(read([":method", "CONNECT", ":authority", "web:443"], false), "http")).toEqual([":method", "CONNECT", ":authority", "web:443"]);
  });

  test("a response there and back", () => {
    const list = [":status", "200", "set-cookie", "a", "set-cookie", "b", "content-length", "5"];
    const response = responseFromHttp2(list);
    expect(response.status).toBe(200);
    expect(response.fields.values("set-cookie")).toEqual(["a", "b"]);
    expect(responseToHttp2(response)).toEqual(list);
    expect(responseToHttp2({ status: 204, fields: ListFields.of([]), contentLength: LENGTH_UNKNOWN })).toEqual([":status", "204"]);
  });
});

describe("fields of strings", () => {
  test("look-ups and changes", () => {
    const fields = ListFields.of(["a", "1", "b", "2", "a", "3", "cookie", "x=1", "cookie", "y=2"]);
    expect(fields.value("a")).toBe("1, 3");
    expect(fields.value("cookie")).toBe("x=1; y=2");
    expect(fields.value("c")).toBeUndefined();
    expect(fields.has("b")).toBe(true);
    fields.set("a", "4");
    fields.remove("cookie");
    fields.append("c", "");
    expect(fieldsOf({ fields })).toEqual(["b", "2", "a", "4", "c", ""]);
  });

  test("what may not stand in a message throws", () => {
    for (const [name, value] of [["A", "b"], ["", "b"], [":path", "/"], ["a b", "c"], ["a", "b\r\nc"], ["a", "\u0000"], ["a", "b "], ["transfer-encoding", "chunked"], ["host", "web"], ["content-length", "1"]] as const) {
      expect(() => ListFields.of([name, value]), name).toThrow("http:");
      expect(() => ListFields.of([]).set(name, value), name).toThrow("http:");
    }
  });
});
