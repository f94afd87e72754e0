// The regular expressions that people really write (`/api/v[0-9]+/.*`, `a|b|c`), recognised and given to something faster than a
// general engine: string comparisons, or the runtime's own RegExp where its backtracking has nowhere to go.
// Whatever is not understood beyond doubt is null, and goes to the general engine: nothing here widens what a pattern matches.

/** A text matches as a whole, or it does not. */
export type WholeMatch = (text: string) => boolean;

/** Null: not simple. */
export function simpleRegex(written: string): WholeMatch | null {
  const pattern = withoutAnchors(written);
  if (pattern === ".*") return hasNoNewline;
  if (pattern === ".+") return (text) => text !== "" && hasNoNewline(text);
  const whole = literalOf(pattern);
  if (whole !== null) return (text) => text === whole;
  return affix(pattern) ?? alternatives(pattern) ?? sequence(pattern);
}

/** The whole text is meant anyhow. Beside alternatives an anchor binds one of them only. */
function withoutAnchors(pattern: string): string {
  if (pattern.includes("|")) return pattern;
  const start = pattern.startsWith("^") ? 1 : 0;
  const end = pattern.endsWith("$") && !pattern.endsWith("\\$") ? -1 : undefined;
  return pattern.slice(start, end);
}

const hasNoNewline = (text: string): boolean => !text.includes("\n");

/** `literal.*`, `.*literal`, `.*literal.*`. */
function affix(pattern: string): WholeMatch | null {
  const before = pattern.startsWith(".*");
  const after = pattern.endsWith(".*");
  if (before === after && !before || pattern.length < (before && after ? 5 : 3)) return null;
  const literal = literalOf(pattern.slice(before ? 2 : 0, after ? -2 : undefined));
  // A newline in the literal is not one that `.` has to cover.
  if (literal === null || literal.includes("\n")) return null;
  if (before && after) return (text) => text.includes(literal) && hasNoNewline(text);
  if (before) return (text) => text.endsWith(literal) && hasNoNewline(text);
  return (text) => text.startsWith(literal) && hasNoNewline(text);
}

/** `a|b|c`, also in one pair of brackets. */
function alternatives(pattern: string): WholeMatch | null {
  const inner = pattern.startsWith("(?:") && pattern.endsWith(")") ? pattern.slice(3, -1)
    : pattern.startsWith("(") && pattern.endsWith(")") ? pattern.slice(1, -1) : pattern;
  if (!inner.includes("|")) return null;
  const words = inner.split("|").map(literalOf);
  if (words.some((word) => word === null)) return null;
  const set: ReadonlySet<string> = new Set(words.filter((word) => word !== null));
  return (text) => set.has(text);
}

const META = /[\\^$.|?*+()[\]{}]/;
/** Escaped punctuation stands for itself in RE2. */
const ESCAPED_SELF = /[!-/:-@[-`{-~]/;

/** The one text that a pattern without operators matches; null when it has operators. */
function literalOf(pattern: string): string | null {
  let text = "";
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i]!;
    if (c === "\\") {
      const escaped = pattern[++i];
      if (escaped === undefined || !ESCAPED_SELF.test(escaped)) return null;
      text += escaped;
    } else if (META.test(c)) return null;
    else text += c;
  }
  return text;
}

// ---- sequences of single characters

/**
 * One step of a sequence. `first` says which ASCII characters it may begin with, `firstOther` whether others too.
 * `repeat`: how often; every repeated step is one character wide.
 */
interface Step {
  readonly source: string;
  readonly first: readonly boolean[];
  readonly firstOther: boolean;
  readonly repeat: "" | "?" | "*" | "+";
}

/**
 * Characters, classes and prefix-free alternatives in a row, some repeated. Backtracking is bounded when what follows a repeated step
 * cannot begin like the step itself; one step may be ambiguous, if nothing after it repeats without end.
 */
function sequence(pattern: string): WholeMatch | null {
  const steps = new StepReader(pattern).read();
  if (steps === null || !isBounded(steps)) return null;
  const compiled = new RegExp(`^(?:${steps.map((step) => step.source + step.repeat).join("")})$`, "u");
  return (text) => compiled.test(text);
}

function isBounded(steps: readonly Step[]): boolean {
  for (let i = 0; i < steps.length; i++) {
    const step = steps[i]!;
    if (step.repeat === "" || isUnlikeWhatFollows(step, steps, i + 1)) continue;
    // Ambiguous: each of its lengths is tried, and what comes after must then cost no more than its own length.
    return steps.slice(i + 1).every((later) => later.repeat === "");
  }
  return true;
}

function isUnlikeWhatFollows(step: Step, steps: readonly Step[], from: number): boolean {
  for (let i = from; i < steps.length; i++) {
    const next = steps[i]!;
    if (step.firstOther && next.firstOther) return false;
    for (let c = 0; c < 128; c++) if (step.first[c] && next.first[c]) return false;
    if (next.repeat === "" || next.repeat === "+") return true;
  }
  return true;
}

const none = (): boolean[] => new Array<boolean>(128).fill(false);
const DIGITS = "0-9";
const WORD = "0-9A-Za-z_";

/** Recursion is not needed: groups are taken apart only where they are plain alternatives or plain brackets. */
class StepReader {
  readonly #pattern: string;
  #at = 0;

  constructor(pattern: string) {
    this.#pattern = pattern;
  }

  read(): Step[] | null {
    // Beyond ASCII, case and code points have rules of their own; the general engine knows them.
    if (!/^[\x20-\x7e]+$/.test(this.#pattern)) return null;
    const steps: Step[] = [];
    while (this.#at < this.#pattern.length) {
      const step = this.#step();
      if (step === null) return null;
      steps.push(step);
    }
    return steps;
  }

  #step(): Step | null {
    const c = this.#pattern[this.#at]!;
    if (c === "(") return this.#alternatives();
    const set = c === "[" ? this.#class() : c === "\\" ? this.#escape() : this.#plain(c);
    if (set === null) return null;
    const next = this.#pattern[this.#at];
    const repeat = next === "?" || next === "*" || next === "+" ? next : "";
    if (repeat !== "") {
      this.#at++;
      // Lazy and possessive forms.
      const after = this.#pattern[this.#at];
      if (after === "?" || after === "*" || after === "+") return null;
    }
    return { ...set, repeat };
  }

  #plain(c: string): Omit<Step, "repeat"> | null {
    if (c !== "." && META.test(c)) return null;
    this.#at++;
    if (c !== ".") return single(c);
    const first = new Array<boolean>(128).fill(true);
    first[0x0a] = false;
    return { source: "[^\\n]", first, firstOther: true };
  }

  #escape(): Omit<Step, "repeat"> | null {
    const escaped = this.#pattern[this.#at + 1];
    if (escaped === undefined) return null;
    this.#at += 2;
    if (escaped === "d") return ranges(DIGITS, false);
    if (escaped === "w") return ranges(WORD, false);
    return ESCAPED_SELF.test(escaped) ? single(escaped) : null;
  }

  #class(): Omit<Step, "repeat"> | null {
    const end = this.#pattern.indexOf("]", this.#at + 1);
    if (end < 0) return null;
    let body = this.#pattern.slice(this.#at + 1, end);
    const negated = body.startsWith("^");
    if (negated) body = body.slice(1);
    body = body.replaceAll("\\d", DIGITS).replaceAll("\\w", WORD).replaceAll("\\.", ".").replaceAll("\\/", "/");
    // Escapes, nested classes and brackets at odd places: left to the engine that defines them.
    if (body === "" || /[\\[\]^]/.test(body)) return null;
    this.#at = end + 1;
    return ranges(body, negated);
  }

  /** `(a|bc)` where no word begins another. */
  #alternatives(): Step | null {
    const end = this.#pattern.indexOf(")", this.#at);
    if (end < 0) return null;
    const open = this.#pattern.startsWith("(?:", this.#at) ? 3 : 1;
    const words = this.#pattern.slice(this.#at + open, end).split("|").map(literalOf);
    const next = this.#pattern[end + 1] ?? "";
    if ("?*+{".includes(next) && next !== "") return null;
    const first = none();
    let source = "";
    for (const word of words) {
      if (word === null || word === "" || words.some((other) => other !== null && other !== word && other.startsWith(word))) return null;
      first[word.charCodeAt(0)] = true;
      source += `${source === "" ? "" : "|"}${[...word].map(quoted).join("")}`;
    }
    if (new Set(words).size !== words.length) return null;
    this.#at = end + 1;
    return { source: `(?:${source})`, first, firstOther: false, repeat: "" };
  }
}

/** Every character by its number: no escape to get wrong. */
const quoted = (c: string): string => `\\u{${c.codePointAt(0)!.toString(16)}}`;

function single(c: string): Omit<Step, "repeat"> {
  const first = none();
  first[c.charCodeAt(0)] = true;
  return { source: quoted(c), first, firstOther: false };
}

/** @param body characters and ranges of ASCII, as inside a class. */
function ranges(body: string, negated: boolean): Omit<Step, "repeat"> | null {
  const first = none();
  let source = "";
  for (let i = 0; i < body.length; i++) {
    const from = body[i]!;
    const isRange = body[i + 1] === "-" && i + 2 < body.length;
    const to = isRange ? body[i + 2]! : from;
    // A dash between others can be read in two ways.
    if (from === "-" && i > 0 && i < body.length - 1 || from > to) return null;
    if (isRange) i += 2;
    for (let c = from.charCodeAt(0); c <= to.charCodeAt(0); c++) first[c] = true;
    source += isRange ? `${quoted(from)}-${quoted(to)}` : quoted(from);
  }
  return { source: `[${negated ? "^" : ""}${source}]`, first: negated ? first.map((in_) => !in_) : first, firstOther: negated };
}
