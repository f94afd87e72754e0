// What a client was told, on disk, so that the next start knows it with the control plane gone. One file, appended to as changes come and
// written anew when most of it is past. A frame is checked on reading: what a crash left half-written ends the file.
//
//   8 bytes   "weftxds1"
//   frames    length u32 LE, CRC-32 u32 LE of the content, content: a StoredChange

import { create, toBinary } from "@bufbuild/protobuf";
import { chmod, mkdir, open, readFile, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { type StoredChange, StoredChangeSchema } from "../../wire/protobuf/weft/state/v1/state_pb.ts";
import { decode, type ReceivedResource } from "../resource.ts";

const MAGIC = new TextEncoder().encode("weftxds1");
const FRAME_HEADER_BYTES = 8;
/** A larger frame is not one of ours: a resource comes in a response, and that is bounded. */
const FRAME_BYTES_MAX = 64 * 1024 * 1024;
/** Below this the file is not worth writing anew. */
const COMPACT_BYTES_MIN = 1024 * 1024;
/** Written anew when it is this many times what is still in force. */
const COMPACT_FACTOR = 2;
const OWNER_ONLY_DIRECTORY = 0o700;
const OWNER_ONLY_FILE = 0o600;

export interface LoggedChange {
  readonly typeUrl: string;
  readonly keep: readonly ReceivedResource[];
  readonly drop: readonly string[];
}

export interface LoggedState {
  /** By type, what was in force; null when nothing was ever kept here. */
  readonly types: ReadonlyMap<string, readonly ReceivedResource[]> | null;
  /** What could not be used, in words. */
  readonly fault: string | null;
}

interface Live {
  readonly bytes: number;
  readonly change: StoredChange;
}

export class ResourceLog {
  readonly #path: string;
  #fileBytes = 0;
  /** Bytes of the frames in force, by type and name. */
  readonly #liveBytes = new Map<string, number>();
  #liveTotal = 0;

  private constructor(path: string) {
    this.#path = path;
  }

  /** @param stateDirectory the agent's own. Throws when the place cannot be made ours alone. */
  static async open(stateDirectory: string): Promise<{ readonly log: ResourceLog; readonly state: LoggedState }> {
    const directory = join(stateDirectory, "xds");
    await mkdir(directory, { recursive: true, mode: OWNER_ONLY_DIRECTORY });
    await chmod(directory, OWNER_ONLY_DIRECTORY);
    const log = new ResourceLog(join(directory, "resources.log"));
    return { log, state: await log.#read() };
  }

  /** Adds one response to the file. One call at a time. */
  async append({ typeUrl, keep, drop }: LoggedChange): Promise<void> {
    const changes = [
      ...drop.map((name) => create(StoredChangeSchema, { typeUrl, name, removed: true })),
      ...keep.map(({ name, version, value }) => create(StoredChangeSchema, { typeUrl, name, version, value })),
      // Even an empty state is one that was told.
      ...(keep.length + drop.length === 0 ? [create(StoredChangeSchema, { typeUrl })] : []),
    ];
    const frames = changes.map(frameOf);
    const file = await open(this.#path, "a", OWNER_ONLY_FILE);
    try {
      const bytes = Buffer.concat(this.#fileBytes === 0 ? [MAGIC, ...frames] : frames);
      await file.appendFile(bytes);
      this.#fileBytes += bytes.length;
    } catch (cause) {
      // A disk that is full takes a part: what comes after it later would be lost with it.
      await file.truncate(this.#fileBytes);
      throw cause;
    } finally {
      await file.close();
    }
    changes.forEach((change, i) => this.#count(change, frames[i]!.length));
    if (this.#fileBytes > COMPACT_BYTES_MIN && this.#fileBytes > COMPACT_FACTOR * this.#liveTotal) await this.#compact();
  }

  async #read(): Promise<LoggedState> {
    const bytes = await readFile(this.#path).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOENT") return null;
      throw cause;
    });
    if (bytes === null) return { types: null, fault: null };
    const { live, end, fault } = readFrames(bytes);
    const types = new Map<string, ReceivedResource[]>();
    for (const { change } of live.values()) {
      let of = types.get(change.typeUrl);
      if (of === undefined) types.set(change.typeUrl, (of = []));
      if (change.name !== "") of.push({ name: change.name, version: change.version, typeUrl: change.typeUrl, value: change.value });
    }
    for (const { change, bytes: frameBytes } of live.values()) this.#count(change, frameBytes);
    this.#fileBytes = end;
    if (end < bytes.length) {
      const file = await open(this.#path, "r+");
      try {
        await file.truncate(end);
      } finally {
        await file.close();
      }
    }
    return { types: end === 0 ? null : types, fault: fault === null ? null : `${this.#path}: ${fault}; what comes before it is used` };
  }

  #count({ typeUrl, name, removed }: StoredChange, bytes: number): void {
    const key = `${typeUrl} ${name}`;
    this.#liveTotal -= this.#liveBytes.get(key) ?? 0;
    if (removed) this.#liveBytes.delete(key);
    else {
      this.#liveBytes.set(key, bytes);
      this.#liveTotal += bytes;
    }
  }

  /** The old file stays until the new one is whole. */
  async #compact(): Promise<void> {
    const { live } = readFrames(await readFile(this.#path));
    const temporary = `${this.#path}.tmp`;
    const file = await open(temporary, "w", OWNER_ONLY_FILE);
    try {
      await file.writeFile(Buffer.concat([MAGIC, ...[...live.values()].map(({ change }) => frameOf(change))]));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, this.#path);
    this.#fileBytes = (await stat(this.#path)).size;
  }
}

export function frameOf(change: StoredChange): Uint8Array {
  const content = toBinary(StoredChangeSchema, change);
  const frame = new Uint8Array(FRAME_HEADER_BYTES + content.length);
  const view = new DataView(frame.buffer);
  view.setUint32(0, content.length, true);
  view.setUint32(4, crc32(content), true);
  frame.set(content, FRAME_HEADER_BYTES);
  return frame;
}

/** @returns the last frame of each name that was not removed, and where the sound part ends. */
export function readFrames(bytes: Uint8Array): { readonly live: ReadonlyMap<string, Live>; readonly end: number; readonly fault: string | null } {
  const live = new Map<string, Live>();
  if (bytes.length < MAGIC.length || !MAGIC.every((byte, i) => bytes[i] === byte)) return { live, end: 0, fault: bytes.length === 0 ? null : "it does not begin as such a file does" };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = MAGIC.length;
  while (at + FRAME_HEADER_BYTES <= bytes.length) {
    const length = view.getUint32(at, true);
    const content = bytes.subarray(at + FRAME_HEADER_BYTES, at + FRAME_HEADER_BYTES + length);
    // A file system may leave zeros at the end after a crash: eight of them would be an empty frame with the right sum.
    const sound = length > 0 && length <= FRAME_BYTES_MAX && content.length === length && crc32(content) === view.getUint32(at + 4, true);
    const change = sound ? decode(StoredChangeSchema, content) : null;
    if (change === null || !change.ok) return { live, end: at, fault: `it is damaged after ${at} bytes of ${bytes.length}` };
    const key = `${change.value.typeUrl} ${change.value.name}`;
    if (change.value.removed) live.delete(key);
    else live.set(key, { bytes: FRAME_HEADER_BYTES + length, change: change.value });
    at += FRAME_HEADER_BYTES + length;
  }
  return { live, end: at, fault: at < bytes.length ? `it is damaged after ${at} bytes of ${bytes.length}` : null };
}
