import { describe, expect, test } from "bun:test";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import {
  caExtensions, DAY_MS, dnsName, domain, ekuExtension, extension, forge, type Forgery, forgeHierarchy, goodLeafExtensions, HOUR_MS, keyUsageExtension,
  NOON_MS, sanExtension, TEST_DOMAIN, testCa, uriName, WEB,
} from "../../test/kit/certificates.ts";
import { GO_SPIFFE_LEAVES } from "../../test/vectors/go-spiffe-svids.ts";
import { spiffeId } from "../core/spiffe.ts";
import { encode, encodeOid, octetString, sequence, TAG, unsignedInteger } from "../wire/x509/der.ts";
import { KEY_USAGE, OID } from "../wire/x509/oids.ts";
import { judgePeer, PEER_CHAIN_MAX, type PeerExpectation, type PeerFaultCode } from "./peer-identity.ts";

const ca = testCa({ nowMs: NOON_MS - DAY_MS });
const asClient: PeerExpectation = { role: "client", trustDomains: { own: TEST_DOMAIN, aliases: [domain("old.example")] } };
const asServer: PeerExpectation = { role: "server", anyOf: [spiffeId(TEST_DOMAIN, "shop", "api"), WEB] };

function chainOf(forgery: Partial<Forgery>): Uint8Array[] {
  const leaf = forge({ issuer: ca.intermediate, notBeforeMs: NOON_MS - HOUR_MS, notAfterMs: NOON_MS + DAY_MS, ...forgery });
  return [leaf, ca.intermediate.certificate.der, ca.root.certificate.der];
}

function codeOf(forgery: Partial<Forgery>, expectation: PeerExpectation = asClient, nowMs = NOON_MS): PeerFaultCode | "accepted" {
  const judged = judgePeer(chainOf(forgery), expectation, nowMs);
  return judged.ok ? "accepted" : judged.error.code;
}

const withSan = (...names: readonly Uint8Array[]): Partial<Forgery> => ({
  extensions: [keyUsageExtension(KEY_USAGE.digitalSignature), ekuExtension(OID.serverAuth, OID.clientAuth), sanExtension(...names)],
});

describe("peer judgement", () => {
  test("accepts a good peer in both roles and returns its identity and the serials of its chain", () => {
    for (const expectation of [asClient, asServer]) {
      const chain = chainOf({ serial: Uint8Array.of(0x00, 0xfe, 0x01) });
      const judged = judgePeer(chain, expectation, NOON_MS);
      if (!judged.ok) throw new Error(judged.error.message);
      expect(judged.value.id).toBe(WEB);
      expect(judged.value.notAfterMs).toBe(NOON_MS + DAY_MS);
      expect(judged.value.chain.map((link) => link.serialHex)).toEqual(["fe01", ca.intermediate.certificate.serialHex, ca.root.certificate.serialHex]);
      expect(judged.value.chain[0]?.issuerDerHex).toBe(ca.intermediate.certificate.subjectDerHex);
    }
  });

  const identities: readonly (readonly [string, Partial<Forgery>, PeerFaultCode])[] = [
    ["two URI names", withSan(uriName(WEB), uriName("spiffe://cluster.local/ns/admin/sa/root")), "spiffe_id_ambiguous"],
    ["the same URI twice", withSan(uriName(WEB), uriName(WEB)), "spiffe_id_ambiguous"],
    ["only a DNS name", withSan(dnsName("cluster.local")), "spiffe_id_missing"],
    ["no names at all", { extensions: [keyUsageExtension(KEY_USAGE.digitalSignature)] }, "spiffe_id_missing"],
    ["a SPIFFE ID in a DNS name", withSan(dnsName(WEB)), "spiffe_id_missing"],
    ["NUL inside the URI", withSan(uriName(new TextEncoder().encode("spiffe://cluster.local/ns/shop/sa/web\0.evil"))), "certificate_malformed"],
    ["NUL at the end of the URI", withSan(uriName(new TextEncoder().encode(`${WEB}\0`))), "certificate_malformed"],
    ["raw UTF-8 (IDN) in the URI", withSan(uriName(new TextEncoder().encode("spiffe://clüster.local/ns/shop/sa/web"))), "certificate_malformed"],
    ["a line break in the URI", withSan(uriName(`${WEB}\n`)), "certificate_malformed"],
    ["an empty URI", withSan(uriName("")), "certificate_malformed"],
    ["percent encoding", withSan(uriName("spiffe://cluster.local/ns/shop/sa/w%65b")), "spiffe_id_malformed"],
    ["upper case in the scheme", withSan(uriName("SPIFFE://cluster.local/ns/shop/sa/web")), "spiffe_id_malformed"],
    ["upper case in the trust domain", withSan(uriName("spiffe://Cluster.local/ns/shop/sa/web")), "spiffe_id_malformed"],
    ["a port in the trust domain", withSan(uriName("spiffe://cluster.local:443/ns/shop/sa/web")), "spiffe_id_malformed"],
    ["user information", withSan(uriName("spiffe://a@cluster.local/ns/shop/sa/web")), "spiffe_id_malformed"],
    ["a query", withSan(uriName(`${WEB}?x`)), "spiffe_id_malformed"],
    ["a fragment", withSan(uriName(`${WEB}#x`)), "spiffe_id_malformed"],
    ["dot segments", withSan(uriName("spiffe://cluster.local/ns/../sa/web")), "spiffe_id_malformed"],
    ["a trailing slash", withSan(uriName(`${WEB}/`)), "spiffe_id_malformed"],
    ["another scheme", withSan(uriName("https://cluster.local/ns/shop/sa/web")), "spiffe_id_malformed"],
    ["another trust domain", withSan(uriName("spiffe://evil.example/ns/shop/sa/web")), "trust_domain_foreign"],
    ["a trust domain that ends like ours", withSan(uriName("spiffe://notcluster.local/ns/shop/sa/web")), "trust_domain_foreign"],
    ["a trust domain below ours", withSan(uriName("spiffe://a.cluster.local/ns/shop/sa/web")), "trust_domain_foreign"],
  ];
  for (const [what, forgery, code] of identities) test(`refuses a client with ${what}`, () => expect(codeOf(forgery)).toBe(code));

  test("accepts a client of an aliased trust domain, and a DNS name beside the URI", () => {
    expect(codeOf(withSan(uriName("spiffe://old.example/ns/shop/sa/web")))).toBe("accepted");
    expect(codeOf(withSan(dnsName("web.shop.svc"), uriName(WEB)))).toBe("accepted");
  });

  test("refuses a server that is none of the identities of the destination, of whatever trust domain", () => {
    expect(codeOf(withSan(uriName("spiffe://cluster.local/ns/shop/sa/other")), asServer)).toBe("identity_unexpected");
    expect(codeOf(withSan(uriName(WEB)), { role: "server", anyOf: [] })).toBe("identity_unexpected");
  });

  test("refuses before notBefore and after notAfter, to the second", () => {
    const times = { notBeforeMs: NOON_MS, notAfterMs: NOON_MS + HOUR_MS };
    expect(codeOf(times, asClient, NOON_MS - 1000)).toBe("certificate_not_yet_valid");
    expect(codeOf(times, asClient, NOON_MS)).toBe("accepted");
    expect(codeOf(times, asClient, NOON_MS + HOUR_MS)).toBe("accepted");
    expect(codeOf(times, asClient, NOON_MS + HOUR_MS + 1000)).toBe("certificate_expired");
  });

  test("refuses a chain whose intermediate has run out", () => {
    expect(codeOf({ notBeforeMs: NOON_MS, notAfterMs: NOON_MS + 4000 * DAY_MS }, asClient, NOON_MS + 400 * DAY_MS)).toBe("certificate_expired");
  });

  const usages: readonly (readonly [string, readonly Uint8Array[], PeerExpectation, PeerFaultCode | "accepted"])[] = [
    ["client without clientAuth", [ekuExtension(OID.serverAuth), sanExtension(uriName(WEB))], asClient, "wrong_usage"],
    ["server without serverAuth", [ekuExtension(OID.clientAuth), sanExtension(uriName(WEB))], asServer, "wrong_usage"],
    ["client for code signing", [ekuExtension("1.3.6.1.5.5.7.3.3"), sanExtension(uriName(WEB))], asClient, "wrong_usage"],
    ["client for anyExtendedKeyUsage alone", [ekuExtension("2.5.29.37.0"), sanExtension(uriName(WEB))], asClient, "wrong_usage"],
    ["client without extended key usage", [sanExtension(uriName(WEB))], asClient, "accepted"],
    ["client that may only encipher", [keyUsageExtension(1 << 2), sanExtension(uriName(WEB))], asClient, "wrong_usage"],
    ["client that may sign certificates", [keyUsageExtension(KEY_USAGE.digitalSignature | KEY_USAGE.keyCertSign), sanExtension(uriName(WEB))], asClient, "leaf_is_ca"],
    ["client that is a CA", [...caExtensions(0), sanExtension(uriName(WEB))], asClient, "leaf_is_ca"],
    ["client with an unknown critical extension", [...goodLeafExtensions(), extension("1.3.6.1.4.1.99999.1", true, octetString(new Uint8Array(1)))], asClient, "critical_extension_unknown"],
    ["client with an unknown extension that is not critical", [...goodLeafExtensions(), extension("1.3.6.1.4.1.99999.1", false, octetString(new Uint8Array(1)))], asClient, "accepted"],
  ];
  for (const [what, extensions, expectation, code] of usages) test(`${what}: ${code}`, () => expect(codeOf({ extensions }, expectation)).toBe(code));

  test("refuses an extension that occurs twice", () => {
    expect(codeOf({ extensions: [...goodLeafExtensions(), sanExtension(uriName("spiffe://cluster.local/ns/admin/sa/root"))] })).toBe("certificate_malformed");
  });

  test("refuses weak and oversized keys", () => {
    const rsa1024 = generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey.export({ type: "spki", format: "der" });
    expect(codeOf({ spkiDer: rsa1024 })).toBe("weak_key");
    const modulus = new Uint8Array(16384 / 8).fill(0xff);
    const key = sequence(unsignedInteger(modulus), unsignedInteger(Uint8Array.of(1, 0, 1)));
    const rsa16k = sequence(sequence(encodeOid(OID.rsaEncryption), Uint8Array.of(TAG.null, 0)), encode(TAG.bitString, Uint8Array.of(0), key));
    expect(codeOf({ spkiDer: rsa16k })).toBe("certificate_malformed");
    const secp256k1 = generateKeyPairSync("ec", { namedCurve: "P-224" }).publicKey.export({ type: "spki", format: "der" });
    expect(codeOf({ spkiDer: secp256k1 })).toBe("weak_key");
  });

  test("refuses a chain that is too long, and an empty one", () => {
    const times = { notBeforeMs: NOON_MS - HOUR_MS, notAfterMs: NOON_MS + DAY_MS };
    for (const [intermediates, code] of [[PEER_CHAIN_MAX - 2, "accepted"], [PEER_CHAIN_MAX - 1, "chain_too_long"]] as const) {
      const bottom = forgeHierarchy(ca.root, intermediates, times);
      const leaf = forge({ issuer: bottom, ...times });
      const links = bottom.chainPem.map((pem) => new Uint8Array(new X509Certificate(pem).raw));
      const judged = judgePeer([leaf, ...links, ca.root.certificate.der], asClient, NOON_MS);
      expect(judged.ok ? "accepted" : judged.error.code).toBe(code);
    }
    expect(judgePeer([], asClient, NOON_MS)).toMatchObject({ ok: false, error: { code: "no_certificate", blame: "peer", dies: "connection" } });
  });

  test("refuses bytes after the certificate and a certificate cut short", () => {
    const [leaf, ...rest] = chainOf({});
    for (const bytes of [new Uint8Array([...leaf!, 0]), leaf!.subarray(0, leaf!.length - 1), new Uint8Array(0)]) {
      expect(judgePeer([bytes, ...rest], asClient, NOON_MS)).toMatchObject({ ok: false, error: { code: "certificate_malformed" } });
    }
  });

  test("keeps what it logs short, whatever the name", () => {
    const judged = judgePeer(chainOf(withSan(uriName(`spiffe://evil.example/ns/${"a".repeat(1900)}/sa/b`))), asClient, NOON_MS);
    expect(judged.ok ? 0 : judged.error.message.length).toBeLessThan(400);
  });
});

describe("leaves published by go-spiffe", () => {
  // A SPIFFE ID without /ns/ and /sa/ is good SPIFFE but names nobody in this mesh: the good ones come as far as that.
  const verdicts: Readonly<Record<string, PeerFaultCode>> = {
    "good-leaf-and-intermediate": "spiffe_id_malformed",
    "good-leaf-only": "spiffe_id_malformed",
    "wrong-intermediate-no-ca": "spiffe_id_malformed",
    "wrong-leaf-ca-true": "leaf_is_ca",
    "wrong-leaf-cert-sign": "leaf_is_ca",
    "wrong-leaf-crl-sign": "leaf_is_ca",
    "wrong-leaf-no-digital-signature": "leaf_is_ca",
    "wrong-leaf-empty-id": "spiffe_id_missing",
  };
  test("every vector has its verdict", () => expect(Object.keys(GO_SPIFFE_LEAVES).sort()).toEqual(Object.keys(verdicts).sort()));
  for (const [name, der] of Object.entries(GO_SPIFFE_LEAVES)) {
    test(`${name}: ${verdicts[name]}`, () => {
      const nowMs = name === "good-leaf-and-intermediate" ? Date.UTC(2020, 2, 24, 14, 30) : Date.UTC(2020, 2, 31, 12, 50);
      const judged = judgePeer([der], { role: "client", trustDomains: { own: domain("example.org"), aliases: [] } }, nowMs);
      expect(judged.ok ? "accepted" : judged.error.code).toBe(verdicts[name]!);
    });
  }
});

test("the data thread's imports of this folder bring no library in", async () => {
  const build = await Bun.build({ entrypoints: [`${import.meta.dir}/peer-identity.ts`], target: "bun", metafile: true } as Bun.BuildConfig);
  const text = await build.outputs[0]!.text();
  expect(text).not.toMatch(/@peculiar|tsyringe|node:crypto|node_modules/);
  expect(text.length).toBeLessThan(64 * 1024);
});
