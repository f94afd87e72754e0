// The key under which waypoints sign session texts: an HMAC, shared by all instances of one waypoint.

import { createHmac } from "node:crypto";
import type { SessionSigner } from "../policy/http/session.ts";

/** As long as the hash: a shorter key would be the weakest part. */
export const SESSION_KEY_BYTES_MIN = 32;

/** @param key kept. A shorter one than SESSION_KEY_BYTES_MIN throws: the caller makes or checks keys. */
export function hmacSigner(key: Uint8Array): SessionSigner {
  if (key.length < SESSION_KEY_BYTES_MIN) throw new Error(`a session key has ${SESSION_KEY_BYTES_MIN} bytes or more, got ${key.length}`);
  return { sign: (text) => createHmac("sha256", key).update(text).digest("base64url") };
}
