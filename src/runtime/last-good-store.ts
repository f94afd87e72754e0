// The last good texts on disk, one file per configuration file, so that a restart with broken configuration keeps what was in
// force. Only the owner can read or write it: what is in here is applied without further question.

import { chmod, mkdir, open, readdir, readFile, rename, stat, unlink } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { contentHash } from "../resources/content-hash.ts";
import type { LastGoodFile } from "../resources/resource-set.ts";

const OWNER_ONLY_DIRECTORY = 0o700;
const OWNER_ONLY_FILE = 0o600;
/** Written last, the first time: without it the store is one that was never complete, and says nothing. */
const COMPLETE_MARKER = "complete";
/** A temporary file that is older was left by a crash. */
const LEFTOVER_MS = 60_000;
/** Above this many changed files at once the disk is not waited for; a torn file is noticed on reading. */
const SYNCED_FILES_MAX = 64;

const step = z.union([z.string(), z.int().min(0)]);
const identity = { kind: z.string(), namespace: z.string(), name: z.string() };
const schema = z.strictObject({
  format: z.literal(1),
  path: z.string(),
  documents: z.array(z.strictObject({ text: z.string(), line: z.int().min(1) })),
  resources: z.array(z.strictObject({ ...identity, document: z.int().min(0), path: z.array(step) })),
  denied: z.array(z.strictObject(identity)),
});

export interface RestoredState {
  /** Null when nothing was ever kept here. */
  readonly files: readonly LastGoodFile[] | null;
  /** Files of the store that cannot be used, and why. */
  readonly faults: readonly string[];
}

export class LastGoodStore {
  readonly #directory: string;
  /** What is on disk, by configuration file. */
  #stored = new Map<string, LastGoodFile>();
  #complete = false;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** @param stateDirectory the agent's own; `last-good/` is made in it. Throws when it cannot be made ours alone. */
  static async open(stateDirectory: string): Promise<LastGoodStore> {
    const directory = join(stateDirectory, "last-good");
    await mkdir(directory, { recursive: true, mode: OWNER_ONLY_DIRECTORY });
    await chmod(directory, OWNER_ONLY_DIRECTORY);
    await removeLeftovers(directory);
    return new LastGoodStore(directory);
  }

  async read(): Promise<RestoredState> {
    const names = await readdir(this.#directory);
    this.#complete = names.includes(COMPLETE_MARKER);
    if (!this.#complete) return { files: null, faults: [] };
    const files: LastGoodFile[] = [];
    const faults: string[] = [];
    for (const name of names.filter((entry) => entry.endsWith(".json")).sort()) {
      try {
        const { format: _, ...file } = schema.parse(JSON.parse(await readFile(join(this.#directory, name), "utf8")));
        files.push(file);
        this.#stored.set(file.path, file);
      } catch (cause) {
        faults.push(`${join(this.#directory, name)} is not a last good state and is not used: ${cause instanceof Error ? cause.message.split("\n")[0] : String(cause)}`);
      }
    }
    return { files, faults };
  }

  /** Makes the store hold exactly `files`. What is unchanged is not written. One call at a time. */
  async write(files: readonly LastGoodFile[]): Promise<void> {
    const wanted = new Map(files.map((file) => [file.path, file]));
    const changed = files.filter((file) => this.#stored.get(file.path) !== file);
    for (const file of changed) {
      await this.#replace(`${contentHash(file.path)}.json`, `${JSON.stringify({ format: 1, ...file })}\n`, changed.length <= SYNCED_FILES_MAX);
      this.#stored.set(file.path, file);
    }
    for (const path of this.#stored.keys()) {
      if (wanted.has(path)) continue;
      await unlink(join(this.#directory, `${contentHash(path)}.json`)).catch(ignoreMissing);
      this.#stored.delete(path);
    }
    if (!this.#complete) {
      await this.#replace(COMPLETE_MARKER, "", true);
      this.#complete = true;
    }
  }

  async #replace(name: string, content: string, sync: boolean): Promise<void> {
    const temporary = join(this.#directory, `.${name}.${process.pid}.tmp`);
    const file = await open(temporary, "w", OWNER_ONLY_FILE);
    try {
      await file.writeFile(content);
      if (sync) await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, join(this.#directory, name));
  }
}

/** Half-written files of a process that crashed; a running one renames its own at once. */
async function removeLeftovers(directory: string): Promise<void> {
  for (const name of (await readdir(directory)).filter((entry) => entry.endsWith(".tmp"))) {
    const { mtimeMs } = await stat(join(directory, name)).catch(() => ({ mtimeMs: Infinity }));
    if (Date.now() - mtimeMs > LEFTOVER_MS) await unlink(join(directory, name)).catch(ignoreMissing);
  }
}

function ignoreMissing(cause: unknown): void {
  if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw cause;
}
