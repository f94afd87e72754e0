// A request as routes see it (../http/request.ts), as the facts that limits and hashes ask for. One object serves one request after
// the other; what nobody asks for is not computed.

import type { RequestMatch } from "../../mesh/l7/match.ts";
import { claimTexts, type JsonObject } from "../http/claims.ts";
import { queryValue } from "../http/query.ts";
import type { RequestView } from "../http/request.ts";
import { wholeMatch } from "../http/request-match.ts";
import { cookieValues } from "../http/session.ts";
import type { RequestFacts } from "./request-facts.ts";

export class ViewFacts implements RequestFacts {
  #view: RequestView;
  #token: JsonObject | null;

  /** @param token claims of the verified token; null without one */
  constructor(view: RequestView, token: JsonObject | null) {
    this.#view = view;
    this.#token = token;
  }

  /** Goes on to another request. */
  take(view: RequestView, token: JsonObject | null): void {
    this.#view = view;
    this.#token = token;
  }

  get view(): RequestView {
    return this.#view;
  }

  get path(): string {
    return this.#view.path;
  }

  get sourceIp(): string | null {
    return this.#view.source.ip;
  }

  get identity(): string | null {
    return this.#view.source.identity;
  }

  header(name: string): string | null {
    return this.#view.fields.value(name) ?? null;
  }

  cookie(name: string): string | null {
    return cookieValues(this.#view.fields, name)[0] ?? null;
  }

  query(name: string): string | null {
    return queryValue(this.#view.query, name) ?? null;
  }

  /** A claim that is a list counts as one value: its texts, joined by comma. */
  claim(path: readonly string[]): string | null {
    if (this.#token === null) return null;
    const texts = claimTexts(this.#token, path, NO_LISTS);
    return texts.length === 0 ? null : texts.join(",");
  }
}

const NO_LISTS: readonly string[] = [];

export interface CompiledMatches {
  readonly applies: (facts: ViewFacts) => boolean;
  /** Conditions that could not be compiled and are left out: the limit holds for more requests than it should, never for fewer. */
  readonly problems: readonly string[];
}

/** Matches of a limit, joined by OR; none matches every request. */
export function compileMatches(matches: readonly RequestMatch[]): CompiledMatches {
  if (matches.length === 0) return { applies: () => true, problems: [] };
  const compiled = matches.map(wholeMatch);
  const tests = compiled.map(({ test }) => test);
  return { applies: ({ view }) => tests.some((test) => test(view)), problems: compiled.flatMap(({ problems }) => problems) };
}
