// Puts the plugin onto the node, and takes it away again: the program into the runtime's folder of plugins, then our entry into the list
// that the runtime reads. Where that is the configuration of one plugin it becomes a list. The program first and the entry last; away in the other order. Each file is complete from the moment it has its
// name. A list that others write anew gets the entry again.

import { chmodSync, copyFileSync, existsSync, fsyncSync, openSync, closeSync, readdirSync, readFileSync, renameSync, rmSync, statSync, watch, writeFileSync, type FSWatcher } from "node:fs";
import { join } from "node:path";
import { err, ok, type Result } from "../core/result.ts";
import { listOfOne, oneOfList, type PluginEntry, PLUGIN_TYPE, withoutPlugin, withPlugin } from "./conflist.ts";

export interface InstallerOptions {
  /** The program that is the plugin: our own. */
  readonly program: string;
  /** As seen from here: `/host/opt/cni/bin`. */
  readonly binDirectory: string;
  readonly configDirectory: string;
  readonly entry: PluginEntry;
  readonly onState: (state: InstallerState) => void;
}

export type InstallerState =
  | { readonly kind: "installed"; readonly file: string; readonly changed: boolean }
  | { readonly kind: "waiting"; readonly why: string };

/** A watch may miss a change, and the folder may come later. */
const LOOK_AGAIN_MS = 10_000;
/** Whoever writes a list writes it in steps. */
const SETTLE_MS = 50;

export class Installer {
  readonly #options: InstallerOptions;
  #watcher: FSWatcher | null = null;
  #timer: ReturnType<typeof setInterval> | null = null;
  #settling: ReturnType<typeof setTimeout> | null = null;

  constructor(options: InstallerOptions) {
    this.#options = options;
  }

  /** Installs, and goes on looking after it until `stop` or `remove`. An error: the program cannot be put there. */
  start(): Result<void, string> {
    const put = this.#putProgram();
    if (!put.ok) return put;
    this.#look();
    this.#timer = setInterval(() => this.#look(), LOOK_AGAIN_MS);
    return ok(undefined);
  }

  /** What is installed stays: the agent that comes next finds it. */
  stop(): void {
    this.#watcher?.close();
    this.#watcher = null;
    if (this.#timer !== null) clearInterval(this.#timer);
    if (this.#settling !== null) clearTimeout(this.#settling);
    this.#timer = this.#settling = null;
  }

  /** Takes the entry out of every list, then the program away. @returns what could not be done, one line each. */
  remove(): string[] {
    this.stop();
    const troubles: string[] = [];
    for (const name of this.#lists()) {
      const path = join(this.#options.configDirectory, name);
      const text = readFileSync(path, "utf8");
      const one = oneOfList(text);
      if (one !== null) {
        troubles.push(...this.#giveBack(path, one));
        continue;
      }
      const without = withoutPlugin(text);
      if (without.ok && without.value !== null) troubles.push(...this.#write(path, without.value));
      else if (!without.ok && text.includes(PLUGIN_TYPE)) troubles.push(`${path}: ${without.error}`);
    }
    if (troubles.length > 0) return [...troubles, `${this.#programPath} stays: a list may still name it`];
    rmSync(this.#programPath, { force: true });
    return [];
  }

  get #programPath(): string {
    return join(this.#options.binDirectory, PLUGIN_TYPE);
  }

  #putProgram(): Result<void, string> {
    const { program, binDirectory } = this.#options;
    const path = this.#programPath;
    const staged = join(binDirectory, `.${PLUGIN_TYPE}.${process.pid}`);
    try {
      if (sameProgram(program, path)) return ok(undefined);
      copyFileSync(program, staged);
      chmodSync(staged, 0o755);
      sync(staged);
      renameSync(staged, path);
      return ok(undefined);
    } catch (cause) {
      rmSync(staged, { force: true });
      return err(`the plugin cannot be put into ${binDirectory}: ${words(cause)}`);
    }
  }

  #look(): void {
    const { onState, configDirectory } = this.#options;
    try {
      // Another copy of the program may have been put there, or it was taken away.
      const put = this.#putProgram();
      if (!put.ok) return onState({ kind: "waiting", why: put.error });
      this.#watch();
      const [used] = this.#configurations();
      if (used === undefined) return onState({ kind: "waiting", why: `no configuration of CNI plugins (*.conflist, *.conf, *.json) in ${configDirectory} yet: the cluster's own network plugin writes it` });
      const list = isList(used) ? this.#chain(used) : this.#convert(used);
      if (!list.ok) return onState({ kind: "waiting", why: list.error });
      const { file, changed } = list.value;
      onState({ kind: "installed", file: join(configDirectory, file), changed });
      // The runtime reads the first one; another may have been the first before.
      for (const name of this.#lists().filter((other) => other !== file)) {
        const without = withoutPlugin(readFileSync(join(configDirectory, name), "utf8"));
        if (without.ok && without.value !== null) this.#write(join(configDirectory, name), without.value);
      }
    } catch (cause) {
      onState({ kind: "waiting", why: `${configDirectory}: ${words(cause)}` });
    }
  }

  #chain(name: string): Result<{ readonly file: string; readonly changed: boolean }, string> {
    const path = join(this.#options.configDirectory, name);
    const wanted = withPlugin(readFileSync(path, "utf8"), this.#options.entry);
    if (!wanted.ok) return err(`${path}: ${wanted.error}`);
    const [trouble] = wanted.value === null ? [] : this.#write(path, wanted.value);
    return trouble === undefined ? ok({ file: name, changed: wanted.value !== null }) : err(trouble);
  }

  /** The list first, then away with what it was made of: a runtime that looks between the two reads the latter. */
  #convert(name: string): Result<{ readonly file: string; readonly changed: boolean }, string> {
    const { configDirectory, entry } = this.#options;
    const path = join(configDirectory, name);
    const list = listOfOne(readFileSync(path, "utf8"), name, entry);
    if (!list.ok) return err(`${path}: ${list.error}`);
    const file = `${name.slice(0, name.lastIndexOf("."))}.conflist`;
    const listPath = join(configDirectory, file);
    if (existsSync(listPath) && oneOfList(readFileSync(listPath, "utf8"))?.file !== name) return err(`${path} would become ${listPath}, which is there already and is another network: remove the one that is not meant`);
    const [trouble] = this.#write(listPath, list.value, path);
    if (trouble !== undefined) return err(trouble);
    rmSync(path);
    return ok({ file, changed: true });
  }

  /** @returns what went wrong: nothing, or one line. */
  #giveBack(listPath: string, { file, text }: { readonly file: string; readonly text: string }): string[] {
    const path = join(this.#options.configDirectory, file);
    // Whose it is may have written it anew.
    const troubles = existsSync(path) ? [] : this.#write(path, text, listPath);
    if (troubles.length === 0) rmSync(listPath);
    return troubles;
  }

  /** In the order in which a runtime chooses: of lists and of single plugins the first by name. */
  #configurations(): string[] {
    const { configDirectory } = this.#options;
    return existsSync(configDirectory) ? readdirSync(configDirectory).filter((name) => isList(name) || /\.(conf|json)$/.test(name)).sort() : [];
  }

  #lists(): string[] {
    return this.#configurations().filter(isList);
  }

  #watch(): void {
    if (this.#watcher !== null || !existsSync(this.#options.configDirectory)) return;
    this.#watcher = watch(this.#options.configDirectory, () => {
      if (this.#settling !== null || this.#timer === null) return;
      this.#settling = setTimeout(() => {
        this.#settling = null;
        this.#look();
      }, SETTLE_MS);
    });
    this.#watcher.on("error", () => {
      this.#watcher?.close();
      this.#watcher = null;
    });
  }

  /** @returns what went wrong: nothing, or one line. */
  #write(path: string, text: string, modeOf = path): string[] {
    // None of the names that are read: a runtime must never read it before it is whole.
    const staged = `${path}.${PLUGIN_TYPE}`;
    try {
      writeFileSync(staged, text, { mode: statSync(modeOf).mode & 0o777 });
      sync(staged);
      renameSync(staged, path);
      return [];
    } catch (cause) {
      rmSync(staged, { force: true });
      return [`${path} cannot be written: ${words(cause)}`];
    }
  }
}

const isList = (name: string): boolean => name.endsWith(".conflist");

/** By content; see `known`. */
function sameProgram(program: string, installed: string): boolean {
  const there = statSync(installed, { throwIfNoEntry: false });
  if (there === undefined || (there.mode & 0o111) === 0) return false;
  const own = statSync(program);
  if (own.size !== there.size) return false;
  if (known.get(installed) === `${there.ino} ${there.mtimeMs}`) return true;
  const same = Bun.hash(readFileSync(program)) === Bun.hash(readFileSync(installed));
  if (same) known.set(installed, `${there.ino} ${there.mtimeMs}`);
  return same;
}
/** Files that were compared and found equal, by inode and time, so that a hundred megabytes are not read every ten seconds. */
const known = new Map<string, string>();

function sync(path: string): void {
  const fd = openSync(path, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

const words = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause));
