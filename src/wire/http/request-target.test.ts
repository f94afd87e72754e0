import { describe, expect, test } from "bun:test";
import { type Host, parseHost } from "./host.ts";
import { readTarget } from "./request-target.ts";

const host = (text: string): Host => {
  const read = parseHost(text);
  if (!read.ok) throw new Error(read.error);
  return read.value;
};

const of = (method: string, target: string, hostText: string | null = "web"): string => {
  const read = readTarget({ method, target, host: hostText === null ? null : host(hostText) }, "base");
  if (!read.ok) return `${read.error.code}: ${read.error.message}`;
  const { scheme, path, query } = read.value;
  return `${scheme} ${read.value.host?.text ?? "-"} ${path} ${query}`;
};

describe("target: each form", () => {
  test("origin", () => {
    expect(of("GET", "/a/../b?x=/../y#".slice(0, -1))).toBe("null web /b ?x=/../y");
    expect(of("GET", "/", null)).toBe("null - / ");
    expect(of("OPTIONS", "/")).toBe("null web / ");
    expect(of("GET", "//evil/a")).toBe("null web //evil/a ");
  });

  test("absolute, the host of the target named again by Host", () => {
    expect(of("GET", "http://web/a?b")).toBe("http web /a ?b");
    expect(of("GET", "HTTP://WEB./a")).toBe("http web /a ");
    expect(of("GET", "http://web:80/a")).toBe("http web:80 /a ");
    expect(of("GET", "https://web:443", "web")).toBe("https web:443 / ");
    expect(of("GET", "http://web?b")).toBe("http web / ?b");
    expect(of("GET", "http://web/a", null)).toBe("http web /a ");
    expect(of("OPTIONS", "http://web")).toBe("http web * ");
  });

  test("asterisk", () => {
    expect(of("OPTIONS", "*")).toBe("null web * ");
    expect(of("GET", "*")).toStartWith("badTarget");
  });

  test("authority, for CONNECT only", () => {
    expect(of("CONNECT", "web:443", "web:443")).toBe("null web:443  ");
    expect(of("CONNECT", "web:443", "web")).toBe("null web:443  ");
    expect(of("CONNECT", "[2001:db8::1]:443", null)).toBe("null [2001:db8::1]:443  ");
    for (const target of ["web", "web:0", "/a", "http://web:443/", "u@web:443", ":443", "*"]) expect(of("CONNECT", target), target).toStartWith("badTarget");
    expect(of("GET", "web:443")).toStartWith("badTarget");
  });
});

describe("target: the path as it came", () => {
  const received = (target: string): string | null => {
    const read = readTarget({ method: "GET", target, host: host("web") }, "base");
    return read.ok ? read.value.pathReceived : "refused";
  };

  test("is kept where normalising changed it, without the query", () => {
    expect(received("/a/../b?x=/../y")).toBe("/a/../b");
    expect(received("http://web/%61?q")).toBe("/%61");
    expect(received("http://web/a%2fb")).toBe("/a%2fb");
  });

  test("and is null where it did not", () => {
    for (const target of ["/a?b", "/", "/.well-known/x", "http://web", "http://web?b", "/a%2Fb"]) expect(received(target), target).toBeNull();
  });
});

describe("target: refused", () => {
  test("a Host that says otherwise", () => {
    expect(of("GET", "http://other/a")).toStartWith("hostMismatch");
    expect(of("GET", "http://web:81/a")).toStartWith("hostMismatch");
    expect(of("GET", "https://web:80/a")).toStartWith("hostMismatch");
    expect(of("CONNECT", "web:443", "other:443")).toStartWith("hostMismatch");
    expect(of("CONNECT", "web:443", "web:444")).toStartWith("hostMismatch");
  });

  test("a fragment, another scheme, user information, a bad path", () => {
    for (const target of ["/a#b", "/a?b#c", "http://web/a#b", "http://web#", "ftp://web/", "http:/web", "http:///a", "http://u:p@web/", "javascript:1", "", "a", "http://web/%zz"]) {
      expect(of("GET", target), target).toStartWith("badTarget");
    }
  });
});
