import { describe, expect, test } from "bun:test";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DAY_MS, dnsName, extension, HOUR_MS, keyUsageExtension, mustRead, newEcKey, NOON_MS, sanExtension, spkiOf, testCa, uriName, WEB } from "../../test/kit/certificates.ts";
import { x509 } from "../../test/kit/peculiar.ts";
import { extensionRequest, forgeRequest } from "../../test/kit/requests.ts";
import { needsProgram, testUnless } from "../../test/kit/skip.ts";
import { createRequest } from "../identity/csr.ts";
import { encodeName } from "../wire/x509/build.ts";
import { asciiBytes, contextTag, encode, encodeOid, octetString, sequence, TAG } from "../wire/x509/der.ts";
import { KEY_USAGE, OID } from "../wire/x509/oids.ts";
import { readPem, writePem } from "../wire/x509/pem.ts";
import { readRequest } from "../wire/x509/request.ts";
import { BACKDATE_MS, type IssuedCertificate, type SigningFaultCode, type SigningRequest } from "./authority.ts";

const ca = testCa({ nowMs: NOON_MS - DAY_MS });
const openssl = needsProgram("openssl");

function sign(csr: string | Uint8Array, options: Partial<SigningRequest> = {}, nowMs = NOON_MS): IssuedCertificate {
  const issued = ca.authority.sign({ csr, mayHave: () => true, caller: "test", lifetimeMs: null, ...options }, nowMs);
  if (!issued.ok) throw new Error(`${issued.error.code}: ${issued.error.message}`);
  return issued.value;
}

function codeOf(csr: string | Uint8Array, options: Partial<SigningRequest> = {}, nowMs = NOON_MS): SigningFaultCode | "issued" {
  const issued = ca.authority.sign({ csr, mayHave: () => true, caller: "test", lifetimeMs: null, ...options }, nowMs);
  return issued.ok ? "issued" : issued.error.code;
}

const leafOf = (issued: IssuedCertificate): X509Certificate => new X509Certificate(issued.chainPem[0]!);

describe("what is issued", () => {
  test("a leaf with an empty subject, one critical SPIFFE URI, both usages, 24 hours, a little backdated", () => {
    const issued = sign(createRequest(WEB).csrPem);
    const leaf = mustRead(new Uint8Array(leafOf(issued).raw));
    expect(leaf.subjectIsEmpty).toBe(true);
    expect(leaf.subjectAltNames).toEqual({ critical: true, uris: [WEB], dnsNames: [], ipAddresses: [], otherCount: 0 });
    expect(leaf.extendedKeyUsage).toEqual([OID.serverAuth, OID.clientAuth]);
    expect(leaf.keyUsage).toBe(KEY_USAGE.digitalSignature);
    expect(leaf.isCa).toBe(false);
    expect(leaf.notBeforeMs).toBe(NOON_MS - BACKDATE_MS);
    expect(leaf.notAfterMs).toBe(NOON_MS + DAY_MS);
    expect(leaf.authorityKeyIdHex).toBe(ca.intermediate.certificate.subjectKeyIdHex!);
    expect(leaf.subjectKeyIdHex).toMatch(/^[0-9a-f]{40}$/);
    expect(issued).toMatchObject({ spiffeId: WEB, serialHex: leaf.serialHex, notAfterMs: leaf.notAfterMs, issuerDerHex: ca.intermediate.certificate.subjectDerHex });
  });

  test("the key of the request and nothing else of it", () => {
    const key = newEcKey();
    const leaf = leafOf(sign(forgeRequest({ key, subjectDer: encodeName({ organization: "evil", commonName: "admin" }) })));
    expect(leaf.publicKey.export({ type: "spki", format: "der" })).toEqual(Buffer.from(spkiOf(key)));
    expect(leaf.subject ?? "").not.toContain("admin");
  });

  test("serial numbers are 128 bits, positive and all different", () => {
    const { csrPem } = createRequest(WEB);
    const serials = new Set(Array.from({ length: 200 }, () => sign(csrPem).serialHex));
    expect(serials.size).toBe(200);
    for (const serial of serials) expect(serial).toMatch(/^[4-7][0-9a-f]{31}$/);
  });

  test("BoringSSL and @peculiar/x509 read the same as we do, and the signatures verify", async () => {
    const issued = sign(createRequest(WEB).csrPem);
    const leaf = leafOf(issued);
    expect(leaf.subjectAltName).toBe(`URI:${WEB}`);
    expect(leaf.verify(new X509Certificate(issued.chainPem[1]!).publicKey)).toBe(true);
    expect(leaf.checkIssued(new X509Certificate(issued.chainPem[1]!))).toBe(true);
    const ours = mustRead(new Uint8Array(leaf.raw));
    const theirs = new x509.X509Certificate(issued.chainPem[0]!);
    expect(theirs.serialNumber).toBe(ours.serialHex);
    expect(theirs.notBefore.getTime()).toBe(ours.notBeforeMs);
    expect(theirs.notAfter.getTime()).toBe(ours.notAfterMs);
    expect(await theirs.verify({ publicKey: new x509.X509Certificate(issued.chainPem[1]!).publicKey, signatureOnly: true })).toBe(true);
  });

  test("a request written by @peculiar/x509, and ours verified by it", async () => {
    const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
    const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
    const request = await x509.Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm: algorithm, extensions: [new x509.SubjectAlternativeNameExtension([{ type: "url", value: WEB }], true)] });
    expect(sign(request.toString("pem")).spiffeId).toBe(WEB);
    const ours = new x509.Pkcs10CertificateRequest(createRequest(WEB).csrPem);
    expect(await ours.verify()).toBe(true);
  });

  testUnless(openssl)("openssl verifies the chain strictly for both purposes, reads our request and writes one that we sign", () => {
    const folder = mkdtempSync(join(tmpdir(), "weft-ca-"));
    const run = (...cmd: string[]): string => {
      const child = Bun.spawnSync({ cmd: ["openssl", ...cmd], cwd: folder });
      if (!child.success) throw new Error(`openssl ${cmd.join(" ")}: ${child.stderr.toString()}`);
      return child.stdout.toString();
    };
    try {
      const nowMs = Date.now();
      const fresh = testCa({ nowMs });
      const issued = fresh.authority.sign({ csr: createRequest(WEB).csrPem, mayHave: () => true, caller: "test", lifetimeMs: null }, nowMs);
      if (!issued.ok) throw new Error(issued.error.message);
      writeFileSync(join(folder, "leaf.pem"), issued.value.chainPem[0]!);
      writeFileSync(join(folder, "chain.pem"), issued.value.chainPem[1]!);
      writeFileSync(join(folder, "root.pem"), issued.value.trustBundlePem);
      for (const purpose of ["sslserver", "sslclient"]) {
        expect(run("verify", "-x509_strict", "-purpose", purpose, "-CAfile", "root.pem", "-untrusted", "chain.pem", "leaf.pem")).toContain("leaf.pem: OK");
      }
      expect(run("x509", "-in", "leaf.pem", "-noout", "-ext", "subjectAltName")).toMatch(/critical\s+URI:spiffe:\/\/cluster.local\/ns\/shop\/sa\/web/);
      writeFileSync(join(folder, "ours.csr"), createRequest(WEB).csrPem);
      expect(run("req", "-in", "ours.csr", "-noout", "-verify", "-text")).toContain(`URI:${WEB}`);
      run("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "k.pem", "-out", "theirs.csr", "-subj", "/O=x", "-addext", `subjectAltName=critical,URI:${WEB}`);
      expect(sign(readFileSync(join(folder, "theirs.csr"), "utf8")).spiffeId).toBe(WEB);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  for (const [what, key] of [
    ["P-256", newEcKey()],
    ["P-384", generateKeyPairSync("ec", { namedCurve: "P-384" }).privateKey],
    ["RSA 2048", generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey],
  ] as const) {
    test(`accepts a key of type ${what}`, () => expect(codeOf(forgeRequest({ key }))).toBe("issued"));
  }

  test("accepts DER as well as PEM, and PEM with white space around it", () => {
    const der = forgeRequest();
    expect(codeOf(der)).toBe("issued");
    expect(codeOf(`\n${writePem("CERTIFICATE REQUEST", der)}\n\n`)).toBe("issued");
    expect(codeOf(writePem("CERTIFICATE REQUEST", der).replaceAll("\n", "\r\n"))).toBe("issued");
  });
});

describe("what is refused, and by which code", () => {
  const rsa1024 = generateKeyPairSync("rsa", { modulusLength: 1024 }).privateKey;
  const ed25519 = generateKeyPairSync("ed25519").privateKey;
  const p521 = generateKeyPairSync("ec", { namedCurve: "P-521" }).privateKey;
  const good = forgeRequest();
  const flipped = (at: number): Uint8Array => good.with(good.length + at, good.at(at)! ^ 1);
  const offCurve = (): Uint8Array => {
    const spki = spkiOf(newEcKey()).slice();
    spki[spki.length - 1]! ^= 1;
    return spki;
  };
  const cases: readonly (readonly [string, string | Uint8Array, SigningFaultCode])[] = [
    ["a signature by another key", forgeRequest({ spkiDer: spkiOf(newEcKey()) }), "signature_bad"],
    ["a signature with one bit changed", flipped(-1), "signature_bad"],
    ["a signature algorithm of another key type", forgeRequest({ spkiDer: spkiOf(generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey) }), "signature_bad"],
    ["RSA of 1024 bits", forgeRequest({ key: rsa1024 }), "key_refused"],
    ["an Ed25519 key", forgeRequest({ key: ed25519 }), "key_refused"],
    ["a P-521 key", forgeRequest({ key: p521, signatureAlgorithm: OID.ecdsaSha512 }), "key_refused"],
    ["a point that is not on the curve", forgeRequest({ spkiDer: offCurve() }), "key_refused"],
    ["no names", forgeRequest({ attributes: [] }), "identity_missing"],
    ["another extension in place of the names", forgeRequest({ extensions: [keyUsageExtension(KEY_USAGE.digitalSignature)] }), "identity_missing"],
    ["two URIs", forgeRequest({ extensions: [sanExtension(uriName(WEB), uriName("spiffe://cluster.local/ns/admin/sa/root"))] }), "extra_names"],
    ["a DNS name beside the URI", forgeRequest({ extensions: [sanExtension(uriName(WEB), dnsName("istiod.istio-system.svc"))] }), "extra_names"],
    ["only a DNS name", forgeRequest({ extensions: [sanExtension(dnsName("a.example"))] }), "extra_names"],
    ["an IP address beside the URI", forgeRequest({ extensions: [sanExtension(uriName(WEB), encode(contextTag(7, false), Uint8Array.of(198, 18, 0, 1)))] }), "extra_names"],
    ["an e-mail address beside the URI", forgeRequest({ extensions: [sanExtension(uriName(WEB), encode(contextTag(1, false), asciiBytes("a@b.example")))] }), "extra_names"],
    ["an otherName beside the URI", forgeRequest({ extensions: [sanExtension(uriName(WEB), encode(contextTag(0, true), encodeOid("1.2.3"), encode(contextTag(0, true), sequence())))] }), "extra_names"],
    ["a request to be a CA", forgeRequest({ extensions: [sanExtension(uriName(WEB)), extension(OID.basicConstraints, true, sequence(Uint8Array.of(1, 1, 0xff)))] }), "extension_refused"],
    ["a request for key usage", forgeRequest({ extensions: [sanExtension(uriName(WEB)), keyUsageExtension(KEY_USAGE.digitalSignature)] }), "extension_refused"],
    ["a challenge password", forgeRequest({ attributes: [extensionRequest(sanExtension(uriName(WEB))), sequence(encodeOid("1.2.840.113549.1.9.7"), encode(TAG.set, encode(TAG.utf8String, asciiBytes("x"))))] }), "extension_refused"],
    ["two extension requests", forgeRequest({ attributes: [extensionRequest(sanExtension(uriName(WEB))), extensionRequest(sanExtension(uriName(WEB)))] }), "request_malformed"],
    ["the names twice", forgeRequest({ extensions: [sanExtension(uriName(WEB)), sanExtension(uriName(WEB))] }), "request_malformed"],
    ["NUL in the URI", forgeRequest({ extensions: [sanExtension(uriName(asciiBytes(`${WEB}\0`)))] }), "request_malformed"],
    ["a URI that is not a SPIFFE ID", forgeRequest({ extensions: [sanExtension(uriName("https://cluster.local/ns/shop/sa/web"))] }), "identity_malformed"],
    ["a SPIFFE ID of another shape", forgeRequest({ extensions: [sanExtension(uriName("spiffe://cluster.local/web"))] }), "identity_malformed"],
    ["another trust domain", forgeRequest({ extensions: [sanExtension(uriName("spiffe://evil.example/ns/shop/sa/web"))] }), "trust_domain_foreign"],
    ["bytes after the request", new Uint8Array([...good, 0]), "request_malformed"],
    ["a request cut short", good.subarray(0, good.length - 1), "request_malformed"],
    ["a version other than 1", forgeRequest({ version: 1 }), "request_malformed"],
    ["nothing", new Uint8Array(0), "request_malformed"],
    ["an empty text", "", "request_malformed"],
    ["text around the PEM block", `x\n${writePem("CERTIFICATE REQUEST", good)}`, "request_malformed"],
    ["two PEM blocks", writePem("CERTIFICATE REQUEST", good).repeat(2), "request_malformed"],
    ["a certificate in place of a request", ca.rootPem, "request_malformed"],
    ["base64 with a letter too many", writePem("CERTIFICATE REQUEST", good).replace("\n-----END", "A\n-----END"), "request_malformed"],
    ["a request of more than 8 KiB", forgeRequest({ extensions: [sanExtension(uriName(WEB)), extension("1.2.3", false, octetString(new Uint8Array(9000)))] }), "request_too_large"],
    ["a text of a megabyte", "A".repeat(1024 * 1024), "request_too_large"],
  ];
  for (const [what, csr, code] of cases) test(`${code}: ${what}`, () => expect(codeOf(csr)).toBe(code));

  test("identity_denied: an identity that the caller may not have, asked once and last", () => {
    const asked: string[] = [];
    const mayHave = (id: string): boolean => (asked.push(id), false);
    expect(codeOf(createRequest(WEB).csrPem, { mayHave })).toBe("identity_denied");
    expect(asked).toEqual([WEB]);
    codeOf(forgeRequest({ spkiDer: spkiOf(newEcKey()) }), { mayHave });
    expect(asked).toHaveLength(1);
  });

  test("identity_denied says who asked for what", () => {
    const refused = ca.authority.sign({ csr: createRequest(WEB).csrPem, mayHave: () => false, caller: "node-a", lifetimeMs: null }, NOON_MS);
    expect(refused.ok ? "" : refused.error.message).toBe(`node-a may not have a certificate for ${WEB}`);
  });
});

describe("lifetimes", () => {
  const { csrPem } = createRequest(WEB);

  test("what is asked for is given, up to the maximum and not beyond", () => {
    expect(sign(csrPem, { lifetimeMs: HOUR_MS }).notAfterMs).toBe(NOON_MS + HOUR_MS);
    expect(sign(csrPem, { lifetimeMs: 7 * DAY_MS }).notAfterMs).toBe(NOON_MS + 7 * DAY_MS);
    expect(codeOf(csrPem, { lifetimeMs: 7 * DAY_MS + 1000 })).toBe("lifetime_beyond_maximum");
    expect(codeOf(csrPem, { lifetimeMs: Infinity })).toBe("lifetime_beyond_maximum");
  });

  test("beyond the issuer's own end a stated lifetime is refused, an unstated one is cut", () => {
    const endMs = ca.intermediate.certificate.notAfterMs;
    const lateMs = endMs - HOUR_MS;
    expect(codeOf(csrPem, { lifetimeMs: DAY_MS }, lateMs)).toBe("lifetime_beyond_issuer");
    expect(sign(csrPem, {}, lateMs).notAfterMs).toBe(endMs);
    expect(ca.authority.lifetimeMsMax(lateMs)).toBe(HOUR_MS);
  });

  test("an issuer that has run out, or whose time has not come, signs nothing", () => {
    expect(codeOf(csrPem, {}, ca.intermediate.certificate.notAfterMs + 1000)).toBe("issuer_expired");
    expect(codeOf(csrPem, {}, ca.intermediate.certificate.notBeforeMs - 1000)).toBe("issuer_expired");
  });

  test("a leaf never starts before its issuer", () => {
    const { notBeforeMs } = ca.intermediate.certificate;
    expect(sign(csrPem, {}, notBeforeMs + 1000).notBeforeMs).toBe(notBeforeMs);
  });
});

test("our own request reads back as empty subject, P-256, one critical URI", () => {
  const block = readPem(createRequest(WEB).csrPem);
  const fields = readRequest(block.ok ? block.value[0]!.der : new Uint8Array(0));
  expect(fields).toMatchObject({
    ok: true,
    value: { subjectIsEmpty: true, publicKey: { algorithm: "ec-p256" }, subjectAltNames: { critical: true, uris: [WEB] }, otherExtensions: [], otherAttributes: [] },
  });
});
