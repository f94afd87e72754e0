import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import * as http2 from "node:http2";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import net from "node:net";
import tls from "node:tls";
import { DAY_MS, HOUR_MS, testCa, WEB } from "../../test/kit/certificates.ts";
import { forgeRequest } from "../../test/kit/requests.ts";
import { type Clock, seededRandom, systemClock } from "../core/ports.ts";
import { spiffeId } from "../core/spiffe.ts";
import { createRequest } from "../identity/csr.ts";
import { GrpcCertificateSource, type GrpcSourceOptions } from "../identity/grpc-certificate-source.ts";
import { judgePeer } from "../identity/peer-identity.ts";
import { SvidCache } from "../identity/svid-cache.ts";
import { systemTimers, type Timers } from "../net/timers.ts";
import type { Svid } from "../identity/svid.ts";
import { writePem } from "../wire/x509/pem.ts";
import { CALLER_BURST, CALLER_RATE_PER_S, CaServer, type CaServerEvent, HANDSHAKE_TIMEOUT_MS } from "./server.ts";
import { newToken, parseTokens, type TokenVerifier } from "./tokens.ts";

const SERVER_NAME = "istiod.istio-system.svc";
const node = newToken();
const billing = newToken();
const greedy = newToken();
const folder = mkdtempSync(join(tmpdir(), "weft-ca-server-"));
const ca = testCa({ nowMs: Date.now() - HOUR_MS });
const events: CaServerEvent[] = [];
const recorded: string[] = [];
let recordFails = false;
let frozenMs: number | null = null;
const clock: Clock = { wallMs: () => systemClock.wallMs(), monotonicMs: () => frozenMs ?? systemClock.monotonicMs() };
let server: CaServer;
let port = 0;

function tokens(): TokenVerifier {
  const parsed = parseTokens(JSON.stringify({
    tokens: [
      { name: "node-a", sha256: node.sha256, namespaces: ["shop"] },
      { name: "billing", sha256: billing.sha256, identities: ["spiffe://cluster.local/ns/billing/sa/api"] },
      { name: "greedy", sha256: greedy.sha256, namespaces: "all" },
    ],
  }));
  if (!parsed.ok) throw new Error(parsed.error);
  return parsed.value;
}

const file = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
};

beforeAll(async () => {
  server = new CaServer({
    authority: ca.authority,
    tokens: tokens(),
    clock,
    timers: systemTimers,
    serverNames: [{ kind: "dns", dnsName: SERVER_NAME }],
    record: (issued) => {
      if (recordFails) throw new Error("disk full");
      recorded.push(issued.serialHex);
    },
    onEvent: (event) => events.push(event),
  });
  port = (await server.listen({ host: "127.0.0.1", port: 0 })).port;
  file("root.pem", ca.rootPem);
  file("token", `${node.token}\n`);
});

afterAll(() => {
  server.destroy();
  rmSync(folder, { recursive: true });
});

function source(options: Partial<GrpcSourceOptions> = {}): GrpcCertificateSource {
  return new GrpcCertificateSource({
    address: `127.0.0.1:${port}`, serverName: SERVER_NAME, rootCaPath: join(folder, "root.pem"),
    token: { kind: "file", path: join(folder, "token") }, clusterId: "Kubernetes", headers: {}, impersonate: true, callTimeoutMs: 5000, ...options,
  });
}

async function ask(options: Partial<GrpcSourceOptions> = {}, request: { spiffeId?: typeof WEB; csrPem?: string; lifetimeMs?: number } = {}): Promise<string> {
  const from = source(options);
  try {
    const wanted = request.spiffeId ?? WEB;
    const issued = await from.issue({ spiffeId: wanted, csrPem: request.csrPem ?? createRequest(wanted).csrPem, lifetimeMs: request.lifetimeMs ?? DAY_MS, signal: AbortSignal.timeout(8000) });
    return issued.ok ? `issued ${issued.value.chainPem.length}+${issued.value.trustBundlePem.split("BEGIN").length - 1}` : `${issued.error.code}: ${issued.error.message}`;
  } finally {
    from.destroy();
  }
}

const ADMIN = spiffeId(ca.authority.policy.trustDomain, "admin", "root");
const API = spiffeId(ca.authority.policy.trustDomain, "billing", "api");

describe("CreateCertificate over TLS", () => {
  test("gives leaf, intermediate and root, each in its place, and records before it answers", async () => {
    const before = recorded.length;
    expect(await ask()).toBe("issued 2+1");
    expect(recorded).toHaveLength(before + 1);
    expect(events.at(-1)).toMatchObject({ kind: "issued", caller: "node-a", spiffeId: WEB, serialHex: recorded.at(-1)! });
  });

  test("feeds the certificate cache of a node", async () => {
    const from = source();
    const published = Promise.withResolvers<Svid>();
    const cache = new SvidCache({
      source: from, store: null, clock: systemClock, random: seededRandom(1), timers: systemTimers, lifetimeMs: DAY_MS, createRequest,
      onPublish: published.resolve, onDrop: () => {}, onFailed: (_id, message) => published.reject(new Error(message)), onUnavailable: () => {}, onWarning: () => {},
    });
    cache.workloadAdded(WEB);
    expect((await published.promise).spiffeId).toBe(WEB);
    cache.destroy();
    from.destroy();
  });

  test("a caller gets only the identities of its token", async () => {
    expect(await ask({}, { spiffeId: ADMIN })).toContain(`refused: certificate for ${ADMIN}`);
    expect(await ask({}, { spiffeId: ADMIN })).toContain("node-a may not have a certificate for");
    expect(await ask({ token: { kind: "literal", value: billing.token } }, { spiffeId: API })).toBe("issued 2+1");
    expect(await ask({ token: { kind: "literal", value: billing.token } })).toContain("billing may not have");
  });

  test("without a token, with a wrong one, or with one in another form: unauthenticated, and the request is not read", async () => {
    const broken = { csrPem: "not a request" };
    expect(await ask({ token: { kind: "none" } }, broken)).toContain("Unauthenticated: the request has no authorization header");
    expect(await ask({ token: { kind: "literal", value: newToken().token } }, broken)).toContain("Unauthenticated: the bearer token is not one of this CA's");
    expect(await ask({ token: { kind: "none" }, headers: { authorization: `Basic ${node.token}` } }, broken)).toContain("Unauthenticated: the authorization header is not Bearer");
    expect(await ask({ token: { kind: "literal", value: node.sha256 } }, broken)).toContain("Unauthenticated");
  });

  test("the token file is read at each call", async () => {
    const path = file("rotating", "wrong-wrong-wrong-wrong-wrong");
    const from = source({ token: { kind: "file", path } });
    const issue = async (): Promise<boolean> => (await from.issue({ spiffeId: WEB, csrPem: createRequest(WEB).csrPem, lifetimeMs: DAY_MS, signal: AbortSignal.timeout(8000) })).ok;
    expect(await issue()).toBe(false);
    writeFileSync(path, node.token);
    expect(await issue()).toBe(true);
    from.destroy();
  });

  test("a request on behalf of somebody else than the one inside it is refused", async () => {
    const from = source();
    const issued = await from.issue({ spiffeId: API, csrPem: createRequest(WEB).csrPem, lifetimeMs: DAY_MS, signal: AbortSignal.timeout(8000) });
    expect(issued.ok ? "issued" : issued.error.message).toContain("identity_mismatch");
    from.destroy();
  });

  test("refusals carry the CA's reason and code", async () => {
    expect(await ask({}, { csrPem: writePem("CERTIFICATE REQUEST", forgeRequest({ attributes: [] })) })).toContain("InvalidArgument: certificate request has no URI subject alternative name (identity_missing)");
    expect(await ask({}, { csrPem: "x".repeat(200_000) })).toContain("ResourceExhausted");
  });

  test("a lifetime beyond the CA's is refused with OUT_OF_RANGE, upon which our client asks for what there is", async () => {
    const refusals = server.counters.refused.lifetime_beyond_maximum ?? 0;
    expect(await ask({}, { lifetimeMs: 30 * DAY_MS })).toBe("issued 2+1");
    expect(server.counters.refused.lifetime_beyond_maximum).toBe(refusals + 1);
  });

  test("a certificate that cannot be recorded is withheld", async () => {
    recordFails = true;
    expect(await ask()).toContain("unavailable");
    expect(await ask()).toContain("could not be recorded: disk full");
    recordFails = false;
  });

  test("a caller that asks without end is slowed down, the others are not", async () => {
    frozenMs = Math.floor(systemClock.monotonicMs());
    const from = source({ token: { kind: "literal", value: greedy.token } });
    const { csrPem } = createRequest(WEB);
    const issue = async (): Promise<string> => {
      const issued = await from.issue({ spiffeId: WEB, csrPem, lifetimeMs: DAY_MS, signal: AbortSignal.timeout(8000) });
      return issued.ok ? "issued" : issued.error.message;
    };
    const answers: string[] = [];
    for (let i = 0; i < CALLER_BURST + 4; i++) answers.push(await issue());
    expect(answers.filter((answer) => answer === "issued")).toHaveLength(CALLER_BURST);
    expect(answers.at(-1)).toContain("rate_limited");
    expect(await ask()).toBe("issued 2+1");
    frozenMs += 1000;
    let more = 0;
    while ((await issue()) === "issued") more++;
    expect(more).toBe(CALLER_RATE_PER_S);
    frozenMs = null;
    from.destroy();
  }, 30_000);
});

describe("the TLS of the port", () => {
  test("the client refuses a CA of another name, and one from another root", async () => {
    expect(await ask({ serverName: "other.example" })).toContain("does not match certificate's altnames");
    expect(await ask({ serverName: null })).toContain("does not match certificate's altnames");
    expect(await ask({ rootCaPath: file("foreign.pem", testCa({ nowMs: Date.now() - HOUR_MS }).rootPem) })).toContain("unable to get local issuer certificate");
  });

  test("the client follows its root file when that changes", async () => {
    const path = file("changing.pem", testCa({ nowMs: Date.now() - HOUR_MS }).rootPem);
    const from = source({ rootCaPath: path });
    const issue = async (): Promise<boolean> => (await from.issue({ spiffeId: WEB, csrPem: createRequest(WEB).csrPem, lifetimeMs: DAY_MS, signal: AbortSignal.timeout(8000) })).ok;
    expect(await issue()).toBe(false);
    writeFileSync(path, `${ca.rootPem}\n`);
    expect(await issue()).toBe(true);
    from.destroy();
  });

  test("refuses plain text and addresses that are not TLS", async () => {
    expect(await ask({ address: `http://127.0.0.1:${port}` })).toContain("only TLS is spoken");
  });

  const presented = (): Promise<X509Certificate> => {
    const seen = Promise.withResolvers<X509Certificate>();
    const socket = tls.connect({ host: "127.0.0.1", port, servername: SERVER_NAME, ca: ca.rootPem, ALPNProtocols: ["h2"] }, () => {
      seen.resolve(new X509Certificate(socket.getPeerCertificate().raw));
      socket.destroy();
    });
    socket.on("error", seen.reject);
    return seen.promise;
  };

  test("its certificate is renewed in place: new handshakes see the new one, open connections live on", async () => {
    const before = await presented();
    const session = http2.connect(`https://127.0.0.1:${port}`, { ca: ca.rootPem, servername: SERVER_NAME });
    await new Promise((resolve, reject) => session.once("connect", resolve).once("error", reject));
    server.renewServerCertificate();
    const after = await presented();
    expect(after.serialNumber).not.toBe(before.serialNumber);
    expect(after.subjectAltName).toBe(`DNS:${SERVER_NAME}`);
    const pong = Promise.withResolvers<boolean>();
    session.ping((error) => pong.resolve(error === null));
    expect(await pong.promise).toBe(true);
    session.destroy();
  });

  test("a connection that never finishes its handshake is cut off; one that does is let be", async () => {
    const deadlines: { delayMs: number; run: () => void; cancelled: boolean }[] = [];
    const timers: Timers = {
      after(delayMs, run) {
        const deadline = { delayMs, run, cancelled: false };
        deadlines.push(deadline);
        return () => void (deadline.cancelled = true);
      },
    };
    const third = new CaServer({ authority: ca.authority, tokens: tokens(), clock: systemClock, timers, serverNames: [{ kind: "dns", dnsName: SERVER_NAME }], record: () => {}, onEvent: () => {} });
    const address = await third.listen({ host: "127.0.0.1", port: 0 });
    const from = source({ address: `127.0.0.1:${address.port}` });
    expect((await from.issue({ spiffeId: WEB, csrPem: createRequest(WEB).csrPem, lifetimeMs: DAY_MS, signal: AbortSignal.timeout(8000) })).ok).toBe(true);
    expect([third.connectionCount, third.handshakeCount]).toEqual([1, 0]);
    const silent = net.connect({ host: "127.0.0.1", port: address.port });
    const closed = new Promise((resolve) => silent.once("close", resolve));
    await new Promise((resolve) => silent.once("connect", resolve));
    while (third.handshakeCount === 0) await new Promise((resolve) => setImmediate(resolve));
    deadlines.find((deadline) => deadline.delayMs === HANDSHAKE_TIMEOUT_MS && !deadline.cancelled)!.run();
    await closed;
    while (third.connectionCount > 1) await new Promise((resolve) => setImmediate(resolve));
    expect(third.handshakeCount).toBe(0);
    from.destroy();
    third.destroy();
  });

  test("two certificates of this CA make a mutual TLS 1.3 connection, and each end judges the other", async () => {
    const identity = (id: typeof WEB): { cert: string; key: string; ca: string } => {
      const request = createRequest(id);
      const issued = ca.authority.sign({ csr: request.csrPem, mayHave: () => true, caller: "test", lifetimeMs: null }, Date.now());
      if (!issued.ok) throw new Error(issued.error.message);
      return { cert: issued.value.chainPem.join(""), key: request.privateKeyPem, ca: ca.rootPem };
    };
    const seen = Promise.withResolvers<{ authorized: boolean; raw: Uint8Array }>();
    const listener = tls.createServer({ ...identity(WEB), requestCert: true, rejectUnauthorized: true, minVersion: "TLSv1.3", ALPNProtocols: ["h2"] }, (socket) => {
      seen.resolve({ authorized: socket.authorized, raw: socket.getPeerCertificate().raw });
      socket.on("error", () => {});
    });
    listener.on("tlsClientError", seen.reject);
    await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
    const { port: tlsPort } = listener.address() as { port: number };
    const client = tls.connect({ host: "127.0.0.1", port: tlsPort, ...identity(API), minVersion: "TLSv1.3", ALPNProtocols: ["h2"], checkServerIdentity: () => undefined });
    await new Promise((resolve, reject) => client.once("secureConnect", resolve).once("error", reject));
    const atServer = await seen.promise;
    expect([client.authorized, atServer.authorized, client.getProtocol()]).toEqual([true, true, "TLSv1.3"]);
    expect(judgePeer([atServer.raw], { role: "client", trustDomains: { own: ca.authority.policy.trustDomain, aliases: [] } }, Date.now())).toMatchObject({ ok: true, value: { id: API } });
    expect(judgePeer([client.getPeerCertificate().raw], { role: "server", anyOf: [WEB] }, Date.now())).toMatchObject({ ok: true, value: { id: WEB } });
    client.destroy();
    listener.close();
  });

  test("drains: open work ends, then the port is gone", async () => {
    const second = new CaServer({ authority: ca.authority, tokens: tokens(), clock: systemClock, timers: systemTimers, serverNames: [{ kind: "dns", dnsName: SERVER_NAME }], record: () => {}, onEvent: () => {} });
    const address = await second.listen({ host: "127.0.0.1", port: 0 });
    const from = source({ address: `127.0.0.1:${address.port}` });
    expect((await from.issue({ spiffeId: WEB, csrPem: createRequest(WEB).csrPem, lifetimeMs: DAY_MS, signal: AbortSignal.timeout(8000) })).ok).toBe(true);
    await second.drain(2000);
    const refused = await from.issue({ spiffeId: WEB, csrPem: createRequest(WEB).csrPem, lifetimeMs: DAY_MS, signal: AbortSignal.timeout(8000) });
    expect(refused.ok ? "issued" : refused.error.code).toBe("unavailable");
    from.destroy();
  });
});
