import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { caExtensions, DAY_MS, forge, goodLeafExtensions, HOUR_MS, mustRead, newEcKey, NOON_MS, spkiOf, TEST_DOMAIN, testCa, WEB, writePem } from "../../test/kit/certificates.ts";
import { readCertificates, verifyChain } from "../identity/chain.ts";
import { readRevocations } from "../identity/crl.ts";
import { createRequest } from "../identity/csr.ts";
import { encodeName } from "../wire/x509/build.ts";
import { KEY_USAGE } from "../wire/x509/oids.ts";
import type { IssuedCertificate } from "./authority.ts";
import { type AuthorityStore, type AuthorityStoreOptions, INTERMEDIATE_LIFETIME_MS, openAuthority, type PlugInCa } from "./authority-store.ts";
import { IssuanceLog } from "./issuance-log.ts";
import { CRL_LIFETIME_MS, RevocationStore } from "./revocation-store.ts";

let folder = "";
let directory = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "weft-authority-"));
  directory = join(folder, "ca");
});

afterEach(() => rmSync(folder, { recursive: true, force: true }));

const options = (more: Partial<AuthorityStoreOptions> = {}): AuthorityStoreOptions => ({
  directory, policy: { trustDomain: TEST_DOMAIN, leafLifetimeMs: DAY_MS, leafLifetimeMsMax: 7 * DAY_MS }, organization: "weft", plugIn: null, nowMs: NOON_MS, ...more,
});

function open(more: Partial<AuthorityStoreOptions> = {}): AuthorityStore {
  const opened = openAuthority(options(more));
  if (!opened.ok) throw new Error(opened.error.message);
  return opened.value;
}

function refusal(more: Partial<AuthorityStoreOptions> = {}): string {
  const opened = openAuthority(options(more));
  return opened.ok ? "opened" : `${opened.error.code}: ${opened.error.message}`;
}

function issue(store: AuthorityStore, nowMs = NOON_MS): IssuedCertificate {
  const issued = store.authority.sign({ csr: createRequest(WEB).csrPem, mayHave: () => true, caller: "test", lifetimeMs: null }, nowMs);
  if (!issued.ok) throw new Error(issued.error.message);
  return issued.value;
}

function verifies(issued: IssuedCertificate, bundlePem: string, nowMs: number): boolean {
  const chain = readCertificates(issued.chainPem.join(""));
  const roots = readCertificates(bundlePem);
  return chain.ok && roots.ok && verifyChain({ chain: chain.value, roots: roots.value, nowMs }).ok;
}

describe("the directory", () => {
  test("is made with 0700 and its files with 0600, whatever the umask", () => {
    const umask = process.umask(0);
    open();
    process.umask(umask);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    for (const name of readdirSync(directory)) expect(statSync(join(directory, name)).mode & 0o777).toBe(0o600);
  });

  test("is refused when others could read it, and the message says what to do", () => {
    open();
    chmodSync(directory, 0o750);
    expect(refusal()).toBe(`ca_directory: the CA cannot start: ${directory} has mode 0750, others could read private keys: chmod 700 ${directory}`);
    chmodSync(directory, 0o700);
    chmodSync(join(directory, "authority.json"), 0o640);
    expect(refusal()).toContain(`chmod 600 ${directory}/authority.json`);
  });

  test("is refused when it, or the key file, is a symbolic link", () => {
    open();
    renameSync(directory, join(folder, "elsewhere"));
    symlinkSync(join(folder, "elsewhere"), directory);
    expect(refusal()).toContain("is not a directory");
    rmSync(directory);
    mkdirSync(directory, { mode: 0o700 });
    symlinkSync(join(folder, "elsewhere/authority.json"), join(directory, "authority.json"));
    expect(refusal()).toStartWith("ca_state");
  });

  test("a CA that does not read is never replaced by a new one", () => {
    open();
    const path = join(directory, "authority.json");
    for (const text of ["", "{", "{}", readFileSync(path, "utf8").replace("BEGIN PRIVATE KEY", "BEGIN PRIVATE"), readFileSync(path, "utf8").slice(0, 900)]) {
      writeFileSync(path, text);
      expect(refusal()).toStartWith("ca_state");
      expect(readFileSync(path, "utf8")).toBe(text);
    }
  });

  test("what a crash left half-written is cleaned away and the CA is whole", () => {
    mkdirSync(directory, { mode: 0o700 });
    writeFileSync(join(directory, ".new-1-authority.json"), "{\"version\":1,", { mode: 0o600 });
    issue(open());
    expect(readdirSync(directory).some((name) => name.startsWith(".new-"))).toBe(false);
  });
});

describe("the CA made at first start", () => {
  test("is the same after a restart", () => {
    const first = open();
    const second = open({ nowMs: NOON_MS + DAY_MS });
    expect(second.authority.trustBundlePem).toBe(first.authority.trustBundlePem);
    expect(second.authority.issuer.certificate.serialHex).toBe(first.authority.issuer.certificate.serialHex);
    expect(verifies(issue(second), first.authority.trustBundlePem, NOON_MS)).toBe(true);
    expect(readFileSync(join(directory, "root-cert.pem"), "utf8")).toBe(first.authority.trustBundlePem);
  });

  test("renews its intermediate in time; leaves of before and after verify against the same root", () => {
    const store = open();
    const old = issue(store);
    expect(store.maintain(NOON_MS + INTERMEDIATE_LIFETIME_MS / 2)).toEqual([]);
    const laterMs = NOON_MS + INTERMEDIATE_LIFETIME_MS * 0.7;
    expect(store.maintain(laterMs)).toEqual(["a new intermediate signs"]);
    const fresh = issue(store, laterMs);
    expect(fresh.issuerDerHex).not.toBe(old.issuerDerHex);
    expect(store.issuers).toHaveLength(2);
    expect(verifies(old, fresh.trustBundlePem, NOON_MS)).toBe(true);
    expect(verifies(fresh, old.trustBundlePem, laterMs)).toBe(true);
    expect(issue(open({ nowMs: laterMs }), laterMs).issuerDerHex).toBe(fresh.issuerDerHex);
    expect(store.maintain(laterMs + 9 * DAY_MS)).toEqual(["forgot an intermediate whose last leaf has run out"]);
  });

  test("renews an intermediate that ran out while the CA was off", () => {
    open();
    const laterMs = NOON_MS + 2 * INTERMEDIATE_LIFETIME_MS;
    const issued = issue(open({ nowMs: laterMs }), laterMs);
    expect(verifies(issued, issued.trustBundlePem, laterMs)).toBe(true);
  });

  test("never has a moment in twelve years at which it cannot sign, and always signs under a root that every node has known for two leaf lifetimes", () => {
    const store = open();
    const knownSince = new Map<string, number>([[store.roots[0]!.serialHex, -Infinity]]);
    let moves = 0;
    let signing = store.authority.issuer.certificate.issuerDerHex;
    for (let nowMs = NOON_MS; nowMs < NOON_MS + 4400 * DAY_MS; nowMs += 5 * DAY_MS) {
      store.maintain(nowMs);
      for (const root of store.roots) if (!knownSince.has(root.serialHex)) knownSince.set(root.serialHex, nowMs);
      const issued = issue(store, nowMs);
      expect(issued.notAfterMs - nowMs).toBeGreaterThan(DAY_MS - HOUR_MS);
      expect(verifies(issued, issued.trustBundlePem, nowMs)).toBe(true);
      const { issuerDerHex } = store.authority.issuer.certificate;
      if (issuerDerHex !== signing) {
        moves++;
        signing = issuerDerHex;
        const root = store.roots.find((candidate) => candidate.subjectDerHex === issuerDerHex)!;
        expect(nowMs - knownSince.get(root.serialHex)!).toBeGreaterThanOrEqual(2 * 7 * DAY_MS);
      }
    }
    expect(moves).toBe(1);
    expect(store.roots).toHaveLength(1);
  });

  test("a root staged by hand is in the bundle at once and signs later", () => {
    const store = open();
    store.stageRoot(NOON_MS);
    store.stageRoot(NOON_MS);
    expect(store.roots).toHaveLength(2);
    expect(issue(store).trustBundlePem.match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
    const old = issue(store);
    expect(store.maintain(NOON_MS + 15 * DAY_MS)).toContain("signing moved to the new root");
    const fresh = issue(store, NOON_MS + 15 * DAY_MS);
    expect(verifies(old, fresh.trustBundlePem, NOON_MS)).toBe(true);
    expect(verifies(fresh, old.trustBundlePem, NOON_MS + 15 * DAY_MS)).toBe(true);
  });
});

describe("a plug-in CA", () => {
  const ca = testCa({ nowMs: NOON_MS - DAY_MS });
  const keyPem = (key: typeof ca.root.key): string => key.export({ type: "pkcs8", format: "pem" }).toString();
  const good: PlugInCa = { chainPem: ca.intermediate.chainPem.join("") + ca.rootPem, privateKeyPem: keyPem(ca.intermediate.key), rootsPem: ca.rootPem };
  const times = { notBeforeMs: NOON_MS - DAY_MS, notAfterMs: NOON_MS + 365 * DAY_MS };

  function signedByRoot(extensions: readonly Uint8Array[], more: Partial<typeof times> = {}): PlugInCa {
    const key = newEcKey();
    const der = forge({ issuer: ca.root, ...times, ...more, spkiDer: spkiOf(key), subjectDer: encodeName({ organization: "x", commonName: "y" }), extensions });
    return { chainPem: writePem("CERTIFICATE", der), privateKeyPem: keyPem(key), rootsPem: ca.rootPem };
  }

  test("signs with what was given; the root is sent as the bundle and not in the chain", () => {
    const issued = issue(open({ plugIn: good }));
    expect(issued.chainPem).toHaveLength(2);
    expect(issued.trustBundlePem).toBe(ca.rootPem);
    expect(verifies(issued, ca.rootPem, NOON_MS)).toBe(true);
    expect(existsSync(join(directory, "authority.json"))).toBe(false);
  });

  test("may sign with the root itself", () => {
    const issued = issue(open({ plugIn: { chainPem: ca.rootPem, privateKeyPem: keyPem(ca.root.key), rootsPem: ca.rootPem } }));
    expect(issued.chainPem).toHaveLength(1);
    expect(verifies(issued, ca.rootPem, NOON_MS)).toBe(true);
  });

  test("with RSA keys signs too", () => {
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const der = forge({ issuer: ca.root, ...times, spkiDer: spkiOf(privateKey), subjectDer: encodeName({ organization: "x", commonName: "rsa" }), extensions: caExtensions(0) });
    const issued = issue(open({ plugIn: { chainPem: writePem("CERTIFICATE", der), privateKeyPem: keyPem(privateKey), rootsPem: ca.rootPem } }));
    expect(verifies(issued, ca.rootPem, NOON_MS)).toBe(true);
    expect(new X509Certificate(issued.chainPem[0]!).verify(new X509Certificate(issued.chainPem[1]!).publicKey)).toBe(true);
  });

  const stranger = testCa({ nowMs: NOON_MS - DAY_MS });
  const bad: readonly (readonly [string, PlugInCa, string])[] = [
    ["another key", { ...good, privateKeyPem: keyPem(newEcKey()) }, "signing key is not the key of"],
    ["no key", { ...good, privateKeyPem: "" }, "signing key:"],
    ["a leaf in place of a CA", signedByRoot(goodLeafExtensions()), "is not a CA"],
    ["a CA without keyCertSign", signedByRoot(caExtensions(0, KEY_USAGE.crlSign)), "may not sign certificates"],
    ["an expired signing certificate", signedByRoot(caExtensions(0), { notAfterMs: NOON_MS - HOUR_MS }), "expired at"],
    ["one whose time has not come", signedByRoot(caExtensions(0), { notBeforeMs: NOON_MS + HOUR_MS }), "is valid only from"],
    ["another root", { ...good, chainPem: ca.intermediate.chainPem.join(""), rootsPem: stranger.rootPem }, "ends at no root"],
    ["no root", { ...good, rootsPem: "" }, "root certificates: none"],
    ["a leaf as root", { ...good, rootsPem: writePem("CERTIFICATE", forge({ issuer: ca.root, ...times })) }, "is not a CA"],
    ["a key in the chain file", { ...good, chainPem: good.privateKeyPem }, "wanted CERTIFICATE"],
    ["a chain in the wrong order", { ...good, chainPem: ca.rootPem + ca.intermediate.chainPem.join("") }, "signing key is not the key of"],
  ];
  for (const [what, plugIn, message] of bad) {
    test(`is refused with ${what}`, () => {
      expect(refusal({ plugIn })).toStartWith("ca_plug_in");
      expect(refusal({ plugIn })).toContain(message);
    });
  }

  test("is refused when the path above leaves no room for it", () => {
    const level = (issuer: typeof ca.root, pathLength: number, name: string): typeof ca.root => {
      const key = newEcKey();
      const der = forge({ issuer, ...times, spkiDer: spkiOf(key), subjectDer: encodeName({ organization: "x", commonName: name }), extensions: caExtensions(pathLength) });
      return { certificate: mustRead(der), key, chainPem: [writePem("CERTIFICATE", der), ...issuer.chainPem] };
    };
    const below = level(level(ca.root, 1, "one"), 0, "two");
    expect(refusal({ plugIn: { chainPem: below.chainPem.join(""), privateKeyPem: keyPem(below.key), rootsPem: ca.rootPem } })).toContain("allows 1 CA certificates below it, has 2");
  });

  test("is replaced while it runs, or stays when the new one is bad; several roots make one bundle", () => {
    const store = open({ plugIn: good });
    expect(store.replacePlugIn({ ...good, privateKeyPem: "" }, NOON_MS).ok).toBe(false);
    expect(issue(store).issuerDerHex).toBe(ca.intermediate.certificate.subjectDerHex);
    expect(store.replacePlugIn({ ...good, rootsPem: ca.rootPem + stranger.rootPem }, NOON_MS).ok).toBe(true);
    expect(issue(store).trustBundlePem).toBe(ca.rootPem + stranger.rootPem);
  });

  test("warns before it ends", () => {
    const store = open({ plugIn: good });
    expect(store.maintain(NOON_MS)).toEqual([]);
    expect(store.maintain(NOON_MS + 340 * DAY_MS)[0]).toContain("replace it before then");
  });
});

describe("issued and revoked", () => {
  function parts(store: AuthorityStore): { log: IssuanceLog; revocations: RevocationStore } {
    const log = new IssuanceLog(store.directory);
    return { log, revocations: new RevocationStore({ directory: store.directory, log, issuers: () => store.issuers }) };
  }

  const readList = (store: AuthorityStore, name: string, nowMs: number): ReturnType<typeof readRevocations> =>
    readRevocations(readFileSync(join(directory, name)), { issuers: [...store.roots, store.authority.issuer.certificate], nowMs });

  test("a revoked serial appears in the signed lists that the data plane reads, and survives a restart", () => {
    const store = open();
    const { log, revocations } = parts(store);
    const [one, two] = [issue(store), issue(store)];
    for (const issued of [one, two]) log.append(issued, "node-a", NOON_MS);
    expect(revocations.revokeSerial(one.serialHex.toUpperCase().match(/../g)!.join(":"), NOON_MS)).toMatchObject({ ok: true, value: { identity: WEB, caller: "node-a" } });
    expect(revocations.revokeSerial("00ff", NOON_MS).ok).toBe(false);
    for (const name of ["crl.pem", "crl.der"]) {
      const read = readList(store, name, NOON_MS);
      if (!read.ok) throw new Error(read.error);
      expect(read.value.serialsByIssuer.get(one.issuerDerHex)).toEqual(new Set([one.serialHex]));
      expect(read.value.warnings).toEqual([]);
    }
    expect(parts(open()).revocations.revokedCount).toBe(1);
    expect(revocations.revokeIdentity(WEB, NOON_MS)).toEqual({ ok: true, value: 1 });
    expect(revocations.revokeIdentity("spiffe://cluster.local/ns/a/sa/b", NOON_MS).ok).toBe(false);
  });

  test("lists follow a new intermediate, are renewed before they run out, and lose entries whose certificate is over", () => {
    const store = open();
    const { log, revocations } = parts(store);
    const issued = issue(store);
    log.append(issued, "node-a", NOON_MS);
    revocations.revokeSerial(issued.serialHex, NOON_MS);
    store.rotateIntermediate(NOON_MS + HOUR_MS);
    revocations.maintain(NOON_MS + HOUR_MS);
    const both = readList(store, "crl.pem", NOON_MS + HOUR_MS);
    if (!both.ok) throw new Error(both.error);
    expect(both.value.warnings).toEqual([]);
    expect(both.value.serialsByIssuer.size).toBe(2);
    expect(both.value.serialsByIssuer.get(issued.issuerDerHex)).toEqual(new Set([issued.serialHex]));
    const lateMs = NOON_MS + CRL_LIFETIME_MS * 0.6;
    revocations.maintain(lateMs);
    expect(revocations.revokedCount).toBe(0);
    const later = readList(store, "crl.pem", NOON_MS + CRL_LIFETIME_MS * 1.5);
    expect(later.ok ? later.value.warnings : later.error).toEqual([]);
  });

  test("the record is bounded to two files and passes over a line cut short", () => {
    const store = open();
    const log = new IssuanceLog(store.directory, 4096);
    const serials = Array.from({ length: 40 }, () => {
      const issued = issue(store);
      log.append(issued, "node-a", NOON_MS);
      return issued.serialHex;
    });
    log.close();
    for (const name of ["issued.jsonl", "issued.1.jsonl"]) {
      expect(statSync(join(directory, name)).size).toBeLessThanOrEqual(4096);
      expect(statSync(join(directory, name)).mode & 0o777).toBe(0o600);
    }
    writeFileSync(join(directory, "issued.jsonl"), `${readFileSync(join(directory, "issued.jsonl"), "utf8")}{"serial":"aa`);
    const found = new IssuanceLog(store.directory, 4096).find(() => true);
    expect(found.at(-1)?.serialHex).toBe(serials.at(-1)!);
    expect(found.length).toBeGreaterThan(10);
  });
});
