// The CA's own keys on disk, and the authority made from them: created whole at first start, or given by the operator (plug-in CA),
// renewed before they run out. One file, `authority.json`, holds roots and issuers together and is replaced atomically, so that no
// crash leaves half a CA; `root-cert.pem` beside it is a copy for people and other programs.

import { createPrivateKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { z } from "zod";
import type { Fault } from "../core/fault.ts";
import { RETRY_NEVER } from "../core/fault.ts";
import { err, ok, type Result } from "../core/result.ts";
import { readCertificates, readPrivateKey, verifyChain } from "../identity/chain.ts";
import { openPrivateDirectory, type PrivateDirectory } from "../identity/private-directory.ts";
import { isSignedBy, keyMatches, signatureAlgorithmOf } from "../identity/x509-crypto.ts";
import type { CertificateFields } from "../wire/x509/certificate.ts";
import { KEY_USAGE } from "../wire/x509/oids.ts";
import { writePem } from "../wire/x509/pem.ts";
import { Authority, type AuthorityPolicy, createIntermediate, createRoot, type Issuer } from "./authority.ts";

const DAY_MS = 24 * 3_600_000;
export const ROOT_LIFETIME_MS = 3650 * DAY_MS;
export const INTERMEDIATE_LIFETIME_MS = 365 * DAY_MS;
/** A root gets its successor when a fifth of its life is left. */
const ROOT_RENEW_FRACTION = 0.2;
/** An intermediate is replaced when a third of its life is left. */
const INTERMEDIATE_RENEW_FRACTION = 1 / 3;
/** A new root is trusted this many leaf lifetimes before anything is signed under it: every node has renewed, and learned it, by then. */
const ROOT_STAGE_LEAF_LIFETIMES = 2;
/** Below this the operator of a plug-in CA is warned. */
export const EXPIRY_WARNING_MS = 30 * DAY_MS;

const AUTHORITY_FILE = "authority.json";
const ROOT_COPY_FILE = "root-cert.pem";

const Stored = z.strictObject({
  version: z.literal(1),
  /** The last one signs; the others are trusted. A staged root waits at the end of the list. */
  roots: z.array(z.strictObject({ certificatePem: z.string(), privateKeyPem: z.string(), createdAtMs: z.number(), signing: z.boolean() })).min(1).max(8),
  /** The first one signs; the others are kept to sign revocation lists until their last leaf has run out. */
  issuers: z.array(z.strictObject({ certificatePem: z.string(), privateKeyPem: z.string(), createdAtMs: z.number() })).min(1).max(32),
});
type StoredAuthority = z.infer<typeof Stored>;

/** A CA given by the operator: PEM texts, as Istio's `cacerts` secret has them. */
export interface PlugInCa {
  /** ca-cert.pem and what follows it up to the root: the signing certificate first. */
  readonly chainPem: string;
  readonly privateKeyPem: string;
  /** root-cert.pem: one or more trusted roots; several while one replaces another. */
  readonly rootsPem: string;
}

export type AuthorityStoreFault = Fault<"ca_directory" | "ca_state" | "ca_plug_in">;

export interface AuthorityStoreOptions {
  /** `<state>/ca`. */
  readonly directory: string;
  readonly policy: AuthorityPolicy;
  readonly organization: string;
  readonly plugIn: PlugInCa | null;
  readonly nowMs: number;
  readonly rootLifetimeMs?: number;
  readonly intermediateLifetimeMs?: number;
}

/** Opens the CA, making it first if there is none. Refuses, with words for the operator, what is not safe to start from. */
export function openAuthority(options: AuthorityStoreOptions): Result<AuthorityStore, AuthorityStoreFault> {
  const directory = openPrivateDirectory(options.directory);
  if (!directory.ok) return refuse("ca_directory", `the CA cannot start: ${directory.error}`);
  try {
    if (options.plugIn !== null) return openPlugIn(directory.value, options, options.plugIn);
    return openOwn(directory.value, options);
  } catch (cause) {
    return refuse("ca_state", `the CA cannot start from ${options.directory}: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}

function openOwn(directory: PrivateDirectory, options: AuthorityStoreOptions): Result<AuthorityStore, AuthorityStoreFault> {
  const text = directory.read(AUTHORITY_FILE);
  let stored: StoredAuthority;
  if (text === null) {
    stored = createAuthority(options);
    directory.write(AUTHORITY_FILE, JSON.stringify(stored, null, 1));
  } else {
    const parsed = Stored.safeParse(parseJson(text));
    if (!parsed.success) return refuse("ca_state", `${directory.path}/${AUTHORITY_FILE} is not a CA of ours: ${z.prettifyError(parsed.error)}; restore it from a backup, or move it away to start a new mesh`);
    const renewed = renewDue(parsed.data, options, options.nowMs);
    stored = renewed.next;
    if (renewed.done.length > 0 && load(stored, options.nowMs).ok) directory.write(AUTHORITY_FILE, JSON.stringify(stored, null, 1));
  }
  const loaded = load(stored, options.nowMs);
  if (!loaded.ok) return refuse("ca_state", `${directory.path}/${AUTHORITY_FILE}: ${loaded.error}`);
  directory.write(ROOT_COPY_FILE, loaded.value.trustBundlePem);
  return ok(new AuthorityStore({ directory, options, stored, loaded: loaded.value }));
}

function openPlugIn(directory: PrivateDirectory, options: AuthorityStoreOptions, plugIn: PlugInCa): Result<AuthorityStore, AuthorityStoreFault> {
  const loaded = loadPlugIn(plugIn, options.nowMs);
  if (!loaded.ok) return refuse("ca_plug_in", `the plug-in CA cannot be used: ${loaded.error}`);
  directory.write(ROOT_COPY_FILE, loaded.value.trustBundlePem);
  return ok(new AuthorityStore({ directory, options, stored: null, loaded: loaded.value }));
}

interface LoadedAuthority {
  /** The first one signs. */
  readonly issuers: readonly Issuer[];
  readonly roots: readonly CertificateFields[];
  readonly trustBundlePem: string;
}

/** The authority and its upkeep. */
export class AuthorityStore {
  readonly authority: Authority;
  readonly directory: PrivateDirectory;
  readonly #options: AuthorityStoreOptions;
  #stored: StoredAuthority | null;
  #loaded: LoadedAuthority;

  constructor(parts: { readonly directory: PrivateDirectory; readonly options: AuthorityStoreOptions; readonly stored: StoredAuthority | null; readonly loaded: LoadedAuthority }) {
    this.directory = parts.directory;
    this.#options = parts.options;
    this.#stored = parts.stored;
    this.#loaded = parts.loaded;
    this.authority = new Authority({ policy: parts.options.policy, issuer: signer(parts.loaded), trustBundlePem: parts.loaded.trustBundlePem });
  }

  /** Every issuer whose leaves may still be alive; each gets its revocation list. */
  get issuers(): readonly Issuer[] {
    return this.#loaded.issuers;
  }

  get roots(): readonly CertificateFields[] {
    return this.#loaded.roots;
  }

  /** What is kept, as text: for whoever shares it between replicas. Null for a plug-in CA, whose owner shares it. */
  get text(): string | null {
    return this.#stored === null ? null : JSON.stringify(this.#stored, null, 1);
  }

  /** Takes what another replica keeps in the place of what is here. The error leaves everything as it is. */
  adoptText(text: string, nowMs: number): Result<void, AuthorityStoreFault> {
    if (this.#stored === null) return refuse("ca_state", "a plug-in CA does not take another replica's keys");
    const parsed = Stored.safeParse(parseJson(text));
    if (!parsed.success) return refuse("ca_state", `the shared CA is not one of ours: ${z.prettifyError(parsed.error)}`);
    const loaded = load(parsed.data, nowMs);
    if (!loaded.ok) return refuse("ca_state", `the shared CA: ${loaded.error}`);
    this.#adopt(parsed.data, nowMs);
    return ok(undefined);
  }

  /**
   * Renews what is due: call at start and every hour or so.
   * @returns what was done or should worry the operator, in words; empty when all is well.
   */
  maintain(nowMs: number): string[] {
    if (this.#stored === null) return this.#warnOfExpiry(nowMs);
    const { next, done } = renewDue(this.#stored, this.#options, nowMs);
    if (done.length === 0) return [];
    this.#adopt(next, nowMs);
    return done;
  }

  /** Makes a new intermediate now; the old one is kept for its revocation list. Nothing for a plug-in CA. */
  rotateIntermediate(nowMs: number): void {
    if (this.#stored === null) return;
    this.#adopt({ ...this.#stored, issuers: [newIntermediate(this.#stored, this.#options, nowMs), ...this.#stored.issuers].slice(0, 32) }, nowMs);
  }

  /** Makes a new root now, trusted beside the old one; `maintain` moves signing to it once every node knows it. */
  stageRoot(nowMs: number): void {
    if (this.#stored === null || this.#stored.roots.some((root) => !root.signing)) return;
    this.#adopt({ ...this.#stored, roots: [...this.#stored.roots, newRoot(this.#options, nowMs, false)] }, nowMs);
  }

  /** Another plug-in CA, or another set of roots, in place of the present one. */
  replacePlugIn(plugIn: PlugInCa, nowMs: number): Result<void, AuthorityStoreFault> {
    const loaded = loadPlugIn(plugIn, nowMs);
    if (!loaded.ok) return refuse("ca_plug_in", `the new plug-in CA cannot be used, the old one stays: ${loaded.error}`);
    const kept = this.#loaded.issuers.filter((issuer) => issuer.certificate.subjectDerHex !== signer(loaded.value).certificate.subjectDerHex);
    this.#use({ ...loaded.value, issuers: [...loaded.value.issuers, ...kept].slice(0, 8) });
    return ok(undefined);
  }

  #adopt(stored: StoredAuthority, nowMs: number): void {
    const loaded = load(stored, nowMs);
    if (!loaded.ok) throw new Error(`a CA just made does not load: ${loaded.error}`);
    this.directory.write(AUTHORITY_FILE, JSON.stringify(stored, null, 1));
    this.#stored = stored;
    this.#use(loaded.value);
  }

  #use(loaded: LoadedAuthority): void {
    this.#loaded = loaded;
    this.directory.write(ROOT_COPY_FILE, loaded.trustBundlePem);
    this.authority.replaceIssuer({ issuer: signer(loaded), trustBundlePem: loaded.trustBundlePem });
  }

  #warnOfExpiry(nowMs: number): string[] {
    return [signer(this.#loaded).certificate, ...this.#loaded.roots]
      .filter((certificate) => certificate.notAfterMs - nowMs < EXPIRY_WARNING_MS)
      .map((certificate) => `plug-in CA certificate ${certificate.serialHex} ends at ${new Date(certificate.notAfterMs).toISOString()}; replace it before then`);
  }
}

function signer(loaded: LoadedAuthority): Issuer {
  const first = loaded.issuers[0];
  if (first === undefined) throw new Error("a CA without an issuer");
  return first;
}

function createAuthority(options: AuthorityStoreOptions): StoredAuthority {
  const roots = [newRoot(options, options.nowMs, true)];
  const withoutIssuer: StoredAuthority = { version: 1, roots, issuers: [] };
  return { ...withoutIssuer, issuers: [newIntermediate(withoutIssuer, options, options.nowMs)] };
}

function newRoot(options: AuthorityStoreOptions, nowMs: number, signing: boolean): StoredAuthority["roots"][number] {
  const key = newKey();
  const der = createRoot({ key, organization: options.organization, commonName: `${options.organization} root ${isoDay(nowMs)}`, nowMs, lifetimeMs: options.rootLifetimeMs ?? ROOT_LIFETIME_MS });
  return { certificatePem: writePem("CERTIFICATE", der), privateKeyPem: exportKey(key), createdAtMs: nowMs, signing };
}

/** Every intermediate has a name of its own (its time of birth), so that a revocation list belongs to one key only. */
function newIntermediate(stored: StoredAuthority, options: AuthorityStoreOptions, nowMs: number): StoredAuthority["issuers"][number] {
  const root = stored.roots.findLast((candidate) => candidate.signing);
  if (root === undefined) throw new Error("no root signs");
  const key = newKey();
  const der = createIntermediate({
    root: { certificate: onlyCertificate(root.certificatePem), key: createPrivateKey(root.privateKeyPem), chainPem: [] },
    key,
    organization: options.organization,
    commonName: `${options.organization} intermediate ${new Date(nowMs).toISOString()}`,
    nowMs,
    lifetimeMs: options.intermediateLifetimeMs ?? INTERMEDIATE_LIFETIME_MS,
  });
  return { certificatePem: writePem("CERTIFICATE", der), privateKeyPem: exportKey(key), createdAtMs: nowMs };
}

/** What is due at `nowMs`. Pure but for the new keys. */
function renewDue(stored: StoredAuthority, options: AuthorityStoreOptions, nowMs: number): { readonly next: StoredAuthority; readonly done: string[] } {
  const done: string[] = [];
  const leafLifetimeMs = options.policy.leafLifetimeMsMax;
  let { roots, issuers } = stored;
  const alive = roots.filter((root, index) => onlyCertificate(root.certificatePem).notAfterMs > nowMs || (root.signing && index === roots.length - 1));
  if (alive.length < roots.length) {
    roots = alive;
    done.push("dropped a root that has run out");
  }
  const newest = roots[roots.length - 1]!;
  let moved = false;
  if (!newest.signing && nowMs - newest.createdAtMs >= ROOT_STAGE_LEAF_LIFETIMES * leafLifetimeMs) {
    roots = [...roots.slice(0, -1), { ...newest, signing: true }];
    moved = true;
    done.push("signing moved to the new root");
  } else if (newest.signing && isDue(onlyCertificate(newest.certificatePem), ROOT_RENEW_FRACTION, nowMs, (ROOT_STAGE_LEAF_LIFETIMES + 2) * leafLifetimeMs)) {
    roots = [...roots, newRoot(options, nowMs, false)];
    done.push("a new root is trusted beside the old one; signing moves to it once every node knows it");
  }
  if (moved || isDue(onlyCertificate(issuers[0]!.certificatePem), INTERMEDIATE_RENEW_FRACTION, nowMs, 2 * leafLifetimeMs)) {
    issuers = [newIntermediate({ ...stored, roots }, options, nowMs), ...issuers];
    done.push("a new intermediate signs");
  }
  // A retired issuer has signed nothing since its successor was made; a leaf lifetime after that it has no leaf alive.
  const kept = issuers.filter((_issuer, index) => index === 0 || nowMs - issuers[index - 1]!.createdAtMs < leafLifetimeMs + DAY_MS);
  if (kept.length < issuers.length) {
    issuers = kept;
    done.push("forgot an intermediate whose last leaf has run out");
  }
  return { next: { ...stored, roots, issuers }, done };
}

function isDue(certificate: CertificateFields, fraction: number, nowMs: number, leftMsMin: number): boolean {
  const lifetimeMs = certificate.notAfterMs - certificate.notBeforeMs;
  return certificate.notAfterMs - nowMs < Math.min(Math.max(lifetimeMs * fraction, leftMsMin), lifetimeMs * 0.8);
}

function load(stored: StoredAuthority, nowMs: number): Result<LoadedAuthority, string> {
  const roots: CertificateFields[] = [];
  for (const root of stored.roots) {
    const certificates = readCertificates(root.certificatePem);
    if (!certificates.ok) return err(`root: ${certificates.error}`);
    const key = readPrivateKey(root.privateKeyPem);
    if (!key.ok) return err(`root key: ${key.error}`);
    if (certificates.value.length !== 1 || !keyMatches(key.value, certificates.value[0]!.publicKey.spkiDer)) return err("root key is not the key of the root certificate");
    roots.push(...certificates.value);
  }
  const issuers: Issuer[] = [];
  for (const [index, issuer] of stored.issuers.entries()) {
    const loaded = loadIssuer({ chainPem: issuer.certificatePem, privateKeyPem: issuer.privateKeyPem, roots, nowMs, mustBeValid: index === 0 });
    if (!loaded.ok) return err(`intermediate ${index}: ${loaded.error}`);
    issuers.push(loaded.value);
  }
  return ok({ issuers, roots, trustBundlePem: bundle(roots) });
}

function loadPlugIn(plugIn: PlugInCa, nowMs: number): Result<LoadedAuthority, string> {
  const roots = readCertificates(plugIn.rootsPem);
  if (!roots.ok) return err(`root certificates: ${roots.error}`);
  if (roots.value.length === 0) return err("root certificates: none");
  for (const root of roots.value) if (!root.isCa) return err(`root certificate ${root.serialHex} is not a CA (basic constraints)`);
  const issuer = loadIssuer({ chainPem: plugIn.chainPem, privateKeyPem: plugIn.privateKeyPem, roots: roots.value, nowMs, mustBeValid: true });
  if (!issuer.ok) return err(issuer.error);
  return ok({ issuers: [issuer.value], roots: roots.value, trustBundlePem: bundle(roots.value) });
}

/** Everything a signing certificate must be: a CA that may sign certificates, with its key, at the end of a valid chain with room for a leaf. */
function loadIssuer(options: {
  readonly chainPem: string; readonly privateKeyPem: string; readonly roots: readonly CertificateFields[]; readonly nowMs: number; readonly mustBeValid: boolean;
}): Result<Issuer, string> {
  const chain = readCertificates(options.chainPem);
  if (!chain.ok) return err(`signing chain: ${chain.error}`);
  const certificate = chain.value[0];
  if (certificate === undefined) return err("signing chain: no certificate");
  if (!certificate.isCa) return err(`signing certificate ${certificate.serialHex} is not a CA (basic constraints)`);
  if (certificate.keyUsage === null || !(certificate.keyUsage & KEY_USAGE.keyCertSign)) return err(`signing certificate ${certificate.serialHex} may not sign certificates (key usage)`);
  const key = readPrivateKey(options.privateKeyPem);
  if (!key.ok) return err(`signing key: ${key.error}`);
  if (!keyMatches(key.value, certificate.publicKey.spkiDer)) return err(`signing key is not the key of the signing certificate ${certificate.serialHex}`);
  const algorithm = signatureAlgorithmOf(key.value);
  const weak = certificate.publicKey.algorithm === "rsa" && certificate.publicKey.bits < 2048;
  if (algorithm === null || certificate.publicKey.algorithm === "ed25519" || certificate.publicKey.algorithm === "other" || weak) {
    return err(`signing key of type ${certificate.publicKey.algorithm}, ${certificate.publicKey.bits} bits; P-256, P-384 and RSA from 2048 bits are used`);
  }
  const isRoot = options.roots.some((root) => root.serialHex === certificate.serialHex && root.subjectDerHex === certificate.subjectDerHex);
  if (options.mustBeValid) {
    const path = isRoot ? validNow(certificate, options.nowMs) : verifyChain({ chain: chain.value, roots: options.roots, nowMs: options.nowMs, startsWith: "issuer" });
    if (!path.ok) return err(`signing chain: ${path.error}`);
  }
  // Roots are sent as the bundle, not in the chain.
  const chainPem = chain.value.filter((link) => !isSignedBy(link, link)).map((link) => writePem("CERTIFICATE", link.der));
  return ok({ certificate, key: key.value, chainPem });
}

function validNow(certificate: CertificateFields, nowMs: number): Result<CertificateFields[], string> {
  return nowMs <= certificate.notAfterMs ? ok([certificate]) : err(`the signing certificate expired at ${new Date(certificate.notAfterMs).toISOString()}`);
}

function bundle(roots: readonly CertificateFields[]): string {
  return roots.map((root) => writePem("CERTIFICATE", root.der)).join("");
}

function onlyCertificate(pem: string): CertificateFields {
  const certificates = readCertificates(pem);
  const [certificate] = certificates.ok ? certificates.value : [];
  if (certificate === undefined) throw new Error("a stored certificate does not parse");
  return certificate;
}

const newKey = (): KeyObject => generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
const exportKey = (key: KeyObject): string => key.export({ type: "pkcs8", format: "pem" }).toString();
const isoDay = (ms: number): string => new Date(ms).toISOString().slice(0, 10);

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function refuse<Code extends AuthorityStoreFault["code"]>(code: Code, message: string): Result<never, AuthorityStoreFault> {
  return err({ code, message, blame: "operator", dies: "process", retry: RETRY_NEVER });
}
