// Certificate requests at the CA: mutated from real ones, as DER and as PEM.
//   - nothing throws
//   - a certificate is issued only when the signed part is, byte for byte, one that the holder of the key has signed
//   - what is issued carries the key of the request, the one identity, and lives within the CA's limits

import { seededRandom } from "../../src/core/ports.ts";
import type { Authority } from "../../src/ca/authority.ts";
import { readCertificate } from "../../src/wire/x509/certificate.ts";
import { sameBytes } from "../../src/wire/x509/der.ts";
import { readSinglePem, writePem } from "../../src/wire/x509/pem.ts";
import { readRequest } from "../../src/wire/x509/request.ts";
import { DAY_MS, testCa, WEB } from "../kit/certificates.ts";
import { CORPUS_MS, REQUESTS } from "./corpus-x509.ts";
import { below } from "./choices.ts";
import { mutate, pick, reencode } from "./mutate-der.ts";

export const name = "csr";

const requests = Object.values(REQUESTS);
const signedParts = requests.map((der) => {
  const read = readRequest(der);
  if (!read.ok) throw new Error(read.error.message);
  return read.value;
});
let authority: Authority | null = null;

export function run(options: { readonly seed: number; readonly iterations: number }): { readonly iterations: number } {
  const random = seededRandom(options.seed);
  authority ??= testCa({ nowMs: CORPUS_MS - DAY_MS }).authority;
  for (let iteration = 0; iteration < options.iterations; iteration++) {
    try {
      const der = iteration % 500 === 0 ? pick(random, requests) : mutate(random, pick(random, requests), requests);
      const lifetimeMs = pick(random, [null, null, 0, -1, 1, DAY_MS, 8 * DAY_MS, 1e300, NaN, Infinity]);
      const input = random.next() < 0.8 ? der : mangle(writePem("CERTIFICATE REQUEST", der), below(random, 5), below(random, 1 << 30));
      check(authority, input, lifetimeMs);
    } catch (cause) {
      throw new Error(`csr: seed ${options.seed}, iteration ${iteration}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
  }
  return { iterations: options.iterations };
}

function mangle(pem: string, how: number, where: number): string {
  const at = where % pem.length;
  switch (how) {
    case 0: return pem;
    case 1: return pem.slice(0, at);
    case 2: return `${pem.slice(0, at)}${String.fromCharCode(where % 256)}${pem.slice(at)}`;
    case 3: return pem.slice(0, at) + pem.slice(at + 1);
    default: return pem + pem.slice(0, at);
  }
}

function check(ca: Authority, input: string | Uint8Array, lifetimeMs: number | null): void {
  const issued = ca.sign({ csr: input, mayHave: () => true, caller: "fuzz", lifetimeMs }, CORPUS_MS);
  if (!issued.ok) {
    if (!/^[a-z_]+$/.test(issued.error.code) || issued.error.message.length > 4096) throw new Error(`a refusal of ${issued.error.message.length} characters`);
    return;
  }
  const der = typeof input === "string" ? readSinglePem(input, "CERTIFICATE REQUEST") : { ok: true as const, value: input };
  if (!der.ok) throw new Error("issued for a text that does not read");
  const request = readRequest(der.value);
  if (!request.ok) throw new Error("issued for a request that does not read");
  const again = reencode(der.value);
  if (again === null || !sameBytes(again, der.value)) throw new Error("issued for a request that is not canonical");
  if (!signedParts.some((part) => sameBytes(part.infoDer, request.value.infoDer))) throw new Error(`issued for a request that nobody signed: ${der.value.toHex()}`);
  const leaf = readSinglePem(issued.value.chainPem[0] ?? "", "CERTIFICATE");
  const fields = readCertificate(leaf.ok ? leaf.value : new Uint8Array(0));
  if (!fields.ok) throw new Error(`the certificate issued does not read: ${fields.error.message}`);
  const { subjectAltNames, publicKey, notAfterMs } = fields.value;
  if (subjectAltNames.uris.join() !== WEB || subjectAltNames.dnsNames.length + subjectAltNames.otherCount > 0) throw new Error(`issued for ${subjectAltNames.uris.join()}`);
  if (!sameBytes(publicKey.spkiDer, request.value.publicKey.spkiDer)) throw new Error("issued for another key");
  if (notAfterMs > Math.min(CORPUS_MS + ca.policy.leafLifetimeMsMax, ca.issuer.certificate.notAfterMs)) throw new Error("issued beyond the CA's limits");
}
