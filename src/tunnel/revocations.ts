// Revoked certificates: the check made at every handshake and, when the list changes, for every live tunnel.

/** What the judgement of a peer's chain leaves behind for each certificate of it. */
export interface ChainLink {
  readonly issuerDerHex: string;
  readonly serialHex: string;
}

export class Revocations {
  #serialsByIssuer: ReadonlyMap<string, ReadonlySet<string>> = new Map();

  replace(serialsByIssuer: ReadonlyMap<string, ReadonlySet<string>>): void {
    this.#serialsByIssuer = serialsByIssuer;
  }

  /** A sentence naming the revoked certificate, or null when none of the chain is revoked. */
  find(chain: readonly ChainLink[]): string | null {
    if (this.#serialsByIssuer.size === 0) return null;
    for (const link of chain) {
      if (this.#serialsByIssuer.get(link.issuerDerHex)?.has(link.serialHex)) return `certificate with serial ${link.serialHex} is revoked by its issuer`;
    }
    return null;
  }
}
