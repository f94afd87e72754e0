// PEM (RFC 7468, strict form). Text around blocks is the operator's notes; a broken block is an error, never skipped.

import { err, ok, type Result } from "../../core/result.ts";
import type { X509Fault } from "./der.ts";

export interface PemBlock {
  readonly label: string;
  readonly der: Uint8Array;
}

/** A trust bundle of some hundred roots fits; more only serves abuse. */
export const PEM_CHARS_MAX = 1024 * 1024;

const BEGIN = /^-----BEGIN ([A-Z0-9][A-Z0-9 ]{0,63})-----[ \t]*$/;

/** All blocks in order. An unfinished block, nested BEGIN or bad base64 fails the whole. */
export function readPem(text: string, charsMax = PEM_CHARS_MAX): Result<PemBlock[], X509Fault> {
  if (text.length > charsMax) return err({ code: "too_large", message: `PEM text of ${text.length} characters, at most ${charsMax}` });
  const blocks: PemBlock[] = [];
  let label: string | null = null;
  let body: string[] = [];
  let lineNumber = 0;
  for (const line of text.split(/\r?\n/)) {
    lineNumber++;
    const begin = BEGIN.exec(line);
    if (label === null) {
      if (begin !== null) label = begin[1]!;
      else if (line.includes("-----BEGIN") || line.includes("-----END")) return malformed(lineNumber, "a marker that is not a line of its own");
      continue;
    }
    if (begin !== null) return malformed(lineNumber, `BEGIN inside the block ${label}`);
    if (line.trimEnd() === `-----END ${label}-----`) {
      const der = decodeBase64(body.join(""));
      if (der === null) return malformed(lineNumber, `block ${label} is not base64`);
      blocks.push({ label, der });
      label = null;
      body = [];
    } else {
      body.push(line.trim());
    }
  }
  return label === null ? ok(blocks) : malformed(lineNumber, `block ${label} has no END`);
}

/** Exactly one block of `label`, with nothing but white space around it. */
export function readSinglePem(text: string, label: string): Result<Uint8Array, X509Fault> {
  const blocks = readPem(text);
  if (!blocks.ok) return blocks;
  const [block, ...rest] = blocks.value;
  if (block === undefined || rest.length > 0 || block.label !== label) {
    return err({ code: "malformed", message: `wanted one PEM block ${label}, found ${blocks.value.map((b) => b.label).join(", ") || "none"}` });
  }
  const outside = text.replace(/-----BEGIN [^]*-----END [A-Z0-9 ]+-----/, "");
  return outside.trim() === "" ? ok(block.der) : err({ code: "malformed", message: `text outside the PEM block ${label}` });
}

/** 64 characters a line, ends with a newline. */
export function writePem(label: string, der: Uint8Array): string {
  const lines = der.toBase64().match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.map((line) => `${line}\n`).join("")}-----END ${label}-----\n`;
}

function decodeBase64(text: string): Uint8Array | null {
  if (text === "" || text.length % 4 !== 0) return null;
  try {
    return Uint8Array.fromBase64(text, { lastChunkHandling: "strict" });
  } catch (cause) {
    if (cause instanceof SyntaxError) return null;
    throw cause;
  }
}

function malformed(lineNumber: number, what: string): Result<never, X509Fault> {
  return err({ code: "malformed", message: `PEM line ${lineNumber}: ${what}` });
}
