// Reads the JUnit report that `bun test --reporter=junit` writes: which tests passed, failed or were skipped, and why.
// Only the subset of XML that this writer produces; anything else throws, because a report we cannot read is no proof.

import { skipReasonOf } from "../kit/skip.ts";

export type Outcome =
  | { readonly kind: "passed" }
  | { readonly kind: "failed"; readonly message: string }
  | { readonly kind: "skipped"; readonly reason: string };

export interface TestResult {
  /** `describe > describe > test`. */
  readonly name: string;
  readonly outcome: Outcome;
  readonly seconds: number;
}

/** A skip that names no reason: see test/kit/skip.ts. */
export const SKIPPED_WITHOUT_REASON = "skipped without a reason; use testUnless(reason) of test/kit/skip.ts";

/** @param xml the whole report. Throws when it is not one, or when its own totals do not match what was read. */
export function parseJunit(xml: string): TestResult[] {
  const results: TestResult[] = [];
  const groups: string[] = [];
  let declaredTests: number | null = null;
  let current: OpenTest | null = null;
  for (const tag of tagsOf(xml)) {
    switch (tag.name) {
      case "testsuites":
        if (!tag.closes) declaredTests = Number(tag.attributes.get("tests"));
        break;
      case "testsuite":
        if (tag.closes) groups.pop();
        else if (!tag.selfClosing) groups.push(tag.attributes.get("name") ?? "");
        break;
      case "testcase":
        if (!tag.closes) current = openTest(tag, groups);
        if ((tag.closes || tag.selfClosing) && current !== null) {
          results.push(closeTest(current));
          current = null;
        }
        break;
      case "failure":
      case "error":
        if (tag.closes || current === null) break;
        current.failure = tag.text.trim() || (tag.attributes.get("message") ?? "failed without a message");
        break;
      case "skipped":
        if (current !== null) current.skipped = true;
        break;
      default:
        break;
    }
  }
  if (declaredTests === null || declaredTests !== results.length) {
    throw new Error(`JUnit report declares ${declaredTests ?? "no"} tests, ${results.length} were read`);
  }
  return results;
}

interface OpenTest {
  readonly name: string;
  readonly seconds: number;
  failure: string | null;
  skipped: boolean;
}

function openTest(tag: Tag, groups: readonly string[]): OpenTest {
  // The outermost group is the file itself.
  const name = [...groups.slice(1), tag.attributes.get("name") ?? ""].join(" > ");
  return { name, seconds: Number(tag.attributes.get("time") ?? 0), failure: null, skipped: false };
}

function closeTest(open: OpenTest): TestResult {
  return { name: open.name, seconds: open.seconds, outcome: outcomeOf(open) };
}

function outcomeOf(open: OpenTest): Outcome {
  if (open.failure !== null) return { kind: "failed", message: open.failure };
  if (!open.skipped) return { kind: "passed" };
  const reason = skipReasonOf(open.name);
  return reason === null ? { kind: "failed", message: SKIPPED_WITHOUT_REASON } : { kind: "skipped", reason };
}

interface Tag {
  readonly name: string;
  readonly closes: boolean;
  readonly selfClosing: boolean;
  readonly attributes: ReadonlyMap<string, string>;
  /** Text up to the next tag. */
  readonly text: string;
}

function* tagsOf(xml: string): Generator<Tag> {
  const pattern = /<(\/?)([a-z]+)((?:\s+[a-zA-Z]+="[^"]*")*)\s*(\/?)>([^<]*)/g;
  for (const match of xml.matchAll(pattern)) {
    const [, closing, name, attributes, selfClosing, text] = match;
    yield {
      name: name ?? "",
      closes: closing === "/",
      selfClosing: selfClosing === "/",
      attributes: attributesOf(attributes ?? ""),
      text: unescapeXml(text ?? ""),
    };
  }
}

function attributesOf(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const match of text.matchAll(/([a-zA-Z]+)="([^"]*)"/g)) found.set(match[1] ?? "", unescapeXml(match[2] ?? ""));
  return found;
}

function unescapeXml(text: string): string {
  return text.replace(/&(?:#(\d+)|#x([0-9a-fA-F]+)|(lt|gt|amp|quot|apos));/g, (whole, decimal?: string, hex?: string, named?: string) => {
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
    if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16));
    return { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" }[named ?? ""] ?? whole;
  });
}
