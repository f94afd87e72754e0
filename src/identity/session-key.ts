// The secret under which waypoints sign sessions: read from a file that all instances share, or, without one, made at the first start and
// kept. Each Gateway signs with a key of its own that is derived from it (HKDF, RFC 5869), so that none accepts another's sessions.

import { hkdfSync, randomBytes } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import type { NamespacedName } from "../core/brand.ts";
import { err, ok, type Result } from "../core/result.ts";
import { openPrivateDirectory } from "./private-directory.ts";
import { SESSION_KEY_BYTES_MIN } from "./session-signer.ts";

/** Nobody needs a longer secret; a larger file is something else. */
const SECRET_BYTES_MAX = 64 * 1024;
const KEPT_NAME = "secret";

/**
 * @param path of the file with the shared secret; null for one of our own.
 * @param directory where our own is kept, `<state>/session`; made when missing.
 * @returns the secret, or what is wrong with either place and how to mend it.
 */
export function sessionSecret(path: string | null, directory: string): Result<Uint8Array, string> {
  return path === null ? keptSecret(directory) : sharedSecret(path);
}

/** Of one Gateway; SESSION_KEY_BYTES_MIN bytes. */
export function sessionKey(secret: Uint8Array, gateway: NamespacedName): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", secret, new Uint8Array(0), `weft session ${gateway}`, SESSION_KEY_BYTES_MIN));
}

function sharedSecret(path: string): Result<Uint8Array, string> {
  const make = `make one with: openssl rand -hex ${SESSION_KEY_BYTES_MIN}`;
  try {
    const { size } = statSync(path);
    if (size > SECRET_BYTES_MAX) return err(`${path} has ${size} bytes, a session key at most ${SECRET_BYTES_MAX}; ${make}`);
    // White space at its end is what editors and echo leave there.
    const text = readFileSync(path, "latin1").trimEnd();
    if (text.length < SESSION_KEY_BYTES_MIN) return err(`the session key in ${path} has ${text.length} characters, wanted ${SESSION_KEY_BYTES_MIN} at least; ${make}`);
    return ok(Buffer.from(text, "latin1"));
  } catch (cause) {
    return err(`the session key cannot be read: ${cause instanceof Error ? cause.message : String(cause)}; ${make}`);
  }
}

function keptSecret(path: string): Result<Uint8Array, string> {
  const directory = openPrivateDirectory(path);
  if (!directory.ok) return directory;
  try {
    const kept = directory.value.read(KEPT_NAME);
    if (kept !== null && /^[0-9a-f]{64}$/.test(kept)) return ok(Buffer.from(kept, "hex"));
    const made = randomBytes(SESSION_KEY_BYTES_MIN);
    directory.value.write(KEPT_NAME, made.toString("hex"));
    return ok(made);
  } catch (cause) {
    return err(`the session key cannot be kept in ${path}: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}
