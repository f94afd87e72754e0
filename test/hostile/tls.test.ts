// The TLS and identity list of docs/bad-input.md, tried on a running agent: what is not a good handshake of a peer of this mesh ends before
// any stream, is counted by its cause, and leaves honest traffic alone.

import { afterAll, beforeAll, expect } from "bun:test";
import { createPublicKey, generateKeyPairSync, generatePrimeSync, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRevocationList, type Issuer } from "../../src/ca/authority.ts";
import { HANDSHAKE_FAILURES, HANDSHAKES_PER_SOURCE_MAX } from "../../src/tunnel/handshakes.ts";
import { KEY_USAGE, OID } from "../../src/wire/x509/oids.ts";
import { sequence, unsignedInteger } from "../../src/wire/x509/der.ts";
import { item } from "../kit/bad-input.ts";
import { unsealed } from "../kit/box.ts";
import {
  caExtensions, DAY_MS, dnsName, ekuExtension, type Forgery, forge, forgeHierarchy, goodLeafExtensions, HOUR_MS, sanExtension, testCa, uriName, writePem,
} from "../kit/certificates.ts";
import { clientHello } from "../kit/client-hello.ts";
import { HbonePeer, type Leaf, RawPeer, TlsPeer } from "../kit/hostile-peer.ts";
import { slowdown } from "../kit/fair-time.ts";
import { until } from "../kit/until.ts";
import { RIVAL_ID, Siege } from "../kit/siege.ts";
import { ECHO_PORT } from "../kit/shop.ts";
import { describeUnless, needsProgram } from "../kit/skip.ts";

const FAILED = "weft_tunnel_handshakes_failed_total";
/** Long enough for a client that signs with 16384 bits on a busy machine. */
const TLS_TIMEOUT_MS = 3_000;
/** An honest echo's way there and back in a storm, on a machine with nothing else to do. */
const HONEST_MS_MAX = 500;
const crlFolder = mkdtempSync(join(tmpdir(), "weft-crl-"));
const crlPath = join(crlFolder, "crl.pem");

describeUnless(unsealed)("hostile TLS", () => {
  let siege: Siege;
  beforeAll(async () => void (siege = await Siege.open({ flags: ["--tls-timeout", `${TLS_TIMEOUT_MS}ms`, "--http2-timeout", "1s", "--crl", crlPath] })), 60_000);
  afterAll(async () => {
    await siege?.[Symbol.asyncDispose]();
    rmSync(crlFolder, { recursive: true, force: true });
  });

  /** Each byte of a record in a record of its own. */
  const oneByteRecords = (record: Buffer): Buffer => Buffer.concat([...record.subarray(5)].map((byte) => Buffer.from([...record.subarray(0, 3), 0, 1, byte])));

  /** The peer is closed, and counted with this code. @returns the agent's warning. */
  async function refused(code: string, attempt: () => Promise<unknown>, words: RegExp): Promise<string> {
    const mark = siege.agent.mark();
    await siege.counted(FAILED, { direction: "inbound", code }, 1, attempt);
    return await siege.agent.logged(words, mark);
  }

  async function handshake(options: Partial<Parameters<typeof TlsPeer.open>[2]> & { readonly leaf: Leaf | null }): Promise<string> {
    using peer = TlsPeer.open(siege.rival, siege.hbone, options);
    return await peer.closed;
  }

  // Not TLS, or not all of it

  item("plaintext HTTP to the HBONE port", async () => {
    await refused("tls_failed", async () => {
      using raw = await RawPeer.open(siege.rival, siege.hbone);
      await raw.write("GET / HTTP/1.1\r\nHost: far\r\n\r\n");
      await raw.closed;
    }, /TLS handshake from 198\.18\.2\.10 failed/);
  });

  item("HTTP/2 with prior knowledge to the HBONE port", async () => {
    await refused("tls_failed", async () => {
      using raw = await RawPeer.open(siege.rival, siege.hbone);
      await raw.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
      await raw.closed;
    }, /TLS handshake from 198\.18\.2\.10 failed/);
  });

  item("TLS to a plaintext port is the application's business", async () => {
    using raw = await RawPeer.open(siege.rival, siege.at(ECHO_PORT));
    const hello = await clientHello();
    await raw.write(hello);
    await until("the ClientHello to be echoed", 5_000, () => raw.received.length === hello.length);
    expect(Buffer.compare(raw.received, hello)).toBe(0);
  });

  item("ClientHello in records of one byte", async () => {
    using raw = await RawPeer.open(siege.rival, siege.hbone);
    await raw.write(oneByteRecords(await clientHello()));
    await Promise.race([raw.closed, until("a ServerHello", 5_000, () => raw.received.length > 100)]);
    // Accepted, as TLS 1.3 section 5.1 has it, or refused: never left half read.
    const answered = raw.received[0] === 0x16 && raw.received[5] === 0x02;
    const alerted = raw.received[0] === 0x15;
    expect(answered || alerted).toBe(true);
  });

  item("ClientHello that stops half way", async () => {
    const beganMs = performance.now();
    await refused("tls_failed", async () => {
      using raw = await RawPeer.open(siege.rival, siege.hbone);
      await raw.write((await clientHello()).subarray(0, 100));
      await raw.closed;
    }, /not finished within 3000 ms/);
    expect(performance.now() - beganMs).toBeLessThan(TLS_TIMEOUT_MS + 3_000 * slowdown());
  });

  item("ClientHello a byte at a time, too slowly", async () => {
    await refused("tls_failed", async () => {
      using raw = await RawPeer.open(siege.rival, siege.hbone);
      let ended = false;
      void raw.closed.then(() => (ended = true));
      for (const byte of await clientHello()) {
        if (ended) break;
        await raw.write(Uint8Array.of(byte));
        await Promise.race([raw.closed, Bun.sleep(20)]);
      }
      expect(ended).toBe(true);
    }, /not finished within 3000 ms/);
  });

  item("ClientHello of a megabyte", async () => {
    const before = siege.agent.residentBytes();
    await refused("tls_failed", async () => {
      using raw = await RawPeer.open(siege.rival, siege.hbone);
      const record = Buffer.concat([Buffer.from([0x16, 3, 1, 0x40, 0]), Buffer.alloc(0x4000, 0x61)]);
      Buffer.from([1, 0x10, 0, 0, 3, 3]).copy(record, 5);
      for (let i = 0; i < 70; i++) await raw.write(record);
      await raw.closed;
    }, /TLS handshake from 198\.18\.2\.10 failed/);
    expect(siege.agent.residentBytes() - before).toBeLessThan(16 * 1024 * 1024);
  });

  item("records of zero bytes", async () => {
    await refused("tls_failed", async () => {
      using raw = await RawPeer.open(siege.rival, siege.hbone);
      await raw.write(Buffer.concat(Array.from({ length: 1_000 }, () => Buffer.from([0x16, 3, 1, 0, 0]))));
      await raw.closed;
    }, /TLS handshake from 198\.18\.2\.10 failed/);
  });

  item("random bytes", async () => {
    await refused("tls_failed", async () => {
      using raw = await RawPeer.open(siege.rival, siege.hbone);
      await raw.write(randomBytes(100_000));
      await raw.closed;
    }, /TLS handshake from 198\.18\.2\.10 failed/);
  });

  // TLS that is not ours

  item("TLS 1.2 at most", async () => {
    await refused("tls_failed", async () => expect(await handshake({ leaf: siege.leaf(), minVersion: "TLSv1.2", maxVersion: "TLSv1.2" })).toContain("PROTOCOL_VERSION"), /TLS handshake .* failed/);
  });

  item("ALPN of another protocol", async () => {
    await refused("tls_failed", async () => expect(await handshake({ leaf: siege.leaf(), ALPNProtocols: ["http/1.1"] })).toContain("NO_APPLICATION_PROTOCOL"), /TLS handshake .* failed/);
  });

  item("no ALPN", async () => {
    await refused("tls_failed", async () => await handshake({ leaf: siege.leaf(), ALPNProtocols: [] }), /ALPN is absent, wanted h2/);
  });

  item("no client certificate", async () => {
    await refused("tls_failed", async () => await handshake({ leaf: null }), /TLS handshake .* failed/);
  });

  item("SNI of somebody else changes nothing", async () => {
    using peer = TlsPeer.open(siege.rival, siege.hbone, { leaf: siege.leaf(), servername: "istiod.istio-system.svc" });
    expect(await peer.secured).toBe(true);
    expect(peer.socket.getPeerCertificate().subjectaltname).toBe("URI:spiffe://cluster.local/ns/shop/sa/far");
  });

  item("handshake done, then silence", async () => {
    await refused("http2_failed", async () => await handshake({ leaf: siege.leaf() }), /no SETTINGS came within 1000 ms/);
  });

  // Certificates

  const now = Date.now();
  const san = (...names: readonly Uint8Array[]): Partial<Forgery> => ({ extensions: [...goodLeafExtensions().slice(0, 2), sanExtension(...names)] });
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
  const certificates: readonly (readonly [name: string, code: string, words: RegExp, leaf: () => Leaf])[] = [
    ["expired certificate", "tls_failed", /EXPIRED/, () => siege.leaf({ notBeforeMs: now - 2 * DAY_MS, notAfterMs: now - HOUR_MS })],
    ["certificate that is not yet valid", "tls_failed", /NOT_YET_VALID/, () => siege.leaf({ notBeforeMs: now + HOUR_MS, notAfterMs: now + DAY_MS })],
    ["certificate of another CA", "tls_failed", /failed/, () => siege.leaf({ issuer: testCa({ nowMs: now - HOUR_MS }).intermediate })],
    ["intermediate of another CA with our names", "tls_failed", /failed/, () => siege.leaf({ issuer: { ...testCa({ nowMs: now - HOUR_MS }).intermediate, certificate: siege.issuer.certificate } })],
    ["intermediate left out", "tls_failed", /failed/, () => siege.leaf({ chain: [] })],
    ["certificate for servers only", "tls_failed", /failed/, () => siege.leaf({ extensions: [ekuExtension(OID.serverAuth), sanExtension(uriName(RIVAL_ID))] })],
    ["certificate for code signing", "tls_failed", /failed/, () => siege.leaf({ extensions: [ekuExtension("1.3.6.1.5.5.7.3.3"), sanExtension(uriName(RIVAL_ID))] })],
    ["certificate of another trust domain", "identity_refused", /evil\.example.*wanted the trust domain cluster\.local/, () => siege.leaf(san(uriName("spiffe://evil.example/ns/shop/sa/rival")))],
    ["trust domain that ends like ours", "identity_refused", /wanted the trust domain/, () => siege.leaf(san(uriName("spiffe://notcluster.local/ns/shop/sa/rival")))],
    ["trust domain in punycode", "identity_refused", /wanted the trust domain/, () => siege.leaf(san(uriName("spiffe://xn--clster-3ya.local/ns/shop/sa/rival")))],
    ["two URI names", "identity_refused", /2 URI subject alternative names, wanted one/, () => siege.leaf(san(uriName(RIVAL_ID), uriName("spiffe://cluster.local/ns/admin/sa/root")))],
    ["no URI name", "identity_refused", /no URI subject alternative name/, () => siege.leaf(san(dnsName("far.shop.svc")))],
    ["NUL in the URI name", "identity_refused", /certificate 0 of the peer's chain/, () => siege.leaf(san(uriName(bytes("spiffe://cluster.local/ns/shop/sa/rival\0.evil"))))],
    ["raw UTF-8 in the URI name", "identity_refused", /certificate 0 of the peer's chain/, () => siege.leaf(san(uriName(bytes("spiffe://clüster.local/ns/shop/sa/rival"))))],
    ["line break in the URI name", "identity_refused", /certificate 0 of the peer's chain/, () => siege.leaf(san(uriName("spiffe://cluster.local/ns/shop/sa/a\nb")))],
    ["CA certificate as a leaf", "identity_refused", /is a CA/, () => siege.leaf({ extensions: [...caExtensions(null, KEY_USAGE.digitalSignature | KEY_USAGE.keyCertSign), sanExtension(uriName(RIVAL_ID))] })],
    ["RSA key of 1024 bits", "identity_refused", /key of type rsa, 1024 bits/, () => rsaLeaf(1024)],
  ];
  for (const [name, code, words, leaf] of certificates) {
    item(name, async () => {
      const line = await refused(code, async () => await handshake({ leaf: leaf() }), words);
      expect(line).toContain("198.18.2.10");
    });
  }

  const rsaLeaf = (modulusLength: number): Leaf => siege.leaf({ key: generateKeyPairSync("rsa", { modulusLength }).privateKey });

  item("chain that is too long", async () => {
    // Our root allows one intermediate below it; a chain within the path length but beyond six is peer-identity.test.ts's.
    const below = (length: number): Leaf => siege.leaf({ issuer: forgeHierarchy(siege.root, length, { notBeforeMs: now - HOUR_MS, notAfterMs: now + DAY_MS }) });
    await refused("tls_failed", async () => await handshake({ leaf: below(2) }), /PATH_LENGTH_EXCEEDED/);
    await refused("tls_failed", async () => await handshake({ leaf: below(60) }), /TLS handshake from 198\.18\.2\.10 failed/);
  });

  item("RSA key of 16384 bits", async () => {
    const { certificatePem, keyPem } = hugeRsa(siege.issuer);
    const folder = mkdtempSync(join(tmpdir(), "weft-rsa-"));
    try {
      writeFileSync(join(folder, "c.pem"), certificatePem);
      writeFileSync(join(folder, "k.pem"), keyPem);
      await refused("identity_refused", async () => {
        const argv = ["openssl", "s_client", "-connect", `${siege.far.ipv4}:15008`, "-cert", join(folder, "c.pem"), "-key", join(folder, "k.pem"), "-cert_chain", join(folder, "c.pem"), "-alpn", "h2", "-tls1_3", "-ign_eof"];
        await siege.rival.run(["timeout", "15", ...argv]);
      }, /RSA key of 163\d\d bits, at most 8192/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }, 60_000, needsProgram("openssl"));

  // Things that change while a peer is there

  item("revoked while its tunnel is open", async () => {
    const leaf = siege.leaf({ serial: Uint8Array.fromHex("5ec0de01") });
    using peer = await HbonePeer.open(siege.rival, siege.hbone, leaf);
    const id = peer.connect(`${siege.far.ipv4}:${ECHO_PORT}`);
    expect(await peer.status(id)).toBe("200");
    using untouched = await siege.tunnel();
    const other = untouched.connect(`${siege.far.ipv4}:${ECHO_PORT}`);
    expect(await untouched.status(other)).toBe("200");
    const mark = siege.agent.mark();
    const list = createRevocationList({ issuer: siege.issuer, entries: [{ serialHex: "5ec0de01", revokedAtMs: Date.now() } as never], number: 1, nowMs: Date.now(), lifetimeMs: DAY_MS });
    await siege.counted("weft_tunnels_closed_total", { direction: "inbound" }, 1, async () => {
      writeFileSync(crlPath, writePem("X509 CRL", list));
      await peer.tls.closed;
    });
    await siege.agent.connections({ direction: "inbound", close: "tunnel_lost" }, mark);
    await siege.counted("istio_crl_policy_rejections_total", { reporter: "destination" }, 1, async () => await refused("certificate_revoked", async () => await handshake({ leaf }), /revoked/));
    untouched.fill(other, 10);
    await until("the echo on the other tunnel", 5_000, () => untouched.bodyOf(other).length === 10);
  }, 60_000);

  item("certificates renewed between the connection and its ClientHello", async () => {
    const waiting = await RawPeer.open(siege.rival, siege.hbone);
    await siege.counted("weft_certificate_fetches_total", { outcome: "ok" }, 1, async () => await siege.agent.admin("POST", "/certificates/renew"));
    await waiting.write(await clientHello());
    await until("a ServerHello", 5_000, () => waiting.received.length > 100);
    expect(waiting.received[0]).toBe(0x16);
    waiting[Symbol.dispose]();
    expect(await siege.lives()).toBe(true);
  });

  item("honest traffic after all of this", async () => {
    expect(await siege.lives()).toBe(true);
    expect(await siege.metric("weft_handshakes_under_way")).toBe(0);
  });

  // Storms: last, as their source is turned away for a while.

  item("storm of handshakes that are never finished", async () => {
    const hello = await clientHello();
    using honest = await siege.tunnel(siege.second);
    const stream = honest.connect(`${siege.far.ipv4}:${ECHO_PORT}`);
    expect(await honest.status(stream)).toBe("200");
    const storm: RawPeer[] = [];
    let slowestMs = 0;
    let echoed = 0;
    await siege.counted("weft_handshakes_refused_total", { reason: "source" }, 1, async () => {
      for (let i = 0; i < HANDSHAKES_PER_SOURCE_MAX + 200; i++) {
        const raw = await RawPeer.open(siege.rival, siege.hbone).catch(() => null);
        if (raw === null) continue;
        storm.push(raw);
        void raw.write(hello);
        if (i % 50 !== 0) continue;
        const beganMs = performance.now();
        honest.fill(stream, 1);
        echoed++;
        await until("the honest echo", 5_000, () => honest.bodyOf(stream).length === echoed);
        const tookMs = performance.now() - beganMs;
        slowestMs = Math.max(slowestMs, tookMs < HONEST_MS_MAX ? tookMs : tookMs / slowdown());
      }
    });
    expect(await siege.metric("weft_handshakes_under_way")).toBeLessThanOrEqual(HANDSHAKES_PER_SOURCE_MAX);
    expect(slowestMs).toBeLessThan(HONEST_MS_MAX);
    expect(await siege.lives()).toBe(true);
    await until("the unfinished ones to be given up", 10_000, async () => (await siege.metric("weft_handshakes_under_way")) === 0);
    for (const raw of storm) raw[Symbol.dispose]();
  }, 60_000);

  item("storm of handshakes that fail", async () => {
    await siege.counted("weft_handshakes_refused_total", { reason: "failures" }, 1, async () => {
      for (let i = 0; i < HANDSHAKE_FAILURES.burst + 100; i++) {
        const raw = await RawPeer.open(siege.rival, siege.hbone).catch(() => null);
        await raw?.write("not TLS at all, and not short either");
        await raw?.closed;
        raw?.[Symbol.dispose]();
      }
    });
    // The log is spared, the peer next door is served.
    await siege.counted("weft_log_lines_dropped_total", { where: "warnings" }, 0, async () => {});
    expect(await siege.lives()).toBe(true);
  }, 60_000);
});

/** A certificate with an RSA key of 16384 bits, made quickly: many small primes, which only the key's holder can tell. */
function hugeRsa(issuer: Issuer): Leaf {
  const primes = Array.from({ length: 32 }, () => generatePrimeSync(512, { bigint: true }));
  const product = (from: readonly bigint[]): bigint => from.reduce((a, b) => a * b, 1n);
  const lambda = (from: readonly bigint[]): bigint => from.map((p) => p - 1n).reduce((a, b) => (a / gcd(a, b)) * b, 1n);
  const half = primes.slice(0, 16);
  const other = primes.slice(16);
  const [p, q, e] = [product(half), product(other), 65_537n];
  const d = inverse(e, lambda(primes));
  const parts = [0n, p * q, e, d, p, q, d % lambda(half), d % lambda(other), inverse(q, p)];
  const pkcs1 = sequence(...parts.map((n) => (n === 0n ? Uint8Array.of(2, 1, 0) : unsignedInteger(bigBytes(n)))));
  const keyPem = writePem("RSA PRIVATE KEY", pkcs1);
  const publicKey = createPublicKey({ key: { kty: "RSA", n: Buffer.from(bigBytes(p * q)).toString("base64url"), e: "AQAB" }, format: "jwk" });
  const der = forge({ issuer, notBeforeMs: Date.now() - HOUR_MS, notAfterMs: Date.now() + HOUR_MS, extensions: goodLeafExtensions(RIVAL_ID), spkiDer: publicKey.export({ type: "spki", format: "der" }) });
  return { certificatePem: writePem("CERTIFICATE", der) + issuer.chainPem.join(""), keyPem };
}

function bigBytes(n: bigint): Uint8Array {
  const hex = n.toString(16);
  return Uint8Array.fromHex(hex.length % 2 === 0 ? hex : `0${hex}`);
}

function gcd(a: bigint, b: bigint): bigint {
  while (b !== 0n) [a, b] = [b, a % b];
  return a;
}

function inverse(a: bigint, modulus: bigint): bigint {
  let [r0, r1, s0, s1] = [modulus, a % modulus, 0n, 1n];
  while (r1 !== 0n) {
    const quotient = r0 / r1;
    [r0, r1, s0, s1] = [r1, r0 - quotient * r1, s1, s0 - quotient * s1];
  }
  return ((s0 % modulus) + modulus) % modulus;
}
