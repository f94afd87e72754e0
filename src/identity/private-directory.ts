// A directory that only its owner can read, for private keys. Checked at every open, written atomically: a reader sees the old file or
// the new one, after a crash too. Refuses symbolic links, foreign owners and loose modes, and says what to do about it.

import { closeSync, constants, fchmodSync, fsyncSync, fstatSync, lstatSync, mkdirSync, openSync, readdirSync, readFileSync, renameSync, rmSync, type Stats, writeSync } from "node:fs";
import { join } from "node:path";
import { err, ok, type Result } from "../core/result.ts";

/** Nothing we keep is larger; a file that is was not written by us. */
const FILE_BYTES_MAX = 16 * 1024 * 1024;
const TEMPORARY_PREFIX = ".new-";

export interface PrivateDirectory {
  readonly path: string;
  /** Null when there is no such file; throws when it is there and cannot be trusted or read. */
  read(name: string): string | null;
  write(name: string, text: string | Uint8Array): void;
  remove(name: string): void;
  list(): string[];
}

/** Opens or makes the directory. The error says what is wrong and the command that mends it. */
export function openPrivateDirectory(path: string): Result<PrivateDirectory, string> {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const wrong = wrongOwnership(lstatSync(path), path, "directory");
    if (wrong !== null) return err(wrong);
    for (const name of readdirSync(path)) if (name.startsWith(TEMPORARY_PREFIX)) rmSync(join(path, name), { force: true });
    return ok(new CheckedDirectory(path));
  } catch (cause) {
    return err(`cannot use the directory ${path}: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}

class CheckedDirectory implements PrivateDirectory {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  read(name: string): string | null {
    const path = join(this.path, name);
    let fd: number;
    try {
      fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    } catch (cause) {
      if (hasCode(cause, "ENOENT")) return null;
      throw cause;
    }
    try {
      const stats = fstatSync(fd);
      const wrong = wrongOwnership(stats, path, "file");
      if (wrong !== null) throw new Error(wrong);
      if (stats.size > FILE_BYTES_MAX) throw new Error(`${path} has ${stats.size} bytes, at most ${FILE_BYTES_MAX} are read`);
      return readFileSync(fd, "utf8");
    } finally {
      closeSync(fd);
    }
  }

  write(name: string, content: string | Uint8Array): void {
    const path = join(this.path, name);
    const temporary = join(this.path, `${TEMPORARY_PREFIX}${process.pid}-${name}`);
    rmSync(temporary, { force: true });
    const fd = openSync(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600);
    try {
      fchmodSync(fd, 0o600);
      const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
      for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
      fsyncSync(fd);
    } catch (cause) {
      rmSync(temporary, { force: true });
      throw cause;
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, path);
    syncDirectory(this.path);
  }

  remove(name: string): void {
    rmSync(join(this.path, name), { force: true });
  }

  list(): string[] {
    return readdirSync(this.path).filter((name) => !name.startsWith(TEMPORARY_PREFIX)).sort();
  }
}

function syncDirectory(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function wrongOwnership(stats: Stats, path: string, kind: "directory" | "file"): string | null {
  if (kind === "directory" ? !stats.isDirectory() : !stats.isFile()) return `${path} is not a ${kind}; it holds private keys and may not be a link or a device`;
  const uid = process.geteuid?.() ?? stats.uid;
  if (stats.uid !== uid) return `${path} belongs to user ${stats.uid}, this process runs as ${uid}; it holds private keys: chown ${uid} ${path}`;
  const mode = stats.mode & 0o777;
  if ((mode & 0o077) !== 0) return `${path} has mode 0${mode.toString(8)}, others could read private keys: chmod ${kind === "directory" ? "700" : "600"} ${path}`;
  return null;
}

function hasCode(cause: unknown, code: string): boolean {
  return cause instanceof Error && "code" in cause && cause.code === code;
}
