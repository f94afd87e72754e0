// Who may ask the CA for which identities: bearer tokens, kept as hashes in a file that is read again when it changes.
//
//   { "tokens": [ { "name": "node-a", "sha256": "<64 hex digits>", "namespaces": ["shop"] },
//                 { "name": "billing", "sha256": "...", "identities": ["spiffe://cluster.local/ns/billing/sa/api"] },
//                 { "name": "node-b", "sha256": "...", "namespaces": "all" } ] }
//
// Tokens are 256 random bits (newToken), so a plain hash cannot be turned back; a chosen password could.

import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats } from "node:fs";
import { z } from "zod";
import { err, ok, type Result } from "../core/result.ts";
import { parseSpiffeId, type SpiffeId } from "../core/spiffe.ts";

/** Projected service-account tokens have some 1.5 KiB; larger headers only serve abuse. */
export const TOKEN_CHARS_MAX = 8192;
/** A token that is shorter could be guessed from its hash. */
const TOKEN_CHARS_MIN = 20;
const TOKENS_MAX = 10_000;
const FILE_BYTES_MAX = 4 * 1024 * 1024;

const Identity = z.string().refine((text) => parseSpiffeId(text) !== null, "wanted spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT");
const TokensFile = z.strictObject({
  tokens: z.array(z.strictObject({
    name: z.string().regex(/^[\x21-\x7e]{1,128}$/, "a name has 1 to 128 printable characters"),
    sha256: z.string().regex(/^[0-9a-f]{64}$/, "wanted the SHA-256 of the token, 64 lower-case hex digits"),
    identities: z.array(Identity).default([]),
    namespaces: z.union([z.literal("all"), z.array(z.string().min(1))]).default([]),
  })).max(TOKENS_MAX),
});

export interface Caller {
  readonly name: string;
  mayHave(id: SpiffeId): boolean;
}

export interface TokenVerifier {
  /** Null for a token that is not known; the error of a promise says why nobody could be asked, which is no refusal. */
  verify(token: string): Caller | null | Promise<Caller | null>;
}

/** Tokens that are known here, without asking anybody. */
export interface KnownTokens extends TokenVerifier {
  verify(token: string): Caller | null;
}

/** A new token, and what to put into the file. */
export function newToken(): { readonly token: string; readonly sha256: string } {
  const token = randomBytes(32).toString("base64url");
  return { token, sha256: hash(token).toString("hex") };
}

interface KnownToken {
  readonly hash: Buffer;
  readonly caller: Caller;
}

/** The tokens of a text, or what is wrong with it. */
export function parseTokens(text: string): Result<KnownTokens, string> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    return err(cause instanceof Error ? cause.message : String(cause));
  }
  const file = TokensFile.safeParse(json);
  if (!file.success) return err(z.prettifyError(file.error));
  const names = new Set<string>();
  const hashes = new Set<string>();
  for (const { name, sha256 } of file.data.tokens) {
    if (names.has(name)) return err(`the name ${name} twice`);
    if (hashes.has(sha256)) return err(`the token of ${name} belongs to another name too`);
    names.add(name);
    hashes.add(sha256);
  }
  const known = file.data.tokens.map((entry): KnownToken => ({ hash: Buffer.from(entry.sha256, "hex"), caller: callerOf(entry) }));
  return ok({ verify: (token) => find(known, token) });
}

/** Compares with every token, whether one has matched or not: the time says nothing of which, or how much of it. */
function find(known: readonly KnownToken[], token: string): Caller | null {
  if (token.length < TOKEN_CHARS_MIN || token.length > TOKEN_CHARS_MAX) return null;
  const presented = hash(token);
  let caller: Caller | null = null;
  for (const entry of known) if (timingSafeEqual(entry.hash, presented)) caller = entry.caller;
  return caller;
}

function callerOf(entry: z.infer<typeof TokensFile>["tokens"][number]): Caller {
  const identities = new Set(entry.identities);
  const namespaces = entry.namespaces === "all" ? null : new Set(entry.namespaces);
  return {
    name: entry.name,
    mayHave(id) {
      const parts = parseSpiffeId(id);
      return identities.has(id) || (parts !== null && (namespaces === null || namespaces.has(parts.namespace)));
    },
  };
}

const hash = (token: string): Buffer => createHash("sha256").update(token).digest();

/** The tokens of a file, looked at again at each use (one fstat); a broken change is reported once and the last good state stays. */
export class TokenFile implements KnownTokens {
  readonly #path: string;
  readonly #onWarning: (message: string) => void;
  #tokens: KnownTokens;
  #stamp: string;

  private constructor(path: string, read: { tokens: KnownTokens; stamp: string }, onWarning: (message: string) => void) {
    this.#path = path;
    this.#tokens = read.tokens;
    this.#stamp = read.stamp;
    this.#onWarning = onWarning;
  }

  static open(path: string, onWarning: (message: string) => void): Result<TokenFile, string> {
    const read = readTokenFile(path, null);
    return read.ok ? ok(new TokenFile(path, read.value, onWarning)) : err(`token file ${path}: ${read.error}`);
  }

  verify(token: string): Caller | null {
    const read = readTokenFile(this.#path, this.#stamp);
    if (read.ok) {
      this.#tokens = read.value.tokens ?? this.#tokens;
      this.#stamp = read.value.stamp;
    } else if (read.error !== this.#stamp) {
      this.#stamp = read.error; // Never equal to a real stamp: the next good file is read, this complaint is made once.
      this.#onWarning(`token file ${this.#path}: ${read.error}; the tokens read before stay in force`);
    }
    return this.#tokens.verify(token);
  }
}

/** Reads the file unless it still carries `stamp`; then `tokens` is missing. */
function readTokenFile(path: string, stamp: null): Result<{ tokens: KnownTokens; stamp: string }, string>;
function readTokenFile(path: string, stamp: string): Result<{ tokens?: KnownTokens; stamp: string }, string>;
function readTokenFile(path: string, stamp: string | null): Result<{ tokens?: KnownTokens; stamp: string }, string> {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY);
  } catch (cause) {
    return err(cause instanceof Error ? cause.message : String(cause));
  }
  try {
    const stats = fstatSync(fd);
    const found = `${stats.ino} ${stats.mtimeMs} ${stats.ctimeMs} ${stats.size}`;
    if (found === stamp) return ok({ stamp: found });
    const wrong = wrongFile(stats);
    if (wrong !== null) return err(wrong);
    const tokens = parseTokens(readFileSync(fd, "utf8"));
    return tokens.ok ? ok({ tokens: tokens.value, stamp: found }) : tokens;
  } finally {
    closeSync(fd);
  }
}

/** Whoever can write it can name himself anything in the mesh. */
function wrongFile(stats: Stats): string | null {
  if (!stats.isFile()) return "not a file";
  if (stats.size > FILE_BYTES_MAX) return `${stats.size} bytes, at most ${FILE_BYTES_MAX} are read`;
  const uid = process.geteuid?.() ?? stats.uid;
  if (stats.uid !== uid && stats.uid !== 0) return `it belongs to user ${stats.uid}, this process runs as ${uid}: chown ${uid} it`;
  if ((stats.mode & 0o022) !== 0) return `it has mode 0${(stats.mode & 0o777).toString(8)}, others could write it: chmod 600 it`;
  return null;
}
