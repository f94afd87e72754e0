// The record of issued certificates, for audit and to find what to revoke: one JSON object a line, appended before the certificate is
// handed out. Bounded: at ISSUANCE_LOG_BYTES_MAX the file becomes `issued.1.jsonl` and the older one goes.

import { closeSync, constants, fstatSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import type { PrivateDirectory } from "../identity/private-directory.ts";
import type { IssuedCertificate } from "./authority.ts";

/** Some 20 000 certificates each in the present and the previous file. */
export const ISSUANCE_LOG_BYTES_MAX = 8 * 1024 * 1024;
const PRESENT = "issued.jsonl";
const PREVIOUS = "issued.1.jsonl";

const Line = z.object({
  serial: z.string(),
  issuer: z.string(),
  identity: z.string(),
  caller: z.string(),
  issuedAt: z.string(),
  notAfter: z.string(),
});

export interface IssuanceRecord {
  readonly serialHex: string;
  /** DER name of the issuer, hex. */
  readonly issuerDerHex: string;
  readonly identity: string;
  readonly caller: string;
  readonly notAfterMs: number;
}

export class IssuanceLog {
  readonly #directory: string;
  readonly #bytesMax: number;
  #fd: number;
  #bytes: number;

  constructor(directory: PrivateDirectory, bytesMax = ISSUANCE_LOG_BYTES_MAX) {
    this.#directory = directory.path;
    this.#bytesMax = bytesMax;
    this.#fd = this.#open();
    this.#bytes = fstatSync(this.#fd).size;
  }

  /** Throws when the line cannot be written: then the certificate may not be handed out. */
  append(issued: IssuedCertificate, caller: string, nowMs: number): void {
    const line = `${JSON.stringify({
      serial: issued.serialHex,
      issuer: issued.issuerDerHex,
      identity: issued.spiffeId,
      caller,
      issuedAt: new Date(nowMs).toISOString(),
      notAfter: new Date(issued.notAfterMs).toISOString(),
    })}\n`;
    if (this.#bytes + line.length > this.#bytesMax) this.#rotate();
    const bytes = new TextEncoder().encode(line);
    for (let at = 0; at < bytes.length;) at += writeSync(this.#fd, bytes, at);
    this.#bytes += bytes.length;
  }

  /** Every record that `wanted` accepts, oldest first. Reads both files: for an operator's command, not for traffic. */
  find(wanted: (record: IssuanceRecord) => boolean): IssuanceRecord[] {
    const found: IssuanceRecord[] = [];
    for (const name of [PREVIOUS, PRESENT]) {
      for (const line of readLines(join(this.#directory, name))) {
        const parsed = Line.safeParse(line);
        if (!parsed.success) continue; // A line cut short by a crash.
        const { serial, issuer, identity, caller, notAfter } = parsed.data;
        const record = { serialHex: serial, issuerDerHex: issuer, identity, caller, notAfterMs: Date.parse(notAfter) };
        if (wanted(record)) found.push(record);
      }
    }
    return found;
  }

  close(): void {
    closeSync(this.#fd);
  }

  #open(): number {
    return openSync(join(this.#directory, PRESENT), constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  }

  #rotate(): void {
    closeSync(this.#fd);
    renameSync(join(this.#directory, PRESENT), join(this.#directory, PREVIOUS));
    this.#fd = this.#open();
    this.#bytes = 0;
  }
}

function* readLines(path: string): Generator<unknown> {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return;
    throw cause;
  }
  for (const line of text.split("\n")) {
    try {
      if (line !== "") yield JSON.parse(line);
    } catch {
      continue; // Cut short by a crash.
    }
  }
}
