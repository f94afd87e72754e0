// Certificates for tests: good ones from a small CA, and hostile ones that no CA would sign, written byte by byte.

import { createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { parseTrustDomain, spiffeId, type SpiffeId, type TrustDomain } from "../../src/core/spiffe.ts";
import { Authority, type AuthorityPolicy, createIntermediate, createRoot, type Issuer } from "../../src/ca/authority.ts";
import { keyIdentifier, signatureAlgorithmOf, signDer } from "../../src/identity/x509-crypto.ts";
import { algorithmIdentifier, encodeName, encodeSigned } from "../../src/wire/x509/build.ts";
import { type CertificateFields, readCertificate } from "../../src/wire/x509/certificate.ts";
import { asciiBytes, contextTag, derTrue, encode, encodeOid, encodeTime, namedBits, octetString, sequence, unsignedInteger } from "../../src/wire/x509/der.ts";
import { KEY_USAGE, OID } from "../../src/wire/x509/oids.ts";
import { writePem } from "../../src/wire/x509/pem.ts";

export const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;
/** A fixed moment: 2031-05-06 07:08:09 UTC. */
export const NOON_MS = Date.UTC(2031, 4, 6, 7, 8, 9);

export const TEST_DOMAIN: TrustDomain = domain("cluster.local");
export const WEB: SpiffeId = spiffeId(TEST_DOMAIN, "shop", "web");

export function domain(text: string): TrustDomain {
  const parsed = parseTrustDomain(text);
  if (parsed === null) throw new Error(`not a trust domain: ${text}`);
  return parsed;
}

export function mustRead(der: Uint8Array): CertificateFields {
  const read = readCertificate(der);
  if (!read.ok) throw new Error(read.error.message);
  return read.value;
}

export const newEcKey = (): KeyObject => generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
export const spkiOf = (key: KeyObject): Uint8Array => createPublicKey(key).export({ type: "spki", format: "der" });

/** For a server that a browser asks by this name: PEM, good for a day. Needs openssl. */
export function selfSigned(host: string): { readonly cert: string; readonly key: string } {
  const { stdout, stderr, exitCode } = Bun.spawnSync([
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", `/CN=${host}`, "-addext", `subjectAltName=DNS:${host}`, "-keyout", "-", "-out", "-",
  ]);
  const text = stdout.toString();
  const part = (name: string): string => new RegExp(`-----BEGIN ${name}-----[^-]+-----END ${name}-----\n`).exec(text)?.[0] ?? "";
  if (exitCode !== 0) throw new Error(`openssl: ${stderr.toString()}`);
  return { cert: part("CERTIFICATE"), key: part("PRIVATE KEY") };
}

export interface TestCa {
  readonly authority: Authority;
  readonly root: Issuer;
  readonly intermediate: Issuer;
  readonly rootPem: string;
}

export function testCa(options: { readonly nowMs: number; readonly policy?: Partial<AuthorityPolicy>; readonly intermediateLifetimeMs?: number }): TestCa {
  const { nowMs } = options;
  const rootKey = newEcKey();
  const rootDer = createRoot({ key: rootKey, organization: "test", commonName: "root", nowMs, lifetimeMs: 3650 * DAY_MS });
  const root: Issuer = { certificate: mustRead(rootDer), key: rootKey, chainPem: [] };
  const key = newEcKey();
  const der = createIntermediate({ root, key, organization: "test", commonName: "intermediate", nowMs, lifetimeMs: options.intermediateLifetimeMs ?? 365 * DAY_MS });
  const intermediate: Issuer = { certificate: mustRead(der), key, chainPem: [writePem("CERTIFICATE", der)] };
  const rootPem = writePem("CERTIFICATE", rootDer);
  const policy: AuthorityPolicy = { trustDomain: TEST_DOMAIN, leafLifetimeMs: DAY_MS, leafLifetimeMsMax: 7 * DAY_MS, ...options.policy };
  return { authority: new Authority({ policy, issuer: intermediate, trustBundlePem: rootPem }), root, intermediate, rootPem };
}

export const extension = (oid: string, critical: boolean, value: Uint8Array): Uint8Array =>
  critical ? sequence(encodeOid(oid), derTrue, octetString(value)) : sequence(encodeOid(oid), octetString(value));

/** A general name from raw bytes: whatever a hostile CA could put there. */
export const uriName = (text: string | Uint8Array): Uint8Array => encode(contextTag(6, false), typeof text === "string" ? asciiBytes(text) : text);
export const dnsName = (text: string): Uint8Array => encode(contextTag(2, false), asciiBytes(text));
export const sanExtension = (...names: readonly Uint8Array[]): Uint8Array => extension(OID.subjectAltName, true, sequence(...names));
export const ekuExtension = (...oids: readonly string[]): Uint8Array => extension(OID.extendedKeyUsage, false, sequence(...oids.map(encodeOid)));
export const keyUsageExtension = (bits: number): Uint8Array => extension(OID.keyUsage, true, namedBits(bits));

export interface Forgery {
  readonly issuer: Issuer;
  /** The subject's key; a fresh P-256 one by default. */
  readonly spkiDer?: Uint8Array;
  readonly subjectDer?: Uint8Array;
  readonly serial?: Uint8Array;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Whole extensions, in this order; default: those of a good leaf for WEB. */
  readonly extensions?: readonly Uint8Array[];
}

export const goodLeafExtensions = (uri: string = WEB): Uint8Array[] => [
  keyUsageExtension(KEY_USAGE.digitalSignature),
  ekuExtension(OID.serverAuth, OID.clientAuth),
  sanExtension(uriName(uri)),
];

export const caExtensions = (pathLength: number | null, bits: number = KEY_USAGE.keyCertSign | KEY_USAGE.crlSign): Uint8Array[] => [
  extension(OID.basicConstraints, true, sequence(derTrue, ...(pathLength === null ? [] : [unsignedInteger(Uint8Array.of(pathLength))]))),
  keyUsageExtension(bits),
];

/** Signs what is given, sensible or not. @returns DER. */
export function forge(forgery: Forgery): Uint8Array {
  const { issuer } = forgery;
  const signatureAlgorithm = signatureAlgorithmOf(issuer.key)!;
  const spkiDer = forgery.spkiDer ?? spkiOf(newEcKey());
  const tbsDer = sequence(
    encode(contextTag(0, true), unsignedInteger(Uint8Array.of(2))),
    unsignedInteger(forgery.serial ?? Uint8Array.of(0x11, 0x22, 0x33)),
    algorithmIdentifier(signatureAlgorithm),
    Uint8Array.fromHex(issuer.certificate.subjectDerHex),
    sequence(encodeTime(forgery.notBeforeMs), encodeTime(forgery.notAfterMs)),
    forgery.subjectDer ?? sequence(),
    spkiDer,
    encode(contextTag(3, true), sequence(...(forgery.extensions ?? goodLeafExtensions()))),
  );
  return encodeSigned({ tbsDer, signatureAlgorithm, signature: signDer({ signatureAlgorithm, key: issuer.key, tbsDer }) });
}

/** A chain of CA certificates below `root`, `length` of them, and the last one's key. */
export function forgeHierarchy(root: Issuer, length: number, times: { readonly notBeforeMs: number; readonly notAfterMs: number }): Issuer {
  let issuer = root;
  for (let i = 0; i < length; i++) {
    const key = newEcKey();
    const der = forge({
      issuer,
      ...times,
      spkiDer: spkiOf(key),
      subjectDer: encodeName({ organization: "test", commonName: `level ${i}` }),
      extensions: [...caExtensions(null), extension(OID.subjectKeyId, false, octetString(keyIdentifier(spkiOf(key))))],
    });
    issuer = { certificate: mustRead(der), key, chainPem: [writePem("CERTIFICATE", der), ...issuer.chainPem] };
  }
  return issuer;
}

export { writePem };
