// The CA as a certificate source of the node in the same process (`weft up`): no socket, no token. The node may have any identity of
// the trust domain that the caller allows.

import type { Clock } from "../core/ports.ts";
import { RETRY_NEVER, type Retry } from "../core/fault.ts";
import { err, ok, type Result } from "../core/result.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { CertificateSource, IssuedChain, IssueFault, IssueRequest } from "../identity/certificate-source.ts";
import type { Authority, IssuedCertificate } from "./authority.ts";

export interface InProcessSourceOptions {
  readonly authority: Authority;
  readonly clock: Clock;
  /** Which identities this node may have: those of its own workloads. */
  readonly mayHave: (id: SpiffeId) => boolean;
  /** Called before the certificate is handed out: the record of issued certificates. May throw; then nothing is handed out. */
  readonly record: (issued: IssuedCertificate, caller: string) => void;
}

const RETRY_LATER: Retry = { kind: "after", afterMs: 1000 };

export class InProcessSource implements CertificateSource {
  readonly #options: InProcessSourceOptions;

  constructor(options: InProcessSourceOptions) {
    this.#options = options;
  }

  async issue(request: IssueRequest): Promise<Result<IssuedChain, IssueFault>> {
    const { authority, clock, mayHave, record } = this.#options;
    if (request.signal.aborted) return err({ code: "aborted", message: `certificate for ${request.spiffeId}: nobody waits for it any more`, blame: "us", dies: "nothing", retry: RETRY_NEVER });
    const nowMs = clock.wallMs();
    // Same process, same owner: what the CA can give at most is known, so it is asked for no more.
    const lifetimeMs = Math.min(request.lifetimeMs, authority.lifetimeMsMax(nowMs));
    const issued = authority.sign({ csr: request.csrPem, mayHave, caller: "this node", lifetimeMs: lifetimeMs > 0 ? lifetimeMs : null }, nowMs);
    if (!issued.ok) {
      return err({ code: "refused", message: `the CA refused a certificate for ${request.spiffeId}: ${issued.error.message} (${issued.error.code})`, blame: issued.error.blame, dies: "nothing", retry: RETRY_LATER });
    }
    record(issued.value, "this node");
    return ok({ chainPem: issued.value.chainPem, trustBundlePem: issued.value.trustBundlePem });
  }
}
