import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DAY_MS, HOUR_MS, NOON_MS, testCa, type TestCa, WEB, writePem } from "../../test/kit/certificates.ts";
import { processorMs } from "../../test/kit/fair-time.ts";
import { x509 } from "../../test/kit/peculiar.ts";
import { needsProgram, testUnless } from "../../test/kit/skip.ts";
import { createRevocationList } from "../ca/authority.ts";
import { readRevocationList } from "../wire/x509/revocation-list.ts";
import { createRequest } from "./csr.ts";
import { CRL_DEBOUNCE_MS, CrlWatch, knownIssuers, readRevocations, type SerialsByIssuer } from "./crl.ts";
import type { Timers } from "../net/timers.ts";

const ca = testCa({ nowMs: NOON_MS - DAY_MS });
const issuers = [ca.intermediate.certificate, ca.root.certificate];
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

function list(of: TestCa, serials: readonly string[], more: { readonly by?: TestCa["root"]; readonly nowMs?: number } = {}): Uint8Array {
  return createRevocationList({ issuer: more.by ?? of.intermediate, entries: serials.map((serialHex) => ({ serialHex, revokedAtMs: NOON_MS })), number: 1, nowMs: more.nowMs ?? NOON_MS, lifetimeMs: DAY_MS });
}

const pem = (...lists: readonly Uint8Array[]): string => lists.map((der) => writePem("X509 CRL", der)).join("");

describe("revocation lists", () => {
  test("several in one PEM file, one in DER; keyed by the issuer's DER name, as the data plane looks them up", () => {
    const read = readRevocations(bytes(pem(list(ca, ["40aa", "7f"]), list(ca, ["01"], { by: ca.root }))), { issuers, nowMs: NOON_MS });
    expect(read).toMatchObject({ ok: true, value: { warnings: [] } });
    if (!read.ok) return;
    expect(read.value.serialsByIssuer.get(ca.intermediate.certificate.subjectDerHex)).toEqual(new Set(["40aa", "7f"]));
    expect(read.value.serialsByIssuer.get(ca.root.certificate.subjectDerHex)).toEqual(new Set(["01"]));
    const der = readRevocations(list(ca, ["80"]), { issuers, nowMs: NOON_MS });
    expect(der.ok && der.value.serialsByIssuer.get(ca.intermediate.certificate.subjectDerHex)).toEqual(new Set(["80"]));
  });

  test("an expired list is used, with a warning", () => {
    const read = readRevocations(list(ca, ["40aa"]), { issuers, nowMs: NOON_MS + 2 * DAY_MS });
    expect(read.ok && read.value.serialsByIssuer.size).toBe(1);
    expect(read.ok && read.value.warnings[0]).toContain("should have been replaced by");
  });

  test("a forged list fails the whole file; one from an unknown issuer is left out and named", () => {
    const stranger = testCa({ nowMs: NOON_MS - DAY_MS });
    const forged = list(ca, ["40aa"], { by: { ...ca.intermediate, key: stranger.intermediate.key } });
    expect(readRevocations(bytes(pem(list(ca, ["7f"]), forged)), { issuers, nowMs: NOON_MS }).ok).toBe(false);
    const other = readRevocations(bytes(pem(list(ca, ["7f"]))), { issuers: [ca.root.certificate], nowMs: NOON_MS });
    expect(other.ok && [other.value.serialsByIssuer.size, other.value.warnings.length]).toEqual([0, 1]);
  });

  test("an issuer's certificate in the file counts when it leads to a root we know, and only then", () => {
    const text = pem(list(ca, ["7f"])) + ca.intermediate.chainPem.join("");
    const known = readRevocations(bytes(text), { issuers: [ca.root.certificate], nowMs: NOON_MS });
    expect(known.ok && known.value.serialsByIssuer.size).toBe(1);
    const unknown = readRevocations(bytes(text), { issuers: [testCa({ nowMs: NOON_MS - DAY_MS }).root.certificate], nowMs: NOON_MS });
    expect(unknown.ok && unknown.value.serialsByIssuer.size).toBe(0);
  });

  test("refuses broken files whole: bytes after the list, another block, no list, nothing", () => {
    const good = list(ca, ["7f"]);
    for (const file of [new Uint8Array([...good, 0]), good.subarray(0, good.length - 1), bytes(pem(good) + writePem("PRIVATE KEY", good)), bytes("hello"), new Uint8Array(0), bytes(pem(good).replace("-----END", "!\n-----END"))]) {
      expect(readRevocations(file, { issuers, nowMs: NOON_MS }).ok).toBe(false);
    }
  });

  test("@peculiar/x509 reads ours and verifies it", async () => {
    const theirs = new x509.X509Crl(list(ca, ["40aa", "7f"]));
    expect(theirs.entries.map((entry) => entry.serialNumber)).toEqual(["40aa", "7f"]);
    expect(await theirs.verify({ publicKey: new x509.X509Certificate(ca.intermediate.chainPem[0]!).publicKey })).toBe(true);
  });

  testUnless(needsProgram("openssl"))("openssl reads ours, and its own reads here", () => {
    const folder = mkdtempSync(join(tmpdir(), "weft-crl-"));
    const run = (...cmd: string[]): string => {
      const child = Bun.spawnSync({ cmd: ["openssl", ...cmd], cwd: folder });
      if (!child.success) throw new Error(child.stderr.toString());
      return child.stdout.toString() + child.stderr.toString();
    };
    try {
      writeFileSync(join(folder, "ours.pem"), pem(list(ca, ["40aa"])));
      writeFileSync(join(folder, "intermediate.pem"), ca.intermediate.chainPem[0]!);
      expect(run("crl", "-in", "ours.pem", "-noout", "-text", "-CAfile", "intermediate.pem")).toContain("40AA");
      expect(run("crl", "-in", "ours.pem", "-noout", "-verify", "-CAfile", "intermediate.pem")).toContain("verify OK");
      writeFileSync(join(folder, "key.pem"), ca.intermediate.key.export({ type: "pkcs8", format: "pem" }));
      writeFileSync(join(folder, "index.txt"), "R\t330101000000Z\t310101000000Z,keyCompromise\t4ABC\tunknown\t/CN=x\n");
      writeFileSync(join(folder, "ca.cnf"), "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ndefault_md=sha256\ndefault_crl_days=3650\n");
      run("ca", "-config", "ca.cnf", "-gencrl", "-cert", "intermediate.pem", "-keyfile", "key.pem", "-out", "theirs.pem");
      run("crl", "-in", "theirs.pem", "-outform", "DER", "-out", "theirs.der");
      const read = readRevocationList(new Uint8Array(readFileSync(join(folder, "theirs.der"))));
      expect(read).toMatchObject({ ok: true, value: { issuerDerHex: ca.intermediate.certificate.subjectDerHex, serials: new Set(["4abc"]) } });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("100 000 entries cost less than two seconds", () => {
    const serials = Array.from({ length: 100_000 }, (_, i) => (0x40000000 + i).toString(16).padStart(32, "4"));
    const der = list(ca, serials);
    expect(processorMs(() => {
      const read = readRevocations(der, { issuers, nowMs: NOON_MS });
      expect(read.ok && [...read.value.serialsByIssuer.values()][0]?.size).toBe(100_000);
    })).toBeLessThan(2000);
  }, 60_000);
});

describe("the watched file", () => {
  let folder = "";
  let path = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "weft-crl-"));
    path = join(folder, "crl.pem");
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  /** Timers that run when told to. */
  function handTimers(): Timers & { readonly delays: number[]; fire(): void; scheduled(): Promise<void> } {
    let run: (() => void) | null = null;
    let wake = (): void => {};
    const delays: number[] = [];
    return {
      delays,
      after(delayMs, action) {
        delays.push(delayMs);
        run = action;
        wake();
        return () => (run = null);
      },
      fire: () => {
        const action = run;
        run = null;
        action?.();
      },
      scheduled: () => (run !== null ? Promise.resolve() : new Promise<void>((resolve) => (wake = resolve))),
    };
  }

  test("is read at start and again after a change, once, two seconds later; a broken change or its disappearance takes nothing back", async () => {
    const timers = handTimers();
    const seen: SerialsByIssuer[] = [];
    const warnings: string[] = [];
    const serialsNow = (): string => [...(seen.at(-1)?.get(ca.intermediate.certificate.subjectDerHex) ?? [])].join();
    const watch = new CrlWatch({ path, issuers: () => issuers, wallMs: () => NOON_MS + HOUR_MS, timers, onRevoked: (serials) => seen.push(serials), onWarning: (_code, message) => warnings.push(message) });
    expect([seen.length, warnings.length]).toEqual([0, 1]);
    writeFileSync(join(folder, "new"), pem(list(ca, ["7f"])));
    renameSync(join(folder, "new"), path);
    await timers.scheduled();
    expect(timers.delays).toEqual([CRL_DEBOUNCE_MS]);
    timers.fire();
    expect(serialsNow()).toBe("7f");
    writeFileSync(path, "half a fi");
    await timers.scheduled();
    timers.fire();
    expect([serialsNow(), warnings.length]).toEqual(["7f", 2]);
    rmSync(path);
    await timers.scheduled();
    timers.fire();
    expect([serialsNow(), seen.length]).toEqual(["7f", 1]);
    writeFileSync(path, pem(list(ca, ["7f", "40aa"])));
    await timers.scheduled();
    timers.fire();
    expect(serialsNow()).toBe("7f,40aa");
    watch.close();
  });
});

test("a serial in a list is spelled as in a certificate", () => {
  const issued = ca.authority.sign({ csr: createRequest(WEB).csrPem, mayHave: () => true, caller: "test", lifetimeMs: null }, NOON_MS);
  if (!issued.ok) throw new Error(issued.error.message);
  const read = readRevocationList(list(ca, [issued.value.serialHex]));
  expect(read.ok && read.value.serials.has(issued.value.serialHex)).toBe(true);
});

test("the issuers a node knows are the intermediates and roots of its own certificates, each once", () => {
  const svid = { certificateChainPem: ca.intermediate.chainPem[0]!, trustBundlePem: ca.rootPem };
  const leafAndIssuer = { certificateChainPem: ca.rootPem + ca.intermediate.chainPem[0]!, trustBundlePem: ca.rootPem };
  expect(knownIssuers([svid, leafAndIssuer]).map((one) => one.serialHex).sort()).toEqual(issuers.map((one) => one.serialHex).sort());
});
