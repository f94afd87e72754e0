// The filter of an access log: of the CEL that Istio takes, what is asked of requests. Checked and brought into steps here, so that nothing
// is parsed where requests end.
//   response.code >= 400 && response.duration > duration("1s") || !(request.useragent.startsWith("probe")) && random() < 0.1

import { err, ok, type Result } from "../core/result.ts";
import { type AccessLogCondition, isLogAttribute, LOG_ATTRIBUTES, type LogStep } from "../mesh/l7/telemetry.ts";
import { parseDuration } from "./durations.ts";

const STATUS = /^response\.code\s*(>=|<=|==|!=|>|<)\s*([1-5][0-9]{2})$/;
const SLOW = /^(?:response|request)\.(?:total_)?duration\s*>=?\s*duration\(\s*["']([^"']+)["']\s*\)$/;
const SAMPLE = /^random\(\)\s*<\s*(0|1|0?\.[0-9]{1,9}|1\.0+)$/;

/** A step costs some ten nanoseconds for each request: nobody writes as many. */
const STEPS_MAX = 256;
const DEPTH_MAX = 32;

type Type = "text" | "number" | "time" | "truth";

/** Comparisons joined by && are conditions of their own, which every waypoint knows; anything else is one expression. */
export function parseAccessLogFilter(expression: string): Result<readonly AccessLogCondition[], string> {
  const simple = expression.split("&&").map((part) => parseComparison(part.trim()));
  if (simple.every((condition) => condition !== null)) return ok(simple);
  const parsed = new Parser(expression).parse();
  return parsed.ok ? ok([{ kind: "expression", steps: parsed.value }]) : parsed;
}

function parseComparison(text: string): AccessLogCondition | null {
  const status = STATUS.exec(text);
  if (status !== null) return { kind: "status", compare: status[1] as ">=", value: Number(status[2]) };
  const sample = SAMPLE.exec(text);
  if (sample !== null) return { kind: "sample", fraction: Number(sample[1]) };
  const slow = SLOW.exec(text);
  const value = slow === null ? null : parseDuration(slow[1]!);
  return value === null ? null : { kind: "slowerThanMs", value };
}

const TOKEN = /\s*(?:([A-Za-z_][A-Za-z0-9_]*)|([0-9]+(?:\.[0-9]+)?|\.[0-9]+)|"([^"\\]*)"|'([^'\\]*)'|(>=|<=|==|!=|&&|\|\||[<>!()[\].,]))/y;
type Token = { readonly kind: "name" | "number" | "string" | "sign"; readonly text: string };
const END: Token = { kind: "sign", text: "" };

/** What was found and what was expected; never leaves `parse`. */
class Refused extends Error {}

const COMPARISONS = [">=", "<=", "==", "!=", ">", "<"] as const;
const TEXT_TESTS = ["startsWith", "endsWith", "contains"] as const;
const EXPECTED = "expected a comparison of attributes of the request, such as response.code >= 400";

/** By descent, each level binding tighter than the one that calls it: || && ! comparison, value. */
class Parser {
  readonly #tokens: Token[] = [];
  readonly #steps: LogStep[] = [];
  readonly #text: string;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  parse(): Result<readonly LogStep[], string> {
    try {
      this.#scan();
      this.#needs(this.#either(), "truth", "the whole");
      if (this.#next !== END) throw new Refused(`${EXPECTED}, and nothing at ${JSON.stringify(this.#next.text)}`);
    } catch (error) {
      if (error instanceof Refused) return err(error.message);
      throw error;
    }
    return this.#steps.length > STEPS_MAX ? err(`expected at most ${STEPS_MAX} parts`) : ok(this.#steps);
  }

  #scan(): void {
    TOKEN.lastIndex = 0;
    while (this.#text.slice(TOKEN.lastIndex).trim() !== "") {
      const from = TOKEN.lastIndex;
      const [, name, number, double, single, sign] = TOKEN.exec(this.#text) ?? [];
      const string = double ?? single;
      if (name !== undefined) this.#tokens.push({ kind: "name", text: name });
      else if (number !== undefined) this.#tokens.push({ kind: "number", text: number });
      else if (string !== undefined) this.#tokens.push({ kind: "string", text: string });
      else if (sign !== undefined) this.#tokens.push({ kind: "sign", text: sign });
      else throw new Refused(`${EXPECTED}, and not ${JSON.stringify(this.#text.slice(from).trim().slice(0, 20))}`);
    }
  }

  get #next(): Token {
    return this.#tokens[this.#at] ?? END;
  }

  #take(sign: string): boolean {
    if (this.#next.kind !== "sign" || this.#next.text !== sign || this.#next === END) return false;
    this.#at++;
    return true;
  }

  #must(sign: string): void {
    if (!this.#take(sign)) throw new Refused(`expected ${sign} ${this.#next === END ? "at its end" : `before ${JSON.stringify(this.#next.text)}`}`);
  }

  #needs(found: Type, wanted: Type, what: string): void {
    if (found !== wanted) throw new Refused(`expected ${what} to be a ${wanted}, and not a ${found}`);
  }

  #either(): Type {
    if (++this.#depth > DEPTH_MAX) throw new Refused(`expected at most ${DEPTH_MAX} parentheses in each other`);
    let type = this.#both();
    while (this.#take("||")) {
      this.#needs(type, "truth", "what stands before ||");
      this.#needs(type = this.#both(), "truth", "what stands after ||");
      this.#steps.push({ kind: "or" });
    }
    this.#depth--;
    return type;
  }

  #both(): Type {
    let type = this.#comparison();
    while (this.#take("&&")) {
      this.#needs(type, "truth", "what stands before &&");
      this.#needs(type = this.#comparison(), "truth", "what stands after &&");
      this.#steps.push({ kind: "and" });
    }
    return type;
  }

  #comparison(): Type {
    const left = this.#value();
    const compare = COMPARISONS.find((sign) => this.#take(sign));
    if (compare === undefined) return left;
    const right = this.#value();
    if (left !== right) throw new Refused(`expected both sides of ${compare} to be of one kind, and not a ${left} and a ${right}`);
    if (left === "truth" && compare !== "==" && compare !== "!=") throw new Refused(`expected == or != between truth values, and not ${compare}`);
    this.#steps.push({ kind: "compare", compare });
    return "truth";
  }

  #value(): Type {
    if (this.#take("!")) {
      this.#needs(this.#value(), "truth", "what stands after !");
      this.#steps.push({ kind: "not" });
      return "truth";
    }
    if (this.#take("(")) {
      const type = this.#either();
      this.#must(")");
      return type;
    }
    const token = this.#next;
    if (token === END) throw new Refused(`${EXPECTED}, and not its end`);
    this.#at++;
    if (token.kind === "number") return this.#literal(Number(token.text), "number");
    if (token.kind === "string") return this.#afterString(token.text);
    if (token.kind !== "name") throw new Refused(`${EXPECTED}, and not ${JSON.stringify(token.text)}`);
    if (token.text === "true" || token.text === "false") return this.#literal(token.text === "true", "truth");
    return this.#named(token.text);
  }

  #literal(value: string | number | boolean, type: Type): Type {
    this.#steps.push({ kind: "literal", value });
    return type;
  }

  /** `"x-user" in request.headers`, or a text. */
  #afterString(text: string): Type {
    if (this.#next.kind !== "name" || this.#next.text !== "in") return this.#literal(text, "text");
    this.#at++;
    const side = this.#name();
    if (side !== "request" && side !== "response" || !this.#take(".") || this.#name() !== "headers") throw new Refused("expected request.headers or response.headers after in");
    this.#steps.push({ kind: "field", side, name: text.toLowerCase() }, { kind: "present" });
    return "truth";
  }

  #name(): string {
    if (this.#next.kind !== "name") throw new Refused(`expected a name ${this.#next === END ? "at its end" : `in place of ${JSON.stringify(this.#next.text)}`}`);
    return this.#tokens[this.#at++]!.text;
  }

  #string(): string {
    if (this.#next.kind !== "string") throw new Refused(`expected a text in quotes ${this.#next === END ? "at its end" : `in place of ${JSON.stringify(this.#next.text)}`}`);
    return this.#tokens[this.#at++]!.text;
  }

  #named(first: string): Type {
    if (first === "random" && this.#take("(")) {
      this.#must(")");
      this.#steps.push({ kind: "random" });
      return "number";
    }
    if (first === "duration" && this.#take("(")) {
      const text = this.#string();
      const ms = parseDuration(text);
      if (ms === null) throw new Refused(`expected a duration such as "500ms", and not ${JSON.stringify(text)}`);
      this.#must(")");
      return this.#literal(ms, "time");
    }
    if (first === "has" && this.#take("(")) {
      this.#reference(this.#name());
      this.#must(")");
      this.#steps.push({ kind: "present" });
      return "truth";
    }
    return this.#tested(this.#reference(first));
  }

  /** `request.method`, `request.headers["x-user"]`, `request.headers.host`. */
  #reference(first: string): Type {
    this.#must(".");
    const second = this.#name();
    if (second === "headers" && (first === "request" || first === "response")) {
      const name = this.#take("[") ? this.#string() : (this.#must("."), this.#name());
      if (this.#tokens[this.#at - 1]?.kind === "string") this.#must("]");
      this.#steps.push({ kind: "field", side: first, name: name.toLowerCase() });
      return "text";
    }
    const attribute = `${first}.${second}`;
    if (!isLogAttribute(attribute)) throw new Refused(`expected one of ${Object.keys(LOG_ATTRIBUTES).join(", ")}, request.headers[...] or response.headers[...], and not ${attribute}`);
    this.#steps.push({ kind: "attribute", name: attribute });
    return LOG_ATTRIBUTES[attribute];
  }

  #tested(type: Type): Type {
    if (!this.#take(".")) return type;
    const name = this.#name();
    const test = TEXT_TESTS.find((one) => one === name);
    if (test === undefined || type !== "text") throw new Refused(`expected ${TEXT_TESTS.join(", ")} of a text, and not ${name} of a ${type}`);
    this.#must("(");
    this.#literal(this.#string(), "text");
    this.#must(")");
    this.#steps.push({ kind: "text", test });
    return "truth";
  }
}
