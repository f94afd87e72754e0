// The house rules that a compiler does not see: which folder may import which, and what the pure core may not touch.
// Reads the sources as text; imports of types count like any other.

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

/** Every source is read and searched: seconds, where others use the processors too. */
setDefaultTimeout(60_000);

const SRC = resolve(import.meta.dir, "../src");

/** Lowest first: a row imports from the rows before it and from its own folder. */
const ROWS = ["core", "wire", "mesh", "resources", "policy", "telemetry", "net", "identity", "xds", "runtime", "tunnel"] as const;
/** They stand side by side: each may import every row, and none another part. */
const PARTS = ["ztunnel", "waypoint", "ca", "control", "cni", "cli", "dashboard"] as const;
/** They put the parts together. */
const COMPOSERS = ["up", "program.ts", "main.ts"] as const;
const RUNGS: readonly (readonly string[])[] = [...ROWS.map((row) => [row]), PARTS, ["up"], ["program.ts"], ["main.ts"]];

/** Rows without IO. */
const PURE = ["core", "wire", "mesh", "policy"];

interface Ban {
  readonly pattern: RegExp;
  readonly instead: string;
}

const BANS: readonly Ban[] = [
  { pattern: /\bDate\s*\.\s*now\b/, instead: "take `nowMs` as a parameter, or Clock.wallMs() of core/ports.ts" },
  { pattern: /\bnew\s+Date\s*(\(\s*\)|(?!\s*\())/, instead: "take `nowMs` as a parameter, or Clock.wallMs() of core/ports.ts" },
  { pattern: /\bperformance\s*\./, instead: "take `nowMs` as a parameter, or Clock.monotonicMs() of core/ports.ts" },
  { pattern: /\bMath\s*\.\s*random\b/, instead: "take a Random of core/ports.ts; tests pass seededRandom" },
  { pattern: /\bcrypto\s*\.\s*(getRandomValues|randomUUID)\b/, instead: "take a Random of core/ports.ts" },
  { pattern: /\bBun\s*\./, instead: "move what needs the runtime to src/net or src/runtime, and pass its result in" },
  { pattern: /\bprocess\s*\./, instead: "take the value as a parameter; src/runtime reads the process" },
  { pattern: /\b(setTimeout|setInterval|setImmediate|queueMicrotask)\b/, instead: "return the deadline; the shell owns timers (src/net/deadlines.ts)" },
  { pattern: /\bconsole\s*\./, instead: "return the reason; src/telemetry prints it" },
  { pattern: /\bfetch\s*\(/, instead: "do IO in src/net or above, and pass its result in" },
];

/** The real clock and the real dice live here, behind the ports. */
const BAN_EXCEPTIONS = new Set(["core/ports.ts"]);

/** The one file outside src that a source may read: the version is written there, once. */
const OUTSIDE_ALLOWED = new Map([["runtime/version.ts", "../package.json"]]);

/** Runtime modules that do IO or know the time. */
const IO_MODULE = /^(bun($|:)|node:(net|tls|http|https|http2|dgram|dns|fs|os|child_process|cluster|worker_threads|timers|perf_hooks|process|readline|crypto)($|\/))/;

interface Source {
  /** Path below src, e.g. `policy/outbound.ts`. */
  readonly path: string;
  readonly text: string;
}

const isTest = (path: string): boolean => path.endsWith(".test.ts");
const folderOf = (path: string): string => path.split("/")[0]!;

function sources(): Source[] {
  return readdirSync(SRC, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts"))
    .sort()
    .map((path) => ({ path, text: readFileSync(join(SRC, path), "utf8") }));
}

/** Blanks comments, keeping offsets. Strings, templates and regular expressions are kept, and with `code` their contents blanked too. */
function strip(text: string, what: "comments" | "code"): string {
  let out = "";
  let i = 0;
  /** For each open template, the depth of braces inside its present `${`. */
  const templates: number[] = [];
  let lastToken = "";
  const blank = (part: string): string => part.replace(/[^\n]/g, " ");
  const keep = (part: string): string => (what === "code" ? blank(part) : part);
  const templateBody = (): void => {
    let j = i;
    while (j < text.length && text[j] !== "`" && !(text[j] === "$" && text[j + 1] === "{")) j += text[j] === "\\" ? 2 : 1;
    out += keep(text.slice(i, j));
    if (text[j] === "`") {
      out += "`";
      i = j + 1;
      lastToken = "x";
    } else if (j < text.length) {
      out += "${";
      i = j + 2;
      templates.push(0);
      lastToken = "{";
    } else i = j;
  };
  while (i < text.length) {
    const c = text[i]!;
    const two = text.slice(i, i + 2);
    if (two === "//" || two === "/*") {
      const end = two === "//" ? text.indexOf("\n", i) : text.indexOf("*/", i + 2) + 2;
      const stop = end < (two === "//" ? 0 : 2) ? text.length : end;
      out += blank(text.slice(i, stop));
      i = stop;
    } else if (c === '"' || c === "'") {
      let j = i + 1;
      while (j < text.length && text[j] !== c) j += text[j] === "\\" ? 2 : 1;
      out += c + keep(text.slice(i + 1, j)) + c;
      i = j + 1;
      lastToken = "x";
    } else if (c === "`") {
      out += c;
      i++;
      templateBody();
    } else if (c === "/" && /^$|[(,=:[!&|?{};+*%<>~^-]|^(return|typeof|case|in|of)$/.test(lastToken)) {
      let j = i + 1;
      let inClass = false;
      while (j < text.length && (inClass || text[j] !== "/")) {
        if (text[j] === "[") inClass = true;
        else if (text[j] === "]") inClass = false;
        j += text[j] === "\\" ? 2 : 1;
      }
      out += `/${keep(text.slice(i + 1, j))}/`;
      i = j + 1;
      lastToken = "x";
    } else if (c === "}" && templates.length > 0 && templates[templates.length - 1] === 0) {
      templates.pop();
      out += c;
      i++;
      templateBody();
    } else {
      if (templates.length > 0 && c === "{") templates[templates.length - 1]!++;
      if (templates.length > 0 && c === "}") templates[templates.length - 1]!--;
      const word = /^[A-Za-z0-9_$]+/.exec(text.slice(i, i + 200))?.[0];
      const token = word ?? c;
      out += token;
      i += token.length;
      if (!/\s/.test(token)) lastToken = token;
    }
  }
  return out;
}

/** Every module a source names: import, export from, import(), import types, and workers made from a file of ours. */
function importsOf(source: Source): string[] {
  const text = strip(source.text, "comments");
  const found = [
    ...text.matchAll(/(?:^|[;\s}])(?:import|export)\b[^;"'`()]*?\bfrom\s*["']([^"']+)["']/g),
    ...text.matchAll(/(?:^|[;\s])import\s*["']([^"']+)["']/g),
    ...text.matchAll(/\bimport\s*\(\s*["'`]([^"'`]+)["'`]/g),
    ...text.matchAll(/\brequire\s*\(\s*["'`]([^"'`]+)["'`]/g),
    ...text.matchAll(/\bnew\s+URL\s*\(\s*["'`]([^"'`]+)["'`]\s*,\s*import\.meta\.url/g),
  ];
  return [...new Set(found.map((match) => match[1]!))];
}

const rungOf = (folder: string): number => RUNGS.findIndex((rung) => rung.includes(folder));

/** The one thing outside that says something of the program itself: its version. */
const MANIFEST = "../../package.json";

/** What is wrong with one import; null when it is allowed. */
function judgeImport(from: string, specifier: string): string | null {
  const folder = folderOf(from);
  if (!specifier.startsWith(".")) {
    if (!PURE.includes(folder) || !IO_MODULE.test(specifier)) return null;
    return `${from} imports ${specifier}: ${folder}/ does no IO; do it in src/net or above, and pass the result in`;
  }
  const target = relative(SRC, resolve(join(SRC, dirname(from)), specifier));
  if (specifier === MANIFEST) return null;
  if (OUTSIDE_ALLOWED.get(from) === target) return null;
  if (target.startsWith("..")) return `${from} imports ${specifier}, which lies outside src`;
  const to = folderOf(target);
  if (to === folder) return null;
  if (rungOf(to) < 0) return `${from} imports ${specifier}: no row is named ${to}; add it to ROWS or PARTS in test/architecture.test.ts`;
  if (rungOf(to) < rungOf(folder)) return null;
  if (rungOf(to) === rungOf(folder)) return `${from} imports ${specifier}: parts never import each other; move what they share down a row, or compose them in src/up`;
  return `${from} imports ${specifier}: ${folder} may not know ${to}, which is built on it; move what is shared to ${folder} or below`;
}

function judgeText(source: Source): string[] {
  const lines = strip(source.text, "code").split("\n");
  return lines.flatMap((line, i) =>
    BANS.filter((ban) => ban.pattern.test(line)).map((ban) => `${source.path}:${i + 1} uses ${ban.pattern.exec(line)![0].trim()}: ${ban.instead}`));
}

describe("imports go one way", () => {
  test("every folder of src has its row", () => {
    const known = new Set<string>([...ROWS, ...PARTS, ...COMPOSERS]);
    const unknown = readdirSync(SRC).filter((name) => !known.has(name));
    expect(unknown, "new folders get a place in ROWS or PARTS of test/architecture.test.ts").toEqual([]);
  });

  test("a row imports only from the rows before it, a part from no other part", () => {
    const wrong = sources().filter(({ path }) => !isTest(path))
      .flatMap((source) => importsOf(source).map((specifier) => judgeImport(source.path, specifier)))
      .filter((problem) => problem !== null);
    expect(wrong).toEqual([]);
  });

  test("sees every form of import, types too, and none in comments", () => {
    const text = [
      'import { a } from "./a.ts";', 'import type { B } from "./b.ts";', 'import "./c.ts";', 'export * from "./d.ts";',
      'const e = await import("./e.ts");', 'type F = import("./f.ts").F;', 'import {\n  g,\n  type H,\n} from "./g.ts";',
      'new Worker(new URL("./h.ts", import.meta.url));', '// import "./no.ts"', '/* import "./no.ts" */', 'const s = `${x} // not a comment`; import "./i.ts";',
      'const r = /["/*]/; import "./j.ts";', 'export { k } from "./k.ts";',
    ].join("\n");
    const found = importsOf({ path: "core/x.ts", text });
    expect(found.sort()).toEqual(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"].map((name) => `./${name}.ts`));
  });

  test("names what is wrong and what to do", () => {
    expect(judgeImport("policy/x.ts", "../mesh/store.ts")).toBeNull();
    expect(judgeImport("ztunnel/x.ts", "../runtime/x.ts")).toBeNull();
    expect(judgeImport("up/x.ts", "../ztunnel/x.ts")).toBeNull();
    expect(judgeImport("main.ts", "./up/up.ts")).toBeNull();
    expect(judgeImport("main.ts", "./ca/main.ts")).toBeNull();
    expect(judgeImport("wire/http2/x.ts", "../hbone/y.ts")).toBeNull();
    expect(judgeImport("wire/x.ts", "../mesh/store.ts")).toContain("wire may not know mesh");
    expect(judgeImport("ca/x.ts", "../ztunnel/x.ts")).toContain("parts never import each other");
    expect(judgeImport("ztunnel/x.ts", "../up/up.ts")).toContain("may not know up");
    expect(judgeImport("net/x.ts", "../utils/x.ts")).toContain("no row is named utils");
    expect(judgeImport("net/x.ts", "../../test/kit/box.ts")).toContain("outside src");
    expect(judgeImport("policy/x.ts", "node:net")).toContain("does no IO");
    expect(judgeImport("policy/x.ts", "bun:ffi")).toContain("does no IO");
    expect(judgeImport("net/x.ts", "node:net")).toBeNull();
  });
});

describe("the pure core", () => {
  test("touches no clock, no dice, no runtime", () => {
    const wrong = sources().filter(({ path }) => PURE.includes(folderOf(path)) && !isTest(path) && !BAN_EXCEPTIONS.has(path)).flatMap(judgeText);
    expect(wrong).toEqual([]);
  });

  test("is caught at it, in code only", () => {
    const judge = (text: string): string[] => judgeText({ path: "core/x.ts", text });
    expect(judge("const a = Date.now();")[0]).toContain("core/x.ts:1 uses Date.now: take `nowMs`");
    expect(judge("\nconst t = `${performance.now()}`;")[0]).toContain("core/x.ts:2 uses performance.");
    expect(judge("const r = Math.random;")[0]).toContain("seededRandom");
    expect(judge("Bun.serve({})")[0]).toContain("src/net");
    expect(judge("new Date()")[0]).toContain("nowMs");
    expect(judge("new Date(ms).toISOString()")).toEqual([]);
    expect(judge("// Date.now() is banned\nconst s = 'Bun.serve'; const t = `Math.random()`; /* Bun. */ const r = /Bun.x/;")).toEqual([]);
  });
});
