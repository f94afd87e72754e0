// What a client was told, on disk, so that the next start knows it with the control plane gone. One file, appended to as changes come and
// written anew when most of it is past. A frame is checked on reading: what a crash left half-written ends the file.
//
//   8 bytes   "weftxds1"
//   frames    length u32 LE, CRC-32 u32 LE of the content, content: a StoredChange

import { chmod, mkdir, open, readFile, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { decode } from "../../wire/protobuf/decode.ts";
import { type StoredChange, StoredChangeSchema } from "../../wire/protobuf/weft/state/v1/state_pb.ts";
import type { ReceivedResource } from "../resource.ts";
import { FRAME_HEADER_BYTES, type LogFrames } from "./log-frames.ts";

const MAGIC = new TextEncoder().encode("weftxds1");
/** A larger frame is not one of ours: a resource comes in a response, and that is bounded. */
const FRAME_BYTES_MAX = 64 * 1024 * 1024;
/** Below this the file is not worth writing anew. */
const COMPACT_BYTES_MIN = 1024 * 1024;
/** Written anew when it has this many times the frames that are still in force, or, as some are large and change often, has grown to so many times its size and more. */
const COMPACT_FACTOR = 2;
const GROWTH_BYTES_MAX = 64 * 1024 * 1024;
/** Pieces smaller than this are written together. */
const GATHERED_BYTES_MAX = 64 * 1024;
const OWNER_ONLY_DIRECTORY = 0o700;
const OWNER_ONLY_FILE = 0o600;

export interface LoggedState {
  /** By type, what was in force; null when nothing was ever kept here. */
  readonly types: ReadonlyMap<string, readonly ReceivedResource[]> | null;
  /** What could not be used, in words. */
  readonly fault: string | null;
}

interface Live {
  /** With its header; a view. */
  readonly frame: Uint8Array;
  readonly change: StoredChange;
}

export class ResourceLog {
  readonly #path: string;
  #fileBytes = 0;
  #frameCount = 0;
  /** When every frame in the file was in force. */
  #wholeBytes = 0;

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

  /**
   * Adds frames to the file, in their order. One call at a time.
   * @param liveCount resources in force after them.
   */
  async append(changes: readonly LogFrames[], liveCount: number): Promise<void> {
    const file = await open(this.#path, "a", OWNER_ONLY_FILE);
    const before = this.#fileBytes;
    try {
      let small: Uint8Array[] = before === 0 ? [MAGIC] : [];
      let smallBytes = 0;
      let frameCount = 0;
      const write = async (bytes: Uint8Array): Promise<void> => {
        if (bytes.length > 0) await file.appendFile(bytes);
        this.#fileBytes += bytes.length;
      };
      const writeSmall = async (): Promise<void> => {
        await write(small.length === 1 ? small[0]! : Buffer.concat(small));
        [small, smallBytes] = [[], 0];
      };
      for (const frames of changes) {
        frameCount += frames.count;
        for (const piece of frames.pieces()) {
          const isLarge = piece.length >= GATHERED_BYTES_MAX;
          if (isLarge || smallBytes + piece.length > GATHERED_BYTES_MAX) await writeSmall();
          if (isLarge) await write(piece);
          else {
            small.push(piece);
            smallBytes += piece.length;
          }
        }
      }
      await writeSmall();
      this.#frameCount += frameCount;
    } catch (cause) {
      // A disk that is full takes a part: what comes after it later would be lost with it.
      await file.truncate(before);
      this.#fileBytes = before;
      throw cause;
    } finally {
      await file.close();
    }
    const mostlyPast = this.#frameCount > COMPACT_FACTOR * liveCount || this.#fileBytes > COMPACT_FACTOR * this.#wholeBytes + GROWTH_BYTES_MAX;
    if (this.#fileBytes > COMPACT_BYTES_MIN && mostlyPast) await this.#compact();
  }

  async #read(): Promise<LoggedState> {
    const bytes = await readFile(this.#path).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOENT") return null;
      throw cause;
    });
    if (bytes === null) return { types: null, fault: null };
    const { live, end, fault, frameCount } = readFrames(bytes);
    const types = new Map<string, ReceivedResource[]>();
    for (const { change } of live.values()) {
      let of = types.get(change.typeUrl);
      if (of === undefined) types.set(change.typeUrl, (of = []));
      if (change.name !== "") of.push({ name: change.name, version: change.version, typeUrl: change.typeUrl, value: change.value });
    }
    this.#fileBytes = end;
    this.#frameCount = frameCount;
    for (const { frame } of live.values()) this.#wholeBytes += frame.length;
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

  /** The old file stays until the new one is whole. */
  async #compact(): Promise<void> {
    const { live } = readFrames(await readFile(this.#path));
    const temporary = `${this.#path}.tmp`;
    const file = await open(temporary, "w", OWNER_ONLY_FILE);
    try {
      await file.writeFile(Buffer.concat([MAGIC, ...[...live.values()].map(({ frame }) => frame)]));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, this.#path);
    this.#fileBytes = this.#wholeBytes = (await stat(this.#path)).size;
    this.#frameCount = live.size;
  }
}

/** @returns the last frame of each name that was not removed, and where the sound part ends. */
export function readFrames(bytes: Uint8Array): { readonly live: ReadonlyMap<string, Live>; readonly end: number; readonly frameCount: number; readonly fault: string | null } {
  let frameCount = 0;
  const live = new Map<string, Live>();
  if (bytes.length < MAGIC.length || !MAGIC.every((byte, i) => bytes[i] === byte)) return { live, end: 0, frameCount, fault: bytes.length === 0 ? null : "it does not begin as such a file does" };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = MAGIC.length;
  while (at + FRAME_HEADER_BYTES <= bytes.length) {
    const length = view.getUint32(at, true);
    const content = bytes.subarray(at + FRAME_HEADER_BYTES, at + FRAME_HEADER_BYTES + length);
    // A file system may leave zeros at the end after a crash: eight of them would be an empty frame with the right sum.
    const sound = length > 0 && length <= FRAME_BYTES_MAX && content.length === length && crc32(content) === view.getUint32(at + 4, true);
    const change = sound ? decode(StoredChangeSchema, content) : null;
    if (change === null || !change.ok) return { live, end: at, frameCount, fault: `it is damaged after ${at} bytes of ${bytes.length}` };
    const key = `${change.value.typeUrl} ${change.value.name}`;
    if (change.value.removed) live.delete(key);
    else live.set(key, { frame: bytes.subarray(at, at + FRAME_HEADER_BYTES + length), change: change.value });
    frameCount++;
    at += FRAME_HEADER_BYTES + length;
  }
  return { live, end: at, frameCount, fault: at < bytes.length ? `it is damaged after ${at} bytes of ${bytes.length}` : null };
}
