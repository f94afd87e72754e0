// RequestAuthentication: which tokens a request carries and for which rules, and what follows from the verdicts on them. No token makes
// no principal; a token that is not good refuses the request. Verification itself is the shell's (src/identity/jwt).

import { formatProvenance, type Provenance } from "../../core/fault.ts";
import type { JwtRule, RequestAuthentication, TokenSource } from "../../mesh/l7/access.ts";
import { isValue } from "../../wire/http/field-bytes.ts";
import { toBase64Url } from "./base64-url.ts";
import { claimAt, type JsonObject, type JsonValue } from "./claims.ts";
import { type HeaderOperation, isChangeable } from "./header-change.ts";
import { queryValue, withoutQueryParameter } from "./query.ts";
import { type ReasonCode, reasonEntry } from "./reason-codes.ts";
import type { FieldLookup, RequestView } from "./request.ts";
import { cookieValues, withoutCookie } from "./session.ts";
import { wireText } from "./wire-text.ts";

export interface BoundRule {
  readonly rule: JwtRule;
  readonly provenance: Provenance;
}

/** A text that stands where rules look for tokens. Verify it against the rules in turn: one that accepts it is enough. */
export interface FoundToken {
  readonly text: string;
  readonly source: TokenSource;
  /** All rules that look in this place, in order. */
  readonly rules: readonly BoundRule[];
}

/** The token that speaks for a request. */
export interface RequestToken {
  /** `issuer/subject`; null for a token without a subject, which names nobody. */
  readonly principal: string | null;
  readonly payload: JsonObject;
  readonly rule: JwtRule;
}

export type TokenFailure = Extract<ReasonCode, `token_${string}`>;

export type TokenVerdict =
  | { readonly ok: true; readonly payload: JsonObject; readonly bound: BoundRule }
  /** `bound` is null when no rule could be chosen. */
  | { readonly ok: false; readonly code: TokenFailure; readonly detail: string; readonly bound: BoundRule | null };

export type AuthenticationDecision =
  | {
    readonly kind: "authenticated";
    readonly token: RequestToken;
    readonly changes: TokenChanges;
    readonly provenance: Provenance;
  }
  | { readonly kind: "anonymous"; readonly changes: TokenChanges }
  | {
    readonly kind: "rejected";
    readonly code: TokenFailure;
    readonly status: number;
    readonly detail: string;
    readonly headers: readonly (readonly [name: string, value: string])[];
    readonly provenance: Provenance | null;
  };

/** What the backend sees differently. Headers that rules fill are taken out first: a client must not write them itself. */
export interface TokenChanges {
  readonly requestHeaders: readonly HeaderOperation[];
  /** Tokens that are not passed on. */
  readonly strip: readonly TokenSource[];
}

/** A token longer than this is not looked at: heads of requests are bounded too, and real tokens have a few kilobytes. */
export const TOKEN_CHARS_MAX = 16_384;

/** Where a token is looked for when a rule does not say (Istio's defaults). */
export const DEFAULT_TOKEN_SOURCES: readonly TokenSource[] = [
  { kind: "header", name: "authorization", prefix: "Bearer " },
  { kind: "query", name: "access_token" },
];

const NO_TEXTS: readonly string[] = Object.freeze([]);

export function bindRules(authentications: readonly RequestAuthentication[]): readonly BoundRule[] {
  return authentications.flatMap(({ rules, provenance }) => rules.map((rule) => ({ rule, provenance: { ...provenance, fieldPath: rule.fieldPath } })));
}

/** Every token of the request, or why the request is refused already. Empty: it carries none. */
export function findTokens(rules: readonly BoundRule[], request: RequestView): readonly FoundToken[] | Extract<AuthenticationDecision, { kind: "rejected" }> {
  const found: FoundToken[] = [];
  for (const place of compiledOf(rules).places) {
    const texts = textsAt(place, request);
    const [text] = texts;
    if (text === undefined) continue;
    const { source, rules: own } = place;
    const different = texts.length === 1 ? 1 : new Set(texts).size;
    if (different > 1) return rejected("token_several", `${formatSource(source)} holds ${different} different tokens`, own[0] ?? null);
    if (text.length > TOKEN_CHARS_MAX) return rejected("token_malformed", `the token in ${formatSource(source)} has ${text.length} characters, at most ${TOKEN_CHARS_MAX} are read`, own[0] ?? null);
    found.push({ text, source, rules: own });
  }
  return found;
}

/** @param verdicts one for each token found, in the same order. */
export function decideAuthentication(rules: readonly BoundRule[], found: readonly FoundToken[], verdicts: readonly TokenVerdict[]): AuthenticationDecision {
  if (found.length !== verdicts.length) throw new Error(`${found.length} tokens and ${verdicts.length} verdicts`);
  const [token] = found;
  const [verdict] = verdicts;
  if (found.length !== 1 || token === undefined || verdict?.ok !== true) return decide(rules, found, verdicts);
  const { decided } = compiledOf(rules);
  const known = decided.get(verdict.payload);
  if (known !== undefined && known.bound === verdict.bound && known.source === token.source) return known.decision;
  const decision = decide(rules, found, verdicts);
  decided.set(verdict.payload, { bound: verdict.bound, source: token.source, decision });
  return decision;
}

function decide(rules: readonly BoundRule[], found: readonly FoundToken[], verdicts: readonly TokenVerdict[]): AuthenticationDecision {
  const accepted: { readonly payload: JsonObject; readonly bound: BoundRule; readonly token: FoundToken }[] = [];
  for (const [i, verdict] of verdicts.entries()) {
    const token = found[i]!;
    if (!verdict.ok) return rejected(verdict.code, `the token in ${formatSource(token.source)}: ${verdict.detail}`, verdict.bound);
    accepted.push({ payload: verdict.payload, bound: verdict.bound, token });
  }
  // The order of the rules decides which of several tokens speaks, not the order in which a client sends them.
  accepted.sort((a, b) => rules.indexOf(a.bound) - rules.indexOf(b.bound));
  const changes = changesOf(rules, accepted);
  const [first] = accepted;
  if (first === undefined) return { kind: "anonymous", changes };
  const { payload, bound } = first;
  const subject = payload["sub"];
  const issuer = payload["iss"];
  const principal = typeof subject === "string" && subject !== "" ? `${typeof issuer === "string" ? issuer : bound.rule.issuer}/${subject}` : null;
  return { kind: "authenticated", token: { principal, payload, rule: bound.rule }, changes, provenance: bound.provenance };
}

/** The query without the tokens that are not passed on. */
export function strippedQuery(query: string, { strip }: TokenChanges): string {
  return strip.reduce((left, source) => (source.kind === "query" ? withoutQueryParameter(left, source.name) : left), query);
}

/** The operations on headers, those that take tokens out among them. */
export function headerOperations({ requestHeaders, strip }: TokenChanges, fields: FieldLookup): readonly HeaderOperation[] {
  if (strip.length === 0) return requestHeaders;
  const operations: HeaderOperation[] = [...requestHeaders];
  const cookies = strip.filter((source) => source.kind === "cookie");
  for (const source of strip) if (source.kind === "header") operations.unshift({ kind: "remove", name: source.name.toLowerCase() });
  if (cookies.length > 0) {
    const rest = fields.values("cookie").map((line) => cookies.reduce((left, { name }) => withoutCookie(left, name), line)).filter((line) => line !== "").join("; ");
    operations.push(rest === "" ? { kind: "remove", name: "cookie" } : { kind: "set", name: "cookie", value: rest });
  }
  return operations;
}

function formatSource(source: TokenSource): string {
  switch (source.kind) {
    case "header": return `the header ${source.name}`;
    case "query": return `the query parameter ${source.name}`;
    case "cookie": return `the cookie ${source.name}`;
    default: return source satisfies never;
  }
}

interface Place {
  readonly source: TokenSource;
  /** In lower case where a header's; "" where there is none. */
  readonly name: string;
  readonly prefix: string;
  readonly rules: BoundRule[];
}

/** What follows from the rules alone. */
interface CompiledTokens {
  readonly places: readonly Place[];
  /** Takes out the headers that rules fill. */
  readonly emptied: readonly HeaderOperation[];
  /** By the claims of the only token of a request: those of a token that is remembered are the same object each time. */
  readonly decided: WeakMap<JsonObject, Decided>;
}

interface Decided {
  readonly bound: BoundRule;
  readonly source: TokenSource;
  readonly decision: AuthenticationDecision;
}

/** Compiled once for each list; whoever binds rules makes a new list when one of them changes. */
const compiledLists = new WeakMap<readonly BoundRule[], CompiledTokens>();

function compiledOf(rules: readonly BoundRule[]): CompiledTokens {
  let compiled = compiledLists.get(rules);
  if (compiled === undefined) compiledLists.set(rules, (compiled = { places: placesOf(rules), emptied: emptiedBy(rules), decided: new WeakMap() }));
  return compiled;
}

function placesOf(rules: readonly BoundRule[]): readonly Place[] {
  const places = new Map<string, Place>();
  for (const bound of rules) {
    for (const source of bound.rule.sources.length === 0 ? DEFAULT_TOKEN_SOURCES : bound.rule.sources) {
      const isHeader = source.kind === "header";
      const name = isHeader ? source.name.toLowerCase() : source.name;
      const prefix = isHeader ? source.prefix.toLowerCase() : "";
      const key = `${source.kind} ${name} ${prefix}`;
      const known = places.get(key);
      if (known === undefined) places.set(key, { source, name, prefix, rules: [bound] });
      else if (!known.rules.includes(bound)) known.rules.push(bound);
    }
  }
  return [...places.values()];
}

function emptiedBy(rules: readonly BoundRule[]): readonly HeaderOperation[] {
  const filled = new Set(rules.flatMap(({ rule }) => [...(rule.payloadHeader === null ? [] : [rule.payloadHeader]), ...rule.claimsToHeaders.map(({ header }) => header)]).map((name) => name.toLowerCase()));
  return [...filled].map((name) => ({ kind: "remove", name }));
}

function textsAt({ source, name, prefix }: Place, request: RequestView): readonly string[] {
  switch (source.kind) {
    case "header": {
      const values = request.fields.values(name);
      // A scheme has no case (RFC 9110, section 11.1): in another spelling the backend would see a token that nobody checked.
      return values.length === 0 ? values : values.filter((value) => value.slice(0, prefix.length).toLowerCase() === prefix).map((value) => value.slice(prefix.length).trim());
    }
    case "query": {
      if (request.query === "" || queryValue(request.query, name) === undefined) return NO_TEXTS;
      return request.query.slice(1).split("&").map((part) => queryValue(part, name)).filter((value) => value !== undefined);
    }
    case "cookie": return cookieValues(request.fields, name);
    default: return source satisfies never;
  }
}

function rejected(code: TokenFailure, detail: string, bound: BoundRule | null): Extract<AuthenticationDecision, { kind: "rejected" }> {
  const status = reasonEntry(code).status ?? 401;
  const challenge = code === "token_missing" ? "Bearer" : 'Bearer error="invalid_token"';
  const explained = bound === null ? detail : `${detail} (${formatProvenance(bound.provenance)})`;
  return { kind: "rejected", code, status, detail: explained, headers: status === 401 ? [["www-authenticate", challenge]] : [], provenance: bound?.provenance ?? null };
}

function changesOf(rules: readonly BoundRule[], accepted: readonly { readonly payload: JsonObject; readonly bound: BoundRule; readonly token: FoundToken }[]): TokenChanges {
  const requestHeaders: HeaderOperation[] = [...compiledOf(rules).emptied];
  for (const { payload, bound: { rule } } of accepted) {
    if (rule.payloadHeader !== null) set(requestHeaders, rule.payloadHeader, toBase64Url(JSON.stringify(payload)));
    for (const { header, claim } of rule.claimsToHeaders) {
      const text = headerText(claimAt(payload, claim));
      if (text !== null) set(requestHeaders, header, text);
    }
  }
  return { requestHeaders, strip: accepted.filter(({ bound }) => !bound.rule.forwardOriginalToken).map(({ token }) => token.source) };
}

/** A claim that cannot stand in a header is left out; the header itself is gone already. */
function set(operations: HeaderOperation[], written: string, value: string): void {
  const name = written.toLowerCase();
  if (isChangeable(name) && isValue(value)) operations.push({ kind: "set", name, value });
}

/** Text, numbers and truth values as they are, lists of those joined by commas, anything else as base64 of its JSON (as Envoy does). */
function headerText(value: JsonValue | undefined): string | null {
  if (value === undefined || value === null) return null;
  if (typeof value !== "object") return wireText(String(value));
  if (Array.isArray(value) && value.every((part) => part !== null && typeof part !== "object" && !String(part).includes(","))) return wireText(value.join(","));
  return Buffer.from(JSON.stringify(value)).toString("base64");
}
