import { expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DAY_MS, NOON_MS, TEST_DOMAIN, WEB } from "../../test/kit/certificates.ts";
import type { Clock } from "../core/ports.ts";
import { spiffeId } from "../core/spiffe.ts";
import { knownIssuers, readRevocations } from "../identity/crl.ts";
import { createRequest } from "../identity/csr.ts";
import { type CertificateAuthorityOptions, openCertificateAuthority } from "./certificate-authority.ts";

test("the CA of one machine: issues in process, records, revokes into the file that the data plane reads, and keeps itself up", async () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-one-ca-"));
  let nowMs = NOON_MS;
  let upkeep = (): void => {};
  const notices: string[] = [];
  let changes = 0;
  const clock: Clock = { wallMs: () => nowMs, monotonicMs: () => nowMs };
  const options: CertificateAuthorityOptions = {
    directory: join(folder, "ca"), trustDomain: TEST_DOMAIN, plugIn: null, clock, onNotice: (notice) => notices.push(notice), onChange: () => changes++,
    timers: { after: (_delayMs, run) => ((upkeep = run), () => {}) },
  };
  const opened = openCertificateAuthority(options);
  if (!opened.ok) throw new Error(opened.error.message);
  const ca = opened.value;
  const source = ca.source((id) => id === WEB);
  const issued = await source.issue({ spiffeId: WEB, csrPem: createRequest(WEB).csrPem, lifetimeMs: 30 * DAY_MS, signal: new AbortController().signal });
  if (!issued.ok) throw new Error(issued.error.message);
  const other = spiffeId(TEST_DOMAIN, "admin", "root");
  const denied = await source.issue({ spiffeId: other, csrPem: createRequest(other).csrPem, lifetimeMs: DAY_MS, signal: new AbortController().signal });
  expect(denied.ok ? "issued" : denied.error.code).toBe("refused");
  expect(await source.issue({ spiffeId: WEB, csrPem: "", lifetimeMs: DAY_MS, signal: AbortSignal.abort() })).toMatchObject({ ok: false, error: { code: "aborted" } });

  const issuers = knownIssuers([{ certificateChainPem: issued.value.chainPem.join(""), trustBundlePem: issued.value.trustBundlePem }]);
  const revokedNow = (): number => {
    const read = readRevocations(readFileSync(ca.crlPath), { issuers, nowMs });
    if (!read.ok) throw new Error(read.error);
    return [...read.value.serialsByIssuer.values()].reduce((sum, serials) => sum + serials.size, 0);
  };
  expect(revokedNow()).toBe(0);
  expect(ca.revocations.revokeIdentity(WEB, nowMs)).toEqual({ ok: true, value: 1 });
  expect(revokedNow()).toBe(1);

  nowMs += 300 * DAY_MS;
  upkeep();
  expect([notices, changes]).toEqual([["a new intermediate signs"], 1]);
  expect(revokedNow()).toBe(0);
  expect(readFileSync(ca.rootPath, "utf8")).toBe(issued.value.trustBundlePem);
  ca.destroy();

  writeFileSync(join(folder, "ca/revoked.json"), "{");
  const broken = openCertificateAuthority(options);
  expect(broken.ok ? "opened" : broken.error.code).toBe("ca_state");
  rmSync(folder, { recursive: true });
});
