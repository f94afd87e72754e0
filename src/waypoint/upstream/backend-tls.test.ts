// TLS towards backends, between real sockets: what is offered, what is asked of the server, and what is said when it cannot give it.

import { describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect as connect2 } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { WEB } from "../../../test/kit/http-records.ts";
import { until } from "../../../test/kit/until.ts";
import { freePort, takesConnections } from "../../../test/kit/ports.ts";
import { BackendAuthority, tlsBackend } from "../../../test/kit/tls-backends.ts";
import { NO_LIMITS, trafficPolicy } from "../../../test/kit/upstreams.ts";
import { WaypointFixture } from "../../../test/kit/waypoint.ts";
import { provenance } from "../../../test/kit/mesh-records.ts";
import type { BackendTls } from "../../mesh/l7/traffic-policy.ts";
import type { ClientCertificate } from "../../mesh/l7/waypoint.ts";

const authority = new BackendAuthority();
const API = "api.example.com";

const simple = (fields: Partial<Extract<BackendTls, { mode: "simple" | "mutual" }>> = {}): BackendTls => ({
  mode: "simple", sni: API, subjectAltNames: [], caPem: authority.caPem, crlPem: null, certificate: null, gatewayCertificate: false, verify: true, ...fields,
});
const policies = (tls: BackendTls) => ({ trafficPolicies: [{ service: WEB, policies: [trafficPolicy({ tls })] }] });
const answered = (answer: Response): [number, string | null] => [answer.status, answer.headers.get("x-weft-reason")];

describe("TLS towards backends", () => {
  test("the server is asked for by its name, and its connection is kept", async () => {
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: [API] }) }, (request, response) => response.end(`hello ${request.url}`));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple()) });
    for (const path of ["/a", "/b"]) expect(await (await waypoint.fetch(path)).text()).toBe(`hello ${path}`);
    expect(server.seen).toMatchObject([{ url: "/a", version: "1.1", sni: API }, { url: "/b" }]);
    expect(server.connections).toBe(1);
  });

  test("large bodies go both ways whole", async () => {
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: [API] }) }, (request, response) => void request.pipe(response));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple()) });
    const body = Buffer.alloc(8 * 1024 * 1024, "0123456789abcdef");
    const answer = await waypoint.fetch("/echo", { method: "POST", body });
    expect(Bun.hash(new Uint8Array(await answer.arrayBuffer()))).toBe(Bun.hash(body));
  });

  test("an answer that ends with the connection is whole", async () => {
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: [API] }) }, (_request, response) => {
      response.writeHead(200, { connection: "close" });
      response.end("bye");
    });
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple()) });
    for (let i = 0; i < 3; i++) expect(await (await waypoint.fetch("/")).text()).toBe("bye");
    expect(server.connections).toBe(3);
  });

  test("HTTP/2 clients get HTTP/2 where the server speaks it, over one connection", async () => {
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: [API] }), speaks: "both" }, (_request, response) => response.end("two"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple()) });
    const session = connect2(waypoint.url);
    expect(await Promise.all(["/a", "/b", "/c"].map((path) => get2(session, path)))).toEqual(["200 two", "200 two", "200 two"]);
    session.close();
    expect(server.seen.map(({ version, scheme, alpn }) => [version, scheme, alpn])).toEqual(Array(3).fill(["2.0", "https", "h2"]));
    expect(server.connections).toBe(1);
  });

  test("and HTTP/1.1 where it does not; the next ones know", async () => {
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: [API] }) }, (_request, response) => response.end("one"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple()) });
    const session = connect2(waypoint.url);
    expect(await Promise.all(["/a", "/b", "/c"].map((path) => get2(session, path)))).toEqual(["200 one", "200 one", "200 one"]);
    expect(await get2(session, "/d")).toBe("200 one");
    session.close();
    expect(server.seen.every(({ version }) => version === "1.1")).toBe(true);
    expect(server.connections).toBeLessThanOrEqual(3);
  });

  test("TLS 1.2 is spoken where there is nothing newer", async () => {
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: [API] }), tlsMax: "TLSv1.2" }, (_request, response) => response.end("old"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple()) });
    expect(await (await waypoint.fetch("/")).text()).toBe("old");
  });

  test("a wildcard certificate, a listed name, a URI", async () => {
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: ["*.example.com"], uris: ["spiffe://other/backend"] }) }, (_request, response) => response.end("ok"));
    for (const tls of [
      simple(), simple({ sni: "x.test", subjectAltNames: [{ type: "dns", value: "b.example.com" }] }), simple({ sni: "x.test", subjectAltNames: [{ type: "uri", value: "spiffe://other/backend" }] }),
      simple({ sni: "x.test", subjectAltNames: [{ type: "any", value: "nobody" }, { type: "any", value: "spiffe://other/backend" }] }),
    ]) {
      await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(tls) });
      expect((await waypoint.fetch("/")).status).toBe(200);
    }
  });

  test("without another name the service's own is asked for", async () => {
    const host = WEB.split("/")[1]!;
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: [host] }) }, (_request, response) => response.end("ok"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple({ sni: null })) });
    expect((await waypoint.fetch("/")).status).toBe(200);
    expect(server.seen[0]!.sni).toBe(host);
  });

  test.each([
    ["another name", { dns: ["other.example.com"] }, {}, /its certificate is for other\.example\.com, wanted api\.example\.com/],
    ["no name", { uris: ["https://x"] }, {}, /is for https:\/\/x, wanted api\.example\.com/],
    ["a certificate that has run out", { dns: [API], expired: true }, {}, /does not verify: CERT_HAS_EXPIRED/],
    ["an authority that is not trusted", { dns: [API] }, { caPem: new BackendAuthority().caPem }, /does not verify: (UNABLE_TO_|CERT_SIGNATURE_FAILURE)/],
    ["the system's roots, which do not know it", { dns: [API] }, { caPem: null }, /does not verify: UNABLE_TO/],
  ] as const)("%s is refused: nothing is sent", async (_what, leaf, fields, said) => {
    await using server = await tlsBackend({ leaf: authority.leaf(leaf) }, (_request, response) => response.end("never"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple(fields)) });
    expect(answered(await waypoint.fetch("/", { method: "POST", body: "secret" }))).toEqual([503, "tls_failed"]);
    expect(server.seen).toEqual([]);
    const told = await waypoint.ended();
    expect(told).toMatchObject({ code: "tls_failed", flags: expect.stringContaining("UF") });
    expect(told.detail).toMatch(/^TLS with 127\.0\.0\.1:\d+ as api\.example\.com failed: /);
    expect(told.detail).toMatch(said);
  });

  test("insecureSkipVerify believes anyone", async () => {
    await using server = await tlsBackend({ leaf: new BackendAuthority().leaf({ dns: ["other.example.com"], expired: true }) }, (_request, response) => response.end("whoever"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple({ verify: false })) });
    expect(await (await waypoint.fetch("/")).text()).toBe("whoever");
  });

  test("a client certificate is shown, and a server that wants one and gets none says so", async () => {
    const clients = new BackendAuthority();
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: [API] }), clientCaPem: clients.caPem, speaks: "both" }, (_request, response) => response.end("known"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple({ mode: "mutual", certificate: clients.leaf({ uris: ["spiffe://td/waypoint"] }) })) });
    expect(await (await waypoint.fetch("/")).text()).toBe("known");
    expect(server.seen[0]!.client).toContain("spiffe://td/waypoint");
    waypoint.change(policies(simple()));
    expect((await waypoint.fetch("/")).status).toBe(503);
    expect((await waypoint.ended(2)).detail).toMatch(/CERTIFICATE_REQUIRED|EPROTO|certificate required/i);
  });

  test("a certificate that its authority has revoked is refused; a list that cannot be believed breaks what it was to protect", async () => {
    const [leaf, other] = [authority.leaf({ dns: [API] }), authority.leaf({ dns: [API] })];
    await using server = await tlsBackend({ leaf }, (_request, response) => response.end("ok"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple({ crlPem: authority.revocationList(other) })) });
    expect((await waypoint.fetch("/")).status).toBe(200);
    waypoint.change(policies(simple({ crlPem: authority.revocationList(other, leaf) })));
    expect(answered(await waypoint.fetch("/"))).toEqual([503, "tls_failed"]);
    expect((await waypoint.ended(2)).detail).toContain("is revoked by its issuer");
    for (const [crlPem, why] of [[new BackendAuthority().revocationList(leaf), "from an issuer that is not known here"], ["no list", "ca.crl: "]] as const) {
      waypoint.change(policies(simple({ crlPem })));
      expect(answered(await waypoint.fetch("/"))).toEqual([500, "tls_broken"]);
      expect((await waypoint.ended(why === "ca.crl: " ? 4 : 3)).detail).toContain(why);
    }
    waypoint.change(policies(simple()));
    expect((await waypoint.fetch("/")).status).toBe(200);
  });

  test("the certificate of the waypoint's Gateway is shown where the policy asks for it, and follows the Gateway", async () => {
    const clients = new BackendAuthority();
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: [API] }), clientCaPem: clients.caPem, speaks: "both" }, (_request, response) => response.end("known"));
    const gateway = (clientCertificate: ClientCertificate | null) => ({ waypoints: [{ name: "waypoint", namespace: "shop", service: WEB, serves: "service" as const, clientCertificate, provenance: provenance("Gateway", "shop", "waypoint") }] });
    const asked = policies(simple({ gatewayCertificate: true }));
    const given = (uri: string): ClientCertificate => {
      const { certificatePem, keyPem } = clients.leaf({ uris: [uri] });
      return { kind: "given", certificatePem, keyPem };
    };
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: { ...asked, ...gateway(given("spiffe://td/one")) } });
    expect(await (await waypoint.fetch("/")).text()).toBe("known");
    // No connection with the older one is used any more.
    waypoint.change(gateway(given("spiffe://td/two")));
    expect(await (await waypoint.fetch("/")).text()).toBe("known");
    expect(server.seen.map(({ client }) => client)).toEqual([expect.stringContaining("spiffe://td/one"), expect.stringContaining("spiffe://td/two")]);
    waypoint.change(gateway({ kind: "broken", reason: "the Secret shop/client is not there" }));
    expect(answered(await waypoint.fetch("/"))).toEqual([500, "tls_broken"]);
    expect((await waypoint.ended(3)).detail).toContain("the Secret shop/client is not there");
    // A rule that asks for none of it is not touched by it.
    waypoint.change(policies(simple()));
    expect((await waypoint.fetch("/")).status).toBe(503);
  });

  test("material that cannot be used is told, and nothing is sent", async () => {
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: [API] }) }, (_request, response) => response.end("never"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple({ mode: "mutual", certificate: { certificatePem: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", keyPem: "no key" } })) });
    expect(answered(await waypoint.fetch("/"))).toEqual([500, "tls_broken"]);
    expect((await waypoint.ended()).detail).toMatch(/^its certificates or keys cannot be used: /);
    expect(server.connections).toBe(0);
  });

  test("names that no server can be asked for end one request each, and nothing else", async () => {
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: [API] }) }, (_request, response) => response.end("ok"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple()) });
    for (const sni of ["", "bad\0name", "a b", "ü.example", "198.51.100.7", "x".repeat(253), "."]) {
      waypoint.change(policies(simple({ sni, subjectAltNames: [{ type: "dns", value: API }] })));
      const answer = await waypoint.fetch("/");
      expect([sni, [200, 503].includes(answer.status)]).toEqual([sni, true]);
    }
    waypoint.change(policies(simple()));
    expect((await waypoint.fetch("/")).status).toBe(200);
  });

  test("a server that says nothing is given up in time; one that speaks no TLS is told", async () => {
    const silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } });
    const plain = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: (socket) => void socket.end("HTTP/1.1 400 Bad Request\r\n\r\n") } });
    const limits = { ...NO_LIMITS, connectTimeoutMs: 200 };
    for (const [{ port }, said] of [[silent, /was not finished within 200 ms/], [plain, /WRONG_VERSION_NUMBER|wrong version/i]] as const) {
      await using waypoint = new WaypointFixture({ endpoints: [{ port }], l7: { trafficPolicies: [{ service: WEB, policies: [trafficPolicy({ tls: simple(), limits })] }] } });
      expect(answered(await waypoint.fetch("/"))).toEqual([503, "tls_failed"]);
      expect((await waypoint.ended()).detail).toMatch(said);
    }
    silent.stop(true);
    plain.stop(true);
  });

  test("a WebSocket goes over TLS as HTTP/1.1", async () => {
    await using server = await tlsBackend({ leaf: authority.leaf({ dns: [API] }), speaks: "both" }, (_request, response) => response.end("ok"));
    await using waypoint = new WaypointFixture({ endpoints: [server], l7: policies(simple()) });
    // It is no WebSocket server: what matters is that it was asked in the form that it could grant.
    const client = waypoint.raw().send("GET /chat HTTP/1.1\r\nHost: web\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n");
    await until("the request", 5_000, () => server.seen.length > 0 || null);
    expect(server.seen[0]).toMatchObject({ version: "1.1", url: "/chat" });
    client.socket.end();
  });
});

describe("a server of another make", () => {
  const openssl = (directory: string, ...args: string[]): void => {
    const { exitCode, stderr } = Bun.spawnSync(["openssl", ...args], { cwd: directory });
    if (exitCode !== 0) throw new Error(`openssl ${args[0]}: ${stderr.toString()}`);
  };

  test("RSA keys and an authority below the trusted one, in TLS 1.2 and 1.3; without its chain it is refused", async () => {
    const directory = mkdtempSync(join(tmpdir(), "weft-openssl-"));
    const name = (who: string): string => `/CN=${who}`;
    openssl(directory, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", name("root"), "-keyout", "root.key", "-out", "root.pem", "-addext", "basicConstraints=critical,CA:TRUE");
    for (const [who, issuer, extension] of [["below", "root", "basicConstraints=critical,CA:TRUE"], ["leaf", "below", `subjectAltName=DNS:${API}`]] as const) {
      openssl(directory, "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", name(who), "-keyout", `${who}.key`, "-out", `${who}.csr`);
      writeFileSync(join(directory, `${who}.ext`), `${extension}\n`);
      openssl(directory, "x509", "-req", "-in", `${who}.csr`, "-CA", `${issuer}.pem`, "-CAkey", `${issuer}.key`, "-CAcreateserial", "-days", "1", "-extfile", `${who}.ext`, "-out", `${who}.pem`);
    }
    const caPem = readFileSync(join(directory, "root.pem"), "utf8");
    for (const [version, chain, wanted] of [["-tls1_2", ["-cert_chain", "below.pem"], 200], ["-tls1_3", ["-cert_chain", "below.pem"], 200], ["-tls1_3", [], 503]] as const) {
      const port = await freePort();
      const server = Bun.spawn(["openssl", "s_server", "-accept", `127.0.0.1:${port}`, "-cert", "leaf.pem", "-key", "leaf.key", ...chain, version, "-www"], { cwd: directory, stdout: "ignore", stderr: "ignore", stdin: "ignore" });
      try {
        await until("it to listen", 10_000, () => takesConnections(port));
        await using waypoint = new WaypointFixture({ endpoints: [{ port }], l7: policies(simple({ caPem })) });
        const answer = await waypoint.fetch("/");
        expect(answer.status).toBe(wanted);
        if (wanted === 200) expect(await answer.text()).toContain(version === "-tls1_2" ? "TLSv1.2" : "TLSv1.3");
        else expect((await waypoint.ended()).detail).toMatch(/UNABLE_TO_(GET_ISSUER_CERT|VERIFY_LEAF)/);
      } finally {
        server.kill();
        await server.exited;
      }
    }
    rmSync(directory, { recursive: true, force: true });
  }, 60_000);
});

function get2(session: import("node:http2").ClientHttp2Session, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ":path": path });
    let status = 0;
    let body = "";
    stream.on("response", (headers) => (status = Number(headers[":status"])));
    stream.on("data", (chunk) => (body += String(chunk)));
    stream.on("end", () => resolve(`${status} ${body}`));
    stream.on("error", reject);
  });
}
