// The encryption of login cookies: AES-256-GCM under a key derived from the policy's by HKDF, a random nonce for each text, the purpose as
// additional data. The first key encrypts, all decrypt, so that keys are rotated by putting a new one in front.

import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from "node:crypto";
import type { LoginCrypto } from "../../policy/http/login-port.ts";
import { COOKIE_KEYS_MAX } from "./limits.ts";

const CIPHER = "aes-256-gcm";
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** Of what is sealed and of the way in which it is: another version opens nothing of this one. */
const VERSION = "weft login cookie 1";
const SECRET_BYTES = 32;

/** @param keys hexadecimal, the first encrypts. An empty list throws: the policy is broken, and is not asked for cookies. */
export function cookieCrypto(keys: readonly string[]): LoginCrypto {
  const derived = keys.slice(0, COOKIE_KEYS_MAX).map((key) => Buffer.from(hkdfSync("sha256", Buffer.from(key, "hex"), "", VERSION, KEY_BYTES)));
  const [first] = derived;
  if (first === undefined) throw new Error("a login policy without cookie keys");
  return {
    seal(text, purpose) {
      const nonce = randomBytes(NONCE_BYTES);
      const cipher = createCipheriv(CIPHER, first, nonce);
      cipher.setAAD(aad(purpose));
      return Buffer.concat([nonce, cipher.update(text, "utf8"), cipher.final(), cipher.getAuthTag()]).toString("base64url");
    },
    open(sealed, purpose) {
      // Buffer skips what is no base64url; one text must not stand for many.
      if (!/^[A-Za-z0-9_-]+$/.test(sealed)) return null;
      const bytes = Buffer.from(sealed, "base64url");
      if (bytes.length <= NONCE_BYTES + TAG_BYTES) return null;
      for (const key of derived) {
        const text = openWith(key, bytes, aad(purpose));
        if (text !== null) return text;
      }
      return null;
    },
    secret: () => randomBytes(SECRET_BYTES).toString("base64url"),
    sha256: (text) => createHash("sha256").update(text).digest("base64url"),
  };
}

function openWith(key: Buffer, bytes: Buffer, additional: Buffer): string | null {
  const decipher = createDecipheriv(CIPHER, key, bytes.subarray(0, NONCE_BYTES), { authTagLength: TAG_BYTES });
  decipher.setAAD(additional);
  decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
  const text = decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES));
  try {
    return Buffer.concat([text, decipher.final()]).toString("utf8");
  } catch {
    return null;
  }
}

const aad = (purpose: string): Buffer => Buffer.from(`${VERSION} ${purpose}`, "utf8");
