// Certificates and their keys on disk, so that a restart carries traffic with the CA away. One file for each identity, named by a hash
// of it; checked like a fresh answer of the CA when read back. What does not pass is ignored and reported, never repaired.

import { createHash } from "node:crypto";
import { z } from "zod";
import { err, ok, type Result } from "../core/result.ts";
import { parseSpiffeId, type SpiffeId } from "../core/spiffe.ts";
import { assembleSvid } from "./chain.ts";
import { openPrivateDirectory, type PrivateDirectory } from "./private-directory.ts";
import type { SvidStore } from "./svid-cache.ts";
import type { Svid } from "./svid.ts";

const FILE_NAME = /^[0-9a-f]{64}\.json$/;

const SvidFile = z.strictObject({
  version: z.literal(1),
  spiffeId: z.string(),
  certificateChainPem: z.string(),
  privateKeyPem: z.string(),
  trustBundlePem: z.string(),
});

export interface StoredSvids {
  readonly svids: readonly Svid[];
  /** Files that were passed over, and why. */
  readonly ignored: readonly string[];
}

/** @param path `<state>/svids`; made when missing. */
export function openSvidStore(path: string): Result<DiskSvidStore, string> {
  const directory = openPrivateDirectory(path);
  return directory.ok ? ok(new DiskSvidStore(directory.value)) : directory;
}

export class DiskSvidStore implements SvidStore {
  readonly #directory: PrivateDirectory;

  constructor(directory: PrivateDirectory) {
    this.#directory = directory;
  }

  /** Everything that is valid at `nowMs`; files of expired certificates are removed. */
  load(nowMs: number): StoredSvids {
    const svids: Svid[] = [];
    const ignored: string[] = [];
    for (const name of this.#directory.list()) {
      const svid = FILE_NAME.test(name) ? this.#loadOne(name, nowMs) : err("not a file of ours");
      if (svid.ok) svids.push(svid.value);
      else ignored.push(`${this.#directory.path}/${name}: ${svid.error}`);
    }
    return { svids, ignored };
  }

  save(svid: Svid): void {
    const { spiffeId, certificateChainPem, privateKeyPem, trustBundlePem } = svid;
    this.#directory.write(fileName(spiffeId), `${JSON.stringify({ version: 1, spiffeId, certificateChainPem, privateKeyPem, trustBundlePem }, null, 1)}\n`);
  }

  remove(spiffeId: SpiffeId): void {
    this.#directory.remove(fileName(spiffeId));
  }

  #loadOne(name: string, nowMs: number): Result<Svid, string> {
    try {
      const parsed = SvidFile.safeParse(JSON.parse(this.#directory.read(name) ?? ""));
      if (!parsed.success) return err(z.prettifyError(parsed.error));
      const id = parseSpiffeId(parsed.data.spiffeId);
      if (id === null || fileName(id.id) !== name) return err("its name does not belong to the identity inside");
      return assembleSvid({ ...parsed.data, spiffeId: id.id, chainPem: parsed.data.certificateChainPem, nowMs });
    } catch (cause) {
      return err(cause instanceof Error ? cause.message : String(cause));
    }
  }
}

function fileName(spiffeId: SpiffeId): string {
  return `${createHash("sha256").update(spiffeId).digest("hex")}.json`;
}
