// The certificate authority itself: a request in, a certificate or the reason against it out. The clock is an argument; no disk, no
// network. What it signs is always its own: nothing of a request is copied but the key and the one SPIFFE ID it asks for.

import { createPublicKey, type KeyObject, randomBytes } from "node:crypto";
import type { Blame } from "../core/fault.ts";
import { err, ok, type Result } from "../core/result.ts";
import { parseSpiffeId, type SpiffeId, type TrustDomain } from "../core/spiffe.ts";
import { CLOCK_SKEW_MS } from "../identity/chain.ts";
import { importPublicKey, keyIdentifier, signatureAlgorithmOf, signDer, verifySignature } from "../identity/x509-crypto.ts";
import { encodeName, encodeSigned, encodeTbsCertificate, encodeTbsRevocationList, type NewCertificate, type NewName } from "../wire/x509/build.ts";
import type { CertificateFields } from "../wire/x509/certificate.ts";
import type { PublicKeyFields } from "../wire/x509/fields.ts";
import { KEY_USAGE, OID } from "../wire/x509/oids.ts";
import { readSinglePem, writePem } from "../wire/x509/pem.ts";
import { readRequest, REQUEST_BYTES_MAX, type RequestFields } from "../wire/x509/request.ts";

/** A certificate that signs others, with its key and the way up to (not including) the root. */
export interface Issuer {
  readonly certificate: CertificateFields;
  readonly key: KeyObject;
  /** PEM of this certificate, then of the intermediates above it; empty when the issuer is itself a root. */
  readonly chainPem: readonly string[];
}

export interface AuthorityPolicy {
  readonly trustDomain: TrustDomain;
  /** Given to who asks for no particular lifetime. */
  readonly leafLifetimeMs: number;
  /** A request for more is refused. */
  readonly leafLifetimeMsMax: number;
}

export const LEAF_LIFETIME_MS = 24 * 3_600_000;
/** Certificates start this much in the past: whose clock is behind ours by what we take clocks to differ can use them, and believe in them, at once. */
export const BACKDATE_MS = CLOCK_SKEW_MS + 60_000;
/** Of a leaf's lifetime at most: renewal goes by the half of what it says, and must not be due when it comes. */
const BACKDATE_SHARE_MAX = 0.5;
/** Bounds the cost of a signature check; a stronger key helps nobody for a day. */
const REQUEST_RSA_BITS_MAX = 4096;
const REQUEST_RSA_BITS_MIN = 2048;
/** PEM of the largest request, with its markers and line ends. */
const REQUEST_PEM_CHARS_MAX = Math.ceil(REQUEST_BYTES_MAX * 1.4) + 128;

export type SigningFaultCode =
  | "request_too_large"
  | "request_malformed"
  | "key_refused"
  | "signature_bad"
  | "identity_missing"
  | "extra_names"
  | "extension_refused"
  | "identity_malformed"
  | "trust_domain_foreign"
  | "identity_denied"
  | "lifetime_beyond_maximum"
  | "lifetime_beyond_issuer"
  | "issuer_expired";

export interface SigningFault {
  readonly code: SigningFaultCode;
  readonly message: string;
  readonly blame: Blame;
}

export interface SigningRequest {
  /** PEM, or DER bytes; borrowed. */
  readonly csr: string | Uint8Array;
  /** Whether the authenticated caller may have this identity; called once, after the request itself is found good. */
  readonly mayHave: (id: SpiffeId) => boolean;
  /** How the caller is named in messages. */
  readonly caller: string;
  /** Null lets the CA choose: its default, and no longer than its issuer lives. */
  readonly lifetimeMs: number | null;
}

export interface IssuedCertificate {
  readonly spiffeId: SpiffeId;
  readonly serialHex: string;
  readonly issuerDerHex: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** PEM, one certificate each: leaf first, then intermediates; the roots are not among them. */
  readonly chainPem: readonly string[];
  /** PEM; every root that is trusted now. */
  readonly trustBundlePem: string;
}

export interface ServerCertificate {
  readonly certificateChainPem: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly serialHex: string;
}

/** Signs with one issuer at a time; `replaceIssuer` moves it to the next without a gap. */
export class Authority {
  readonly policy: AuthorityPolicy;
  #issuer: Issuer;
  #trustBundlePem: string;

  constructor(options: { readonly policy: AuthorityPolicy; readonly issuer: Issuer; readonly trustBundlePem: string }) {
    this.policy = options.policy;
    this.#issuer = options.issuer;
    this.#trustBundlePem = options.trustBundlePem;
  }

  get issuer(): Issuer {
    return this.#issuer;
  }

  get trustBundlePem(): string {
    return this.#trustBundlePem;
  }

  replaceIssuer(options: { readonly issuer: Issuer; readonly trustBundlePem: string }): void {
    this.#issuer = options.issuer;
    this.#trustBundlePem = options.trustBundlePem;
  }

  /** Longest lifetime that would be granted at `nowMs`; 0 or less when the issuer is no longer valid. */
  lifetimeMsMax(nowMs: number): number {
    return Math.min(this.policy.leafLifetimeMsMax, this.#issuer.certificate.notAfterMs - nowMs);
  }

  /** The order of checks goes from cheap to dear, and what is the caller's right comes before what would be granted. */
  sign(request: SigningRequest, nowMs: number): Result<IssuedCertificate, SigningFault> {
    const fields = readSigningRequest(request.csr);
    if (!fields.ok) return fields;
    const identity = requestedIdentity(fields.value);
    if (!identity.ok) return identity;
    const parsed = parseSpiffeId(identity.value);
    if (parsed === null) return fault("identity_malformed", `certificate request of ${request.caller} is for ${identity.value}, wanted spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`);
    if (parsed.trustDomain !== this.policy.trustDomain) {
      return fault("trust_domain_foreign", `certificate request of ${request.caller} is for ${parsed.id}; this CA signs for the trust domain ${this.policy.trustDomain} only`);
    }
    const key = acceptKey(fields.value.publicKey);
    if (!key.ok) return key;
    if (verifySignature({ ...fields.value, tbsDer: fields.value.infoDer }) !== "good") {
      return fault("signature_bad", `certificate request of ${request.caller} for ${parsed.id} is not signed by the key inside it`);
    }
    if (!request.mayHave(parsed.id)) return fault("identity_denied", `${request.caller} may not have a certificate for ${parsed.id}`);
    const lifetime = this.#grantLifetime(request.lifetimeMs, nowMs);
    if (!lifetime.ok) return lifetime;
    return ok(this.#issueLeaf({ id: parsed.id, spkiDer: fields.value.publicKey.spkiDer, lifetimeMs: lifetime.value, nowMs }));
  }

  /** A TLS server certificate for the CA's own port. The names come from configuration, already parsed. */
  signServer(options: { readonly publicKey: KeyObject; readonly names: readonly NewName[]; readonly lifetimeMs: number; readonly nowMs: number }): ServerCertificate {
    const { certificate } = this.#issuer;
    const notBeforeMs = wholeSeconds(Math.max(certificate.notBeforeMs, options.nowMs - BACKDATE_MS));
    const notAfterMs = wholeSeconds(Math.min(certificate.notAfterMs, options.nowMs + options.lifetimeMs));
    const serial = newSerial();
    const der = signCertificate(this.#issuer, {
      serial,
      subjectDer: encodeName({ organization: "", commonName: "" }),
      notBeforeMs,
      notAfterMs,
      spkiDer: options.publicKey.export({ type: "spki", format: "der" }),
      role: { kind: "leaf", names: options.names, extendedKeyUsage: [OID.serverAuth] },
      keyUsage: KEY_USAGE.digitalSignature,
    });
    return { certificateChainPem: [writePem("CERTIFICATE", der), ...this.#issuer.chainPem].join(""), notBeforeMs, notAfterMs, serialHex: serial.toHex() };
  }

  #grantLifetime(requestedMs: number | null, nowMs: number): Result<number, SigningFault> {
    const issuerLeftMs = this.#issuer.certificate.notAfterMs - nowMs;
    if (issuerLeftMs <= 0 || nowMs < this.#issuer.certificate.notBeforeMs) {
      return fault("issuer_expired", `the CA's own certificate is valid from ${isoTime(this.#issuer.certificate.notBeforeMs)} to ${isoTime(this.#issuer.certificate.notAfterMs)}, now is ${isoTime(nowMs)}`, "operator");
    }
    if (requestedMs === null) return ok(Math.min(this.policy.leafLifetimeMs, issuerLeftMs));
    if (!Number.isFinite(requestedMs) || requestedMs > this.policy.leafLifetimeMsMax) {
      return fault("lifetime_beyond_maximum", `a lifetime of ${seconds(requestedMs)} s was asked for, at most ${seconds(this.policy.leafLifetimeMsMax)} s is given`);
    }
    if (requestedMs > issuerLeftMs) {
      return fault("lifetime_beyond_issuer", `a lifetime of ${seconds(requestedMs)} s was asked for, the CA's own certificate ends in ${seconds(issuerLeftMs)} s; ask for 0 to get what is left`, "operator");
    }
    return ok(requestedMs);
  }

  #issueLeaf(options: { readonly id: SpiffeId; readonly spkiDer: Uint8Array; readonly lifetimeMs: number; readonly nowMs: number }): IssuedCertificate {
    const { certificate } = this.#issuer;
    const notBeforeMs = wholeSeconds(Math.max(certificate.notBeforeMs, options.nowMs - Math.min(BACKDATE_MS, options.lifetimeMs * BACKDATE_SHARE_MAX)));
    const notAfterMs = wholeSeconds(Math.min(certificate.notAfterMs, options.nowMs + options.lifetimeMs));
    const serial = newSerial();
    const der = signCertificate(this.#issuer, {
      serial,
      subjectDer: encodeName({ organization: "", commonName: "" }),
      notBeforeMs,
      notAfterMs,
      spkiDer: options.spkiDer,
      role: { kind: "leaf", names: [{ kind: "uri", uri: options.id }], extendedKeyUsage: [OID.serverAuth, OID.clientAuth] },
      keyUsage: KEY_USAGE.digitalSignature,
    });
    return {
      spiffeId: options.id,
      serialHex: serial.toHex(),
      issuerDerHex: certificate.subjectDerHex,
      notBeforeMs,
      notAfterMs,
      chainPem: [writePem("CERTIFICATE", der), ...this.#issuer.chainPem],
      trustBundlePem: this.#trustBundlePem,
    };
  }
}

/** Reads a request in either form, within bounds. */
function readSigningRequest(csr: string | Uint8Array): Result<RequestFields, SigningFault> {
  let der = csr;
  if (typeof der === "string") {
    if (der.length > REQUEST_PEM_CHARS_MAX) return fault("request_too_large", `certificate request of ${der.length} characters, at most ${REQUEST_PEM_CHARS_MAX}`);
    const block = readSinglePem(der, "CERTIFICATE REQUEST");
    if (!block.ok) return fault("request_malformed", `certificate request: ${block.error.message}`);
    der = block.value;
  }
  const fields = readRequest(der);
  if (fields.ok) return fields;
  return fault(fields.error.code === "too_large" ? "request_too_large" : "request_malformed", `certificate request: ${fields.error.message}`);
}

/** The one URI a request asks for. Its subject, if any, is ignored: some clients fill it in, and nothing of it is signed. */
function requestedIdentity(fields: RequestFields): Result<string, SigningFault> {
  const { uris, dnsNames, otherCount } = fields.subjectAltNames;
  const [uri, ...moreUris] = uris;
  const extra = [...moreUris, ...dnsNames];
  if (extra.length + otherCount > 0) {
    return fault("extra_names", `certificate request names ${uris.length} URIs, ${dnsNames.length} DNS names and ${otherCount} others (${extra.slice(0, 3).join(", ")}), wanted one URI and nothing else`);
  }
  if (uri === undefined) return fault("identity_missing", "certificate request has no URI subject alternative name");
  const [extension] = fields.otherExtensions;
  if (extension !== undefined) return fault("extension_refused", `certificate request asks for the extension ${extension}; only a subject alternative name may be asked for`);
  const [attribute] = fields.otherAttributes;
  if (attribute !== undefined) return fault("extension_refused", `certificate request carries the attribute ${attribute}; only an extension request is read`);
  return ok(uri);
}

/** P-256, P-384, RSA 2048 to 4096. Ed25519 is refused because TLS stacks from BoringSSL (Envoy's, ours) would not accept it from a peer. */
function acceptKey(key: PublicKeyFields): Result<void, SigningFault> {
  const accepted = key.algorithm === "ec-p256" || key.algorithm === "ec-p384"
    || (key.algorithm === "rsa" && key.bits >= REQUEST_RSA_BITS_MIN && key.bits <= REQUEST_RSA_BITS_MAX);
  if (!accepted) return fault("key_refused", `certificate request has a key of type ${key.algorithm}, ${key.bits} bits; P-256, P-384 and RSA of ${REQUEST_RSA_BITS_MIN} to ${REQUEST_RSA_BITS_MAX} bits are accepted`);
  const imported = importPublicKey(key.spkiDer);
  return imported.ok ? ok(undefined) : fault("key_refused", `certificate request has a key that does not load: ${imported.error}`);
}

function fault(code: SigningFaultCode, message: string, blame: Blame = "peer"): Result<never, SigningFault> {
  return err({ code, message, blame });
}

/** 128 random bits, the highest cleared so that it is positive in as many octets, the next set so that none are lost. */
function newSerial(): Uint8Array {
  const serial = new Uint8Array(randomBytes(16));
  serial[0] = (serial[0]! & 0x3f) | 0x40;
  return serial;
}

/** X.509 times have whole seconds; rounding down never outlasts the issuer. */
function wholeSeconds(ms: number): number {
  return Math.floor(ms / 1000) * 1000;
}

type Unsigned = Omit<NewCertificate, "signatureAlgorithm" | "issuerDer" | "subjectKeyId" | "authorityKeyId">;

function signCertificate(issuer: Issuer, certificate: Unsigned): Uint8Array {
  const { certificate: issuerCertificate, key } = issuer;
  const authorityKeyId = issuerCertificate.subjectKeyIdHex === null ? keyIdentifier(issuerCertificate.publicKey.spkiDer) : Uint8Array.fromHex(issuerCertificate.subjectKeyIdHex);
  return signWith(key, { ...certificate, issuerDer: Uint8Array.fromHex(issuerCertificate.subjectDerHex), authorityKeyId });
}

function signWith(key: KeyObject, certificate: Omit<NewCertificate, "signatureAlgorithm" | "subjectKeyId">): Uint8Array {
  const signatureAlgorithm = requireSignatureAlgorithm(key);
  const tbsDer = encodeTbsCertificate({ ...certificate, signatureAlgorithm, subjectKeyId: keyIdentifier(certificate.spkiDer) });
  return encodeSigned({ tbsDer, signatureAlgorithm, signature: signDer({ signatureAlgorithm, key, tbsDer }) });
}

function requireSignatureAlgorithm(key: KeyObject): string {
  const oid = signatureAlgorithmOf(key);
  if (oid === null) throw new Error(`a CA key of type ${String(key.asymmetricKeyType)} cannot sign; checked when it was loaded`);
  return oid;
}

/** A self-signed root. @returns DER. */
export function createRoot(options: { readonly key: KeyObject; readonly organization: string; readonly commonName: string; readonly nowMs: number; readonly lifetimeMs: number }): Uint8Array {
  const name = encodeName(options);
  const spkiDer = createPublicKey(options.key).export({ type: "spki", format: "der" });
  return signWith(options.key, {
    serial: newSerial(),
    issuerDer: name,
    subjectDer: name,
    notBeforeMs: wholeSeconds(options.nowMs - BACKDATE_MS),
    notAfterMs: wholeSeconds(options.nowMs + options.lifetimeMs),
    spkiDer,
    authorityKeyId: keyIdentifier(spkiDer),
    role: { kind: "ca", pathLength: 1 },
    keyUsage: KEY_USAGE.keyCertSign | KEY_USAGE.crlSign,
  });
}

/** An intermediate that signs leaves only. @returns DER. */
export function createIntermediate(options: {
  readonly root: Issuer; readonly key: KeyObject; readonly organization: string; readonly commonName: string; readonly nowMs: number; readonly lifetimeMs: number;
}): Uint8Array {
  const { certificate } = options.root;
  return signCertificate(options.root, {
    serial: newSerial(),
    subjectDer: encodeName(options),
    notBeforeMs: wholeSeconds(Math.max(certificate.notBeforeMs, options.nowMs - BACKDATE_MS)),
    notAfterMs: wholeSeconds(Math.min(certificate.notAfterMs, options.nowMs + options.lifetimeMs)),
    spkiDer: createPublicKey(options.key).export({ type: "spki", format: "der" }),
    role: { kind: "ca", pathLength: 0 },
    keyUsage: KEY_USAGE.keyCertSign | KEY_USAGE.crlSign | KEY_USAGE.digitalSignature,
  });
}

export interface RevokedEntry {
  readonly serialHex: string;
  readonly revokedAtMs: number;
}

/** A complete CRL of one issuer. @param number grows with every list of this issuer. @returns DER. */
export function createRevocationList(options: {
  readonly issuer: Issuer; readonly entries: readonly RevokedEntry[]; readonly number: number; readonly nowMs: number; readonly lifetimeMs: number;
}): Uint8Array {
  const { certificate, key } = options.issuer;
  const signatureAlgorithm = requireSignatureAlgorithm(key);
  const tbsDer = encodeTbsRevocationList({
    signatureAlgorithm,
    issuerDer: Uint8Array.fromHex(certificate.subjectDerHex),
    authorityKeyId: certificate.subjectKeyIdHex === null ? keyIdentifier(certificate.publicKey.spkiDer) : Uint8Array.fromHex(certificate.subjectKeyIdHex),
    thisUpdateMs: wholeSeconds(options.nowMs - BACKDATE_MS),
    nextUpdateMs: wholeSeconds(options.nowMs + options.lifetimeMs),
    number: options.number,
    entries: options.entries.map((entry) => ({ serial: Uint8Array.fromHex(entry.serialHex), revokedAtMs: wholeSeconds(entry.revokedAtMs) })),
  });
  return encodeSigned({ tbsDer, signatureAlgorithm, signature: signDer({ signatureAlgorithm, key, tbsDer }) });
}

const isoTime = (ms: number): string => new Date(ms).toISOString();
const seconds = (ms: number): number => Math.floor(ms / 1000);
