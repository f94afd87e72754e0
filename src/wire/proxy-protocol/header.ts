// What a PROXY header of either version says, and the outcomes of reading one.

import type { SocketAddress } from "../../core/ip.ts";
import type { SpiffeId } from "../../core/spiffe.ts";

export type ProxyHeader =
  /** The proxy speaks for itself (a health check): the connection's own ends count. */
  | { readonly kind: "local" }
  /** The proxy does not know the ends: the connection's own ends count. */
  | { readonly kind: "unknown" }
  | {
      readonly kind: "proxied";
      readonly source: SocketAddress;
      readonly destination: SocketAddress;
      /** From TLV 0xD0. Worth as much as the sender of the header is trusted. */
      readonly sourceIdentity: SpiffeId | null;
    };

export type ProxyDecoding =
  /** At least `bytes` more are missing. */
  | { readonly kind: "need"; readonly bytes: number }
  /** `rest` is a view of what follows the header. */
  | { readonly kind: "header"; readonly header: ProxyHeader; readonly rest: Uint8Array }
  | { readonly kind: "malformed"; readonly reason: string };

export const need = (bytes: number): ProxyDecoding => ({ kind: "need", bytes });
export const malformed = (reason: string): ProxyDecoding => ({ kind: "malformed", reason });
