// What a rule asks of a request beyond its connection: host, method, path, token, and the `when` conditions. One test for each match.
//
// Where a request can be read in two ways (a header that comes twice), the reading is taken that opens nothing: a rule that lets somebody
// in wants every value to match, a rule that keeps somebody out is satisfied by one. A key that is not known, or a template that cannot
// be read, holds in rules that keep out and fails in rules that let in.

import type { PathMatch, RequestCondition, RequestPolicy, RequestPolicyMatch } from "../../mesh/l7/access.ts";
import type { StringMatch } from "../../mesh/records.ts";
import type { IpAddress } from "../../core/ip.ts";
import type { ConnectionFacts } from "../connection-facts.ts";
import { type FurtherTest, ipSet, isIn, RuleCompiler, type StringSet, stringSet } from "../rules.ts";
import { allOf } from "./all-of.ts";
import { claimTexts } from "./claims.ts";
import { matchesTemplate, parsePathTemplate, type PathTemplate } from "./path-template.ts";
import { normalPathText } from "./path-text.ts";
import { authorityText, fieldOf, normalHostText, type RequestView } from "./request.ts";
import type { RequestToken } from "./tokens.ts";

export interface RequestFacts extends ConnectionFacts {
  readonly request: RequestView;
  /** The client before all trusted proxies; the source's own address where there are none. */
  readonly remoteIp: IpAddress;
  /** Server name of the client's TLS; null without TLS of its own. */
  readonly sni: string | null;
  /** The verified token that speaks for the request; null without one. */
  readonly token: RequestToken | null;
}

type Test = FurtherTest<RequestFacts>;

export const requestRules = new RuleCompiler<RequestPolicy, RequestPolicyMatch, RequestFacts>({
  opens: ({ action }) => action.kind === "allow",
  further: (match, opens) => allOf(testsOf(match, opens)),
});

/** Cheap ones first. */
function testsOf(match: RequestPolicyMatch, opens: boolean): Test[] {
  return [
    ...fieldTests(match.methods, match.notMethods, (facts: RequestFacts) => facts.request.method),
    ...pathTests(match.paths, match.notPaths, opens),
    ...hostTests(match.hosts, match.notHosts),
    ...fieldTests(match.requestPrincipals, match.notRequestPrincipals, (facts: RequestFacts) => facts.token?.principal ?? null),
    ...remoteIpTests(match),
    ...match.conditions.flatMap((condition) => conditionTests(condition, opens)),
  ];
}

/** A field with at most one text. Without one it fails, and its `not` twin holds. */
export function fieldTests<F>(values: readonly StringMatch[], notValues: readonly StringMatch[], textOf: (facts: F) => string | null): FurtherTest<F>[] {
  return listTests(values, notValues, (facts, set) => {
    const text = textOf(facts);
    return text !== null && isIn(set, text);
  });
}

function listTests<F>(values: readonly StringMatch[], notValues: readonly StringMatch[], isAmong: (facts: F, set: StringSet, wanted: boolean) => boolean): FurtherTest<F>[] {
  const wanted = stringSet(values);
  const unwanted = stringSet(notValues);
  return [
    ...(wanted === null ? [] : [(facts: F) => isAmong(facts, wanted, true)]),
    ...(unwanted === null ? [] : [(facts: F) => !isAmong(facts, unwanted, false)]),
  ];
}

/** Host names have no case; a pattern may name the port, as in `example.com:8080`, `*:8080` and `example.com:*`. */
function hostTests(hosts: readonly StringMatch[], notHosts: readonly StringMatch[]): Test[] {
  const lower = (match: StringMatch): StringMatch => 
    match.kind === "presence" ? match : { kind: match.kind, value: match.kind === "exact" ? normalHostText(match.value) : match.value.toLowerCase() };
  const namePort = [...hosts, ...notHosts].some((match) => match.kind !== "presence" && match.value.includes(":"));
  return listTests(hosts.map(lower), notHosts.map(lower), ({ request, destinationPort }: RequestFacts, set) =>
    request.host !== "" && (isIn(set, request.host) || namePort && isIn(set, authorityText(request.host, request.authorityPort ?? destinationPort))));
}

function pathTests(paths: readonly PathMatch[], notPaths: readonly PathMatch[], opens: boolean): Test[] {
  const wanted = pathSet(paths);
  const unwanted = pathSet(notPaths);
  return [
    ...(wanted === null ? [] : [({ request }: RequestFacts) => isPathIn(wanted, request.path) || wanted.unreadable && !opens]),
    ...(unwanted === null ? [] : [({ request }: RequestFacts) => (unwanted.unreadable ? !opens : !isPathIn(unwanted, request.path))]),
  ];
}

interface PathSet {
  readonly texts: StringSet | null;
  readonly templates: readonly PathTemplate[];
  readonly unreadable: boolean;
}

function pathSet(paths: readonly PathMatch[]): PathSet | null {
  if (paths.length === 0) return null;
  const texts: StringMatch[] = [];
  const templates: PathTemplate[] = [];
  let unreadable = false;
  for (const path of paths) {
    if (path.kind === "presence") texts.push(path);
    else if (path.kind !== "template") texts.push({ kind: path.kind, value: normalPathText(path.value) });
    else {
      const template = parsePathTemplate(path.value);
      if (template.ok) templates.push(template.value);
      else unreadable = true;
    }
  }
  return { texts: stringSet(texts), templates, unreadable };
}

function isPathIn({ texts, templates }: PathSet, path: string): boolean {
  if (texts !== null && isIn(texts, path)) return true;
  for (const template of templates) if (matchesTemplate(template, path)) return true;
  return false;
}

export function remoteIpTests({ remoteIps, notRemoteIps }: RequestPolicyMatch): FurtherTest<Pick<RequestFacts, "remoteIp">>[] {
  const wanted = ipSet(remoteIps);
  const unwanted = ipSet(notRemoteIps);
  return [
    ...(wanted === null ? [] : [({ remoteIp }: Pick<RequestFacts, "remoteIp">) => wanted.contains(remoteIp)]),
    ...(unwanted === null ? [] : [({ remoteIp }: Pick<RequestFacts, "remoteIp">) => !unwanted.contains(remoteIp)]),
  ];
}

function conditionTests({ key, values, notValues }: RequestCondition, opens: boolean): Test[] {
  switch (key.kind) {
    case "unknown": return [() => !opens];
    case "sni": return fieldTests(values, notValues, (facts: RequestFacts) => facts.sni);
    case "requestPrincipal": return fieldTests(values, notValues, (facts: RequestFacts) => facts.token?.principal ?? null);
    case "presenter": return claimTests(["azp"], { values, notValues });
    case "audiences": return claimTests(["aud"], { values, notValues });
    case "claim": return claimTests(key.path, { values, notValues });
    case "header":
      // To let in, values must match strictly and unwanted ones must not match even loosely; to keep out, the other way round.
      return listTests(values, notValues, (facts: RequestFacts, set, wanted) => isHeaderIn(set, facts.request, key.name, wanted === opens ? "strictly" : "loosely"));
    default: return key satisfies never;
  }
}

/** Any one of a list is enough: the issuer signed all of it. */
function claimTests(path: readonly string[], { values, notValues }: Pick<RequestCondition, "values" | "notValues">): Test[] {
  return listTests(values, notValues, ({ token }: RequestFacts, set) => token !== null && claimTexts(token.payload, path, token.rule.spaceDelimitedClaims).some((text) => isIn(set, text)));
}

/** @param how `strictly`: all its fields, or all of them as one text. `loosely`: any field, any part of one between commas, or all as one. */
function isHeaderIn(set: StringSet, request: RequestView, name: string, how: "strictly" | "loosely"): boolean {
  const fields = request.fields.values(name);
  const whole = fields.length === 1 ? fields[0] : fieldOf(request, name);
  if (whole === undefined) return false;
  const joined = fields.length > 1 ? fields.join(",") : whole;
  if (how === "strictly") return fields.length > 1 ? set.exact.has(whole) || set.exact.has(joined) || fields.every((field) => isIn(set, field)) : isIn(set, whole);
  if (set.presence || isIn(set, whole) || fields.length > 1 && isIn(set, joined)) return true;
  return (fields.length > 0 ? fields : [whole]).some((field) => isIn(set, field) || field.includes(",") && field.split(",").some((part) => isIn(set, part.trim())));
}
