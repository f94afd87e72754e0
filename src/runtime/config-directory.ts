// Watches a directory of YAML and tells what changed. inotify for speed, a periodic look for everything inotify does not see
// (symbolic links to elsewhere, network file systems, a directory that was replaced). All judgement is in resources/.

import { closeSync, constants, fstatSync, type FSWatcher, openSync, readdirSync, readSync, statSync, watch } from "node:fs";
import { join } from "node:path";
import { EMPTY_L7_DELTA } from "../mesh/l7/delta.ts";
import type { MeshDelta } from "../mesh/records.ts";
import type { Diagnostic } from "../resources/diagnostic.ts";
import { isEmptyL7Delta } from "../resources/l7/l7-delta.ts";
import { FILE_BYTES_MAX } from "../resources/limits.ts";
import { deepEqual, isEmptyDelta } from "../resources/mesh-delta.ts";
import type { TranslationOptions } from "../resources/resource.ts";
import { type Evaluation, type FileReading, type LastGoodFile, ResourceSet } from "../resources/resource-set.ts";
import type { ConfigSource, ConfigState } from "./config-source.ts";
import { LastGoodStore } from "./last-good-store.ts";

/** Quiet time after a change before the directory is read: an editor's or a copy's several writes are one change. */
const DEBOUNCE_MS = 40;
/** A directory that is never quiet is read all the same. */
const DEBOUNCE_TOTAL_MS = 400;
/** Between two looks at a directory that reports no change. */
const RESCAN_MS = 1000;
/** Looking takes at most this share of the time: a large directory is looked at less often. */
const RESCAN_SHARE = 0.02;
/** A file written so shortly before it was read may be written again without a new time stamp (they tick in steps of some ms). */
const FRESH_NS = 100_000_000n;
/** Readings of a directory that changes while it is read, before it is taken as it is. */
const SCANS_MAX = 5;

export interface ConfigDirectoryOptions {
  readonly directory: string;
  /** Where the last good state is kept; null keeps none. */
  readonly stateDirectory: string | null;
  readonly translation: TranslationOptions;
  /** Called for each state after the first. Must not throw. */
  readonly onChange: (state: ConfigState) => void;
}

/** Which version of a file was read: enough to see that it is another one. */
interface Stamp {
  readonly device: bigint;
  readonly inode: bigint;
  readonly size: bigint;
  readonly modifiedNs: bigint;
  readonly changedNs: bigint;
}

interface Scan {
  readonly readings: readonly FileReading[];
  readonly diagnostics: readonly Diagnostic[];
}

export class ConfigDirectory implements ConfigSource {
  readonly #options: ConfigDirectoryOptions;
  readonly #resources: ResourceSet;
  readonly #store: LastGoodStore | null;
  /** Files as last read. */
  readonly #cache = new Map<string, { readonly stamp: Stamp; readonly reading: FileReading; readonly fresh: boolean }>();
  /** Names that inotify has told since the last look; null when every file is to be looked at. */
  #touched: Set<string> | null = null;
  #watcher: FSWatcher | null = null;
  #watchedInode = 0n;
  #debounce: NodeJS.Timeout | null = null;
  #debounceEndsMs = 0;
  #rescan: NodeJS.Timeout | null = null;
  #readings: readonly FileReading[] | null = null;
  #state: ConfigState | null = null;
  #storeFaults: readonly string[] = [];
  #toStore: readonly LastGoodFile[] | null = null;
  #storing: Promise<void> | null = null;
  #storeIsOurs = true;
  #closed = false;

  private constructor(options: ConfigDirectoryOptions, store: LastGoodStore | null) {
    this.#options = options;
    this.#store = store;
    this.#resources = new ResourceSet(options.translation);
  }

  /** Reads the directory once and goes on watching it. Throws when it cannot be read and no last good state is kept. */
  static async open(options: ConfigDirectoryOptions): Promise<ConfigDirectory> {
    const store = options.stateDirectory === null ? null : await LastGoodStore.open(options.stateDirectory);
    const directory = new ConfigDirectory(options, store);
    const restored = (await store?.read()) ?? { files: null, faults: [] };
    directory.#storeFaults = restored.faults;
    if (restored.files !== null) directory.#resources.restore(restored.files);
    directory.#start(restored.files);
    return directory;
  }

  /** The state in force. */
  get state(): ConfigState {
    if (this.#state === null) throw new Error("a configuration directory has a state once it is open");
    return this.#state;
  }

  /** Reads the directory now, as SIGHUP asks for. */
  reload(): void {
    this.#cache.clear();
    this.#lookAtAll();
  }

  /** Goes on watching, and leaves the last good state on disk to another process. */
  stopStoring(): void {
    this.#storeIsOurs = false;
  }

  /** Resolves when the last good state of all that was told so far is on disk. */
  async stored(): Promise<void> {
    while (this.#storing !== null) await this.#storing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#watcher?.close();
    this.#watcher = null;
    if (this.#debounce !== null) clearTimeout(this.#debounce);
    if (this.#rescan !== null) clearTimeout(this.#rescan);
    await this.stored();
  }

  #start(restored: readonly LastGoodFile[] | null): void {
    // Watching begins before reading, so that no change falls between.
    this.#watch();
    const scan = this.#scan();
    if (!scan.ok) {
      if (restored === null) {
        this.#closed = true;
        this.#watcher?.close();
        throw new Error(`cannot read the configuration directory ${this.#options.directory}: ${scan.reason}`);
      }
      // Every file is unreadable: what was read from it before the restart stays in force.
      const readings = restored.map(({ path }): FileReading => ({ kind: "unreadable", path, code: "file_unreadable", reason: `cannot be read: ${scan.reason}` }));
      this.#apply({ readings, diagnostics: [this.#directoryFault(scan.reason)] });
    } else {
      this.#readings = scan.value.readings;
      this.#apply(scan.value);
    }
    this.#scheduleRescan(0);
  }

  #directoryFault(reason: string): Diagnostic {
    return { severity: "error", file: ".", line: 1, column: 1, fieldPath: "", code: "file_unreadable", resource: "", message: `cannot read the directory ${this.#options.directory}: ${reason}; what was in force stays` };
  }

  #watch(): void {
    try {
      const inode = statSync(this.#options.directory, { bigint: true }).ino;
      if (this.#watcher !== null && inode === this.#watchedInode) return;
      this.#watcher?.close();
      const watcher = watch(this.#options.directory, { persistent: false }, (_, name) => this.#changed(name));
      const lost = (): void => {
        watcher.close();
        if (this.#watcher === watcher) this.#watcher = null;
        this.#changed(null);
      };
      watcher.on("error", lost);
      this.#watcher = watcher;
      this.#watchedInode = inode;
      // What happened before it began is known to nobody.
      this.#touched = null;
    } catch {
      // The periodic look goes on and tries again; that it cannot be read is said there.
      this.#watcher = null;
    }
  }

  #changed(name: string | null): void {
    if (this.#closed) return;
    if (name === null) this.#touched = null;
    else this.#touched?.add(name);
    const nowMs = performance.now();
    if (this.#debounce === null) this.#debounceEndsMs = nowMs + DEBOUNCE_TOTAL_MS;
    else clearTimeout(this.#debounce);
    const waitMs = Math.max(0, Math.min(DEBOUNCE_MS, this.#debounceEndsMs - nowMs));
    this.#debounce = setTimeout(() => {
      this.#debounce = null;
      this.#look();
    }, waitMs);
  }

  #scheduleRescan(tookMs: number): void {
    if (this.#closed) return;
    if (this.#rescan !== null) clearTimeout(this.#rescan);
    this.#rescan = setTimeout(() => this.#lookAtAll(), Math.max(RESCAN_MS, tookMs / RESCAN_SHARE));
  }

  #lookAtAll(): void {
    if (this.#closed) return;
    const startMs = performance.now();
    this.#touched = null;
    this.#look();
    this.#scheduleRescan(performance.now() - startMs);
  }

  #look(): void {
    if (this.#closed) return;
    this.#watch();
    const scan = this.#scan();
    // No await and no callback between scanning and applying: states are told in the order they were read.
    if (!scan.ok) this.#applyDirectoryFault(scan.reason);
    else if (this.#readings === null || !sameReadings(this.#readings, scan.value.readings) || this.#hasDirectoryFault()) {
      this.#readings = scan.value.readings;
      this.#apply(scan.value);
    }
  }

  #hasDirectoryFault(): boolean {
    return this.#state?.diagnostics.some(({ file }) => file === ".") ?? false;
  }

  #applyDirectoryFault(reason: string): void {
    const state = this.state;
    const fault = this.#directoryFault(reason);
    if (state.diagnostics.some((diagnostic) => deepEqual(diagnostic, fault))) return;
    this.#tell({ ...state, delta: noChange, l7Delta: EMPTY_L7_DELTA, diagnostics: [fault, ...state.diagnostics.filter(({ file }) => file !== ".")] });
  }

  #apply({ readings, diagnostics }: Scan): void {
    const evaluation: Evaluation = this.#resources.update(readings);
    const faults = this.#storeFaults.map((message): Diagnostic => ({ severity: "warning", file: ".", line: 1, column: 1, fieldPath: "", code: "restored", resource: "", message }));
    const all = [...faults, ...diagnostics, ...evaluation.diagnostics];
    const { lastGood, ...state } = evaluation;
    this.#keep(lastGood);
    this.#tell({ ...state, diagnostics: all });
  }

  #tell(next: Omit<ConfigState, "version">): void {
    const before = this.#state;
    if (before === null) {
      this.#state = { version: 1, ...next };
      return;
    }
    const same = isEmptyDelta(next.delta) && isEmptyL7Delta(next.l7Delta) && deepEqual(before.localWorkloads, next.localWorkloads) && deepEqual(before.diagnostics, next.diagnostics);
    // Of statuses a new version of an object is news too.
    if (same && deepEqual(before.statuses, next.statuses)) {
      this.#state = { ...before, mesh: next.mesh, l7: next.l7 };
      return;
    }
    this.#state = { version: before.version + 1, ...next };
    this.#options.onChange(this.#state);
  }

  #keep(lastGood: readonly LastGoodFile[]): void {
    if (this.#store === null || !this.#storeIsOurs) return;
    this.#toStore = lastGood;
    this.#storing ??= this.#storeAll(this.#store).finally(() => {
      this.#storing = null;
    });
  }

  async #storeAll(store: LastGoodStore): Promise<void> {
    while (this.#toStore !== null) {
      const files = this.#toStore;
      this.#toStore = null;
      try {
        await store.write(files);
        this.#storeFaults = [];
      } catch (cause) {
        // A full disk must not stop the mesh: said, and tried again with the next change.
        this.#storeFaults = [`the last good state cannot be kept: ${reasonOf(cause)}; a restart would not know it`];
      }
    }
  }

  /** Reads every file that may have changed, again if one changed meanwhile: the readings are of one moment. */
  #scan(): { readonly ok: true; readonly value: Scan } | { readonly ok: false; readonly reason: string } {
    const touched = this.#touched;
    for (let attempt = 1; ; attempt++) {
      let names: Listing;
      try {
        names = listConfiguration(this.#options.directory);
      } catch (cause) {
        return { ok: false, reason: reasonOf(cause) };
      }
      // A regular file that nothing was told of is as it was; what a link points to changes without a word.
      const mayDiffer = (path: string): boolean => touched === null || touched.has(path) || names.links.has(path);
      const readings = names.paths.map((path) => this.#read(path, mayDiffer(path)));
      const settled = attempt >= SCANS_MAX || names.paths.every((path) => !mayDiffer(path) || this.#isAsRead(path));
      if (!settled) continue;
      this.#touched = new Set();
      this.#forget(new Set(names.paths));
      return { ok: true, value: { readings, diagnostics: names.diagnostics } };
    }
  }

  #read(path: string, mayDiffer: boolean): FileReading {
    const known = this.#cache.get(path);
    if (known !== undefined && !known.fresh && !mayDiffer) return known.reading;
    const full = join(this.#options.directory, path);
    try {
      const stamp = stampOf(statSync(full, { bigint: true }));
      if (known !== undefined && !known.fresh && sameStamp(known.stamp, stamp)) return known.reading;
    } catch (cause) {
      this.#cache.delete(path);
      return { kind: "unreadable", path, code: "file_unreadable", reason: `cannot be read: ${reasonOf(cause)}` };
    }
    const { stamp, reading } = readConfigurationFile(full, path);
    if (stamp !== null) this.#cache.set(path, { stamp, reading, fresh: isFresh(stamp) });
    else this.#cache.delete(path);
    return reading;
  }

  #isAsRead(path: string): boolean {
    const known = this.#cache.get(path);
    // A file that cannot be read is as it was read; the next look tries again.
    if (known === undefined) return true;
    try {
      return sameStamp(known.stamp, stampOf(statSync(join(this.#options.directory, path), { bigint: true })));
    } catch {
      return false;
    }
  }

  #forget(present: ReadonlySet<string>): void {
    for (const path of this.#cache.keys()) if (!present.has(path)) this.#cache.delete(path);
  }
}

const noChange: MeshDelta = { workloads: [], services: [], policies: [], removedWorkloads: [], removedServices: [], removedPolicies: [] };

const EXTENSION = /\.(ya?ml|json)$/;
/** Hidden files and directories (`..data` of a ConfigMap among them) and what editors leave beside the file they write. */
const NOT_CONFIGURATION = /^\.|~$|^#.*#$/;

interface Listing {
  readonly paths: readonly string[];
  readonly links: ReadonlySet<string>;
  readonly diagnostics: readonly Diagnostic[];
}

function listConfiguration(directory: string): Listing {
  const paths: string[] = [];
  const links = new Set<string>();
  const diagnostics: Diagnostic[] = [];
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (NOT_CONFIGURATION.test(entry.name)) continue;
    if (EXTENSION.test(entry.name) && !entry.isDirectory()) {
      paths.push(entry.name);
      // Also where the file system does not say what an entry is.
      if (!entry.isFile()) links.add(entry.name);
    } else if (entry.isDirectory()) {
      diagnostics.push({ severity: "info", file: entry.name, line: 1, column: 1, fieldPath: "", code: "not_supported", resource: "", message: "is a directory; only the files beside it are read" });
    }
  }
  return { paths: paths.sort(), links, diagnostics };
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });

/** Never waits: a pipe or device is refused, not opened for long. The stamp is null for a file that should be tried again. */
function readConfigurationFile(full: string, path: string): { readonly stamp: Stamp | null; readonly reading: FileReading } {
  const unreadable = (reason: string, stamp: Stamp | null = null, code: "file_unreadable" | "file_too_large" = "file_unreadable"): { stamp: Stamp | null; reading: FileReading } => ({
    stamp, reading: { kind: "unreadable", path, code, reason },
  });
  let fd: number;
  try {
    fd = openSync(full, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    return unreadable(`cannot be read: ${reasonOf(cause)}`);
  }
  try {
    const before = fstatSync(fd, { bigint: true });
    const stamp = stampOf(before);
    if (!before.isFile()) return unreadable("is not a regular file", stamp);
    if (before.size > BigInt(FILE_BYTES_MAX)) return unreadable(`found ${before.size} bytes, at most ${FILE_BYTES_MAX} are read; split the file`, stamp, "file_too_large");
    // One byte more than expected, to notice a file that grows.
    const buffer = Buffer.allocUnsafe(Number(before.size) + 1);
    let length = 0;
    for (let got = -1; got !== 0 && length < buffer.length; length += got) got = readSync(fd, buffer, length, buffer.length - length, null);
    if (!sameStamp(stamp, stampOf(fstatSync(fd, { bigint: true }))) || length !== Number(before.size)) return unreadable("changed while it was read");
    return { stamp, reading: { kind: "text", path, text: utf8.decode(buffer.subarray(0, length)) } };
  } catch (cause) {
    return unreadable(cause instanceof TypeError ? "is not UTF-8 text" : `cannot be read: ${reasonOf(cause)}`);
  } finally {
    closeSync(fd);
  }
}

interface BigintStat {
  readonly dev: bigint; readonly ino: bigint; readonly size: bigint; readonly mtimeNs: bigint; readonly ctimeNs: bigint;
}

const stampOf = (stat: BigintStat): Stamp => ({ device: stat.dev, inode: stat.ino, size: stat.size, modifiedNs: stat.mtimeNs, changedNs: stat.ctimeNs });

const sameStamp = (a: Stamp, b: Stamp): boolean =>
  a.inode === b.inode && a.device === b.device && a.size === b.size && a.modifiedNs === b.modifiedNs && a.changedNs === b.changedNs;

const isFresh = (stamp: Stamp): boolean => BigInt(Date.now()) * 1_000_000n - stamp.changedNs < FRESH_NS;

function sameReadings(a: readonly FileReading[], b: readonly FileReading[]): boolean {
  return a.length === b.length && a.every((reading, i) => reading === b[i] || deepEqual(reading, b[i]));
}

function reasonOf(cause: unknown): string {
  const code = (cause as NodeJS.ErrnoException).code;
  return code ?? (cause instanceof Error ? cause.message : String(cause));
}
