// Connections that carry no HTTP, through a waypoint, between real sockets: TCPRoute, TLSRoute, policies held to connections.

import { describe, expect, test } from "bun:test";
import { connect, createServer as createTlsServer } from "node:tls";
import type { AddressInfo } from "node:net";
import { selfSigned } from "../../../test/kit/certificates.ts";
import { requestPolicy } from "../../../test/kit/http-records.ts";
import { delta, identity, provenance } from "../../../test/kit/mesh-records.ts";
import { until } from "../../../test/kit/until.ts";
import { BackendAuthority } from "../../../test/kit/tls-backends.ts";
import { NO_LIMITS, trafficPolicy } from "../../../test/kit/upstreams.ts";
import { type Backend, backend1, rawBackend, WaypointFixture } from "../../../test/kit/waypoint.ts";
import { type NamespacedName, namespacedName } from "../../core/brand.ts";
import type { ConnectionRule, Route } from "../../mesh/l7/route.ts";
import type { ConnectionLimits, TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";

const WEB = namespacedName("shop", "web.shop.svc.cluster.local");
const named = (name: string): NamespacedName => namespacedName("shop", `${name}.shop.svc.cluster.local`);
const to = (name: string, weight = 1): ConnectionRule["backends"][number] => ({ weight, filters: [], target: { kind: "service", service: named(name), port: 80, subset: null } });
const rule = (backends: ConnectionRule["backends"], sni: readonly string[] = []): ConnectionRule => ({ sni, backends, fieldPath: "spec.rules[0]" });

function connectionRoute(kind: "TCPRoute" | "TLSRoute", name: string, rules: readonly ConnectionRule[], createdMs = 0): Route {
  return {
    id: `${kind}/shop/${name}`, name, namespace: "shop", parents: [{ service: WEB, port: null, clientNamespace: null }], createdMs, provenance: provenance(kind, "shop", name),
    rules: { protocol: kind === "TCPRoute" ? "tcp" : "tls", rules },
  };
}

/** Speaks first: its name. */
const greeter = (name: string): Promise<Backend> => rawBackend((socket) => void socket.write(`${name}\n`));

async function greeting(waypoint: WaypointFixture): Promise<string> {
  const client = waypoint.raw();
  await client.until("\n");
  client.socket.end();
  return client.received.trim();
}

interface TlsBackend extends AsyncDisposable {
  readonly port: number;
}

async function tlsBackend(name: string): Promise<TlsBackend> {
  const server = createTlsServer(selfSigned(name), (socket) => {
    socket.on("error", () => {});
    socket.end(`${name} for ${socket.servername}`);
  });
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: (server.address() as AddressInfo).port, [Symbol.asyncDispose]: async () => void server.close() };
}

/** What the server says; "refused" when the connection ends without a word. */
function askTls(waypoint: WaypointFixture, servername: string | undefined): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect({ host: "127.0.0.1", port: waypoint.port, rejectUnauthorized: false, ...(servername === undefined ? {} : { servername }) });
    socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
    socket.on("error", () => {});
    socket.on("close", () => resolve(text === "" ? "refused" : text));
  });
}

describe("a TCPRoute", () => {
  test("sends connections to its backends by weight; a server that speaks first is heard", async () => {
    await using web = await greeter("web");
    await using a = await greeter("a");
    await using b = await greeter("b");
    await using waypoint = new WaypointFixture({
      endpoints: [web, { service: "a", port: a.port }, { service: "b", port: b.port }], portName: "tcp-db", l7: { routes: [connectionRoute("TCPRoute", "db", [rule([to("a", 3), to("b", 1)])])] },
    });
    const heard: Record<string, number> = {};
    for (let i = 0; i < 80; i++) {
      const name = await greeting(waypoint);
      heard[name] = (heard[name] ?? 0) + 1;
    }
    expect(Object.keys(heard).sort()).toEqual(["a", "b"]);
    expect(heard["a"]!).toBeGreaterThan(heard["b"]!);
  });

  test("holds on a port that declares nothing: nobody takes its bytes for HTTP; the oldest route wins", async () => {
    await using web = await backend1((_, response) => response.end("http"));
    await using a = await rawBackend((socket) => socket.once("data", () => socket.end("raw a\n")));
    await using waypoint = new WaypointFixture({
      endpoints: [web, { service: "a", port: a.port }], portName: "", l7: { routes: [connectionRoute("TCPRoute", "young", [rule([to("web")])], 2_000), connectionRoute("TCPRoute", "old", [rule([to("a")])], 1_000)] },
    });
    const client = waypoint.raw().send("GET / HTTP/1.1\r\nHost: web\r\n\r\n");
    expect(await client.closed()).toBe("raw a\n");
  });

  test("leaves ports that are declared as HTTP alone", async () => {
    await using web = await backend1((_, response) => response.end("http"));
    await using a = await greeter("a");
    await using waypoint = new WaypointFixture({ endpoints: [web, { service: "a", port: a.port }], portName: "http", l7: { routes: [connectionRoute("TCPRoute", "db", [rule([to("a")])])] } });
    expect(await (await waypoint.fetch("/")).text()).toBe("http");
  });

  test.each([
    ["an invalid backend", [{ weight: 1, filters: [], target: { kind: "invalid", reason: "no such Service" } }], "no such Service"],
    ["weights of 0", [to("web", 0)], "every backend of TCPRoute shop/db spec.rules[0] has weight 0"],
  ] as [string, ConnectionRule["backends"], string][])("with %s refuses and says why", async (_, backends, why) => {
    await using web = await greeter("web");
    await using waypoint = new WaypointFixture({ endpoints: [web], portName: "tcp-db", l7: { routes: [connectionRoute("TCPRoute", "db", [rule(backends)])] } });
    await waypoint.raw().closed();
    await until("the record", 5_000, () => waypoint.passed.length > 0 || null);
    expect(waypoint.passed[0]!.error).toContain(why);
  });

  test("a backend of which one endpoint refuses is reached at another", async () => {
    await using web = await greeter("web");
    const gone = await greeter("gone");
    await gone[Symbol.asyncDispose]();
    await using waypoint = new WaypointFixture({ endpoints: [{ port: gone.port }, web], portName: "tcp-db" });
    for (let i = 0; i < 10; i++) expect(await greeting(waypoint)).toBe("web");
  });
});

describe("a TLSRoute", () => {
  test("goes by the name that the client asks for: exact, then the longest wildcard, then any; others are refused", async () => {
    await using exact = await tlsBackend("exact");
    await using wide = await tlsBackend("wide");
    await using narrow = await tlsBackend("narrow");
    const routes = [connectionRoute("TLSRoute", "wide", [rule([to("wide")], ["*.example"])]), connectionRoute("TLSRoute", "narrow", [rule([to("narrow")], ["*.shop.example"])]), connectionRoute("TLSRoute", "exact", [rule([to("exact")], ["db.shop.example"])], 9)];
    await using waypoint = new WaypointFixture({
      endpoints: [{ port: exact.port }, ...Object.entries({ exact, wide, narrow }).map(([service, { port }]) => ({ service, port }))], portName: "tls-db", l7: { routes },
    });
    expect(await askTls(waypoint, "db.shop.example")).toBe("exact for db.shop.example");
    expect(await askTls(waypoint, "x.y.shop.example")).toBe("narrow for x.y.shop.example");
    expect(await askTls(waypoint, "bank.example")).toBe("wide for bank.example");
    expect(await askTls(waypoint, "else.test")).toBe("refused");
    expect(await askTls(waypoint, undefined)).toBe("refused");
    await until("the records", 5_000, () => waypoint.passed.length === 5 || null);
    expect(waypoint.passed.filter(({ error }) => error !== null).map(({ error }) => error)).toEqual([
      "none of the 3 TLSRoutes is for the server name else.test", "none of the 3 TLSRoutes is for a client that asks for no server name",
    ]);
  });

  test("of every name takes clients without one, on a port that declares nothing", async () => {
    await using any = await tlsBackend("any");
    await using web = await greeter("web");
    await using waypoint = new WaypointFixture({ endpoints: [web, { service: "any", port: any.port }], portName: "", l7: { routes: [connectionRoute("TLSRoute", "any", [rule([to("any")])])] } });
    expect(await askTls(waypoint, undefined)).toStartWith("any for");
  });

  test("reads a ClientHello that comes byte by byte, and passes on every byte", async () => {
    await using db = await rawBackend((socket) => {
      let bytes = 0;
      socket.on("data", (chunk) => {
        bytes += chunk.length;
        if (bytes === hello.length + 3) socket.end(`${bytes} bytes`);
      });
    });
    const { hello } = await recordHello();
    await using waypoint = new WaypointFixture({ endpoints: [{ port: db.port }, { service: "db", port: db.port }], portName: "tls-db", l7: { routes: [connectionRoute("TLSRoute", "db", [rule([to("db")], ["db.example"])])] } });
    const client = waypoint.raw();
    client.socket.setNoDelay(true);
    for (let at = 0; at < hello.length; at += 50) {
      client.socket.write(hello.subarray(at, at + 50));
      await new Promise((resolve) => setImmediate(resolve));
    }
    client.send("abc");
    expect(await client.closed()).toBe(`${hello.length + 3} bytes`);
  });
});

/** The first bytes of a real TLS client that asks for `db.example`. */
async function recordHello(): Promise<{ readonly hello: Buffer }> {
  let hello: Buffer | null = null;
  await using server = await rawBackend((socket) => socket.once("data", (chunk) => {
    hello = Buffer.from(chunk);
    socket.destroy();
  }));
  connect({ host: "127.0.0.1", port: server.port, servername: "db.example" }).on("error", () => {});
  return { hello: await until("a ClientHello", 5_000, () => hello) };
}

describe("policies held to a connection", () => {
  const CLIENT = "cluster.local/ns/shop/sa/client";
  const source = { identity: identity("shop", "client"), namespace: "shop" };
  const allowClient = requestPolicy({ name: "client", rules: [{ principals: [{ kind: "exact", value: CLIENT }] }] });
  const denyGet = requestPolicy({ name: "no-get", action: "deny", rules: [{ methods: [{ kind: "exact", value: "GET" }] }] });
  const custom = requestPolicy({ name: "ask", action: { kind: "custom", provider: "x", authorizer: null }, rules: [{ paths: [{ kind: "prefix", value: "/x" }] }] });

  test("by identity let it through; what they say of requests lets nobody in and keeps everybody out", async () => {
    await using web = await greeter("web");
    const errorWith = async (policies: (typeof allowClient)[], as: typeof source | { identity: null }): Promise<string | null> => {
      await using waypoint = new WaypointFixture({ endpoints: [web], portName: "tcp-db", source: as, l7: { requestPolicies: policies } });
      const client = waypoint.raw();
      await until("an end or a word", 5_000, () => client.received !== "" || client.ended || null);
      client.socket.end();
      await until("the record", 5_000, () => waypoint.passed.length > 0 || null);
      return client.received === "" ? waypoint.passed[0]!.error : null;
    };
    expect(await errorWith([allowClient], source)).toBeNull();
    expect(await errorWith([allowClient], { identity: null })).toContain("none of these ALLOW policies matches: shop/client");
    expect(await errorWith([allowClient, denyGet], source)).toBe("denied by AuthorizationPolicy shop/no-get spec.rules[0]");
    expect(await errorWith([custom], source)).toContain("asks an external authorizer, which judges requests and not connections");
  });

  test("a server that speaks first is heard on an undeclared port too, when they allow the connection", async () => {
    await using web = await greeter("web");
    await using waypoint = new WaypointFixture({ endpoints: [web], portName: "", source, l7: { requestPolicies: [allowClient] } });
    expect(await greeting(waypoint)).toBe("web");
  });

  test("by the name that TLS asks for", async () => {
    await using db = await tlsBackend("db");
    const only = requestPolicy({ name: "names", rules: [{ conditions: [{ key: { kind: "sni" }, values: [{ kind: "suffix", value: ".shop.example" }], notValues: [] }] }] });
    await using waypoint = new WaypointFixture({ endpoints: [db], portName: "tls-db", l7: { requestPolicies: [only] } });
    expect([await askTls(waypoint, "db.shop.example"), await askTls(waypoint, "db.else.example")]).toEqual(["db for db.shop.example", "refused"]);
  });

  test("a changed one cuts open connections within the change, and lets waiting ones through", async () => {
    await using web = await rawBackend((socket) => socket.on("data", (chunk) => socket.write(chunk)));
    await using waypoint = new WaypointFixture({ endpoints: [web], portName: "", source });
    const client = waypoint.raw().send("\x01hello");
    await client.until("hello");
    waypoint.change({ requestPolicies: [denyGet] });
    await client.closed();
    expect(waypoint.passed[0]!.error).toBe("denied by AuthorizationPolicy shop/no-get spec.rules[0], as the policies are now");
    await using speaks = await greeter("web");
    await using other = new WaypointFixture({ endpoints: [speaks], portName: "", source, l7: { requestPolicies: [denyGet] } });
    const waiting = other.raw();
    await until("the connection", 5_000, () => other.plane.passthroughs.size > 0 || null);
    other.change({ removedRequestPolicies: [namespacedName("shop", "no-get")] });
    await waiting.until("web");
    waiting.socket.end();
  });

  test("a service that is gone takes no open connection with it", async () => {
    await using web = await rawBackend((socket) => socket.on("data", (chunk) => socket.write(chunk)));
    await using waypoint = new WaypointFixture({ endpoints: [web], portName: "tcp-db", source });
    const client = waypoint.raw().send("one\n");
    await client.until("one");
    waypoint.store.apply(delta({ removedServices: [WEB] }));
    waypoint.plane.changed();
    client.send("two\n");
    await client.until("two");
    client.socket.end();
  });

  test("a request on an undeclared port is judged as one", async () => {
    await using web = await backend1((_, response) => response.end("http"));
    await using waypoint = new WaypointFixture({ endpoints: [web], portName: "", l7: { requestPolicies: [requestPolicy({ name: "gets", rules: [{ methods: [{ kind: "exact", value: "GET" }], paths: [{ kind: "exact", value: "/a" }] }] })] } });
    expect([(await waypoint.fetch("/a")).status, (await waypoint.fetch("/b")).status]).toEqual([200, 403]);
  });
});

describe("limits of connections that are passed through", () => {
  const policies = (fields: Partial<TrafficPolicy>) => ({ trafficPolicies: [{ service: WEB, policies: [trafficPolicy(fields)] }] });
  /** How a connection ended on which the server speaks all the time, or once. */
  async function ended(fields: Partial<ConnectionLimits>, talks: boolean): Promise<string> {
    await using server = await rawBackend((socket) => {
      const timer = setInterval(() => socket.write("x"), 20);
      if (!talks) clearInterval(timer);
      socket.write("hello\n");
      socket.on("close", () => clearInterval(timer));
    });
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "tcp", l7: policies({ limits: { ...NO_LIMITS, ...fields } }) });
    const client = waypoint.raw();
    await client.until("hello");
    await client.closed();
    return String(waypoint.passed[0]!.error);
  }

  test("without a byte for too long", async () => expect(await ended({ idleTimeoutMs: 100 }, false)).toBe("no byte for 100 ms"));
  test("too old, whatever moves", async () => expect(await ended({ connectionAgeMaxMs: 150 }, true)).toContain("connectionAgeMaxMs"));
  test("too many at once", async () => {
    await using server = await greeter("web");
    await using waypoint = new WaypointFixture({ endpoints: [server], portName: "tcp", l7: policies({ limits: { ...NO_LIMITS, connectionsMax: 1 } }) });
    const first = waypoint.raw();
    await first.until("web");
    await waypoint.raw().closed();
    expect(waypoint.passed[0]!.error).toContain("connectionsMax");
    first.socket.end();
  });

  test("TLS is originated for them too, and nothing is offered by ALPN", async () => {
    const authority = new BackendAuthority();
    const leaf = authority.leaf({ dns: ["db.example.com"] });
    const seen: unknown[] = [];
    const server = createTlsServer({ cert: leaf.certificatePem, key: leaf.keyPem }, (socket) => {
      seen.push((socket as unknown as { servername: string }).servername, socket.alpnProtocol);
      socket.on("error", () => {});
      socket.end("hello by TLS\n");
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    await using waypoint = new WaypointFixture({ endpoints: [{ port }], portName: "tcp", l7: policies({ tls: { mode: "simple", sni: "db.example.com", subjectAltNames: [], caPem: authority.caPem, crlPem: null, certificate: null, gatewayCertificate: false, verify: true } }) });
    expect(await greeting(waypoint)).toBe("hello by TLS");
    expect(seen).toEqual(["db.example.com", false]);
    server.close();
  });

  test("a client that ends first still hears the answer, by TLS too", async () => {
    const authority = new BackendAuthority();
    const leaf = authority.leaf({ dns: ["db.example.com"] });
    const server = createTlsServer({ cert: leaf.certificatePem, key: leaf.keyPem, allowHalfOpen: true }, (socket) => {
      let heard = "";
      socket.on("error", () => {});
      socket.on("data", (chunk) => (heard += String(chunk)));
      socket.on("end", () => socket.end(`heard ${heard}\n`));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    await using waypoint = new WaypointFixture({ endpoints: [{ port }], portName: "tcp", l7: policies({ tls: { mode: "simple", sni: "db.example.com", subjectAltNames: [], caPem: authority.caPem, crlPem: null, certificate: null, gatewayCertificate: false, verify: true } }) });
    const client = waypoint.raw();
    client.send("ping");
    client.socket.end();
    expect(await client.closed()).toBe("heard ping\n");
    server.close();
  });
});
