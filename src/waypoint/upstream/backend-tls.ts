// TLS towards the servers of one cluster: what is shown to them, what they have to show, and which version of HTTP is agreed on.

import type { BackendTls, CertificateName } from "../../mesh/l7/traffic-policy.ts";
import { type BackendHandshake, type BackendTlsMaterial, createBackendTlsContext, presentedNames, type TlsContext } from "../../net/tls.ts";
import { nameMismatch } from "../../policy/upstream/certificate-names.ts";

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

  /** @param host of the service: asked for where nothing else is said. Throws on material that does not parse. */
  constructor(tls: Originated, host: string, contexts: BackendTlsContexts) {
    this.#context = contexts.of(tls);
    this.#sni = tls.sni ?? host;
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
    const names = presentedNames(chainDer[0]!);
    if (names === null) return "its certificate cannot be read";
    return nameMismatch(names, wanted);
  }
}
