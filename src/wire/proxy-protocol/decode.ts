// A PROXY header of whichever version comes: they differ in the first byte.

import { need, type ProxyDecoding } from "./header.ts";
import { decodeProxyV1 } from "./v1.ts";
import { decodeProxyV2 } from "./v2.ts";

/** Splits one PROXY header of version 1 or 2 off the front of `bytes`. A connection without one is `malformed`. */
export function decodeProxyHeader(bytes: Uint8Array): ProxyDecoding {
  if (bytes.length === 0) return need(1);
  return bytes[0] === 0x50 ? decodeProxyV1(bytes) : decodeProxyV2(bytes);
}
