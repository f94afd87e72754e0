// TLS towards the servers of one cluster: what is shown to them, what they have to show, and which version of HTTP is agreed on.

import { readCertificates } from "../../identity/chain.ts";
import { readRevocations } from "../../identity/crl.ts";
import type { BackendTls, CertificateName } from "../../mesh/l7/traffic-policy.ts";
import { type BackendHandshake, type BackendTlsMaterial, createBackendTlsContext, presentedNames, type TlsContext } from "../../net/tls.ts";
import { nameMismatch } from "../../policy/upstream/certificate-names.ts";
import { Revocations } from "../../tunnel/revocations.ts";
import { type CertificateFields, readCertificate } from "../../wire/x509/certificate.ts";

type Originated = Extract<BackendTls, { mode: "simple" | "mutual" }>;

/** Contexts by their material, made once for all clusters of a thread: the system's roots alone take milliseconds and a megabyte. */
export class BackendTlsContexts {
  readonly #contexts = new Map<string, WeakRef<TlsContext>>();

  /** Throws on material that does not parse. */
  of(material: BackendTlsMaterial): TlsContext {
    const key = JSON.stringify([material.caPem, material.certificate]);
    const known = this.#contexts.get(key)?.deref();
    if (known !== undefined) return known;
    for (const [other, context] of this.#contexts) if (context.deref() === undefined) this.#contexts.delete(other);
    const made = createBackendTlsContext(material);
    this.#contexts.set(key, new WeakRef(made));
    return made;
  }
}

export class BackendOrigin {
  readonly #context: TlsContext;
  readonly #sni: string;
  /** Null: not looked at. */
  readonly #wanted: readonly CertificateName[] | null;
  /** Null: none is looked for. */
  readonly #revocations: Revocations | null;

  /**
   * @param host of the service: asked for where nothing else is said.
   * @param wallMs for lists that should have been replaced by then, which are used all the same
   * Throws on material that does not parse, and on a list that no authority of `caPem` has signed.
   */
  constructor(tls: Originated, host: string, contexts: BackendTlsContexts, wallMs: number) {
    this.#context = contexts.of(tls);
    this.#sni = tls.sni ?? host;
    this.#revocations = tls.crlPem === null || tls.caPem === null ? null : revocationsOf(tls.crlPem, tls.caPem, wallMs);
    const names = tls.subjectAltNames;
    this.#wanted = !tls.verify ? null : names.length > 0 ? names : [{ type: "any", value: this.#sni }];
  }

  handshake(alpn: readonly string[]): BackendHandshake {
    return { context: this.#context, sni: this.#sni, alpn };
  }

  /** Null when the server is the one that was meant. */
  judge(chainDer: readonly Uint8Array[], chainError: string | null): string | null {
    const wanted = this.#wanted;
    if (wanted === null) return null;
    if (chainError !== null) return `its certificate does not verify: ${chainError}`;
    const revoked = this.#revocations === null ? null : revokedOf(chainDer, this.#revocations);
    if (revoked !== null) return revoked;
    const names = presentedNames(chainDer[0]!);
    if (names === null) return "its certificate cannot be read";
    return nameMismatch(names, wanted);
  }
}

function revocationsOf(crlPem: string, caPem: string, nowMs: number): Revocations {
  const issuers = readCertificates(caPem);
  if (!issuers.ok) throw new Error(`ca.crt: ${issuers.error}`);
  const read = readRevocations(new TextEncoder().encode(crlPem), { issuers: issuers.value, nowMs });
  if (!read.ok) throw new Error(`ca.crl: ${read.error}`);
  if (read.value.serialsByIssuer.size === 0) throw new Error(`ca.crl: ${read.value.warnings.join("; ")}`);
  const revocations = new Revocations();
  revocations.replace(read.value.serialsByIssuer);
  return revocations;
}

/** Of the whole chain: an authority between that was revoked speaks for nobody. */
function revokedOf(chainDer: readonly Uint8Array[], revocations: Revocations): string | null {
  const chain: CertificateFields[] = [];
  for (const der of chainDer) {
    const read = readCertificate(der);
    if (!read.ok) return `a certificate of its chain cannot be read: ${read.error.message}`;
    chain.push(read.value);
  }
  return revocations.find(chain);
}
