// The state of a configuration directory: what its files say, what of that is in force, and what was in force before
// wherever a file no longer says it well. Pure: texts in, records and diagnostics out.

import { compareText } from "../core/compare-text.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import { type Diagnostic, type DiagnosticCode, type FieldPath, formatFieldPath, type Severity } from "./diagnostic.ts";
import type { EvaluatedState } from "./evaluated-state.ts";
import type { Resource } from "./kinds.ts";
import type { ResourceStatus } from "./l7/status.ts";
import { L7Translator } from "./l7/translate-l7.ts";
import { DIAGNOSTICS_MAX, DOCUMENTS_MAX, FILE_BYTES_MAX, FILES_MAX, TOTAL_CHARS_MAX } from "./limits.ts";
import { NAMESPACE_DEFAULT } from "./object-meta.ts";
import { type ParsedItem, parseResources } from "./parse-resources.ts";
import { describeIdentity, identityKey, type Placed, type ResourceDiagnostic, type ResourceIdentity, type TranslationOptions } from "./resource.ts";
import { denyingStandIn } from "./stand-in.ts";
import { MeshTranslator } from "./translate-mesh.ts";
import { WaypointServices } from "./waypoint-services.ts";
import { type DocumentText, parseDocument, type ParsedDocument, type Position, splitDocuments } from "./yaml-document.ts";

/** One file of the directory as it was found; paths are relative to it. */
export type FileReading =
  | { readonly kind: "text"; readonly path: string; readonly text: string }
  | { readonly kind: "unreadable"; readonly path: string; readonly code: "file_unreadable" | "file_too_large"; readonly reason: string };

/** The resources in force that were last seen in one file: what a restart needs to keep them. Plain data. */
export interface LastGoodFile {
  readonly path: string;
  readonly documents: readonly DocumentText[];
  readonly resources: readonly (ResourceIdentity & { readonly document: number; readonly path: FieldPath })[];
  /** Policies that could never be read, in whose place everything is denied. */
  readonly denied: readonly ResourceIdentity[];
}

export interface Evaluation extends EvaluatedState {
  /** What the status of each object in force would say. */
  readonly statuses: readonly ResourceStatus[];
  /** Workloads of this node, by uid. */
  readonly localWorkloads: readonly LocalWorkload[];
  readonly diagnostics: readonly Diagnostic[];
  /** Sorted by path; entries that did not change are the same objects as before. */
  readonly lastGood: readonly LastGoodFile[];
  /** Number of resources in force. */
  readonly resourceCount: number;
}

/** What one file says. */
interface FileContent {
  readonly path: string;
  readonly documents: readonly { readonly document: DocumentText; readonly items: readonly ParsedItem[] }[];
  /** It may hold resources that cannot be told: those last seen in it stay in force. */
  readonly incomplete: boolean;
  readonly diagnostics: readonly Diagnostic[];
}

interface KnownFile {
  readonly text: string;
  readonly content: FileContent;
  readonly earlier: FileContent | null;
}

/** A place where a resource is written. */
interface Occurrence {
  readonly file: FileContent;
  readonly document: DocumentText;
  readonly item: ParsedItem;
}

/** A resource in force. */
interface InForce {
  readonly identity: ResourceIdentity;
  readonly placed: Placed<Resource>;
  /** A policy that denies everything in the place of one that could never be read. */
  readonly standIn: boolean;
}

export class ResourceSet {
  readonly #translator: MeshTranslator;
  readonly #l7Translator: L7Translator;
  readonly #waypointServices = new WaypointServices(true);
  /** Namespaces that need no Namespace resource. */
  readonly #implicitNamespaces: readonly string[];
  /** Files as last read, and what their documents were before: a change taken back costs no parsing. */
  #files = new Map<string, KnownFile>();
  #restoredDocuments = new Map<string, readonly ParsedItem[]>();
  #inForce = new Map<string, InForce>();
  #lastGood = new Map<string, { readonly members: readonly InForce[]; readonly file: LastGoodFile }>();
  /** False until something is known to have been in force: then a policy that cannot be read is taken to deny. */
  #hasHistory = false;
  readonly #located = new WeakMap<Placed<unknown>, Map<string, Position>>();

  constructor(options: TranslationOptions) {
    this.#translator = new MeshTranslator(options, this.#waypointServices);
    this.#l7Translator = new L7Translator(options);
    this.#implicitNamespaces = [NAMESPACE_DEFAULT, options.rootNamespace];
  }

  /** Puts in force what was before a restart. To be called before the first update; a resource that no longer parses is left out. */
  restore(files: readonly LastGoodFile[]): void {
    this.#hasHistory = true;
    for (const file of files) {
      const documents = file.documents.map((document) => ({ document, items: parseResources(document.text) }));
      for (const { document, items } of documents) this.#restoredDocuments.set(document.text, items);
      for (const { kind, namespace, name, document: index, path } of file.resources) {
        const identity = { kind, namespace, name };
        const at = documents[index];
        const item = at?.items.find((candidate) => candidate.identity !== null && identityKey(candidate.identity) === identityKey(identity) && sameSteps(candidate.path, path));
        if (at === undefined || item?.content.is !== "resource") continue;
        this.#inForce.set(identityKey(identity), { identity, placed: placeOf(item.content.resource, file.path, at.document, item), standIn: false });
      }
      for (const { kind, namespace, name } of file.denied) {
        const identity = { kind, namespace, name };
        const standIn = standInFor(identity, { file: file.path, document: NOWHERE, line: 1 });
        if (standIn !== null) this.#inForce.set(identityKey(identity), standIn);
      }
    }
  }

  /** @param readings every configuration file of the directory; one that is missing was deleted, and its resources go. */
  update(readings: readonly FileReading[]): Evaluation {
    const files = this.#readFiles(readings);
    const diagnostics: Diagnostic[] = files.flatMap((file) => file.diagnostics);
    this.#inForce = this.#decide(files, diagnostics);
    this.#hasHistory = true;
    this.#restoredDocuments = new Map();

    const resources = this.#waypointServices.complete([...this.#inForce.values()].map(({ placed }) => placed));
    const translated = this.#translator.translate(resources);
    const l7 = this.#l7Translator.translate(resources);
    diagnostics.push(...this.#locateAll([...translated.diagnostics, ...l7.diagnostics]));
    return {
      mesh: translated.mesh, delta: translated.delta, l7: l7.snapshot, l7Delta: l7.delta, statuses: l7.statuses, localWorkloads: translated.localWorkloads, diagnostics: bounded(diagnostics),
      lastGood: this.#rememberLastGood(), resourceCount: this.#inForce.size,
    };
  }

  #readFiles(readings: readonly FileReading[]): FileContent[] {
    const sorted = [...readings].sort((a, b) => compareText(a.path, b.path));
    const next = new Map<string, KnownFile>();
    const held = new Set([...this.#inForce.values()].map(({ placed }) => placed.file));
    let totalChars = 0;
    const contents = sorted.map((reading, index): FileContent => {
      if (reading.kind === "unreadable") return refused(reading.path, reading.code, reading.reason);
      const { path, text } = reading;
      totalChars += text.length;
      if (index >= FILES_MAX) return refused(path, "too_many_files", `more than ${FILES_MAX} files; this one is not read`);
      if (totalChars > TOTAL_CHARS_MAX) return refused(path, "file_too_large", `all files together have more than ${TOTAL_CHARS_MAX} characters; this one is not read`);
      if (text.length > FILE_BYTES_MAX) return refused(path, "file_too_large", `found ${text.length} characters, at most ${FILE_BYTES_MAX} are read; split the file`);
      if (text.trim() === "" && held.has(path)) return { ...refused(path, "file_empty", "the file is empty, which may be a write under way; delete it to remove its resources"), incomplete: true };
      const before = this.#files.get(path);
      const known = before?.text === text ? before : { text, content: this.#readFile(path, text, before), earlier: before?.content ?? null };
      next.set(path, known);
      return known.content;
    });
    this.#files = next;
    return contents;
  }

  #readFile(path: string, text: string, before: KnownFile | undefined): FileContent {
    const split = splitDocuments(text);
    if (split === null) return refused(path, "too_many_documents", `found more than ${DOCUMENTS_MAX} documents; split the file`);
    const known = new Map([...(before?.earlier?.documents ?? []), ...(before?.content.documents ?? [])].map(({ document, items }) => [document.text, items]));
    const documents = split.map((document) => ({
      document, items: known.get(document.text) ?? this.#restoredDocuments.get(document.text) ?? parseResources(document.text),
    }));
    const unnamed = documents.some(({ items }) => items.some((item) => item.identity === null && item.content.is === "broken"));
    return { path, documents, incomplete: unnamed, diagnostics: [] };
  }

  /** What is in force from now on: what the files say well, and what was before wherever they do not. */
  #decide(files: readonly FileContent[], diagnostics: Diagnostic[]): Map<string, InForce> {
    const occurrences = collect(files, diagnostics);
    const incomplete = new Set(files.filter((file) => file.incomplete).map(({ path }) => path));
    this.#addRenamed(occurrences, incomplete, this.#declared(occurrences, this.#inForce));
    const inForce = this.#keepMissing(occurrences, incomplete, diagnostics);
    const declared = this.#declared(occurrences, inForce);
    for (const [key, places] of occurrences) {
      const decided = this.#decideOne(key, places, declared, diagnostics);
      if (decided !== null) inForce.set(key, decided);
    }
    return inForce;
  }

  /** Names of namespaces: those in force and those that a file names, well or not. */
  #declared(occurrences: ReadonlyMap<string, readonly Occurrence[]>, inForce: ReadonlyMap<string, InForce>): Set<string> {
    const declared = new Set(this.#implicitNamespaces);
    for (const { identity } of inForce.values()) if (identity.kind === "Namespace") declared.add(identity.name);
    for (const [, [first]] of occurrences) if (first?.item.identity?.kind === "Namespace") declared.add(first.item.identity.name);
    return declared;
  }

  /** A document in error under a name that its file did not have may be one that was renamed or is half written: its file may be missing one. */
  #addRenamed(occurrences: ReadonlyMap<string, readonly Occurrence[]>, incomplete: Set<string>, declared: ReadonlySet<string>): void {
    for (const [key, places] of occurrences) {
      const before = this.#inForce.get(key)?.placed.file;
      for (const { file, item } of places) {
        const namespace = item.identity!.namespace;
        const inError = places.length > 1 || item.content.is !== "resource" || (namespace !== "" && !declared.has(namespace));
        if (inError && before !== file.path) incomplete.add(file.path);
      }
    }
  }

  /** Resources that no file names any more, but whose file cannot be read well enough to say that they are gone. */
  #keepMissing(occurrences: ReadonlyMap<string, unknown>, incomplete: ReadonlySet<string>, diagnostics: Diagnostic[]): Map<string, InForce> {
    const kept = new Map<string, InForce>();
    for (const [key, entry] of this.#inForce) {
      if (occurrences.has(key) || !incomplete.has(entry.placed.file)) continue;
      kept.set(key, entry);
      diagnostics.push({
        severity: "warning", file: entry.placed.file, line: 1, column: 1, fieldPath: "", code: "restored", resource: describeIdentity(entry.identity),
        message: "was in this file; as the file cannot be read as a whole, its last good version stays in force",
      });
    }
    return kept;
  }

  #decideOne(key: string, places: readonly Occurrence[], declared: ReadonlySet<string>, diagnostics: Diagnostic[]): InForce | null {
    const before = this.#inForce.get(key) ?? null;
    const first = places[0]!;
    const identity = first.item.identity!;
    const fallback = before ?? (this.#hasHistory ? null : standInFor(identity, { file: first.file.path, document: first.document, line: lineOf(first) }));
    const outcome = describeFallback(fallback);
    if (places.length > 1) {
      for (const place of places) {
        const others = places.filter((other) => other !== place).slice(0, 3).map((other) => `${other.file.path}:${lineOf(other)}`).join(", ");
        diagnostics.push(...placeDiagnostics(place), {
          severity: "error", file: place.file.path, line: lineOf(place), column: 1, fieldPath: formatFieldPath([...place.item.path, "metadata", "name"]), code: "duplicate_resource",
          resource: describeIdentity(identity), message: `found again at ${others}, expected each resource once; ${outcome}`,
        });
      }
      return fallback;
    }
    const { item } = first;
    if (item.content.is !== "resource") {
      diagnostics.push(...placeDiagnostics(first, outcome));
      return fallback;
    }
    diagnostics.push(...placeDiagnostics(first));
    if (identity.namespace !== "" && !declared.has(identity.namespace)) {
      const path = [...item.path, "metadata", "namespace"];
      const named = this.#locateIn(first.document, path);
      diagnostics.push({
        severity: "error", file: first.file.path, ...named, fieldPath: formatFieldPath(path), code: "unknown_namespace", resource: describeIdentity(identity),
        message: `found ${JSON.stringify(identity.namespace)}, which no Namespace of the directory is called; ${describeFallback(before)}`,
      });
      return before;
    }
    const placed = placeOf(item.content.resource, first.file.path, first.document, item);
    // The same object as before keeps all that was made of it.
    return before !== null && samePlace(before.placed, placed) ? before : { identity, placed, standIn: false };
  }

  #locateIn(document: DocumentText, path: FieldPath): Position {
    const { line, column } = parseDocument(document.text).locate(path);
    return { line: document.line + line - 1, column };
  }

  /** Finds the lines of the most important ones; each document is parsed at most once for it. */
  #locateAll(found: readonly ResourceDiagnostic[]): Diagnostic[] {
    const parsed = new Map<string, ParsedDocument>();
    return mostImportant(found).map(({ placed, severity, code, path, message }) => {
      const whole = [...placed.path, ...path];
      const fieldPath = formatFieldPath(whole);
      let known = this.#located.get(placed);
      if (known === undefined) this.#located.set(placed, (known = new Map()));
      let position = known.get(fieldPath);
      if (position === undefined) {
        let document = parsed.get(placed.document.text);
        if (document === undefined) parsed.set(placed.document.text, (document = parseDocument(placed.document.text)));
        const { line, column } = document.locate(whole);
        position = { line: placed.document.line + line - 1, column };
        known.set(fieldPath, position);
      }
      return { severity, file: placed.file, ...position, fieldPath, code, message, resource: describeIdentity(placed.resource) };
    });
  }

  #rememberLastGood(): LastGoodFile[] {
    const byFile = new Map<string, InForce[]>();
    for (const entry of this.#inForce.values()) {
      const members = byFile.get(entry.placed.file);
      if (members === undefined) byFile.set(entry.placed.file, [entry]);
      else members.push(entry);
    }
    const next = new Map<string, { readonly members: readonly InForce[]; readonly file: LastGoodFile }>();
    for (const path of [...byFile.keys()].sort()) {
      const members = byFile.get(path)!;
      const before = this.#lastGood.get(path);
      const same = before !== undefined && before.members.length === members.length && before.members.every((member, i) => member === members[i]);
      next.set(path, same ? before : { members, file: lastGoodFile(path, members) });
    }
    this.#lastGood = next;
    return [...next.values()].map(({ file }) => file);
  }
}

/** Every place where a resource is written, by identity; what names none is reported. */
function collect(files: readonly FileContent[], diagnostics: Diagnostic[]): Map<string, Occurrence[]> {
  const occurrences = new Map<string, Occurrence[]>();
  for (const file of files) {
    for (const { document, items } of file.documents) {
      for (const item of items) {
        if (item.identity === null) {
          diagnostics.push(...placeDiagnostics({ file, document, item }));
          continue;
        }
        const { key } = item;
        const places = occurrences.get(key);
        if (places === undefined) occurrences.set(key, [{ file, document, item }]);
        else places.push({ file, document, item });
      }
    }
  }
  return occurrences;
}

const NOWHERE: DocumentText = { text: "", line: 1 };

const lineOf = ({ document, item }: Occurrence): number => document.line + item.line - 1;

function placeOf(resource: Resource, file: string, document: DocumentText, item: ParsedItem): Placed<Resource> {
  return { resource, file, document, line: document.line + item.line - 1, path: item.path };
}

const sameSteps = (a: FieldPath, b: FieldPath): boolean => a.length === b.length && a.every((step, i) => step === b[i]);

function samePlace(a: Placed<Resource>, b: Placed<Resource>): boolean {
  return a.resource === b.resource && a.file === b.file && a.line === b.line && a.document.text === b.document.text && sameSteps(a.path, b.path);
}

function refused(path: string, code: DiagnosticCode, message: string): FileContent {
  const diagnostic: Diagnostic = { severity: "error", file: path, line: 1, column: 1, fieldPath: "", code, message: `${message}; what was read from it before stays in force`, resource: "" };
  return { path, documents: [], incomplete: true, diagnostics: [diagnostic] };
}

/** The diagnostics of one item where they are in the file; `outcome` is said with the first error. */
function placeDiagnostics({ file, document, item }: Occurrence, outcome = ""): Diagnostic[] {
  const resource = item.identity === null ? "" : describeIdentity(item.identity);
  let said = outcome === "";
  return item.diagnostics.map((diagnostic) => {
    const message = !said && diagnostic.severity === "error" ? `${diagnostic.message}; ${outcome}` : diagnostic.message;
    if (diagnostic.severity === "error") said = true;
    return { ...diagnostic, message, file: file.path, line: document.line + diagnostic.line - 1, resource };
  });
}

function standInFor(identity: ResourceIdentity, at: { readonly file: string; readonly document: DocumentText; readonly line: number }): InForce | null {
  const resource = denyingStandIn(identity);
  return resource === null ? null : { identity, placed: { resource, ...at, path: [] }, standIn: true };
}

function describeFallback(fallback: InForce | null): string {
  if (fallback === null) return "nothing of it is in force";
  if (!fallback.standIn) return "its last good version stays in force";
  if (fallback.identity.kind === "LoginPolicy" || fallback.identity.kind === "BackendTLSPolicy") return "until it can be read requests to the services of its namespace get 500";
  return fallback.identity.kind === "PeerAuthentication" ? "until it can be read its namespace takes no plain text" : "until it can be read everything it may cover is denied";
}

function lastGoodFile(path: string, members: readonly InForce[]): LastGoodFile {
  const documents: DocumentText[] = [];
  const indexes = new Map<string, number>();
  const resources = members.filter(({ standIn }) => !standIn).map(({ identity, placed }) => {
    const key = `${placed.document.line}:${placed.document.text}`;
    let index = indexes.get(key);
    if (index === undefined) {
      index = documents.push(placed.document) - 1;
      indexes.set(key, index);
    }
    return { ...identity, document: index, path: placed.path };
  });
  return { path, documents, resources, denied: members.filter(({ standIn }) => standIn).map(({ identity }) => identity) };
}

const SEVERITIES: readonly Severity[] = ["error", "warning", "info"];

/** At most DIAGNOSTICS_MAX, errors before warnings before infos. */
function mostImportant<T extends { readonly severity: Severity }>(all: readonly T[]): readonly T[] {
  if (all.length <= DIAGNOSTICS_MAX) return all;
  return SEVERITIES.flatMap((severity) => all.filter((entry) => entry.severity === severity)).slice(0, DIAGNOSTICS_MAX);
}

/** In the order of the files, with a word about those left out. */
function bounded(all: readonly Diagnostic[]): Diagnostic[] {
  const shown = [...mostImportant(all)].sort((a, b) => (a.file === b.file ? a.line - b.line || a.column - b.column : a.file < b.file ? -1 : 1));
  if (shown.length === all.length) return shown;
  const message = `${all.length - shown.length} or more further diagnostics are not shown`;
  return [...shown, { severity: "info", file: shown[0]!.file, line: 1, column: 1, fieldPath: "", code: "more_diagnostics", message, resource: "" }];
}
